"""Prints a loop program as Numba CUDA Python: the same program that the CPU's printer gets, one element a thread.

Two shapes cover every program. A single nest of loops without a sum over lanes is spread over all threads: the innermost loop
along x, the outermost along y or, alone, along x too. Anything else runs in blocks: a block takes iterations of the outer loop
one after the other, its threads share the vector loops inside, and they meet between statements. A sum over the 16 canonical
lanes is made by 16 threads of a block and the same fixed tree as on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

from dslc.backends.cuda.expressions import Functions, NotCovered, combined, identity, text_of, tree
from dslc.backends.cuda.kernel import BATCH, CudaKernel, Launch
from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.loops import ClampedLoad, Const, Expr, For, Load, LoadAt, LoopProgram, Reduce, Scan, Stmt, Store
from dslc.ir.types import DType
from dslc.lowering.indices import children, variables_of, walk

LANES = 16
WARP = 32
THREADS = 128  # a block, where there is work for so many


@dataclass
class Scope:
    """One loop level or one statement: its lines, and the names of expressions computed there.

    Nothing is moved out of a `fence`: threads may have met, and memory changed, before it.
    """

    variables: frozenset[str]
    depth: int
    fence: bool = False
    lines: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)


class Keys:
    """A number for each distinct expression: equal for equal ones, where 0.0 and -0.0 differ."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[object, ...], int] = {}
        self.known: dict[int, tuple[Expr, int]] = {}  # by identity; the expression is kept, so that its id stays its own
        self.buffers: list[frozenset[int]] = []  # that the expression of each number reads

    def __call__(self, e: Expr) -> int:
        for node in walk(e):
            if id(node) in self.known:
                continue
            operands = children(node)
            parts = [repr(getattr(node, f.name)) for f in fields(node) if getattr(node, f.name) not in operands]  # type: ignore[arg-type]
            inner = [self.known[id(c)][1] for c in operands]
            number = self.numbers.setdefault((type(node).__name__, *parts, *inner), len(self.numbers))
            if number == len(self.buffers):
                own = {node.buffer} if isinstance(node, Load | LoadAt | ClampedLoad) else set()
                self.buffers.append(frozenset(own).union(*(self.buffers[n] for n in inner)))
            self.known[id(node)] = node, number
        return self.known[id(e)][1]


