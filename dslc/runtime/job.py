"""A program's steps as the table that the thread pool walks (`pool_code.py` has its layout), with the places to patch.

Addresses that change stand in few places: the batch, the caller's arrays, and whatever lies in the arena when it moves.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dslc.ir.plan import IMMEDIATE, INDEX, NEW, OLD, LoopPlan, MovePlan, StepPlan
from dslc.runtime.pool_code import (
    APART,
    BARRIER,
    LOOP_BODY,
    LOOP_INDEX,
    LOOP_MOVES,
    LOOP_NEW,
    LOOP_OLD,
    LOOP_SEEN,
    LOOP_WORDS,
    RECORD_WORDS,
    ROW_HEADER_WORDS,
    SERIAL,
    WHOLE,
)

THREADS_WORD, BATCH_WORD, PROFILE_WORD = 0, 1, 2
TRIALS = 8
TRY_ALONE_BELOW = 150e-6  # seconds: above it, meeting at barriers costs nothing that matters
TRY_ALONE_BELOW_A_GROUP = 10e-6  # the same for a program that loops make meet often
EXAMPLES_APART = 8  # for each thread at least: fewer leave the register tiles of products half empty
COUNTERS = {INDEX: LOOP_INDEX, OLD: LOOP_OLD, NEW: LOOP_NEW}
DECIDED_FOR = 10_000  # calls on the pool until the machine is asked again
ALONE_FOR = 600  # calls alone: another program that kept a processor busy for a moment must not slow this one down for long


@dataclass(frozen=True, slots=True)
class Place:
    """Word `word` of the table holds the address of a buffer plus `offset`, and `example` bytes for every example before the job's first."""

    word: int
    offset: int
    example: int = 0


