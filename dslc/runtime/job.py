"""A program's steps as the table that the thread pool walks (`pool_code.py` has its layout), with the places to patch.

Addresses that change stand in few places: the batch, the caller's arrays, and whatever lies in the arena when it moves.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dslc.ir.plan import IMMEDIATE, ProgramPlan, StepPlan
from dslc.runtime.pool_code import BARRIER, JOB_HEADER_WORDS, ROW_HEADER_WORDS, SERIAL

THREADS_WORD, BATCH_WORD, PROFILE_WORD = 0, 1, 2
TRIALS = 8
TRY_ALONE_BELOW = 150e-6  # seconds: above it, meeting at barriers costs nothing that matters
DECIDED_FOR = 10_000  # calls on the pool until the machine is asked again
ALONE_FOR = 600  # calls alone: another program that kept a processor busy for a moment must not slow this one down for long


@dataclass(frozen=True, slots=True)
class Place:
    """Word `word` of the table holds the address of a buffer plus `offset`."""

    word: int
    offset: int


class Job:
    """The table of some steps. `places` says for each buffer where its address stands. Empty where there is nothing to run."""

    def __init__(self, program: ProgramPlan, steps: Sequence[StepPlan], kernels: Mapping[str, int], threads: int):
        self.steps = tuple(steps)
        self.places: dict[int, list[Place]] = {}
        groups = group_steps(steps)
        rows: list[int] = []
        header = JOB_HEADER_WORDS + 3 * len(groups) + 1
        number, records = 0, []
        for group in groups:
            begin = len(rows)
            for step in group:
                flags = SERIAL * step.serial | BARRIER * step.barrier
                rows += [kernels[step.kernel], ROW_HEADER_WORDS + len(step.args), flags, number]
                for buffer, offset in step.args:
                    if buffer != IMMEDIATE:
                        self.places.setdefault(buffer, []).append(Place(header + len(rows), offset))
                    rows.append(offset)
                number += 1
            records.append((begin, len(rows), 1 if all(s.serial for s in group) else threads))
        self._table = (ctypes.c_int64 * (header + len(rows)))()
        self.address = ctypes.addressof(self._table)
        self.words = memoryview(self._table).cast("B").cast("q")
        base = self.address + 8 * header
        flat = [threads, 0, 0, len(groups)]
        for begin, end, shares in records:
            flat += [base + 8 * begin, base + 8 * end, shares]
        for at, value in enumerate([*flat, 0, *rows]):
            self.words[at] = value
        self.empty = not groups

    def place(self, buffer: int, address: int) -> None:
        """Write where a buffer is."""
        for place in self.places.get(buffer, ()):
            self.words[place.word] = address + place.offset

    def place_all(self, address: Callable[[int], int | None]) -> None:
        """Write where every buffer is; None leaves it for later."""
        for buffer in self.places:
            at = address(buffer)
            if at is not None:
                self.place(buffer, at)


class Choice:
    """Whether a job is faster on the caller's thread alone: for a few microseconds of work, meeting the others costs more than they do.

    The first calls try the pool, then the caller alone, and their third best times decide, until it is tried again much later. Results do not
    depend on it, since the split into shares never changes them.
    """

    __slots__ = ("alone", "left", "testing", "times")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.alone, self.testing, self.left = False, True, 2 * TRIALS
        self.times: tuple[list[float], list[float]] = ([], [])

    def note(self, seconds: float) -> None:
        """A call took so long; only while `testing`."""
        self.times[self.alone].append(seconds)
        if len(self.times[0]) == TRIALS:
            pooled = _typical(self.times[0])
            self.alone = pooled < TRY_ALONE_BELOW
            if not self.alone or len(self.times[1]) == TRIALS:
                self.alone = self.alone and _typical(self.times[1]) < pooled
                self.testing, self.left = False, ALONE_FOR if self.alone else DECIDED_FOR

    def count(self) -> None:
        """A call was made with what was decided."""
        self.left -= 1
        if self.left <= 0:
            self._begin()


def _typical(times: list[float]) -> float:
    """The third best: the first calls are slower, and so are those that were interrupted."""
    return sorted(times)[2]


def group_steps(steps: Sequence[StepPlan]) -> list[list[StepPlan]]:
    """Steps up to each barrier. Runs of serial groups become one: a single thread keeps their order by itself."""
    groups: list[list[StepPlan]] = []
    current: list[StepPlan] = []
    for step in steps:
        current.append(step)
        if step.barrier:
            if groups and all(s.serial for s in (*groups[-1], *current)):
                groups[-1] += current
            else:
                groups.append(current)
            current = []
    return [*groups, current] if current else groups
