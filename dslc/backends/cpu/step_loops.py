"""The loops of a register tile over the steps of a chunk: what LLVM prints in a row, and what it must not mix.

LLVM unrolls an innermost loop of few turns whole. That hides the ends of steps behind each other, but lets it move loads: where it
has no register for what it reads early, it puts sums on the stack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from dslc.lowering.contraction import Axis
from dslc.lowering.schedules import Schedule
from dslc.lowering.tile_cost import registers

UNROLLED_STEPS = 16  # shorter loops vanish


@dataclass(frozen=True, slots=True)
class StepLoop:
    """A loop over steps of a chunk: how often it runs, and its axis, of which each turn takes `steps` elements."""

    count: str
    axis: Axis
    steps: int = 1

    @property
    def known(self) -> bool:
        """Whether the source says how often it runs."""
        return self.count.isdigit()


def step_loops(s: Schedule, shorter: bool) -> list[StepLoop]:
    """The loops over a chunk, outermost first. With `shorter` the last chunk has fewer steps: its tile is told how many."""
    loops: list[StepLoop] = []
    if s.reduction.cut is not None:
        loops.append(StepLoop("steps" if shorter else str(s.reduction.block), s.reduction.cut))
    tap = s.taps.tap if s.taps is not None else ""
    loops += [StepLoop(str(axis.extent), axis) for axis in s.reduction.inside if axis is not s.dot and axis.name != tap]
    if s.bounds is not None:
        loops[0] = StepLoop("steps", loops[0].axis)
    if (unroll := s.unroll * s.sums) > 1:
        loops[-1] = StepLoop(str(int(loops[-1].count) // unroll), loops[-1].axis, unroll)
    return loops


def as_printed(s: Schedule, loops: list[StepLoop]) -> list[StepLoop]:
    """Without loops of one turn; a long innermost one in two, so that two steps stand in a row. Measured: 3 to 10% of a convolution."""
    loops = [loop for loop in loops if loop.count != "1"]
    if s.dot is not None or s.paired or s.unroll * s.sums > 1 or not loops:
        return loops
    *around, loop = loops
    if not loop.known or int(loop.count) <= UNROLLED_STEPS or int(loop.count) % 2:
        return loops
    return [*around, replace(loop, count=str(int(loop.count) // 2), steps=2 * loop.steps), replace(loop, count="2")]


def position_of(loops: list[StepLoop]) -> str:
    """How many turns of the innermost of these loops have been before: k0, k1, ... count the turns of each."""
    position = "0"
    for depth, loop in enumerate(loops):
        position = f"k{depth}" if position == "0" else f"({position} * {loop.count} + k{depth})"
    return position


def must_stay_apart(s: Schedule, loops: list[StepLoop], held: int) -> bool:
    """Whether steps that stand in a row must not share loads, in a tile that holds so many vectors: LLVM would read the next step's
    early, or keep what the rows of one step have read for those of the next."""
    each, available = registers(s.width, s.contraction.dtype)
    free = available // each - held
    if not loops or not loops[-1].known or free >= available // each // 4:
        return False
    step = s.stride(loops[-1].axis, s.scalar) * loops[-1].steps
    rows = {0}
    for t in s.rows:
        rows = {at + n * s.stride(t.axis, s.scalar) for at, n in product(rows, range(t.size))}
    return free <= 2 or any(at + n * step in rows for at in rows for n in range(1, int(loops[-1].count)))