class Job:
    """The table of some steps. `places` says for each buffer where its address stands. Empty where there is nothing to run.

    With `apart`, loops whose iterations keep to their examples run without barriers: each thread has a job of its own for them
    (`parts`), with its share of the examples. `first`: in such a job, what number the program gives its first step.
    """

    def __init__(
        self,
        steps: Sequence[StepPlan],
        kernels: Mapping[str, int],
        threads: int,
        loops: Sequence[LoopPlan] = (),
        apart: bool = False,
        first: int | None = None,
    ):
        self.steps = tuple(steps)
        self.places: dict[int, list[Place]] = {}
        self.parts: list[tuple[Job, ...]] = []
        self._before = 0  # examples before the job's first
        records = list(records_of(steps, loops, apart))
        self.published = sum(math.prod(loops[n].length for n in r.inside) for r in records if r.steps)
        """Groups that one run publishes."""
        self.empty = not self.published
        self._strides: list[tuple[int, int, int]] = []  # (word, bytes, bytes an example)
        table = _Table([threads, 0, 0, self.published if first is None else WHOLE])
        at = [table.reserve(RECORD_WORDS) for _ in records]
        table.reserve(1)  # the end of the records
        loop_at = [table.reserve(LOOP_WORDS) for _ in loops]
        moving: list[list[tuple[int, StepPlan, int, list[MovePlan]]]] = [[] for _ in loops]  # (word, step, argument, moves)
        counted = first or 0
        for record, where in zip(records, at, strict=True):
            if record.mark is not None and not record.steps:
                table.words[where : where + 2] = [_Address(loop_at[record.mark]), int(record.end)]
                if not record.end:
                    table.words[loop_at[record.mark] + LOOP_BODY] = _Address(where + RECORD_WORDS)
                continue
            begin = len(table.words)
            if record.mark is not None:
                self._add_parts(table, record.steps, loops[record.mark], kernels, threads, counted)
                counted += len(record.steps)
                table.words[where : where + RECORD_WORDS] = [_Address(begin), _Address(len(table.words)), threads]
                continue
            for step in record.steps:
                row = table.reserve(ROW_HEADER_WORDS + len(step.args))
                flags = SERIAL * (step.serial and first is None) | BARRIER * step.barrier
                table.words[row : row + ROW_HEADER_WORDS] = [kernels[step.kernel], ROW_HEADER_WORDS + len(step.args), flags, counted]
                for n, (buffer, offset) in enumerate(step.args):
                    word, moves = row + ROW_HEADER_WORDS + n, [m for m in step.moves if m.argument == n]
                    table.words[word] = offset
                    if moves:
                        moving[max(m.loop for m in moves)].append((word, step, n, moves))
                    elif buffer != IMMEDIATE:
                        self._add_place(word, step, n)
                counted += 1
            shares = 1 if all(s.serial for s in record.steps) else threads
            table.words[where : where + RECORD_WORDS] = [_Address(begin), _Address(len(table.words)), shares]
        for loop, where, words in zip(loops, loop_at, moving, strict=True):
            start, step_by = (loop.length - 1, -1) if loop.reverse else (0, 1)
            table.words[where : where + 4] = [0, loop.length, start, step_by]
            table.words[where + LOOP_MOVES : where + LOOP_MOVES + 2] = [len(words), _Address(len(table.words))]
            if loop.index is not None:
                self.places.setdefault(loop.index, []).append(Place(where + LOOP_SEEN, 0))
            for word, step, n, moves in words:
                record_at = table.reserve(3 + 2 * len(moves))
                table.words[record_at : record_at + 3] = [_Address(word), step.args[n][1], len(moves)]
                self._add_place(record_at + 1, step, n)
                for k, move in enumerate(moves):
                    term = record_at + 3 + 2 * k
                    table.words[term : term + 2] = [_Address(loop_at[move.loop] + COUNTERS[move.counts]), move.fixed]
                    if move.scaled:
                        self._strides.append((term + 1, move.fixed, move.scaled))
        self._table = (ctypes.c_int64 * len(table.words))()
        self.address = ctypes.addressof(self._table)
        self.words = memoryview(self._table).cast("B").cast("q")
        for k, value in enumerate(table.words):
            self.words[k] = value if isinstance(value, int) else self.address + 8 * value.word

    def _add_place(self, word: int, step: StepPlan, argument: int) -> None:
        buffer, offset = step.args[argument]
        self.places.setdefault(buffer, []).append(Place(word, offset, step.examples[argument] if step.examples else 0))

    def _add_parts(
        self, table: _Table, steps: Sequence[StepPlan], loop: LoopPlan, kernels: Mapping[str, int], threads: int, number: int
    ) -> None:
        """A row of the jobs that run a loop, one a thread."""
        mine = [replace(step, moves=tuple(replace(move, loop=0) for move in step.moves)) for step in steps]
        own = replace(loop, begin=0, end=len(steps))
        parts = tuple(Job(mine, kernels, threads, [own], first=number) for _ in range(threads))
        table.words += [0, ROW_HEADER_WORDS + threads, APART, number, *(part.address for part in parts)]
        self.parts.append(parts)

    def tables(self) -> Iterator[Job]:
        """This job and its parts."""
        yield self
        for parts in self.parts:
            yield from parts

    def words_of(self, buffer: int) -> Iterator[tuple[memoryview, int, int]]:
        """(table, word, offset) wherever the address of a buffer stands."""
        for job in self.tables():
            for place in job.places.get(buffer, ()):
                yield job.words, place.word, place.offset + job._before * place.example

    def place(self, buffer: int, address: int) -> None:
        """Write where a buffer is."""
        for words, word, offset in self.words_of(buffer):
            words[word] = address + offset

    def place_all(self, address: Callable[[int], int | None]) -> None:
        """Write where every buffer is; None leaves it for later."""
        for buffer in {buffer for job in self.tables() for buffer in job.places}:
            at = address(buffer)
            if at is not None:
                self.place(buffer, at)

    def set_batch(self, batch: int) -> None:
        """Write the batch, and the distances between elements of sequences that depend on it. Addresses of parts are out of date then."""
        self._set_examples(batch, 0, batch)
        for parts in self.parts:
            for n, part in enumerate(parts):
                before, end = (batch * k // len(parts) for k in (n, n + 1))
                part._set_examples(batch, before, end - before)

    def _set_examples(self, batch: int, before: int, count: int) -> None:
        self._before = before
        self.words[BATCH_WORD] = count
        for word, fixed, scaled in self._strides:
            self.words[word] = fixed + batch * scaled

    def set_profile(self, address: int) -> None:
        """Where times are written, 0 for nowhere."""
        for job in self.tables():
            job.words[PROFILE_WORD] = address


@dataclass(frozen=True, slots=True)
class _Address:
    """The address of a word of the table."""

    word: int


class _Table:
    """Words that grow; some are addresses of others, known when all are there."""

    def __init__(self, words: list[int]):
        self.words: list[int | _Address] = [*words]

    def reserve(self, count: int) -> int:
        self.words += [0] * count
        return len(self.words) - count


@dataclass(frozen=True, slots=True)
class Record:
    """A group of steps, or (`mark`: the loop's number) where a loop begins or ends, with `steps` a whole loop of them that runs apart.

    `inside`: the loops around it.
    """

    steps: tuple[StepPlan, ...]
    inside: tuple[int, ...]
    mark: int | None = None
    end: bool = False


def records_of(steps: Sequence[StepPlan], loops: Sequence[LoopPlan], apart: bool = False) -> Iterator[Record]:
    """Groups of steps between the marks of loops, in order; with `apart`, loops that may run so are one record."""
    whole = {loop.begin: n for n, loop in enumerate(loops) if apart and loop.apart}
    open_loops: list[int] = []
    marks: dict[int, list[tuple[int, bool]]] = {}  # (loop, end) before a step: what ends, the inner first, then what begins
    for n in reversed(range(len(loops))):
        if n in whole.values():
            continue
        marks.setdefault(loops[n].end, []).append((n, True))
    for n, loop in enumerate(loops):
        if n in whole.values():
            continue
        marks.setdefault(loop.begin, []).append((n, False))
    cuts = sorted({0, len(steps), *marks, *(at for n in whole.values() for at in (loops[n].begin, loops[n].end))})
    for begin, end in zip(cuts, [*cuts[1:], len(steps)], strict=True):
        for n, ends in marks.get(begin, ()):
            if ends:
                open_loops.remove(n)
            yield Record((), tuple(open_loops), n, ends)
            if not ends:
                open_loops.append(n)
        if begin in whole:
            yield Record(tuple(steps[begin:end]), tuple(open_loops), whole[begin])
            continue
        for group in group_steps(steps[begin:end]):
            yield Record(tuple(group), tuple(open_loops))


class Choice:
    """Whether a job is faster on the caller's thread alone: for a few microseconds of work, meeting the others costs more than they do.

    The first calls try the pool, then the caller alone, and their third best times decide, until it is tried again much later. Results do not
    depend on it, since the split into shares never changes them. `left`: for how many calls it is decided, which who calls counts down;
    with 0 it is `alone` that the next call tries, and `note` that hears of its time.
    """

    __slots__ = ("alone", "left", "short", "times")

    def __init__(self, groups: int = 0) -> None:
        self.short = max(TRY_ALONE_BELOW, groups * TRY_ALONE_BELOW_A_GROUP)
        self.alone, self.left = False, 0
        self.times: tuple[list[float], list[float]] = ([], [])

    def trial(self) -> bool:
        """Whether the next call is to be made alone; only while `left` is 0."""
        if not self.times[0]:
            self.alone = False
        return self.alone

    def note(self, seconds: float) -> None:
        """A call took so long; only while `left` is 0."""
        self.times[self.alone].append(seconds)
        if len(self.times[0]) == TRIALS:
            pooled = _typical(self.times[0])
            self.alone = pooled < self.short
            if not self.alone or len(self.times[1]) == TRIALS:
                self.alone = self.alone and _typical(self.times[1]) < pooled
                self.left, self.times = ALONE_FOR if self.alone else DECIDED_FOR, ([], [])


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
