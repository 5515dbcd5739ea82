"""The kernels of attention: forward in blocks, and forward for a handful of queries over a cache.

A thread takes blocks of queries of one head of keys (all heads that share it together) and goes through the keys that any of them sees,
64 at a time: keys are turned over and values packed on its stack, where they meet 16 queries after the other. What a block of queries
collects (sums of values, largest scores, sums of exponentials) lies on the stack too, so that no matrix of scores ever exists, and the
bits depend neither on the width nor on the threads. The backward kernel is in `attention_gradient.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dslc.backends.cpu.attention_tiles import GROUP, KEYS, LANES, Tiles, padded
from dslc.ir.dims import Dim
from dslc.ir.routines import Routine

FEW = 8  # queries that share their keys, up to which packing keys costs more than it saves
ROWS = 128  # queries of a block: enough to make packing cheap, few enough to stay in the second-level cache
STACK = 512 << 10  # bytes that the blocks of a thread may take


@dataclass(frozen=True, slots=True)
class Problem:
    """A routine's sizes and settings, and the position of each optional argument."""

    routine: Routine
    tiles: Tiles

    @property
    def examples(self) -> Dim:
        return self.routine.size("examples")

    def size(self, name: str) -> int:
        n = self.routine.size(name)
        assert isinstance(n, int), f"attention with {name} = {n}"
        return n

    @property
    def share(self) -> int:
        """Heads of queries that share one of keys."""
        return self.size("heads") // self.size("groups")

    @property
    def extras(self) -> dict[str, int]:
        """The position of the mask, the bias and the number of keys among the arguments, of those that there are."""
        first = 3 if self.routine.name == "attention_forward" else 6
        present = [name for name in ("masked", "biased", "counted") if self.routine.setting(name)]
        return {name: first + n for n, name in enumerate(present)}

    def at(self, argument: int, *index: str) -> str:
        """The text of an element's position: one index an axis, "" for 0."""
        offset, *strides = self.routine.strides[argument]
        terms = [f"{i} * {s}" if s != 1 else i for i, s in zip(index, strides, strict=True) if i and s]
        return " + ".join([*([str(offset)] if offset or not terms else []), *terms])

    def row(self, argument: int) -> int:
        """The stride from one query, or key, to the next."""
        return self.routine.strides[argument][3]

    def pointers(self) -> list[str]:
        lines = ["def kernel(row, thread, threads, batch):"]
        return lines + [f"    p{n} = ptr_{dtype.value}(arg(row, {n}))" for n, dtype in enumerate(self.routine.buffers)]

    def shared(self, items: str) -> list[str]:
        """A loop over items, dealt to the threads forth and back: what a causal mask makes of them grows, and evens out."""
        return [
            f"    total = {items}",
            "    for turn in range((total + threads - 1) // threads):",
            "        item = turn * threads + (thread if turn % 2 == 0 else threads - 1 - thread)",
            "        if item < total:",
        ]

    def keys_there(self, n: str) -> list[str]:
        """`have`: the number of keys of example n."""
        most = self.size("keys")
        if "counted" not in self.extras:
            return [f"have = {most}"]
        p = self.extras["counted"]
        return [f"have = load_i64(p{p}, {self.at(p, n)})", f"have = 0 if have < 0 else {most} if have > {most} else have"]

    def bounds(self) -> list[str]:
        """`low` and `high`: the keys that query t sees."""
        causal, window = bool(self.routine.setting("causal")), int(self.routine.setting("window"))
        lines = [f"at = have - {self.size('queries')} + t"] if causal or window else []
        lines.append("high = at + 1" if causal else "high = have")
        if window and not causal:
            lines.append(f"high = at + {window} if at + {window} < have else have")
        lines.append("high = 0 if high < 0 else high")
        lines.append(f"low = at - {window - 1} if at > {window - 1} else 0" if window else "low = 0")
        return lines

    def mask_rows(self) -> list[str]:
        """Where the row of query t begins in the mask and the bias."""
        return [
            f"store_i64({name}, r, {self.at(self.extras[kind], 'n', 'h', 't', '')})"
            for kind, name in (("masked", "MASKS"), ("biased", "BIASES"))
            if kind in self.extras
        ]

    def apply_masks(self, r: str) -> list[str]:
        """The mask and the bias, on the scores of the queries from r on."""
        lines, left = [], f"{self.size('keys')} - key"
        if "masked" in self.extras:
            lines.append(f"choose(S, first, last, {left}, p{self.extras['masked']}, offset(MASKS, {r}), key)")
        if "biased" in self.extras:
            lines.append(f"add_bias(S, first, last, {left}, p{self.extras['biased']}, offset(BIASES, {r}), key)")
        return lines

    def mask_functions(self, rows: int) -> list[list[str]]:
        made = [self.tiles.limit(rows)]
        made += [self.tiles.masks(rows, False)] if "masked" in self.extras else []
        return made + ([self.tiles.masks(rows, True)] if "biased" in self.extras else [])