class Writer:
    """Lines of a kernel with each distinct expression computed once, in the outermost loop where its variables are known."""

    def __init__(self, variables: frozenset[str]):
        self.scopes = [Scope(variables, 1, fence=True)]
        self.functions = Functions()
        self.key = Keys()
        self.counter = 0

    def line(self, text: str) -> None:
        scope = self.scopes[-1]
        scope.lines.append("    " * scope.depth + text)

    def fresh(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    def dim(self, d: Dim) -> str:
        return str(d)

    @contextmanager
    def block(self, header: str, *variables: str) -> Iterator[None]:
        """The lines inside `header`, an indented block."""
        outer = self.scopes[-1]
        self.scopes.append(Scope(outer.variables | set(variables), outer.depth + 1))
        yield
        inner = self.scopes.pop()
        outer.lines += ["    " * outer.depth + header, *(inner.lines or ["    " * inner.depth + "pass"])]

    @contextmanager
    def statement(self) -> Iterator[None]:
        """A statement by itself: it shares no value with others."""
        outer = self.scopes[-1]
        self.scopes.append(Scope(outer.variables, outer.depth, fence=True))
        yield
        outer.lines += self.scopes.pop().lines

    # ---- expressions ----

    def reachable(self) -> list[Scope]:
        """Scopes from the nearest fence inwards."""
        last = max(n for n, s in enumerate(self.scopes) if s.fence)
        return self.scopes[last:]

    def value(self, e: Expr) -> str:
        """The name (or short text) of a variable that holds `e`."""
        key = self.key(e)
        for scope in self.reachable():
            if key in scope.names:
                return scope.names[key]
        if isinstance(e, Const):
            return text_of(e, [], self.dim, self.functions)
        if isinstance(e, Reduce):
            name = self.reduce(e)
            self.scopes[-1].names[key] = name
            return name
        names = [self.value(c) for c in children(e)]
        needed = variables_of(e)
        scope = next((s for s in self.reachable() if needed <= s.variables and self._known(e, s)), self.scopes[-1])
        name = self.fresh("t")
        scope.lines.append(f"{'    ' * scope.depth}{name} = {text_of(e, names, self.dim, self.functions)}")
        scope.names[key] = name
        return name

    def _known(self, e: Expr, scope: Scope) -> bool:
        """Whether the operands of `e` are computed in `scope` or around it."""
        around = self.reachable()
        around = around[: around.index(scope) + 1]
        return all(isinstance(c, Const) or any(self.key(c) in s.names for s in around) for c in children(e))

    def reduce(self, e: Reduce) -> str:
        raise NotCovered("a reduction")

    def forget(self, buffer: int) -> None:
        """After a store, loads from that buffer are not known any more."""
        for scope in self.scopes:
            for known in [k for k in scope.names if buffer in self.key.buffers[k]]:
                del scope.names[known]


class LoopWriter(Writer):
    """Prints one loop program."""

    def __init__(self, program: LoopProgram):
        super().__init__(frozenset({BATCH}))
        self.program = program
        self.shared: dict[DType, str] = {}  # a buffer of 16 lanes an element type
        self.cooperative = False  # whether all threads of a block run the current line together

    def kernel(self) -> CudaKernel:
        chain = single_nest(self.program.body)
        launch = self.spread(chain) if chain is not None else self.blocks()
        names = [f"p{n}" for n in range(len(self.program.buffers))]
        head = [f"def kernel({', '.join([*names, BATCH])}):"]
        head += [f"    {name} = cuda.shared.array({LANES}, dtype={_memory(dtype)})" for dtype, name in self.shared.items()]
        body = "\n".join([*head, *self.scopes[0].lines, ""])
        functions = self.functions.text
        return CudaKernel(f"{functions}\n\n{body}" if functions else body, self.program.buffers, launch)

    # ---- one nest over all threads ----

    def spread(self, chain: tuple[For, ...]) -> Launch:
        """Every thread computes elements of its own."""
        if len(chain) == 1:
            self.line("x, width = cuda.grid(1), cuda.gridsize(1)")
        else:
            self.line("x, y = cuda.grid(2)")
            self.line("width, height = cuda.gridsize(2)")
        self._nest(chain, 0)
        inner = chain[-1].extent
        across = _block(inner)
        if len(chain) == 1:
            return Launch((dims.floor_divide(inner + (across - 1), across), 1), (across, 1))
        down = max(1, min(THREADS // across, chain[0].extent if isinstance(chain[0].extent, int) else THREADS))
        columns, rows = dims.floor_divide(inner + (across - 1), across), dims.floor_divide(chain[0].extent + (down - 1), down)
        return Launch((columns, rows), (across, down))

    def _nest(self, chain: tuple[For, ...], depth: int) -> None:
        loop = chain[depth]
        extent = self.dim(loop.extent)
        if depth == len(chain) - 1:
            header = f"for {loop.variable} in range(x, {extent}, width):"
        elif depth == 0:
            header = f"for {loop.variable} in range(y, {extent}, height):"
        else:
            header = f"for {loop.variable} in range({extent}):"
        with self.block(header, loop.variable):
            if depth < len(chain) - 1:
                self._nest(chain, depth + 1)
                return
            for stmt in loop.body:
                self.one_thread(stmt)

    # ---- blocks ----

    def blocks(self) -> Launch:
        """Iterations of a parallel outer loop, or of the only nest, go to blocks; else one block runs everything."""
        self.cooperative = True
        self.line("lane, threads = cuda.threadIdx.x, cuda.blockDim.x")
        body = self.program.body
        grid: Dim = 1
        first = body[0]
        if len(body) == 1 and isinstance(first, For) and (first.kind == "parallel" or _is_nest(first)):
            grid = first.extent
            with self.block(f"for {first.variable} in range(cuda.blockIdx.x, {self.dim(first.extent)}, cuda.gridDim.x):", first.variable):
                self.together(first.body, again=False)
        else:
            self.together(body, again=False)
        return Launch((grid, 1), (max(map(_block, _shared_extents(body)), default=WARP), 1))

    def together(self, body: tuple[Stmt, ...], again: bool) -> None:
        """Statements in order, all threads of the block in each. `again`: they are the body of a loop."""
        for stmt in body:
            with self.statement():
                if isinstance(stmt, Store):
                    self.store_once(stmt)
                elif isinstance(stmt, Scan):
                    self.cooperative = False
                    with self.block("if lane == 0:"):
                        self.scan(stmt)
                    self.cooperative = True
                elif isinstance(stmt, For) and stmt.kind in ("vector", "parallel vector"):
                    self.shared_loop(stmt)
                elif isinstance(stmt, For):
                    with self.block(f"for {stmt.variable} in range({self.dim(stmt.extent)}):", stmt.variable):
                        self.together(stmt.body, again=True)
            if again or len(body) > 1:
                self.line("cuda.syncthreads()")

    def shared_loop(self, loop: For) -> None:
        """A vector loop: its iterations do not depend on each other, so the threads share them."""
        self.cooperative = False
        with self.block(f"for {loop.variable} in range(lane, {self.dim(loop.extent)}, threads):", loop.variable):
            for stmt in loop.body:
                self.one_thread(stmt)
        self.cooperative = True

    def store_once(self, stmt: Store) -> None:
        """A store outside vector loops: one thread writes, after all have made the sums that it needs."""
        for node in walk(stmt.value):
            if isinstance(node, Reduce) and node.vector:
                if not variables_of(node) <= self.scopes[-1].variables:
                    raise NotCovered("a sum over lanes inside another reduction")
                self.value(node)
        self.cooperative = False
        with self.block("if lane == 0:"):
            self.store(stmt)
        self.cooperative = True

    def one_thread(self, stmt: Stmt) -> None:
        """A statement that every thread runs by itself."""
        if isinstance(stmt, Scan):
            self.scan(stmt)
        elif isinstance(stmt, Store):
            self.store(stmt)
        else:
            raise NotCovered("a loop inside a vector loop")

    def scan(self, stmt: Scan) -> None:
        """Steps in order by one thread; all of a step is computed before it stores anything."""
        names = {c.name: self.fresh("k") for c in stmt.carries}
        for c in stmt.carries:
            self.line(f"{names[c.name]} = {self.value(c.initial)}")
        with self.block(f"for {stmt.variable} in range({self.dim(stmt.extent)}):", stmt.variable, *names):
            for c in stmt.carries:
                self.scopes[-1].names[self.key(c.before)] = names[c.name]
            after = [(names[c.name], self.value(c.next)) for c in stmt.carries]
            for inner in stmt.body:
                self.one_thread(inner)
            for name, value in after:
                self.line(f"{name} = {value}")

    def store(self, stmt: Store) -> None:
        value = self.value(stmt.value)
        self.line(f"p{stmt.buffer}[{self.dim(stmt.address)}] = {value}")
        self.forget(stmt.buffer)

    # ---- reductions ----

    def reduce(self, e: Reduce) -> str:
        if any(extent == 0 for _, extent in e.variables) and not e.op.startswith("arg"):
            return identity(e.op, e.dtype)  # no loop: what could be moved out of it would read an empty buffer
        if e.op.startswith("arg"):
            return self.reduce_argument(e)
        return self.reduce_lanes(e) if e.vector else self.reduce_serial(e)

    def reduce_serial(self, e: Reduce) -> str:
        """Loops in order; a sum over several variables adds up the sums over the inner ones."""
        (name, extent), *rest = e.variables
        total = self.fresh("s")
        self.line(f"{total} = {identity(e.op, e.dtype)}")
        with self.block(f"for {name} in range({self.dim(extent)}):", name):
            part = self.value(replace(e, variables=tuple(rest)) if rest else e.body)
            self.line(f"{total} = {combined(e.op, total, part, e.dtype, self.functions)}")
        return total

    def reduce_lanes(self, e: Reduce) -> str:
        """Element i of the last variable goes to lane i % 16, which is a thread; every thread then adds the lanes by the fixed tree.

        Lanes of several loops are added up as on the CPU: each loop adds up the sums of the loops inside.
        """
        if not self.cooperative or any(isinstance(n, Reduce) and n.vector for n in walk(e.body)):
            raise NotCovered("a sum over lanes inside another loop of the threads")
        lanes = self.shared.setdefault(e.dtype, f"lanes_{e.dtype.value}")
        *outer, (name, extent) = e.variables
        total = self.fresh("s")
        self.cooperative = False
        with self.block(f"if lane < {LANES}:"):
            self.line(f"{total} = {identity(e.op, e.dtype)}")
            loops = [(f"for {v} in range({self.dim(x)}):", v) for v, x in outer]
            loops.append((f"for {name} in range(lane, {self.dim(extent)}, {LANES}):", name))
            self._inside(loops, e, total)
            self.line(f"{lanes}[lane] = {total}")
        self.cooperative = True
        self.line("cuda.syncthreads()")
        result = self.fresh("s")
        self.line(f"{result} = {tree(e.op, e.dtype, self.functions)}({lanes}, 0)")
        self.line("cuda.syncthreads()")
        return result

    def _inside(self, loops: list[tuple[str, str]], e: Reduce, total: str) -> None:
        if not loops:
            self.line(f"{total} = {combined(e.op, total, self.value(e.body), e.dtype, self.functions)}")
            return
        header, variable = loops[0]
        with self.block(header, variable):
            if len(loops) == 1:
                self._inside([], e, total)
                return
            part = self.fresh("s")
            self.line(f"{part} = {identity(e.op, e.dtype)}")
            self._inside(loops[1:], e, part)
            self.line(f"{total} = {combined(e.op, total, part, e.dtype, self.functions)}")

    def reduce_argument(self, e: Reduce) -> str:
        """The first index of the extreme; a NaN is more extreme than any number."""
        best, where = self.fresh("s"), self.fresh("s")
        dtype = e.body.dtype
        self.line(f"{best} = {identity('max' if e.op == 'argmax' else 'min', dtype)}")
        self.line(f"{where} = i64(0)")
        linear: Dim = 0
        for name, extent in e.variables:
            linear = linear * extent + dims.name(name)
        self._argument(list(e.variables), e, best, where, linear)
        return where

    def _argument(self, variables: list[tuple[str, Dim]], e: Reduce, best: str, where: str, linear: Dim) -> None:
        if variables:
            (name, extent), *rest = variables
            with self.block(f"for {name} in range({self.dim(extent)}):", name):
                self._argument(rest, e, best, where, linear)
            return
        value = self.value(e.body)
        sign = ">" if e.op == "argmax" else "<"
        nan = f" | (({value} != {value}) & ({best} == {best}))" if e.body.dtype.floating else ""
        self.line(f"if ({value} {sign} {best}){nan}:")
        self.line(f"    {best} = {value}")
        self.line(f"    {where} = i64({self.dim(linear)})")


def single_nest(body: tuple[Stmt, ...]) -> tuple[For, ...] | None:
    """The loops of a program that is one nest of stores without a sum over lanes; else None."""
    chain: list[For] = []
    while len(body) == 1 and isinstance(body[0], For):
        chain.append(body[0])
        body = body[0].body
    if not chain or chain[-1].kind not in ("vector", "parallel vector"):
        return None
    if not all(isinstance(s, Store | Scan) and not any(isinstance(n, Reduce) and n.vector for e in _values(s) for n in walk(e)) for s in body):
        return None
    return tuple(chain)


def _values(stmt: Stmt) -> Iterator[Expr]:
    """Every expression of a statement."""
    if isinstance(stmt, Store):
        yield stmt.value
    elif isinstance(stmt, Scan):
        yield from (e for c in stmt.carries for e in (c.initial, c.next))
        yield from (e for inner in stmt.body for e in _values(inner))


def _is_nest(loop: For) -> bool:
    """Whether everything inside is one nest: then its iterations do not depend on each other, whatever the program's flag says."""
    body = loop.body
    while len(body) == 1 and isinstance(body[0], For):
        body = body[0].body
    return all(isinstance(s, Store | Scan) for s in body)


def _shared_extents(body: tuple[Stmt, ...]) -> Iterator[Dim]:
    """Extents of the loops that the threads of a block share."""
    for stmt in body:
        if isinstance(stmt, For):
            if stmt.kind in ("vector", "parallel vector"):
                yield stmt.extent
            yield from _shared_extents(stmt.body)


def _block(extent: Dim) -> int:
    """Threads along an extent: whole warps, at most THREADS."""
    return THREADS if not isinstance(extent, int) else max(WARP, min(THREADS, -(-extent // WARP) * WARP))


def _memory(dtype: DType) -> str:
    """The element type of a shared array."""
    return "boolean" if dtype == DType.BOOL else dtype.value


def emit(program: LoopProgram) -> CudaKernel:
    """The kernel of a loop program. Raises NotCovered."""
    return LoopWriter(program).kernel()
