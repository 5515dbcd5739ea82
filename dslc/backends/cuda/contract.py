"""Prints a contraction as Numba CUDA Python, straight from its description: sums of products in the CPU's order and chunks.

With lanes along an output axis (`dot` is None) one thread makes one element of the result. In dot form 16 threads, the canonical
lanes, make one element, and the fixed tree adds them up. Which form, and in which order the sum runs, is read from the plan for
16 lanes, on which the CPU's bits depend too; its tiles play no part here. A sum in several chunks stays in a register.
"""

from __future__ import annotations

from dataclasses import replace

from dslc.backends.cpu.sharing import factor
from dslc.backends.cpu.tiles import address_text
from dslc.backends.cuda.emit import LANES, THREADS, Writer
from dslc.backends.cuda.expressions import text_of, tree
from dslc.backends.cuda.formulas import constant_text
from dslc.backends.cuda.kernel import BATCH, CudaKernel, Launch
from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.loops import Acc, Const, Expr, Load
from dslc.lowering.contraction import Axis, Contraction, Reduction, change_addresses
from dslc.lowering.indices import children, walk
from dslc.lowering.tiling import plan

ELEMENTS = THREADS // LANES  # elements of the result that a block makes at a time in dot form


class ContractionWriter(Writer):
    """Prints one contraction."""

    def __init__(self, contraction: Contraction):
        super().__init__(frozenset({BATCH}))
        schedule = plan(contraction, LANES)
        self.dot, self.order = schedule.dot, schedule.reduction
        c = schedule.contraction
        # neighbours in C go to neighbouring threads
        outputs = sorted(c.outputs, key=lambda a: (a.extent is None, abs(a.c or 0)), reverse=True)
        self.outputs = [a for a in outputs if a.extent != 1]
        self.index = {a.name: f"i{n}" for n, a in enumerate(self.outputs)}
        names: dict[str, Dim] = {a.name: dims.name(self.index[a.name]) if a.name in self.index else 0 for a in c.outputs}
        self.c = change_addresses(c, lambda d: dims.substitute(d, names))
        self.dtype = c.dtype.value
        self.words = {buffer: n for n, (buffer, _) in enumerate(c.buffers)}  # argument of each buffer
        self.outer: dict[str, Axis] = {}  # variables of the loops over chunks

    def kernel(self) -> CudaKernel:
        args = [f"p{n}" for n in range(len(self.words))]
        head = [f"def kernel({', '.join([*args, BATCH])}):"]
        total: Dim = 1
        for axis in self.outputs:
            total = total * self.extent(axis)
        count = self.dim(total)
        if self.dot is None:
            with self.block(f"for o in range(cuda.grid(1), {count}, cuda.gridsize(1)):"):
                self._decode("o")
                self._chunks()
                self._finish()
            launch = Launch((dims.floor_divide(total + (THREADS - 1), THREADS), 1), (THREADS, 1))
        else:
            head.append(f"    lanes = cuda.shared.array({LANES * ELEMENTS}, dtype={self.dtype})")
            self.line("lane, slot = cuda.threadIdx.x, cuda.threadIdx.y")
            with self.block(f"for first in range(cuda.blockIdx.x * {ELEMENTS}, {count}, cuda.gridDim.x * {ELEMENTS}):"):
                self.line(f"o = min(first + slot, {count} - 1)")
                self._decode("o")
                self._chunks()
                with self.block(f"if lane == 0 and first + slot < {count}:"):
                    self._finish()
            launch = Launch((dims.floor_divide(total + (ELEMENTS - 1), ELEMENTS), 1), (LANES, ELEMENTS))
        body = "\n".join([*head, *self.scopes[0].lines, ""])
        functions = self.functions.text
        return CudaKernel(f"{functions}\n\n{body}" if functions else body, tuple(t for _, t in self.c.buffers), launch)

    def extent(self, axis: Axis) -> Dim:
        return axis.extent if axis.extent is not None else dims.name(BATCH) * axis.per_batch

    # ---- where an element lies ----

    def _decode(self, rest: str) -> None:
        """The index of each output axis, the last the fastest."""
        for axis in reversed(self.outputs[1:]):
            extent = factor(self.dim(self.extent(axis)))
            self.line(f"{self.index[axis.name]} = {rest} % {extent}")
            self.line(f"{rest} = {rest} // {extent}")
        if self.outputs:
            self.line(f"{self.index[self.outputs[0].name]} = {rest}")
        operands = (("a", self.c.a0), ("b", self.c.b0), ("c", self.c.c0))
        for name, start in operands:
            self.line(f"{name} = {address_text(start, [(self.index[x.name], _stride(x, name)) for x in self.outputs])}")

    # ---- the sum ----

    def _chunks(self) -> None:
        r = self.order
        if r.single and not self.c.accumulate:
            self._chunk("total", r, "0", None)
            return
        # -0.0 is what leaves every first chunk as it is
        self.line(f"total = {f'p{self.words[2]}[c]' if self.c.accumulate else constant_text(-0.0, self.dtype)}")
        self._outside(list(r.outside), 0)

    def _outside(self, axes: list[Axis], depth: int) -> None:
        """Loops over the chunks."""
        r = self.order
        if axes:
            with self.block(f"for q{depth} in range({self.dim(self.extent(axes[0]))}):"):
                self.outer[f"q{depth}"] = axes[0]
                self._outside(axes[1:], depth + 1)
            return
        if r.cut is None or self.extent(r.cut) == r.block:
            self._chunk("part", r, "0", None)
            self.line("total = total + part")
            return
        extent = self.dim(self.extent(r.cut))
        with self.block(f"for begin in range(0, {extent}, {r.block}):"):
            self._chunk("part", r, "begin", f"min(begin + {r.block}, {extent})")
            self.line("total = total + part")

    def _chunk(self, name: str, r: Reduction, begin: str, end: str | None) -> None:
        """One run of fma from zero."""
        total = "s" if self.dot is not None else name
        self.line(f"{total} = {constant_text(0.0, self.dtype)}")
        loops: list[tuple[str, str, Axis]] = []  # variable, range, axis
        if r.cut is not None:
            stop = end if end is not None else self.dim(self.extent(r.cut))
            loops.append(("k0", f"{begin}, {stop}" if begin != "0" else stop, r.cut))
        for axis in r.inside:
            if axis is not self.dot:
                loops.append((f"k{len(loops)}", self.dim(self.extent(axis)), axis))
        if self.dot is not None:
            loops.append(("v", f"lane, {self.dim(self.extent(self.dot))}, {LANES}", self.dot))
        self._steps(loops, total, dict(self.outer))
        if self.dot is not None:
            self.line(f"lanes[slot * {LANES} + lane] = s")
            self.line("cuda.syncthreads()")
            self.line(f"{name} = {tree('add', self.c.dtype, self.functions)}(lanes, slot * {LANES})")
            self.line("cuda.syncthreads()")

    def _steps(self, loops: list[tuple[str, str, Axis]], total: str, at: dict[str, Axis]) -> None:
        if loops:
            name, span, axis = loops[0]
            with self.block(f"for {name} in range({span}):"):
                self._steps(loops[1:], total, at | {name: axis})
            return
        x, y = (address_text(o, [(name, _stride(axis, o)) for name, axis in at.items()]) for o in ("a", "b"))
        x, y = f"p{self.words[0]}[{x}]", f"p{self.words[1]}[{y}]"
        if self.c.dtype.floating:
            self.line(f"{total} = fma_{self.dtype}({x}, {y}, {total})")
        else:
            self.line(f"{total} = {self.dtype}({total} + {self.dtype}({x} * {y}))")

    # ---- the epilogue ----

    def _finish(self) -> None:
        self.line(f"p{self.words[2]}[c] = {self.finished(self.c.epilogue)}")

    def finished(self, e: Expr) -> str:
        """The text of an expression over the finished sum; every part is named once."""
        names: dict[int, str] = {}
        for node in walk(e):
            key = self.key(node)
            if key in names:
                continue
            operands = [names[self.key(c)] for c in children(node)]
            if isinstance(node, Acc):
                names[key] = "total"
            elif isinstance(node, Const):
                names[key] = text_of(node, [], self.dim, self.functions)
            else:
                loaded = replace(node, buffer=self.words[node.buffer]) if isinstance(node, Load) else node
                names[key] = self.fresh("t")
                self.line(f"{names[key]} = {text_of(loaded, operands, self.dim, self.functions)}")
        return names[self.key(e)]


def _stride(axis: Axis, operand: str) -> int:
    return {"a": axis.a, "b": axis.b, "c": axis.c or 0}[operand]


def emit(contraction: Contraction) -> CudaKernel:
    """The kernel of a contraction; its arguments are the buffers of the description in order, like the CPU's."""
    return ContractionWriter(contraction).kernel()
