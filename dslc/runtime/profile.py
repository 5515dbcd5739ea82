"""What a profiled call says about each step."""

from __future__ import annotations

from dataclasses import dataclass

from dslc.ir.plan import ProgramPlan
from dslc.runtime.convert import Array


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step of a profiled call. `seconds`: from its first thread's start to its last one's end; `busy`: summed over threads.

    Inside a loop both are those of all iterations together, and `seconds` those of the thread that worked longest.
    """

    number: int
    kernel: str
    label: str
    span: str
    seconds: float
    busy: float


def step_times(plan: ProgramPlan, times: Array) -> list[StepTime]:
    """The times of every step, from what the pool wrote: i64[steps, threads, (last begin, last end, sum)] in nanoseconds."""
    rows = []
    for number, step in enumerate(plan.steps):
        ran = times[number][times[number, :, 1] > 0]
        again = plan.runs(number) > 1
        wall = (ran[:, 2].max() if again else ran[:, 1].max() - ran[:, 0].min()) * 1e-9 if len(ran) else 0.0
        busy = ran[:, 2].sum() * 1e-9
        rows.append(StepTime(number, step.kernel, step.label, step.span, float(wall), float(busy)))
    return rows
