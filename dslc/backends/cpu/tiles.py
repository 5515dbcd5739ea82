"""Register tiles: the inner loops of contractions, printed as Numba source over the vocabulary of `simd`.

A tile keeps rows x columns x vectors of C in registers while it runs through one chunk of the reduction. In broadcast form
every lane is an output element: one element of the scalar operand meets a vector of the other. In dot form the lanes run along
the reduction, always 16 of them, and a fixed tree adds them at the end. Strides are constants of the source.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product
from math import prod

from dslc.backends.cpu.step_loops import UNROLLED_STEPS, StepLoop, as_printed, must_stay_apart, position_of, step_loops
from dslc.backends.cpu.vocabulary import bare, operation
from dslc.ir.loops import Acc, Const, Expr, Load
from dslc.lowering.contraction import Axis, coefficient, walk
from dslc.lowering.indices import children
from dslc.lowering.schedules import LANES, Ahead, Schedule, Tiled
from dslc.lowering.tile_grid import reads_ahead_of, writes_ahead_of

LINE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Variant:
    """One size of the register tile: elements along each tiled axis (the lanes' in elements, 0 in dot form).

    `first` is the row where it begins, where that decides which taps reach the halo.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    lanes: int
    first: int = 0

    @property
    def name(self) -> str:
        parts = [*(self.rows or (1,)), *self.columns, *((self.lanes,) if self.lanes else ())]
        return "tile_" + "x".join(str(p) for p in parts) + (f"_from{self.first}" if self.first else "")


def expression_lines(e: Expr, leaf: dict[Expr, str]) -> tuple[list[str], str]:
    """Assignments and a final text for an expression over vectors; `leaf` gives the texts of Acc and Loads.

    Parts that occur more than once get a name.
    """
    uses = Counter(walk(e))
    lines: list[str] = []
    known = dict(leaf)

    def text(x: Expr) -> str:
        if x in known:
            return known[x]
        made = operation(x, [text(part) for part in children(x)])
        if uses[x] > 1 and not isinstance(x, Const):
            name = f"t{len(lines)}"
            lines.append(f"{name} = {made}")
            known[x] = made = name
        return made

    final = text(e)
    return lines, bare(final)


@dataclass(frozen=True, slots=True)
class Result:
    """A vector of finished sums: where its first lane lies in the tile (index along each tiled axis), and along which axis its
    first `count` lanes run. Where `fresh` is not empty, only the last so many lanes are stored: another vector has the others."""

    name: str
    index: tuple[tuple[str, int], ...]
    lanes: str
    count: int
    fresh: str = ""


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
        inline = "" if self._inlined() else ", inline=False"
        self.lines = [f'@tile("void({", ".join(t for _, t in self.parameters)})"{inline})', f"def {self.variant.name}({names}):"]
        self._start()
        self._ask_for_lines()
        self._ask_for_reads()
        self._reduce()
        self._finish()
        return "\n".join(self.lines) + "\n"

    def _inlined(self) -> bool:
        """Whether the tile may share registers with the loops around it: not where it covers the rest of a batch, nor where
        LLVM unrolls the whole sum, so that the loop over tiles becomes the innermost one."""
        if self.s.reduction.single and self.s.reduction.steps <= UNROLLED_STEPS:
            return False
        tiled = zip((*self.s.rows, *self.s.columns), (*self.variant.rows, *self.variant.columns), strict=True)
        return all(not t.runtime or size == t.size for t, size in tiled)

    def _say(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    # ---- reduction

    def _names(self, i: int, j: int) -> list[str]:
        return [f"c{i}_{j}"] if self.parts == 1 else [f"c{i}_{j}_{h}" for h in range(self.parts)]

    def _start(self) -> None:
        for i in range(len(self.rows)):
            names = [n for r, j in self.accumulators if r == i for n in self._names(r, j)]
            names += [f"{n}_{more}" for n in names for more in range(1, self.s.sums)]
            self._say(" = ".join(names) + f" = splat_{self.type}(0.0)")

    def _ask_for_lines(self) -> None:
        """The lines of the output that a later tile will write."""
        ahead = writes_ahead_of(self.s)
        if not ahead:
            return
        for row in self.rows:
            at = ahead + sum(n * (t.axis.c or 0) for n, t in zip(row, self.s.rows, strict=True))
            for start in range(0, self.variant.lanes, LINE_BYTES // self.c.dtype.size):
                self._say(f"prefetch_write(C, {at + start})")

    def _ask_for_reads(self) -> None:
        """The lines that the epilogue will read, where they lie far apart."""
        numbers, dtypes = reads_ahead_of(self.s), dict(self.c.buffers)
        if not numbers:
            return
        if "last" in chunk_arguments(self.s):
            self._say("if last != 0:")
        depth = 2 if "last" in chunk_arguments(self.s) else 1
        for n, i, q in product(numbers, range(len(self.rows)), range(len(self.columns))):
            buffer, address = self.c.addresses[n]
            at = sum(place * coefficient(address, name) for name, place in self._index(i, q))
            for start in range(0, self.variant.lanes, LINE_BYTES // dtypes[buffer].size):
                self._say(f"prefetch(X{n}, {at + start})", depth)

    def _reduce(self) -> None:
        s = self.s
        if s.dot is not None:
            self._fresh_lanes(s.dot)
        loops = step_loops(s, "steps" in chunk_arguments(s))
        inner = loops[-1].axis if loops else None
        loops = as_printed(s, loops)
        held = len(self.accumulators) + self.vectors * len(self.columns)
        apart = must_stay_apart(s, loops, held)
        outside = s.ahead is not None and s.ahead.step and loops and loops[-1].known
        asking = len(loops) - 1 if outside else len(loops)
        for depth in range(len(loops) + 1):
            if s.ahead is not None and depth == asking:
                self._ask_ahead(s.ahead, loops, depth)
            if depth < len(loops):
                self._say(f"for k{depth} in range({loops[depth].count}):", depth + 1)
        depth = len(loops) + 1
        offsets = {
            operand: _sum(*(_times(f"k{d}", s.stride(loop.axis, operand) * loop.steps) for d, loop in enumerate(loops)))
            for operand in (s.scalar, s.vector)
        }
        if s.dot is None:
            self._pointers(offsets, depth)
            if apart:
                self._say("apart()", depth)
            if s.rows_ahead:
                self._say(f"prefetch({s.scalar}, {s.rows_ahead})", depth)
            if s.steps_ahead and inner is not None:
                for v in range(self.vectors):
                    self._say(f"prefetch({s.vector}, {s.steps_ahead * s.stride(inner, s.vector) + v * s.width})", depth)
            if s.paired:
                self._paired_steps(inner, depth)
            else:
                for n in range(s.sums):
                    ahead = {o: n * s.stride(inner, o) if inner is not None else 0 for o in offsets}
                    self._broadcast_step(depth, ahead, f"_{n}" if n else "")
                for i, j in self.accumulators if s.sums > 1 else ():
                    self._say(f"c{i}_{j} = " + " + ".join([f"c{i}_{j}", *(f"c{i}_{j}_{n}" for n in range(1, s.sums))]))
            return
        if s.taps is not None:
            self._pointers(offsets, depth)
            for tap_index in range(self.c.axis(s.taps.tap).extent or 1):
                self._dot_step(LANES, depth, tap=tap_index)
            return
        for step in range(s.unroll):
            ahead = {o: step * s.stride(inner, o) if inner is not None else 0 for o in offsets}
            self._dot_steps(s.dot, {o: _sum(t, str(ahead[o])) for o, t in offsets.items()}, depth)

    def _ask_ahead(self, ahead: Ahead, loops: list[StepLoop], depth: int) -> None:
        """The next of this tile's part of the panel to come, inside `depth` loops: what the steps of the loops inside amount to."""
        position = position_of(loops[:depth])
        if not ahead.step:
            self._say(f"prefetch(NEXT, {position} * far)", depth + 1)
            return
        each = prod(int(loop.count) for loop in loops[depth:]) * ahead.step
        for line in range(0, each, LINE_BYTES // self.c.dtype.size):
            self._say(f"prefetch(NEXT, {address_text(line, [(position, each)])})", depth + 1)

    def _dot_steps(self, dot: Axis, offsets: dict[str, str], depth: int) -> None:
        """All steps along the axis of the lanes."""
        full, left = divmod(dot.extent or 0, LANES)
        if full > 1:
            self._say(f"for v in range({full}):", depth)
        if full:
            step = f"v * {LANES}" if full > 1 else "0"
            self._pointers({o: _sum(t, step) for o, t in offsets.items()}, depth + (full > 1))
            self._dot_step(LANES, depth + (full > 1))
        if left and full:  # the last 16 elements once more, without those that are in the sum already
            self._pointers({o: _sum(t, str(full * LANES + left - LANES)) for o, t in offsets.items()}, depth)
            self._dot_step(LANES, depth, skip=LANES - left)
        elif left:
            self._pointers(offsets, depth)
            self._dot_step(left, depth)

    def _pointers(self, offsets: dict[str, str], depth: int) -> None:
        for operand in ("a", "b"):
            at = offsets[operand]
            self._say(f"{operand} = {operand.upper()}" if at == "0" else f"{operand} = offset({operand.upper()}, {at})", depth)

    def _broadcast_step(self, depth: int, ahead: dict[str, int], which: str) -> None:
        """One step, `ahead` elements further, into the set of accumulators that ends with `which`."""
        s = self.s
        assert s.lanes is not None
        lane_stride = s.stride(s.lanes.axis, s.vector)
        for q, column in enumerate(self.columns):
            base = ahead[s.vector] + sum(n * s.stride(t.axis, s.vector) for n, t in zip(column, s.columns, strict=True))
            for v in range(self.vectors):
                start, count, _ = self._vector(v)
                load = self._load(self.type, s.vector, base + start * lane_stride, lane_stride, count)
                self._say(f"v{q * self.vectors + v} = {load}", depth)
        for i, row in enumerate(self.rows):
            at = ahead[s.scalar] + sum(n * s.stride(t.axis, s.scalar) for n, t in zip(row, s.rows, strict=True))
            self._say(f"x = vbroadcast_{self.type}({s.scalar}, {at})", depth)
            for r, j in self.accumulators:
                if r == i:
                    self._say(f"c{i}_{j}{which} = fma(x, v{j}, c{i}_{j}{which})", depth)

    def _paired_steps(self, inner: Axis | None, depth: int) -> None:
        """Steps in which both operands are read in vectors; what steps or rows share is read once."""
        s = self.s
        assert s.lanes is not None
        axis = s.lanes.axis
        known: dict[str, str] = {}

        def vector(operand: str, at: int, v: int) -> str:
            start, count, _ = self._vector(v)
            stride = s.stride(axis, operand)
            text = self._load(self.type, operand, at + start * stride, stride, count)
            if text not in known:
                known[text] = f"v{len(known)}"
                self._say(f"{known[text]} = {text}", depth)
            return known[text]

        for step in range(s.unroll):
            ahead = {o: step * s.stride(inner, o) if inner is not None else 0 for o in (s.scalar, s.vector)}
            for i, row in enumerate(self.rows):
                at = sum(n * s.stride(t.axis, s.scalar) for n, t in zip(row, s.rows, strict=True))
                for v in range(self.vectors):
                    y = vector(s.vector, ahead[s.vector], v)
                    x = vector(s.scalar, at + ahead[s.scalar], v)
                    self._say(f"c{i}_{v} = fma({x}, {y}, c{i}_{v})", depth)

    def _fresh_lanes(self, dot: Axis) -> None:
        """Masks of the lanes that the last step adds, where it moves back to end with the axis.

        LLVM would turn selects by constant masks into shuffles; `zero`, an argument that is always 0, keeps them masked fma.
        """
        full, left = divmod(dot.extent or 0, LANES)
        if not (full and left):
            return
        for h in range(self.parts):
            kept = LANES - left - h * self.s.width
            if 0 < kept < self.s.width:
                self._say(f"fresh{h} = ~first_lanes({kept} + zero)")

    def _dot_step(self, lanes: int, depth: int, skip: int = 0, tap: int = 0) -> None:
        """One step of the first `lanes` canonical lanes; the first `skip` of them stay as they are.

        Where taps are unrolled, it is that of one tap, and rows that would read the halo are left out.
        """
        s, w = self.s, self.s.taps
        at_a = at_b = 0
        rows = list(enumerate(self.rows))
        if w is not None:
            at_a, at_b = (tap * s.stride(self.c.axis(w.tap), operand) for operand in (s.scalar, s.vector))
            rows = [(i, row) for i, row in rows if 0 <= w.start + self.variant.first + row[0] - tap < w.extent]
        for h in range(self.parts):
            here, kept = min(s.width, lanes - h * s.width), skip - h * s.width
            if here <= 0:
                break
            if kept >= s.width:
                continue
            part = "" if here == s.width else "_part"
            count = "" if here == s.width else f", {here}"
            suffix = "" if self.parts == 1 else f"_{h}"
            for j, column in enumerate(self.columns):
                at = at_b + sum(n * s.stride(t.axis, s.vector) for n, t in zip(column, s.columns, strict=True)) + h * s.width
                self._say(f"v{j} = vload{part}_{self.type}({s.vector}, {at}{count})", depth)
            for i, row in rows:
                at = at_a + sum(n * s.stride(t.axis, s.scalar) for n, t in zip(row, s.rows, strict=True)) + h * s.width
                self._say(f"x = vload{part}_{self.type}({s.scalar}, {at}{count})", depth)
                for j in range(len(self.columns)):
                    c = f"c{i}_{j}{suffix}"
                    step = f"fma(x, v{j}, {c})"
                    self._say(f"{c} = {step}" if kept <= 0 else f"{c} = where(fresh{h}, {step}, {c})", depth)

    def _vector(self, v: int) -> tuple[int, int, int]:
        """First element, valid lanes, and lanes that the vector before it has already, of the v-th vector of a column.

        A tail moves back to end with the axis where there is room for a whole vector: whole loads are cheaper than partial ones.
        """
        assert self.s.lanes is not None
        width, axis = self.s.width, self.s.lanes.axis
        left = self.variant.lanes - v * width
        if left >= width:
            return v * width, width, 0
        if (axis.extent or 0) >= width and axis.c == 1:
            return self.variant.lanes - width, width, width - left
        return v * width, left, 0

    def _load(self, dtype: str, pointer: str, at: int, stride: int, n: int) -> str:
        if stride == 0 or n == 1:
            return f"vbroadcast_{dtype}({pointer}, {at})"
        part, count = ("", "") if n == self.s.width else ("_part", f", {n}")
        if stride == 1:
            return f"vload{part}_{dtype}({pointer}, {at}{count})"
        return f"vload_stride{part}_{dtype}({pointer}, {at}, {stride}{count})"

    def _store(self, dtype: str, pointer: str, r: Result, strides: dict[str, int], value: str) -> str:
        (at, stride), n = _place(r, strides), r.count
        if r.fresh:
            return f"vstore_last_{dtype}({pointer}, {at}, {value}, {r.fresh})"
        part, count = ("", "") if n == self.s.width else ("_part", f", {n}")
        if stride == 1 or n == 1:
            return f"vstore{part}_{dtype}({pointer}, {at}, {value}{count})"
        return f"vstore_stride{part}_{dtype}({pointer}, {at}, {stride}, {value}{count})"

    # ---- the end of a chunk

    def _results(self) -> list[Result]:
        """The finished sums; in dot form this prints the trees that add the lanes."""
        if self.s.dot is None:
            assert self.s.lanes is not None
            made = []
            for i, j in self.accumulators:
                q, v = divmod(j, self.vectors)
                start, count, known = self._vector(v)
                index = (*self._index(i, q), (self.s.lanes.axis.name, start))
                fresh = str(count - known) if known else "fresh" if v == 0 and self.s.lanes.overlap else ""
                made.append(Result(f"c{i}_{j}", index, self.s.lanes.axis.name, count, fresh))
            return made
        tiled = [(t.axis, n) for t, n in zip((*self.s.rows, *self.s.columns), (*self.variant.rows, *self.variant.columns), strict=True)]
        if not tiled:
            self._say(f"c0_0 = reduce_add_{self.type}({', '.join(self._names(0, 0))})")
            return [Result("c0_0", (), "", 1)]
        along = max(tiled, key=lambda item: (item[1] > 1 and item[0].c == 1, item[1]))[0].name
        groups: dict[tuple[tuple[str, int], ...], list[tuple[int, int]]] = {}
        for i, j in self.accumulators:
            groups.setdefault(tuple(p for p in self._index(i, j) if p[0] != along), []).append((i, j))
        made = []
        for members in groups.values():
            for start in range(0, len(members), self.s.width):
                chunk = members[start : start + self.s.width]
                name = f"c{chunk[0][0]}_{chunk[0][1]}"
                function = "reduce_add" if len(chunk) == 1 else f"reduce_add_{len(chunk)}"
                self._say(f"{name} = {function}_{self.type}({', '.join(n for i, j in chunk for n in self._names(i, j))})")
                made.append(Result(name, self._index(*chunk[0]), along, len(chunk)))
        return made

    def _index(self, i: int, q: int) -> tuple[tuple[str, int], ...]:
        """The position of row i and column q along each tiled axis."""
        names = [t.axis.name for t in (*self.s.rows, *self.s.columns)]
        return tuple(zip(names, (*self.rows[i], *self.columns[q]), strict=True))

    def _finish(self) -> None:
        arguments, results = chunk_arguments(self.s), self._results()
        strides = {a.name: a.c or 0 for a in self.c.outputs}
        depth = 1
        if self.c.accumulate or "begun" in arguments:
            if not self.c.accumulate:
                self._say("apart()")  # else LLVM carries C from chunk to chunk on the stack, where one tile runs through them
                self._say("if begun != 0:")
                depth = 2
            for r in results:
                self._say(f"{r.name} = {self._load(self.type, 'C', *_place(r, strides), r.count)} + {r.name}", depth)
        if "last" in arguments:
            self._say("if last == 0:")
            for r in results:
                self._say(self._store(self.type, "C", r, strides, r.name), 2)
            self._say("else:")
        self._epilogue(results, 2 if "last" in arguments else 1)

    def _epilogue(self, results: list[Result], depth: int) -> None:
        addresses, dtypes = list(self.c.addresses), dict(self.c.buffers)
        strides = [{a.name: coefficient(d, a.name) for a in self.c.outputs} for _, d in addresses]
        output = {a.name: a.c or 0 for a in self.c.outputs}
        uses = Counter(walk(self.c.epilogue))
        loads = [x for x in uses if isinstance(x, Load)]

        def access(n: int, r: Result) -> str:
            return self._load(dtypes[addresses[n][0]].value, f"X{n}", *_place(r, strides[n]), r.count)

        texts = Counter(access(addresses.index((x.buffer, x.address)), r) for x in loads for r in results)
        shared: dict[str, str] = {}  # loads that several results use, such as a bias
        for r in results:
            leaf: dict[Expr, str] = {Acc(self.c.dtype): r.name}
            for x in loads:
                n = addresses.index((x.buffer, x.address))
                text = access(n, r)
                if texts[text] > 1 and x.buffer != 2:  # that is what is being written
                    if text not in shared:
                        shared[text] = f"e{len(shared)}"
                        self._say(f"{shared[text]} = {text}", depth)
                    text = shared[text]
                elif uses[x] > 1:
                    self._say(f"l{n} = {text}", depth)
                    text = f"l{n}"
                leaf[x] = text
            lines, value = expression_lines(self.c.epilogue, leaf)
            for line in lines:
                self._say(line, depth)
            self._say(self._store(self.type, "C", r, output, value), depth)


def _place(r: Result, strides: dict[str, int]) -> tuple[int, int]:
    """Offset of a result's first lane and the stride of its lanes, in a buffer with these strides."""
    return sum(n * strides[name] for name, n in r.index), strides.get(r.lanes, 0)


def chunk_arguments(s: Schedule) -> list[str]:
    """What a tile needs to know of the chunk: its length where that varies, whether C holds earlier chunks, whether it is the last.

    And `fresh`, the lanes of a row's first vector that no tile before has, `far`, the elements of the next panel to ask for in each step,
    and `zero`, which is 0."""
    cut, arguments = s.reduction.cut, []
    if s.bounds is not None or (cut is not None and (cut.extent is None or cut.extent % s.reduction.block)):
        arguments.append("steps")
    if not s.reduction.single:
        if not s.contraction.accumulate:
            arguments.append("begun")
        if s.contraction.epilogue != Acc(s.contraction.dtype):
            arguments.append("last")
    if s.dot is not None and (s.dot.extent or 0) > LANES and (s.dot.extent or 0) % LANES:
        arguments.append("zero")
    if s.lanes is not None and s.lanes.overlap:
        arguments.append("fresh")
    if s.ahead is not None and not s.ahead.step:
        arguments.append("far")
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


def address_text(base: int | str, terms: list[tuple[str, int]]) -> str:
    """`base + name * stride + ...` without terms that are zero."""
    return _sum(str(base), *(_times(n, s) for n, s in terms))