def indented(lines: list[str], depth: int) -> list[str]:
    return ["    " * depth + line for line in lines]


def text_of(functions: list[list[str]], kernel: list[str]) -> str:
    return "\n\n".join("\n".join(f) for f in (*functions, kernel)) + "\n"


def attention_forward(routine: Routine, width: int) -> str:
    """Operands q, k, v, then a mask, a bias and a number of keys where there are; results: out and logsum."""
    p = Problem(routine, Tiles(routine.buffers[0], width))
    return _few(p) if p.share * p.size("queries") <= FEW else _blocks(p)


def block_rows(queries: int, features: int, width: int, size: int) -> int:
    """Queries of a block, a multiple of 16, as even as may be."""
    most = ROWS
    while most > GROUP and (most + KEYS) * (padded(features) + padded(width)) * size > STACK:
        most //= 2
    return padded(-(-queries // -(-queries // most)), GROUP)


def _setup(p: Problem, first_row: str, rows: str, count: str) -> list[str]:
    """For each of `count` rows (those behind `rows` repeat the last one): where it lies in the operands, and the keys it sees."""
    out = len(p.extras) + 3
    return [
        f"for r in range({count}):",
        f"    x = {first_row} + (r if r < {rows} else {rows} - 1)",
        f"    h = g * {p.share} + x // {p.size('queries')}",
        f"    t = x % {p.size('queries')}",
        f"    store_i64(QUERIES, r, {p.at(0, 'n', 'h', 't', '')})",
        f"    store_i64(OUT, r, {p.at(out, 'n', 'h', 't', '')})",
        f"    store_i64(LOGSUM, r, {p.at(out + 1, 'n', 'h', 't')})",
        *indented(p.mask_rows(), 1),
        *indented(p.bounds(), 1),
        "    store_i64(LOW, r, low)",
        "    store_i64(HIGH, r, high)",
    ]


def _stacks(t: str, sizes: dict[str, int]) -> list[str]:
    return [f"    {name} = stack_{t}({size})" for name, size in sizes.items()]


def _integers(p: Problem, rows: int) -> list[str]:
    names = ["QUERIES", "OUT", "LOGSUM", "LOW", "HIGH"]
    names += [name for kind, name in (("masked", "MASKS"), ("biased", "BIASES")) if kind in p.extras]
    return [f"    {name} = stack_i64({rows})" for name in names]


def _finish(p: Problem, rows: str, count: str) -> list[str]:
    out, t = len(p.extras) + 3, p.tiles.t
    return [
        f"finish(M, L, X, {count})",
        f"put(C, p{out}, OUT, X, {rows})",
        f"for r in range({rows}):",
        f"    store_{t}(p{out + 1}, load_i64(LOGSUM, r), load_{t}(M, r))",
    ]


def _blocks(p: Problem) -> str:
    """Many queries: packed keys and values, GROUP queries at a time."""
    tiles, t = p.tiles, p.tiles.t
    e, d = p.size("features"), p.size("width")
    wide, deep = padded(e), padded(d)
    queries = p.share * p.size("queries")
    rows = block_rows(queries, e, d, tiles.dtype.size)
    blocks, groups = -(-queries // rows), p.size("groups")
    floats = {"Q": rows * wide, "C": rows * deep, "KT": e * KEYS, "V": KEYS * deep, "S": GROUP * KEYS, "M": rows, "L": rows * LANES}
    floats |= {"F": GROUP, "B": GROUP, "X": rows, "TOP": GROUP * LANES}
    functions = [
        tiles.scores("scores", e),
        tiles.softmax(GROUP),
        tiles.sums("values", d, by_rows=True, scaled=True),
        *p.mask_functions(GROUP),
        tiles.turned("pack_keys", e, p.row(1)),
        tiles.rows_in("pack_values", d, p.row(2)),
        tiles.rows_in("pack_queries", e, None, repr(float(p.routine.setting("scale")))),
        tiles.rows_out("put", d, None, scaled=True),
        tiles.fill(),
        tiles.finish(),
        _ranges(tiles),
    ]
    kernel = [
        *p.pointers(),
        *_stacks(t, floats),
        *_integers(p, rows),
        "    ENDS = stack_i64(2)",
        *(f"    {name} = stack_i64({rows // GROUP})" for name in ("LEAST", "MOST", "LOWEST", "HIGHEST")),
        *p.shared(f"({p.examples}) * {groups * blocks}"),
        *indented(
            [
                f"n = item // {groups * blocks}",
                f"g = item // {blocks} % {groups}",
                f"first_row = item % {blocks} * {rows}",
                f"rows = {queries} - first_row",
                f"rows = {rows} if rows > {rows} else rows",
                f"count = (rows + {GROUP - 1}) & -{GROUP}",
                *p.keys_there("n"),
                *_setup(p, "first_row", "rows", "count"),
                "ranges(LOW, HIGH, LEAST, MOST, LOWEST, HIGHEST, ENDS, count)",
                "begin = load_i64(ENDS, 0)",
                "end = load_i64(ENDS, 1)",
                "pack_queries(p0, QUERIES, Q, count)",
                f"fill(C, count * {deep}, 0)",
                f"fill(L, count * {LANES}, 0)",
                "fill(M, count, 1)",
                f"for key in range(begin & -{KEYS}, end, {KEYS}):",
                f"    keys = end - key if end - key < {KEYS} else {KEYS}",
                f"    pack_keys(offset(p1, {p.at(1, 'n', 'g', 'key', '')}), KT, keys)",
                f"    pack_values(offset(p2, {p.at(2, 'n', 'g', 'key', '')}), V, keys)",
                f"    for u in range(count >> {GROUP.bit_length() - 1}):",
                f"        r = u * {GROUP}",
                *indented(_seen_part(), 2),
                "        if first < stop:",
                *indented(
                    [
                        f"last = (stop + {LANES - 1}) & -{LANES}",
                        f"scores(offset(Q, r * {wide}), KT, S, first, last)",
                        *p.apply_masks("r"),
                        "if key + last > load_i64(HIGHEST, u) or key + first < load_i64(LOWEST, u):",
                        "    limit(S, first, last, key, offset(LOW, r), offset(HIGH, r))",
                        f"softmax(S, first, last, offset(M, r), offset(L, r * {LANES}), F, B, TOP)",
                        f"values(S, V, offset(C, r * {deep}), F, first, stop)",
                    ],
                    3,
                ),
                *_finish(p, "rows", "count"),
            ],
            3,
        ),
    ]
    return text_of(functions, kernel)


def _ranges(tiles: Tiles) -> list[str]:
    """For each group of rows, LEAST..MOST: the keys that any of them sees, and LOWEST..HIGHEST: those that all see; ENDS of all."""
    return [
        *tiles.head("ranges", "LOW:at HIGH:at LEAST:at MOST:at LOWEST:at HIGHEST:at ENDS:at count:i"),
        "    begin = load_i64(LOW, 0)",
        "    end = load_i64(HIGH, 0)",
        f"    for g in range(0, count, {GROUP}):",
        "        least = load_i64(LOW, g)",
        "        most = load_i64(HIGH, g)",
        "        lowest = least",
        "        highest = most",
        f"        for r in range(g + 1, g + {GROUP}):",
        "            low = load_i64(LOW, r)",
        "            high = load_i64(HIGH, r)",
        "            least = low if low < least else least",
        "            lowest = low if low > lowest else lowest",
        "            most = high if high > most else most",
        "            highest = high if high < highest else highest",
        f"        u = g >> {GROUP.bit_length() - 1}",
        "        store_i64(LEAST, u, least)",
        "        store_i64(MOST, u, most)",
        "        store_i64(LOWEST, u, lowest)",
        "        store_i64(HIGHEST, u, highest)",
        "        begin = least if least < begin else begin",
        "        end = most if most > end else end",
        "    store_i64(ENDS, 0, begin)",
        "    store_i64(ENDS, 1, end)",
    ]


def _seen_part() -> list[str]:
    """first..stop: the part of a block of keys that any query of group u sees; first is a multiple of 16."""
    return [
        "first = load_i64(LEAST, u) - key",
        f"first = first & -{LANES} if first > 0 else 0",
        "stop = load_i64(MOST, u) - key",
        f"stop = {KEYS} if stop > {KEYS} else stop",
    ]


def _few(p: Problem) -> str:
    """A handful of queries: keys and values are read once where they lie, and nothing else costs time."""
    tiles, t = p.tiles, p.tiles.t
    e, d = p.size("features"), p.size("width")
    wide, deep = padded(e), padded(d)
    rows, groups = p.share * p.size("queries"), p.size("groups")
    floats = {"Q": rows * wide, "C": GROUP * deep, "S": GROUP * KEYS, "M": GROUP, "L": GROUP * LANES}
    floats |= {"F": GROUP, "B": GROUP, "X": GROUP, "TOP": GROUP * LANES}
    functions = [
        _dots(p, rows),
        _weighted(p),
        tiles.softmax(rows),
        *p.mask_functions(rows),
        tiles.rows_in("pack_queries", e, None, repr(float(p.routine.setting("scale")))),
        tiles.rows_out("put", d, None, scaled=True),
        tiles.fill(),
        tiles.finish(),
    ]
    kernel = [
        *p.pointers(),
        *_stacks(t, floats),
        *_integers(p, GROUP),
        f"    fill(TOP, {GROUP * LANES}, 0)",
        *p.shared(f"({p.examples}) * {groups}"),
        *indented(
            [
                f"n = item // {groups}",
                f"g = item % {groups}",
                *p.keys_there("n"),
                *_setup(p, "0", str(rows), str(rows)),
                "begin = 1 << 40",
                "end = 0",
                f"for r in range({rows}):",
                "    begin = load_i64(LOW, r) if load_i64(LOW, r) < begin else begin",
                "    end = load_i64(HIGH, r) if load_i64(HIGH, r) > end else end",
                f"pack_queries(p0, QUERIES, Q, {rows})",
                f"fill(C, {GROUP * deep}, 0)",
                f"fill(L, {GROUP * LANES}, 0)",
                f"fill(M, {GROUP}, 1)",
                f"for key in range(begin & -{KEYS}, end, {KEYS}):",
                f"    stop = end - key if end - key < {KEYS} else {KEYS}",
                f"    first = (begin - key) & -{LANES} if begin > key else 0",
                f"    last = (stop + {LANES - 1}) & -{LANES}",
                f"    dots(Q, offset(p1, {p.at(1, 'n', 'g', 'key', '')}), S, first, stop)",
                *indented(p.apply_masks("0"), 1),
                "    limit(S, first, last, key, LOW, HIGH)",
                "    softmax(S, first, last, M, L, F, B, TOP)",
                f"    for r in range({rows}):",
                f"        weighted(offset(S, r * {KEYS}), offset(p2, {p.at(2, 'n', 'g', 'key', '')}), offset(C, r * {deep}), offset(F, r), first, stop)",
                *_finish(p, str(rows), str(GROUP)),
            ],
            3,
        ),
    ]
    return text_of(functions, kernel)


def _dots(p: Problem, rows: int) -> list[str]:
    """S[row][key] for a few rows of Q and the keys first..stop of K, which lie as they lie: lanes run along the features."""
    tiles, t, w = p.tiles, p.tiles.t, p.tiles.width
    e, wide, stride = p.size("features"), padded(p.size("features")), p.row(1)
    full, left = divmod(e, LANES)

    def sums(keys: int, depth: int) -> list[str]:
        names = [[f"c{i}_{h}" for h in range(tiles.parts)] for i in range(keys)]
        lines = [" = ".join(n for ns in names for n in ns) + f" = splat_{t}(0.0)"]

        def step(at: str, lanes: int) -> list[str]:
            made = []
            for h in range(tiles.parts):
                n = min(w, lanes - h * w)
                if n > 0:
                    made.append(f"x = {tiles.load('q', f'{at} + {h * w}')}")
                    made += [f"c{i}_{h} = fma(x, {tiles.load('k', f'{at} + {i * stride + h * w}', n)}, c{i}_{h})" for i in range(keys)]
            return made

        if full:
            lines += [f"for e in range(0, {full * LANES}, {LANES}):", *indented(step("e", LANES), 1)]
        lines += step(str(full * LANES), left) if left else []
        all_names = ", ".join(n for ns in names for n in ns)
        lines.append(f"s = reduce_add{f'_{keys}' if keys > 1 else ''}_{t}({all_names})")
        return indented([*lines, tiles.store("S", f"r * {KEYS} + j", "s", keys)], depth)

    return [
        *tiles.head("dots", "Q:p K:p S:p first:i stop:i"),
        f"    whole = first + (stop - first) // {w} * {w}",
        f"    for j in range(first, whole, {w}):",
        f"        k = offset(K, j * {stride})",
        f"        for r in range({rows}):",
        f"            q = offset(Q, r * {wide})",
        *sums(w, 3),
        "    for j in range(whole, stop):",
        f"        k = offset(K, j * {stride})",
        f"        for r in range({rows}):",
        f"            q = offset(Q, r * {wide})",
        *sums(1, 3),
    ]


def _weighted(p: Problem) -> list[str]:
    """C = C F + the sum of the values first..stop of V, which lie as they lie, times P."""
    tiles, t, stride = p.tiles, p.tiles.t, p.row(2)
    lines = tiles.head("weighted", "P:p V:p C:p F:p first:i stop:i")
    pieces = tiles.pieces(p.size("width"))
    for start in range(0, len(pieces), 8):
        part = list(enumerate(pieces[start : start + 8]))
        lines.append(f"    factor = vbroadcast_{t}(F, 0)")
        lines += [f"    c{v} = {tiles.load('C', str(at))} * factor" for v, (at, _) in part]
        lines += ["    for s in range(first, stop):", f"        x = vbroadcast_{t}(P, s)"]
        lines += [f"        c{v} = fma(x, {tiles.load('V', f's * {stride} + {at}', n)}, c{v})" for v, (at, n) in part]
        lines += [f"    {tiles.store('C', str(at), f'c{v}')}" for v, (at, _) in part]
    return lines
