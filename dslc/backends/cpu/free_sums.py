"""Kernels whose sums have no fixed order, for measuring what a fixed one costs: several accumulators hide the latency of additions."""

from __future__ import annotations

from dslc.backends.cpu.emit import LANES, Emitter
from dslc.backends.cpu.index_lanes import Vector
from dslc.backends.cpu.vocabulary import identity
from dslc.ir import dims
from dslc.ir.loops import LoopProgram, Reduce
from dslc.lowering.indices import substitute

SETS = 4  # accumulators: additions take four cycles, two can start in each
WORTH = 2 * SETS  # steps


class FreeEmitter(Emitter):
    """Prints sums with several accumulators, in whatever order is fast."""

    def reduce_serial(self, e: Reduce) -> str:
        (name, extent), *rest = e.variables
        if e.op != "add" or rest or (isinstance(extent, int) and extent < WORTH):
            return super().reduce_serial(e)
        sums, stop = self.start(e), self.dim(extent)
        full = str(extent // SETS * SETS) if isinstance(extent, int) else f"({stop}) // {SETS} * {SETS}"
        with self.loop(f"for {name} in range(0, {full}, {SETS}):", name):
            for n, total in enumerate(sums):
                self.line(f"{total} = {total} + {self.value(substitute(e.body, {name: dims.name(name) + n}))}")
        with self.loop(f"for {name} in range({full}, {stop}):", name):
            self.line(f"{sums[0]} = {sums[0]} + {self.value(e.body)}")
        return self.together(sums)

    def reduce_lanes(self, e: Reduce) -> str:
        *outer, (name, extent) = e.variables
        if e.op != "add" or self.width != LANES or not isinstance(extent, int) or extent < WORTH * LANES:
            return super().reduce_lanes(e)
        sums, before = self.start(e), self.vector
        full, whole = (extent // n * n for n in (SETS * LANES, LANES))
        with self.nested(outer):
            for begin, end, used in ((0, full, sums), (full, whole, sums[:1])):
                with self.loop(f"for {name} in range({begin}, {end}, {len(used) * LANES}):", name, Vector(name)):
                    for n, total in enumerate(used):
                        self.vector = Vector(name, None, n * LANES)
                        self.scopes[-1].names.clear()
                        self.line(f"{total} = {total} + {self.value(e.body)}")
            if whole < extent:
                live = str(extent - whole)
                with self.loop(f"for {name} in range({whole}, {extent}, {LANES}):", name, Vector(name, live)):
                    value = self.value(e.body)
                    self.line(f"{sums[0]} = where(iota_i64(0) < splat_i64({live}), {sums[0]} + {value}, {sums[0]})")
        self.vector = before
        result = self.fresh("s")
        self.line(f"{result} = reduce_add_{e.dtype.value}({self.together(sums)})")
        return result

    def start(self, e: Reduce) -> list[str]:
        sums = [self.fresh("s") for _ in range(SETS)]
        for total in sums:
            self.line(f"{total} = {identity(e.op, e.dtype)}")
        return sums

    def together(self, sums: list[str]) -> str:
        self.line(f"{sums[0]} = {' + '.join(sums)}")
        return sums[0]


def emit_freely(program: LoopProgram, width: int) -> str:
    """The source of a kernel like `emit.emit`, with sums in any order."""
    return FreeEmitter(width, program).source("kernel")
