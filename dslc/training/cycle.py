"""The order of steps, one after the other or the phases of a cycle in turn, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import SupportsFloat

from dslc.data.description import Array
from dslc.ir.recipe import PhasePlan, Recipe
from dslc.training.protocol import TrainingProgram


class Cycle:
    """The steps of a recipe. A cycle executes every phase as often as it repeats; without phases there is one step in it.

    Where a run stands follows from the number of steps alone, so that epochs and checkpoints may end within a cycle.
    """

    def __init__(self, recipe: Recipe):
        self.phases = recipe.phases or (PhasePlan("", 1, recipe.accumulate),)
        self.order = tuple(phase for phase in self.phases for _ in range(phase.repeat))

    def at(self, step: int) -> PhasePlan:
        """The phase that step number `step` executes, from 0."""
        return self.order[step % len(self.order)]

    def executed(self, steps: int) -> Mapping[str, int]:
        """How many of the first `steps` steps are of each phase."""
        whole, rest = divmod(steps, len(self.order))
        counts = {phase.name: whole * phase.repeat for phase in self.phases}
        for phase in self.order[:rest]:
            counts[phase.name] += 1
        return counts

    @property
    def batches(self) -> float:
        """Batches a step, in the mean."""
        return sum(phase.accumulate for phase in self.order) / len(self.order)

    def length(self, batches: int, epochs: int, most: int) -> tuple[int, int]:
        """Steps, and epochs begun, in so many epochs of so many batches, at most `most` steps; an epoch's last step takes what is left."""
        done, place, seen = 0, 0, dict[int, tuple[int, int]]()
        epoch = 0
        while epoch < epochs and done < most:
            if place in seen:  # from here on all repeats
                before, steps = seen[place]
                period, gained = epoch - before, done - steps
                times = min((epochs - epoch) // period, (most - done) // gained)
                epoch, done = epoch + times * period, done + times * gained
                seen = {}
                if times:
                    continue
            else:
                seen[place] = epoch, done
            taken = self._epoch(place, batches)
            done, place, epoch = done + taken, (place + taken) % len(self.order), epoch + 1
        return min(done, most), epoch

    def _epoch(self, place: int, batches: int) -> int:
        """Steps of an epoch that begins at this place of a cycle."""
        whole, left = divmod(batches, sum(phase.accumulate for phase in self.order))
        taken = whole * len(self.order)
        while left > 0:
            left -= self.order[(place + taken) % len(self.order)].accumulate
            taken += 1
        return taken


@dataclass(frozen=True, slots=True)
class Step:
    """How a step of one kind is made."""

    phase: str
    step: Callable[[Mapping[str, Array], Mapping[str, float | int]], Mapping[str, SupportsFloat]]
    update: Callable[[Mapping[str, float | int]], None]
    accumulate: int
    loss: str

    @staticmethod
    def of(program: TrainingProgram, phase: PhasePlan) -> Step:
        if not phase.name:
            update = program.update if phase.accumulate > 1 else _no_update
            return Step("", program.step, update, phase.accumulate, "loss")
        own = program.phase(phase.name)
        return Step(phase.name, own.step, own.update, phase.accumulate, f"{phase.name}.loss")


def _no_update(settings: Mapping[str, float | int]) -> None:
    raise AssertionError("a step of one batch moves the parameters itself")
