"""Register tiles: the inner loops of contractions, printed as Numba source over the vocabulary of `simd`.

A tile keeps rows x columns x vectors of C in registers while it runs through one chunk of the reduction. In broadcast form
every lane is an output element: one element of the scalar operand meets a vector of the other. In dot form the lanes run along
the reduction, always 16 of them, and a fixed tree adds them at the end. Strides are constants of the source.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product

from dslc.ir.loops import Acc, Binary, Cast, Const, Expr, Load, Select, Unary
from dslc.lowering.contraction import Axis, coefficient, walk
from dslc.lowering.tiling import LANES, Schedule, Tiled

UNARY = {"neg": "-{}", "not": "~{}", "isnan": "({0} != {0})"}
BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|"}
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@dataclass(frozen=True, slots=True)
class Variant:
    """One size of the register tile: elements along each tiled axis (the lanes' in elements, 0 in dot form)."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    lanes: int

    @property
    def name(self) -> str:
        parts = [*self.rows] if self.rows else [1]
        parts += self.columns
        return "tile_" + "x".join(str(p) for p in parts) + (f"x{self.lanes}" if self.lanes else "")


def expression_lines(e: Expr, leaf: dict[Expr, str], prefix: str) -> tuple[list[str], str]:
    """Assignments and a final text for an expression over vectors; `leaf` gives the texts of Acc and Loads.

    Parts that occur more than once get a name.
    """
    uses = Counter(walk(e))
    lines: list[str] = []
    known = dict(leaf)

    def text(x: Expr) -> str:
        if x in known:
            return known[x]
        made = compose(x)
        if uses[x] > 1 and not isinstance(x, Const):
            name = f"{prefix}{len(lines)}"
            lines.append(f"{name} = {made}")
            known[x] = made = name
        return made

    def compose(x: Expr) -> str:
        match x:
            case Const():
                return f"splat_{x.dtype.value}({x.value!r})"
            case Unary():
                inner = text(x.x)
                return UNARY[x.op].format(_bracket(inner)) if x.op in UNARY else f"v{'rint' if x.op == 'round' else x.op}({inner})"
            case Binary() if x.op in BINARY:
                return f"({text(x.x)} {BINARY[x.op]} {text(x.y)})"
            case Binary() if x.op in COMPARE:
                return f"({text(x.x)} {COMPARE[x.op]} {text(x.y)})"
            case Binary():
                return f"v{x.op}({text(x.x)}, {text(x.y)})"
            case Select():
                return f"where({text(x.condition)}, {text(x.x)}, {text(x.y)})"
            case Cast():
                return f"to_{x.dtype.value}({text(x.x)})"
            case _:
                raise TypeError(f"{type(x).__name__} cannot stand in a contraction's epilogue")

    final = text(e)
    return lines, final[1:-1] if final.startswith("(") and _closes_last(final) else final


def _bracket(text: str) -> str:
    return text if text.isidentifier() or text.endswith(")") else f"({text})"


def _closes_last(text: str) -> bool:
    depth = 0
    for i, ch in enumerate(text):
        depth += (ch == "(") - (ch == ")")
        if depth == 0:
            return i == len(text) - 1
    return False


class TilePrinter:
    """Prints one tile function of a schedule."""

    def __init__(self, s: Schedule, variant: Variant):
        self.s, self.variant, self.c = s, variant, s.contraction
        self.type = self.c.dtype.value
        self.lines: list[str] = []
        self.rows = list(_positions(s.rows, variant.rows))
        self.columns = list(_positions(s.columns, variant.columns))
        self.vectors = -(-variant.lanes // s.width) if s.lanes else 1
        self.parts = LANES // s.width if s.dot is not None else 1  # vectors that make the 16 lanes of dot form
        self.accumulators = [(i, j) for i in range(len(self.rows)) for j in range(len(self.columns) * self.vectors)]

    # ---- signature

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """(name, type) of the tile's arguments; pointers are at the tile's first element."""
        dtypes = dict(self.c.buffers)
        given = [("A", f"ptr_{self.type}"), ("B", f"ptr_{self.type}"), ("C", f"ptr_{self.type}")]
        given += [(f"X{n}", f"ptr_{dtypes[buffer].value}") for n, (buffer, _) in enumerate(self.c.addresses)]
        if self.s.ahead is not None:
            given.append(("NEXT", f"ptr_{self.type}"))
        return given + [(name, "intp") for name in chunk_arguments(self.s)]

    def print(self) -> str:
        names = ", ".join(name for name, _ in self.parameters)
        self.lines = [f'@tile("void({", ".join(t for _, t in self.parameters)})")', f"def {self.variant.name}({names}):"]
        self._start()
        self._reduce()
        self._finish()
        return "\n".join(self.lines) + "\n"

    def _say(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    # ---- reduction

    def _names(self, i: int, j: int) -> list[str]:
        return [f"c{i}_{j}"] if self.parts == 1 else [f"c{i}_{j}_{h}" for h in range(self.parts)]

    def _start(self) -> None:
        for i in range(len(self.rows)):
            names = [n for r, j in self.accumulators if r == i for n in self._names(r, j)]
            self._say(" = ".join(names) + f" = splat_{self.type}(0.0)")

    def _reduce(self) -> None:
        s = self.s
        loops: list[tuple[str, Axis]] = []
        if s.reduction.cut is not None:
            count = "steps" if "steps" in chunk_arguments(s) else str(s.reduction.block)
            loops.append((count, s.reduction.cut))
        loops += [(str(axis.extent), axis) for axis in s.reduction.inside if axis is not s.dot]
        loops = [(count, axis) for count, axis in loops if count != "1"]
        for depth, (count, _) in enumerate(loops):
            self._say(f"for k{depth} in range({count}):", depth + 1)
        depth = len(loops) + 1
        offsets = {
            operand: _sum(*(_times(f"k{d}", s.stride(axis, operand)) for d, (_, axis) in enumerate(loops)))
            for operand in (s.scalar, s.vector)
        }
        if s.dot is None:
            self._pointers(offsets, depth)
            if s.ahead is not None:
                position = "0"
                for d, (count, _) in enumerate(loops):
                    position = f"k{d}" if position == "0" else f"({position} * {count} + k{d})"
                self._say(f"prefetch(NEXT, {_times(position, s.ahead.step)})", depth)
            self._broadcast_step(depth)
            return
        full, left = divmod(s.dot.extent or 0, LANES)
        if full > 1:
            self._say(f"for v in range({full}):", depth)
        if full:
            step = f"v * {LANES}" if full > 1 else "0"
            self._pointers({o: _sum(t, step) for o, t in offsets.items()}, depth + (full > 1))
            self._dot_step(LANES, depth + (full > 1))
        if left:
            self._pointers({o: _sum(t, str(full * LANES)) for o, t in offsets.items()}, depth)
            self._dot_step(left, depth)

    def _pointers(self, offsets: dict[str, str], depth: int) -> None:
        for operand in ("a", "b"):
            at = offsets[operand]
            self._say(f"{operand} = {operand.upper()}" if at == "0" else f"{operand} = offset({operand.upper()}, {at})", depth)

    def _broadcast_step(self, depth: int) -> None:
        s = self.s
        assert s.lanes is not None
        lane_stride = s.stride(s.lanes.axis, s.vector)
        for q, column in enumerate(self.columns):
            base = sum(n * s.stride(t.axis, s.vector) for n, t in zip(column, s.columns, strict=True))
            for v in range(self.vectors):
                load = self._load(self.type, s.vector, base + v * s.width * lane_stride, lane_stride, v)
                self._say(f"v{q * self.vectors + v} = {load}", depth)
        for i, row in enumerate(self.rows):
            at = sum(n * s.stride(t.axis, s.scalar) for n, t in zip(row, s.rows, strict=True))
            self._say(f"x = vbroadcast_{self.type}({s.scalar}, {at})", depth)
            for r, j in self.accumulators:
                if r == i:
                    self._say(f"c{i}_{j} = fma(x, v{j}, c{i}_{j})", depth)

    def _dot_step(self, lanes: int, depth: int) -> None:
        s = self.s
        for h in range(self.parts):
            here = min(s.width, lanes - h * s.width)
            if here <= 0:
                break
            part = "" if here == s.width else "_part"
            count = "" if here == s.width else f", {here}"
            suffix = "" if self.parts == 1 else f"_{h}"
            for j, column in enumerate(self.columns):
                at = sum(n * s.stride(t.axis, s.vector) for n, t in zip(column, s.columns, strict=True)) + h * s.width
                self._say(f"v{j} = vload{part}_{self.type}({s.vector}, {at}{count})", depth)
            for i, row in enumerate(self.rows):
                at = sum(n * s.stride(t.axis, s.scalar) for n, t in zip(row, s.rows, strict=True)) + h * s.width
                self._say(f"x = vload{part}_{self.type}({s.scalar}, {at}{count})", depth)
                for j in range(len(self.columns)):
                    self._say(f"c{i}_{j}{suffix} = fma(x, v{j}, c{i}_{j}{suffix})", depth)

    def _lanes_of(self, v: int) -> int:
        """Valid lanes of the v-th vector of a column."""
        return 1 if self.s.lanes is None else min(self.s.width, self.variant.lanes - v * self.s.width)

    def _load(self, dtype: str, pointer: str, at: int, stride: int, v: int) -> str:
        n = self._lanes_of(v)
        if stride == 0 or n == 1:
            return f"vbroadcast_{dtype}({pointer}, {at})"
        part, count = ("", "") if n == self.s.width else ("_part", f", {n}")
        if stride == 1:
            return f"vload{part}_{dtype}({pointer}, {at}{count})"
        return f"vload_stride{part}_{dtype}({pointer}, {at}, {stride}{count})"

    def _store(self, dtype: str, pointer: str, at: int, stride: int, v: int, value: str) -> str:
        n = self._lanes_of(v)
        part, count = ("", "") if n == self.s.width else ("_part", f", {n}")
        if stride == 1 or n == 1:
            return f"vstore{part}_{dtype}({pointer}, {at}, {value}{count})"
        return f"vstore_stride{part}_{dtype}({pointer}, {at}, {stride}, {value}{count})"

    # ---- the end of a chunk

    def _finish(self) -> None:
        arguments = chunk_arguments(self.s)
        if self.s.dot is not None:
            for i, j in self.accumulators:
                self._say(f"c{i}_{j} = reduce_add_{self.type}({', '.join(self._names(i, j))})")
        depth = 1
        if self.c.accumulate or "begun" in arguments:
            if not self.c.accumulate:
                self._say("if begun != 0:")
                depth = 2
            for i, j in self.accumulators:
                at, stride = self._output(i, j)
                self._say(f"c{i}_{j} = {self._load(self.type, 'C', at, stride, j % self.vectors)} + c{i}_{j}", depth)
        if "last" in arguments:
            self._say("if last == 0:")
            for i, j in self.accumulators:
                at, stride = self._output(i, j)
                self._say(self._store(self.type, "C", at, stride, j % self.vectors, f"c{i}_{j}"), 2)
            self._say("else:")
            self._epilogue(2)
        else:
            self._epilogue(1)

    def _output(self, i: int, j: int) -> tuple[int, int]:
        """Offset of an accumulator in C and the lanes' stride there."""
        return self._place(i, j, {a.name: a.c or 0 for a in self.c.outputs})

    def _place(self, i: int, j: int, strides: dict[str, int]) -> tuple[int, int]:
        column, v = self.columns[j // self.vectors], j % self.vectors
        at = sum(n * strides[t.axis.name] for n, t in zip(self.rows[i], self.s.rows, strict=True))
        at += sum(n * strides[t.axis.name] for n, t in zip(column, self.s.columns, strict=True))
        if self.s.lanes is None:
            return at, 1
        stride = strides[self.s.lanes.axis.name]
        return at + v * self.s.width * stride, stride

    def _epilogue(self, depth: int) -> None:
        addresses = list(self.c.addresses)
        strides = [{a.name: coefficient(d, a.name) for a in self.c.outputs} for _, d in addresses]
        shared: dict[str, str] = {}  # loads that several accumulators use, such as a bias
        texts = Counter(self._access(n, i, j, strides[n])[0] for n in range(len(addresses)) for i, j in self.accumulators)
        written = {s.buffer for s in self.c.also} | {2}
        for i, j in self.accumulators:
            leaf: dict[Expr, str] = {Acc(self.c.dtype): f"c{i}_{j}"}
            for load in {x for e in self.c.expressions for x in walk(e) if isinstance(x, Load)}:
                n = addresses.index((load.buffer, load.address))
                text, key = self._access(n, i, j, strides[n])
                if texts[text] > 1 and load.buffer not in written:
                    if text not in shared:
                        shared[text] = key
                        self._say(f"{key} = {text}", depth)
                    text = shared[text]
                leaf[load] = text
            loads = {x: t for x, t in leaf.items() if isinstance(x, Load) and not t.isidentifier()}
            for count, (x, text) in enumerate(sorted(loads.items(), key=lambda item: item[1])):
                if sum(list(walk(e)).count(x) for e in self.c.expressions) > 1:
                    self._say(f"l{count} = {text}", depth)
                    leaf[x] = f"l{count}"
            values = []
            for number, e in enumerate(self.c.expressions):
                lines, value = expression_lines(e, leaf, f"t{number}_")
                for line in lines:
                    self._say(line, depth)
                if self.c.also and not value.isidentifier():
                    self._say(f"r{number} = {value}", depth)
                    value = f"r{number}"
                values.append(value)
            at, stride = self._output(i, j)
            self._say(self._store(self.type, "C", at, stride, j % self.vectors, values[0]), depth)
            for store, value in zip(self.c.also, values[1:], strict=True):
                n = addresses.index((store.buffer, store.address))
                at, stride = self._place(i, j, strides[n])
                self._say(self._store(store.value.dtype.value, f"X{n}", at, stride, j % self.vectors, value), depth)

    def _access(self, n: int, i: int, j: int, strides: dict[str, int]) -> tuple[str, str]:
        """The text of access n at an accumulator, and a name for it."""
        buffer, _ = self.c.addresses[n]
        at, stride = self._place(i, j, strides)
        dtype = dict(self.c.buffers)[buffer]
        return self._load(dtype.value, f"X{n}", at, stride, j % self.vectors), f"e{n}_{i}_{j}"


def chunk_arguments(s: Schedule) -> list[str]:
    """What a tile needs to know of the chunk: its length where that varies, whether C holds earlier chunks, whether it is the last."""
    cut, arguments = s.reduction.cut, []
    if cut is not None and (cut.extent is None or cut.extent % s.reduction.block):
        arguments.append("steps")
    if not s.reduction.single:
        if not s.contraction.accumulate:
            arguments.append("begun")
        if s.contraction.also or s.contraction.epilogue != Acc(s.contraction.dtype):
            arguments.append("last")
    return arguments


def print_tile(s: Schedule, variant: Variant) -> str:
    """The source of one register tile."""
    return TilePrinter(s, variant).print()


def _positions(tiled: tuple[Tiled, ...], sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
    assert len(tiled) == len(sizes)
    return list(product(*(range(n) for n in sizes)))


def _times(name: str, stride: int) -> str:
    return "0" if stride == 0 else name if stride == 1 else f"{name} * {stride}"


def _sum(*terms: str) -> str:
    return " + ".join(t for t in terms if t != "0") or "0"


def address_text(base: int, terms: list[tuple[str, int]]) -> str:
    """`base + name * stride + ...` without terms that are zero."""
    return _sum(str(base), *(_times(n, s) for n, s in terms))
