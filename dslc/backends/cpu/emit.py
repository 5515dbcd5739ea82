"""Prints a loop program as Numba Python over the SIMD vocabulary of `simd.py`.

Every number in a kernel is a vector of W lanes; only indices are scalars. A value that does not depend on the vector
variable is a broadcast. Each distinct expression is computed once, in the outermost loop where its variables are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dslc.backends.cpu.chains import are_long_chains, together, vectors_together
from dslc.backends.cpu.index_lanes import Vector, index_lanes
from dslc.backends.cpu.keys import Keys
from dslc.backends.cpu.pairs import paired
from dslc.backends.cpu.sharing import INNER, OUTER, THREADS, Shares, factor, few_examples, splits_inside
from dslc.backends.cpu.vocabulary import FUNCTIONS, bare, identity, operation
from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.loops import (
    SIGNS,
    ClampedLoad,
    Const,
    Expr,
    For,
    IndexValue,
    Load,
    LoadAt,
    LoopProgram,
    Random,
    Reduce,
    Scan,
    Stmt,
    Store,
)
from dslc.ir.types import DType
from dslc.lowering.indices import children, coefficient, variables_of, walk

LANES = 16  # canonical lanes of a reduction
WRITES_AHEAD_BYTES = 2 << 10

@dataclass
class Scope:
    """One loop level: its lines, and the names of expressions that are computed there."""

    variables: frozenset[str]
    indent: int
    lines: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)


class Emitter:
    """Writes one kernel. Scopes are a stack; a finished inner scope's lines are appended to the one around it."""

    def __init__(self, width: int, program: LoopProgram):
        self.width, self.program = width, program
        self.scopes: list[Scope] = [Scope(frozenset({"batch"}), 1)]
        self.vector: Vector | None = None
        self.counter = 0
        self.key = Keys()

    def source(self, name: str) -> str:
        head = [f"def {name}(row, thread, threads, batch):"]
        head += [f"    p{n} = ptr_{dtype.value}(arg(row, {n}))" for n, dtype in enumerate(self.program.buffers)]
        for stmt in self.program.body:
            self.statement(stmt)
        return "\n".join([*head, *self.scopes[0].lines, ""])

    # ---- statements ----

    def statement(self, stmt: Stmt, shares: Shares | None = None) -> None:
        """`shares`: the loop is split by them, inside one over examples."""
        if isinstance(stmt, Store):
            self.store(stmt)
            return
        if isinstance(stmt, Scan):
            self.scan(stmt)
            return
        assert isinstance(stmt, For)
        extent = self.dim(stmt.extent)
        if stmt.kind in ("serial", "parallel"):
            inside = None
            if stmt.kind == "parallel":
                shares = THREADS
                if splits_inside(stmt):
                    shares, inside = OUTER, INNER
                    self.scopes[-1].lines += ["    " * self.scopes[-1].indent + line for line in few_examples(extent)]
            with self.loop(f"for {stmt.variable} in range({shares.of(extent) if shares else extent}):", stmt.variable):
                for inner in stmt.body:
                    self.statement(inner, inside)
            return
        self.vector_loop(stmt, parallel=stmt.kind == "parallel vector")

    def vector_loop(self, stmt: For, parallel: bool) -> None:
        extent, width = stmt.extent, self.width
        start, stop, last = "0", self.dim(extent), self.dim(extent)
        if parallel:
            lo, hi = self.fresh("lo"), self.fresh("hi")
            blocks = self.dim(dims.floor_divide(extent, LANES))
            self.line(f"{lo} = thread * {factor(blocks)} // threads * {LANES}")
            self.line(f"{hi} = {last} if thread == threads - 1 else (thread + 1) * {factor(blocks)} // threads * {LANES}")
            start, stop = lo, hi
        exact = dims.is_known_multiple(extent, width)
        small = isinstance(extent, int) and extent < width
        if not small:
            full = stop if exact else (str(int(extent) // width * width) if isinstance(extent, int) and not parallel else None)
            if full is None:
                if parallel:
                    full = f"{start} + ({stop} - {start}) // {width} * {width}"
                else:
                    full = f"{factor(stop)} // {width} * {width}"
            begin = self.in_turns(stmt, start, full)
            if begin != full:
                with self.loop(f"for {stmt.variable} in range({begin}, {full}, {width}):", stmt.variable, Vector(stmt.variable)):
                    self.lane_body(stmt.body)
        if exact:
            return
        if isinstance(extent, int) and not parallel:
            tail, live = str(extent // width * width), str(extent % width)
            with self.loop(f"for {stmt.variable} in range({tail}, {extent}, {width}):", stmt.variable, Vector(stmt.variable, live)):
                self.lane_body(stmt.body)
            return
        live = self.fresh("n")
        begin = f"{start} + ({stop} - {start}) // {width} * {width}" if parallel else f"{factor(stop)} // {width} * {width}"
        with self.loop(f"for {stmt.variable} in range({begin}, {stop}, {width}):", stmt.variable, Vector(stmt.variable, live)):
            self.line(f"{live} = {stop} - {stmt.variable}")
            self.lane_body(stmt.body)

    def in_turns(self, stmt: For, start: str, stop: str) -> str:
        """Where long chains of dependent operations are computed: several vectors a step. Returns where it ends."""
        count = vectors_together(self.width, stmt.extent if isinstance(stmt.extent, int) else None)
        step = count * self.width
        known = stop.isdigit() and start.isdigit()
        end = str(int(start) + (int(stop) - int(start)) // step * step) if known else self.fresh("e")
        if end == start or not are_long_chains(stmt.body):
            return start
        if not known:
            self.line(f"{end} = {start} + ({stop} - {factor(start)}) // {step} * {step}")
        with self.loop(f"for {stmt.variable} in range({start}, {end}, {step}):", stmt.variable, Vector(stmt.variable)):
            first = self.scopes[-1]
            scopes = [first, *(Scope(first.variables, first.indent) for _ in range(1, count))]
            for n, scope in enumerate(scopes):
                self.scopes[-1], self.vector = scope, Vector(stmt.variable, shift=n * self.width)
                self.lane_body(stmt.body)
            self.scopes[-1] = first
            first.lines = together([scope.lines for scope in scopes])
        return end

    def lane_body(self, body: tuple[Stmt, ...]) -> None:
        assert self.vector is not None
        self.ask_for_lines(body)
        for item in paired(body, self.vector.variable):
            if isinstance(item, tuple):
                self.store_pair(*item, self.vector.live)
            else:
                self.statement(item)

    def ask_for_lines(self, body: tuple[Stmt, ...]) -> None:
        """Where a step writes at several places of one buffer, as in upsampling, the lines that later steps will write. Measured."""
        v = self.vector
        assert v is not None
        stores = [s for s in body if isinstance(s, Store) and coefficient(s.address, v.variable) == 1]
        if v.live or len({s.buffer for s in stores}) != 1 or len({s.address for s in stores}) < 2:
            return
        for stmt in stores:
            ahead = WRITES_AHEAD_BYTES // self.program.buffers[stmt.buffer].size
            self.line(f"prefetch_write(p{stmt.buffer}, {self.dim(stmt.address + ahead)})")

    def store_pair(self, first: Store, second: Store, live: str | None) -> None:
        values = self.value(first.value), self.value(second.value)
        dtype = self.program.buffers[first.buffer]
        suffix, part = ("_part", f", {live}") if live else ("", "")
        self.line(f"vstore_pair{suffix}_{dtype.value}(p{first.buffer}, {self.dim(first.address)}, {', '.join(values)}{part})")
        self.forget(first.buffer)
        for stmt, value in zip((first, second), values, strict=True):
            self.scopes[-1].names[self.key(Load(stmt.buffer, stmt.address, dtype))] = value

    def scan(self, stmt: Scan) -> None:
        """Steps in order, with what they carry in registers; all of a step is computed before it stores anything."""
        names = {c.name: self.fresh("k") for c in stmt.carries}
        for c in stmt.carries:
            self.line(f"{names[c.name]} = {self.value(c.initial)}")
        with self.loop(f"for {stmt.variable} in range({self.dim(stmt.extent)}):", stmt.variable, carried=frozenset(names)):
            for c in stmt.carries:
                self.scopes[-1].names[self.key(c.before)] = names[c.name]
            after = [(names[c.name], self.value(c.next)) for c in stmt.carries]
            for inner in stmt.body:
                self.statement(inner)
            for name, value in after:
                self.line(f"{name} = {value}")

    @contextmanager
    def loop(self, header: str, variable: str, vector: Vector | None = None, carried: frozenset[str] = frozenset()) -> Iterator[None]:
        outer = self.scopes[-1]
        inner = Scope(outer.variables | {variable} | carried, outer.indent + 1)
        before = self.vector
        if vector is not None:
            self.vector = vector
        self.scopes.append(inner)
        yield
        self.scopes.pop()
        self.vector = before
        outer.lines.append("    " * outer.indent + header)
        outer.lines.extend(inner.lines or ["    " * inner.indent + "pass"])

    def store(self, stmt: Store) -> None:
        value = self.value(stmt.value)
        dtype = self.program.buffers[stmt.buffer].value
        p, v = f"p{stmt.buffer}", self.vector
        if v is None:
            self.line(f"vstore_part_{dtype}({p}, {self.dim(stmt.address)}, {value}, 1)")
        else:
            scale = coefficient(stmt.address, v.variable)
            address = self.dim(v.shifted(stmt.address))
            assert scale is not None and scale != 0, "a store walks with its vector variable"
            part = f", {v.live}" if v.live else ""
            suffix = "_part" if v.live else ""
            if scale == 1:
                self.line(f"vstore{suffix}_{dtype}({p}, {address}, {value}{part})")
            else:
                self.line(f"vstore_stride{suffix}_{dtype}({p}, {address}, {self.dim(scale)}, {value}{part})")
        self.forget(stmt.buffer)
        self.scopes[-1].names[self.key(Load(stmt.buffer, stmt.address, self.program.buffers[stmt.buffer]))] = value

    def forget(self, buffer: int) -> None:
        """After a store, loads from that buffer are not known any more."""
        for scope in self.scopes:
            for key in [k for k in scope.names if f"[{buffer}]" in k]:
                del scope.names[key]

    # ---- expressions ----

    def value(self, e: Expr) -> str:
        """The name (or short text) of a vector that holds `e`."""
        for node in walk(e, into_reductions=False):
            self.define(node)
        return self.name_of(e)

    def define(self, e: Expr) -> None:
        key = self.key(e)
        scope = self.scope_for(e)
        if any(key in s.names for s in self.scopes):
            return
        if isinstance(e, Reduce):
            scope.names[key] = self.reduce(e)
            return
        if isinstance(e, Const):
            scope.names[key] = operation(e, ())
            return
        name = self.fresh("t")
        text = self.text(e)
        scope.lines.append("    " * scope.indent + f"{name} = {text}")
        scope.names[key] = name

    def name_of(self, e: Expr) -> str:
        key = self.key(e)
        for scope in reversed(self.scopes):
            if key in scope.names:
                return scope.names[key]
        raise AssertionError(f"not computed yet: {e}")

    def scope_for(self, e: Expr) -> Scope:
        """The outermost scope where every variable of `e` is known, and every reduction in it."""
        needed = variables_of(e)
        if isinstance(e, Reduce):
            return self.scopes[-1]
        if self.vector is not None and (self.vector.variable in needed or self.vector.live):
            return self.scopes[-1]
        parts = {self.key(c) for c in children(e)}
        least = max((n for n, scope in enumerate(self.scopes) if not parts.isdisjoint(scope.names)), default=0)
        for scope in self.scopes[least:]:
            if needed <= scope.variables:
                return scope
        raise AssertionError(f"unknown variables {needed - self.scopes[-1].variables}")

    def text(self, e: Expr) -> str:
        names = [self.name_of(c) for c in children(e)]
        match e:
            case Load():
                return self.load(e)
            case ClampedLoad():
                return self.clamped_load(e)
            case LoadAt(buffer=b, address=address, stride=stride, dtype=dtype):
                index = f"{self.index_vector(address)} + {names[0]} * splat_i64({self.dim(stride)})"
                if self.vector is not None and self.vector.live:
                    return f"vgather_part_{dtype.value}(p{b}, {index}, {self.vector.live})"
                return f"vgather_{dtype.value}(p{b}, {index})"
            case IndexValue(index=d, dtype=dtype):
                vector = self.index_vector(d)
                return vector if dtype == DType.I64 else f"to_{dtype.value}({vector})"
            case Random(stream=stream, index=d, dtype=dtype):
                return f"uniform_{dtype.value}(philox_bits({names[0]}, {stream}, {names[1]}, {self.index_vector(d)}))"
        return bare(operation(e, names))

    def load(self, e: Load) -> str:
        dtype, p, v = e.dtype.value, f"p{e.buffer}", self.vector
        scale = 0 if v is None else coefficient(e.address, v.variable)
        if v is None or scale == 0:
            return f"vbroadcast_{dtype}({p}, {self.dim(e.address)})"
        part, suffix = (f", {v.live}", "_part") if v.live else ("", "")
        address = self.dim(v.shifted(e.address))
        if scale == 1:
            return f"vload{suffix}_{dtype}({p}, {address}{part})"
        if isinstance(scale, int):
            return f"vload_stride{suffix}_{dtype}({p}, {address}, {scale}{part})"
        return f"vgather{suffix}_{dtype}({p}, {self.index_vector(e.address)}{part})"

    def clamped_load(self, e: ClampedLoad) -> str:
        """Clamps that do not depend on the lanes are scalars; lanes in equal steps are masked; else each has its address."""
        v, scope = self.vector, self.scope_for(e)
        address: Dim = e.address
        lanes: list[tuple[Dim, Dim, Dim]] = []
        for index, extent, stride in e.clamped:
            if v is not None and v.variable in dims.names(index):
                lanes.append((index, extent, stride))
                continue
            name, last = self.fresh("c"), self.dim(extent - 1)
            indent = "    " * scope.indent
            scope.lines.append(f"{indent}{name} = {self.dim(index)}")
            scope.lines.append(f"{indent}{name} = 0 if {name} < 0 else {last} if {name} > {last} else {name}")
            address = address + dims.name(name) * stride
        if v is None or not lanes:
            return self.load(Load(e.buffer, address, e.dtype))
        index, extent, stride = lanes[0]
        whole = address + index * stride
        steps = coefficient(whole, v.variable), coefficient(index, v.variable)
        if len(lanes) == 1 and isinstance(steps[0], int) and isinstance(steps[1], int) and min(steps[0], steps[1]) > 0:
            return self.load_between(e, v, whole, index, extent, steps[0], steps[1])
        total = self.index_vector(address)
        for index, extent, stride in lanes:
            inside = f"vmax(vmin({self.index_vector(index)}, splat_i64({self.dim(extent - 1)})), splat_i64(0))"
            total += f" + {inside} * splat_i64({self.dim(stride)})"
        if v.live:
            return f"vgather_part_{e.dtype.value}(p{e.buffer}, {total}, {v.live})"
        return f"vgather_{e.dtype.value}(p{e.buffer}, {total})"

    def load_between(self, e: ClampedLoad, v: Vector, address: Dim, index: Dim, extent: Dim, stride: int, step: int) -> str:
        """Lanes `stride` elements apart of which those outside of their axis are not touched: a Select discards them."""
        address, index = v.shifted(address), v.shifted(index)
        first, stop = -dims.floor_divide(index, step), self.fresh("hi")
        self.line(f"{stop} = {self.dim(-dims.floor_divide(index - extent, step))}")
        if v.live:
            self.line(f"{stop} = {v.live} if {stop} > {v.live} else {stop}")
        call, apart = ("vload_between", "") if stride == 1 else ("vload_stride_between", f", {stride}")
        return f"{call}_{e.dtype.value}(p{e.buffer}, {self.dim(address)}{apart}, {self.dim(first)}, {stop})"

    def index_vector(self, d: Dim) -> str:
        return index_lanes(d, self.vector)

    # ---- reductions ----

    def reduce(self, e: Reduce) -> str:
        if e.op.startswith("arg"):
            return self.reduce_argument(e)
        if e.vector:
            return self.reduce_lanes(e)
        return self.reduce_serial(e)

    def combine(self, op: str, x: str, y: str) -> str:
        return f"{x} {SIGNS[op]} {y}" if op in SIGNS else f"{FUNCTIONS[op]}({x}, {y})"

    def reduce_serial(self, e: Reduce) -> str:
        """Loops in order; sums over several variables add up the sums of the inner ones, which keeps rounding errors small."""
        (name, extent), *rest = e.variables
        total = self.fresh("s")
        self.line(f"{total} = {identity(e.op, e.dtype)}")
        with self.loop(f"for {name} in range({self.dim(extent)}):", name):
            inner = Reduce(e.op, tuple(rest), e.body, e.dtype) if rest else e.body
            part = self.value(inner)
            self.line(f"{total} = {self.combine(e.op, total, part)}")
        return total

    def reduce_lanes(self, e: Reduce) -> str:
        """Over the 16 canonical lanes: element i of the last variable goes to lane i % 16, then one fixed tree."""
        accumulators = self.lanes_over(e, e.variables)
        result = self.fresh("s")
        self.line(f"{result} = reduce_{e.op}_{e.dtype.value}({', '.join(accumulators)})")
        return result

    def lanes_over(self, e: Reduce, variables: tuple[tuple[str, Dim], ...]) -> list[str]:
        """The canonical lanes of a reduction over these variables; as in `reduce_serial`, a loop adds up the sums of the loops inside."""
        (name, extent), *rest = variables
        groups = LANES // self.width
        accumulators = [self.fresh("s") for _ in range(groups)]
        for a in accumulators:
            self.line(f"{a} = {identity(e.op, e.dtype)}")
        if rest:
            with self.loop(f"for {name} in range({self.dim(extent)}):", name):
                for a, part in zip(accumulators, self.lanes_over(e, tuple(rest)), strict=True):
                    self.line(f"{a} = {self.combine(e.op, a, part)}")
            return accumulators
        exact = dims.is_known_multiple(extent, LANES)
        stop = self.dim(extent)
        full = stop if exact else str(extent // LANES * LANES) if isinstance(extent, int) else f"{factor(stop)} // {LANES} * {LANES}"
        if not (isinstance(extent, int) and extent < LANES):
            with self.loop(f"for {name} in range(0, {full}, {LANES}):", name, Vector(name)):
                for group, a in enumerate(accumulators):
                    self.vector = Vector(name, None, group * self.width)
                    self.scopes[-1].names.clear()
                    self.line(f"{a} = {self.combine(e.op, a, self.value(e.body))}")
        if not exact:
            begin = str(extent // LANES * LANES) if isinstance(extent, int) else f"{factor(stop)} // {LANES} * {LANES}"
            with self.loop(f"for {name} in range({begin}, {stop}, {LANES}):", name, Vector(name)):
                for group, a in enumerate(accumulators):
                    live = self.live_lanes(extent, name, group * self.width)
                    if live == "0":
                        continue
                    self.vector = Vector(name, live, group * self.width)
                    self.scopes[-1].names.clear()
                    value = self.value(e.body)
                    self.line(f"{a} = where(iota_i64(0) < splat_i64({live}), {self.combine(e.op, a, value)}, {a})")
        return accumulators

    def live_lanes(self, extent: Dim, name: str, shift: int) -> str:
        """How many of the lanes `name + shift ...` of a tail lie inside the extent."""
        if isinstance(extent, int):
            return str(min(max(extent % LANES - shift, 0), self.width))
        live = self.fresh("n")
        self.line(f"{live} = {self.dim(extent)} - {name}" + (f" - {shift}" if shift else ""))
        if self.width < LANES:
            self.line(f"{live} = 0 if {live} < 0 else {self.width} if {live} > {self.width} else {live}")
        return live

    @contextmanager
    def nested(self, variables: list[tuple[str, Dim]]) -> Iterator[None]:
        if not variables:
            yield
            return
        (name, extent), *rest = variables
        with self.loop(f"for {name} in range({self.dim(extent)}):", name), self.nested(rest):
            yield

    def reduce_argument(self, e: Reduce) -> str:
        """The first index of the extreme; a NaN is more extreme than any number."""
        best, where = self.fresh("s"), self.fresh("s")
        infinity = "-inf" if e.op == "argmax" else "inf"
        dtype = e.body.dtype
        floating = dtype.floating
        start = f"splat_{dtype.value}({infinity})" if floating else identity("max" if e.op == "argmax" else "min", dtype)
        self.line(f"{best} = {start}")
        self.line(f"{where} = splat_i64(0)")
        linear: Dim = 0
        for name, extent in e.variables:
            linear = linear * extent + dims.name(name)
        with self.nested(list(e.variables)):
            value = self.value(e.body)
            better = self.fresh("m")
            sign = ">" if e.op == "argmax" else "<"
            nan = f" | (({value} != {value}) & ~({best} != {best}))" if floating else ""
            self.line(f"{better} = ({value} {sign} {best}){nan}")
            self.line(f"{best} = where({better}, {value}, {best})")
            self.line(f"{where} = where({better}, splat_i64({self.dim(linear)}), {where})")
        return where

    # ---- small things ----

    def dim(self, d: Dim) -> str:
        return str(d)

    def line(self, text: str) -> None:
        self.scopes[-1].lines.append("    " * self.scopes[-1].indent + text)

    def fresh(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"


def emit(program: LoopProgram, width: int, name: str = "kernel") -> str:
    """The source of a kernel `name(row, thread, threads, batch)` for vectors of `width` lanes."""
    return Emitter(width, program).source(name)
