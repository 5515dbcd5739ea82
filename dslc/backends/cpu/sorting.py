"""Sorting and searching of rows: whole numbers that are ordered as the elements are, and stable merging of these.

An element's key is its bits read as a signed integer, negative floats turned round, so that comparing keys compares elements; both
zeros have one key, and NaN has the largest in either direction. Keys of 32 bits share a word with the position: no two words are equal.

The lines are Python for Numba and stand inside a loop over rows `r`. How memory is read and written is the back end's: `Words`.
"""

from __future__ import annotations

from dslc.ir.routines import Routine
from dslc.ir.types import DType

RUN = 8  # elements that are sorted by insertion before runs are merged
_BITS = {4: (31, 0x7F800000), 8: (63, 0x7FF0000000000000)}


class Words:
    """Memory of the CPU's kernels: elements as integers of their bits, and words of 64 bits."""

    def element(self, dtype: DType, at: str) -> str:
        """The bits of an element of p0 as an integer."""
        return f"load_{integers(dtype)}(p0, {at}) + 0"

    def load(self, p: str, at: str) -> str:
        return f"load_i64({p}, {at})"

    def store(self, p: str, at: str, value: str) -> str:
        return f"store_i64({p}, {at}, {value})"


def integers(dtype: DType) -> str:
    """The type of integers that have an element's bits."""
    if dtype.floating:
        return "i32" if dtype.size == 4 else "i64"
    return "u8" if dtype == DType.BOOL else dtype.value


def _key(dtype: DType, words: Words, at: str, descending: bool, indent: str) -> list[str]:
    """Lines that set `key` for the element at a position."""
    lines = [f"key = {words.element(dtype, at)}"]
    turned = ["key = -1 - key"] if descending else []
    if dtype.floating:
        bits, infinity = _BITS[dtype.size]
        most = 2**bits - 1
        lines += [
            f"if key & {most} > {infinity}:",
            f"    key = {most}",
            "else:",
            f"    key = 0 if key == {-(2**bits)} else key if key >= 0 else key ^ {most}",
            *(f"    {line}" for line in turned),
        ]
    else:
        lines += turned
    return [indent + line for line in lines]


def sort_row(routine: Routine, words: Words) -> list[str]:
    """The positions that put row r of [rows, count] in order, equal elements in theirs: insertion in short runs, then merging.

    Operands: the elements; result: positions; scratch: as many words, and for elements of 64 bits their keys.
    """
    dtype = routine.buffers[0]
    packed = dtype.size < 8

    def key_of(word: str) -> str:
        return word if packed else words.load("p3", f"base + {word}")

    if packed:
        first = [words.store("p1", "base + i", "(key << 32) | i")]
    else:
        first = [words.store("p3", "base + i", "key"), words.store("p1", "base + i", "i")]
    last = f"{words.load('a', 'base + i')}{' & 0xFFFFFFFF' if packed else ''}"
    return [
        "        base = r * count",
        "        for i in range(count):",
        *_key(dtype, words, "base + i", bool(routine.setting("descending")), " " * 12),
        *(f"            {line}" for line in first),
        f"        for start in range(0, count, {RUN}):",
        f"            stop = start + {RUN} if start + {RUN} < count else count",
        "            for i in range(start + 1, stop):",
        f"                x = {words.load('p1', 'base + i')}",
        f"                key = {key_of('x')}",
        "                j = i",
        "                while j > start:",
        f"                    y = {words.load('p1', 'base + j - 1')}",
        f"                    if {key_of('y')} <= key:",
        "                        break",
        f"                    {words.store('p1', 'base + j', 'y')}",
        "                    j -= 1",
        f"                {words.store('p1', 'base + j', 'x')}",
        "        a = p1",
        "        b = p2",
        f"        run = {RUN}",
        "        while run < count:",
        "            for start in range(0, count, 2 * run):",
        "                middle = start + run if start + run < count else count",
        "                stop = middle + run if middle + run < count else count",
        "                i = start",
        "                j = middle",
        "                for k in range(start, stop):",
        "                    ahead = i if i < middle else middle - 1",  # a word that is there, where a run has ended
        "                    other = j if j < stop else stop - 1",
        f"                    x = {words.load('a', 'base + ahead')}",
        f"                    y = {words.load('a', 'base + other')}",
        f"                    key = {key_of('x')}",
        f"                    behind = {key_of('y')}",
        "                    right = 1 if i >= middle else 0 if j >= stop else 1 if behind < key else 0",
        "                    word = y if right else x",
        f"                    {words.store('b', 'base + k', 'word')}",
        "                    j = j + right",
        "                    i = i + 1 - right",
        "            c = a",
        "            a = b",
        "            b = c",
        "            run = 2 * run",
        "        for i in range(count):",
        f"            {words.store('p1', 'base + i', last)}",
    ]


def top_row(routine: Routine, words: Words) -> list[str]:
    """The positions of the `k` first elements of row r of [rows, count] in order; equal ones in theirs.

    Operands: the elements; result: positions; scratch: their keys. A row's elements are looked at in order; the best so far stay sorted.
    """
    return [
        "        base = r * count",
        "        out = r * k",
        "        found = 0",
        "        for i in range(count):",
        *_key(routine.buffers[0], words, "base + i", bool(routine.setting("descending")), " " * 12),
        f"            if found < k or key < {words.load('p2', 'out + k - 1')}:",
        "                j = found if found < k else k - 1",
        "                while j > 0:",
        f"                    other = {words.load('p2', 'out + j - 1')}",
        "                    if other <= key:",
        "                        break",
        f"                    {words.store('p2', 'out + j', 'other')}",
        f"                    {words.store('p1', 'out + j', words.load('p1', 'out + j - 1'))}",
        "                    j -= 1",
        f"                {words.store('p2', 'out + j', 'key')}",
        f"                {words.store('p1', 'out + j', 'i')}",
        "                found = found + 1 if found < k else k",
    ]


def true_positions(routine: Routine, words: Words) -> list[str]:
    """The positions of the true elements of [count] in order, at most `bound`; -1 behind them. Operands: bools; result: positions."""
    return [
        "        found = 0",
        "        for i in range(count):",
        f"            key = {words.element(DType.BOOL, 'i')}",
        "            if found < bound and key != 0:",
        f"                {words.store('p1', 'found', 'i')}",
        "                found += 1",
        "        for i in range(found, bound):",
        f"            {words.store('p1', 'i', '-1')}",
    ]
