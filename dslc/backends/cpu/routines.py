"""The routines of `ir/routines.py` as Numba Python over the SIMD vocabulary: sources by name.

Threads share what they write, never what they read: rows of the result or columns of it. So each element is written by one thread in
the order of the definition, and its bits depend neither on the number of threads nor on the width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dslc.backends.cpu.attention import attention_forward
from dslc.backends.cpu.attention_gradient import attention_backward
from dslc.backends.cpu.lattices import band_row, ctc_row, edit_row
from dslc.backends.cpu.slices import update_slice
from dslc.backends.cpu.sorting import Words, integers, sort_row, top_row, true_positions
from dslc.backends.cpu.vocabulary import constant_text
from dslc.ir.loops import Const
from dslc.ir.routines import Routine
from dslc.ir.types import DType

LANES = 16


def routine_source(routine: Routine, width: int) -> str:
    """The source of `kernel(row, thread, threads, batch)`."""
    return ROUTINES[routine.name](routine, width)


def head(routine: Routine) -> list[str]:
    """The first lines of a kernel: its arguments, and its sizes by name."""
    lines = ["def kernel(row, thread, threads, batch):"]
    for n, dtype in enumerate(routine.buffers):
        lines.append(f"    p{n} = ptr_{dtype.value}(arg(row, {n}))")
    return lines + [f"    {name} = {size}" for name, size in routine.sizes]


def scatter(routine: Routine, width: int) -> str:
    """Slices of the updates added to (or put into) the slices of a table that an index names, in the order of the updates.

    The table is [outer, size, inner], the updates [outer, count, inner]. The index is [count], or with `each` [outer, count, inner]: then
    every element goes to a place of its own along the axis. Each thread owns a range of the table's rows, or of its columns where these
    are many, and walks all updates: the cost is that of the updates and the table, not of their product.
    """
    based, adds, each = (bool(routine.setting(name)) for name in ("based", "adds", "each"))
    dtype, index = routine.buffers[-1].value, routine.buffers[1].value
    source, target = ("p2", "p3") if based else ("p0", "p2")
    start = f"vload_{dtype}(p0, j)" if based else f"splat_{dtype}(0)"
    part = f"vload_part_{dtype}(p0, j, n)" if based else f"splat_{dtype}(0)"

    def fill(first: str, last: str, indent: str) -> list[str]:
        return [
            f"{indent}for j in range({first}, {last}, {width}):",
            f"{indent}    n = {last} - j",
            f"{indent}    if n >= {width}:",
            f"{indent}        vstore_{dtype}({target}, j, {start})",
            f"{indent}    else:",
            f"{indent}        vstore_part_{dtype}({target}, j, {part}, n)",
        ]

    lines = [
        *head(routine),
        "    rows = outer * size",
        f"    blocks = (inner + {LANES - 1}) // {LANES}",
        "    first, last, left, right = 0, rows, 0, inner",
        "    if blocks >= threads:",
        f"        left = thread * blocks // threads * {LANES}",
        f"        right = inner if thread == threads - 1 else (thread + 1) * blocks // threads * {LANES}",
        "        for r in range(rows):",
        *fill("r * inner + left", "r * inner + right", "            "),
        "    else:",
        "        first = thread * rows // threads",
        "        last = (thread + 1) * rows // threads",
        *fill("first * inner", "last * inner", "        "),
        "    for o in range(outer):",
        "        low = first - o * size if first > o * size else 0",
        "        high = last - o * size if last - o * size < size else size",
        "        if low < high:",
        "            for i in range(count):",
    ]

    def place(at: str, indent: str) -> list[str]:
        return [
            f"{indent}at = load_{index}(p1, {at}) + 0",
            f"{indent}at = 0 if at < 0 else size - 1 if at >= size else at",
            f"{indent}if at >= low and at < high:",
        ]

    if each:
        change = f"load_{dtype}({target}, to) + load_{dtype}({source}, j)" if adds else f"load_{dtype}({source}, j)"
        lines += [
            "                for c in range(left, right):",
            "                    j = (o * count + i) * inner + c",
            *place("j", " " * 20),
            "                        to = (o * size + at) * inner + c",
            f"                        store_{dtype}({target}, to, {change})",
        ]
    else:
        whole = f"vload_{dtype}({target}, to + c) + vload_{dtype}({source}, j + c)" if adds else f"vload_{dtype}({source}, j + c)"
        tail = f"vload_part_{dtype}({source}, j + c, n)"
        tail = f"vload_part_{dtype}({target}, to + c, n) + {tail}" if adds else tail
        lines += [
            *place("i", " " * 16),
            "                    to = (o * size + at) * inner",
            "                    j = (o * count + i) * inner",
            f"                    for c in range(left, right, {width}):",
            "                        n = right - c",
            f"                        if n >= {width}:",
            f"                            vstore_{dtype}({target}, to + c, {whole})",
            "                        else:",
            f"                            vstore_part_{dtype}({target}, to + c, {tail}, n)",
        ]
    return "\n".join(lines) + "\n"


def last(routine: Routine, width: int) -> str:
    """For each place of [size] the last position in [count] of an index that names it; -1 where none does. Threads own ranges of places."""
    index = routine.buffers[0].value
    lines = [
        *head(routine),
        "    first = thread * size // threads",
        "    stop = (thread + 1) * size // threads",
        "    for r in range(first, stop):",
        "        store_i64(p1, r, -1)",
        "    for i in range(count):",
        f"        at = load_{index}(p0, i) + 0",
        "        at = 0 if at < 0 else size - 1 if at >= size else at",
        "        if at >= first and at < stop:",
        "            store_i64(p1, at, i)",
    ]
    return "\n".join(lines) + "\n"


def suppress(routine: Routine, width: int) -> str:
    """Greedy suppression of boxes that overlap better ones, in each of [rows].

    Operands: boxes [rows, count, 4] as corners, scores and their order [rows, count]; result: positions of the boxes that stay
    [rows, bound], -1 behind them; scratch: corners and areas of those, five rows of [room]. A box goes where its intersection over union
    with one that stays is above `overlap`, or its score is not at least `least`.
    """
    dtype = routine.buffers[0]
    t = dtype.value
    overlap, least = (constant_text(Const(dtype.numpy.type(routine.setting(s)).item(), dtype)) for s in ("overlap", "least"))
    names = ("left", "top", "right", "bottom", "area")
    lines = [
        *head(routine),
        "    for r in range(thread * rows // threads, (thread + 1) * rows // threads):",
        "        found = 0",
        "        for i in range(count):",
        "            at = r * count + load_i64(p2, r * count + i)",
        f"            if found < bound and load_{t}(p1, at) >= {least}:",
        *(f"                {name} = vbroadcast_{t}(p0, at * 4 + {n})" for n, name in enumerate(names[:4])),
        "                area = (right - left) * (bottom - top)",
        "                hit = 0",
        f"                for c in range(0, found, {width}):",
        f"                    n = found - c if found - c < {width} else {width}",
        "                    j = r * room * 5 + c",
        *(f"                    {name}1 = vload_part_{t}(p4, j + {n} * room, n)" for n, name in enumerate(names)),
        f"                    wide = vmax(vmin(right, right1) - vmax(left, left1), splat_{t}(0))",
        f"                    high = vmax(vmin(bottom, bottom1) - vmax(top, top1), splat_{t}(0))",
        "                    both = wide * high",
        f"                    hit = hit | some((both / (area + area1 - both) > splat_{t}({overlap})) & first_lanes(n))",
        "                if hit == 0:",
        "                    j = r * room * 5 + found",
        *(f"                    vstore_part_{t}(p4, j + {n} * room, {name}, 1)" for n, name in enumerate(names)),
        "                    store_i64(p3, r * bound + found, at - r * count)",
        "                    found += 1",
        "        for i in range(found, bound):",
        "            store_i64(p3, r * bound + i, -1)",
    ]
    return "\n".join(lines) + "\n"


def rows(lines: Callable[[Routine, Words], list[str]]) -> Callable[[Routine, int], str]:
    """A routine whose threads share rows; elements of the first operand are read as integers."""

    def source(routine: Routine, width: int) -> str:
        start = head(replace(routine, buffers=(DType(integers(routine.buffers[0])), *routine.buffers[1:])))
        loop = ["    for r in range(thread * rows // threads, (thread + 1) * rows // threads):"]
        if routine.serial:
            loop = ["    if thread == 0:"]
        return "\n".join([*start, *loop, *lines(routine, Words())]) + "\n"

    return source


def lanes(lines: Callable[[Routine, int], list[str]]) -> Callable[[Routine, int], str]:
    """A routine whose threads share rows, with lanes inside of a row."""

    def source(routine: Routine, width: int) -> str:
        loop = "    for r in range(thread * rows // threads, (thread + 1) * rows // threads):"
        return "\n".join([*head(routine), loop, *lines(routine, width)]) + "\n"

    return source


ROUTINES: dict[str, Callable[[Routine, int], str]] = {
    "scatter": scatter,
    "last": last,
    "update_slice": lambda routine, width: update_slice(routine, width, head(routine)),
    "sort": rows(sort_row),
    "top": rows(top_row),
    "nonzero": rows(true_positions),
    "edit": rows(edit_row),
    "suppress": suppress,
    "ctc": lanes(ctc_row),
    "band": lanes(band_row),
    "attention_forward": attention_forward,
    "attention_backward": attention_backward,
}
"""Each by the name that operators use; its docstring says what operands, sizes and settings mean."""
