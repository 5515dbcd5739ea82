"""The watch over NaN and infinity: what training changes is looked through now and then, and a copy is kept of what was whole.

A loss is read at every step anyway. What else a step changes (parameters, optimizer states, averages) is looked through as often as
one part in `_SHARE` of the time allows, and always before it is written to a file; a copy of it is taken as often as another part
allows. From the last copy the steps since are made again, one by one, which gives the same bits and with them the step that failed.
No kernel does more for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from dslc.data.description import Array
from dslc.diagnostics import Note, Span

_SHARE = 100  # of the time goes into looking, as much into copies: 2% together
LARGEST_COPY = 1 << 30  # bytes; without a copy the step can still be replayed from a checkpoint or from the beginning


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands, as in `RunState`."""

    epoch: int
    example: int
    step: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a step's operations told: the first that makes NaN or an infinity of numbers, and where it stands in the source."""

    message: str
    span: Span | None = None
    notes: tuple[Note, ...] = ()
    sources: Mapping[str, str] | None = None


class NotFinite(Exception):
    """Training met NaN or an infinity: `what` it was, seen at step number `step`, from 1."""

    def __init__(self, what: str, step: int):
        super().__init__(what)
        self.what = what
        self.step = step


class FiniteWatch:
    """Looks through `state()` and keeps a copy. `enabled`: whether at all; `room`: the most bytes of the copy."""

    def __init__(self, state: Callable[[], Mapping[str, Array]], enabled: bool = True, room: int = LARGEST_COPY):
        self.enabled = enabled
        self._state = state
        self._room = room
        self._kept: dict[str, Array] = {}
        self._position: Position | None = None
        self._next_look = self._next_copy = -math.inf

    def due(self, now: float) -> bool:
        """Whether it is time to look."""
        return self.enabled and now >= self._next_look

    def look(self) -> str | None:
        """What holds NaN or an infinity, in words; None where all is finite."""
        start = perf_counter()
        found = first_not_finite(self._state())
        now = perf_counter()
        self._next_look = now + _SHARE * (now - start)
        return found

    def copy_due(self, now: float) -> bool:
        """Whether it is time to copy what a look found whole."""
        return self.enabled and now >= self._next_copy

    def keep(self, position: Position) -> None:
        """Copies the state, which was just found whole, if that is due."""
        start = perf_counter()
        if not self.copy_due(start):
            return
        state = self._state()
        if sum(array.nbytes for array in state.values()) > self._room:
            return
        self._kept = copied(state, self._kept)
        self._position = position
        now = perf_counter()
        self._next_copy = now + _SHARE * (now - start)

    def kept(self) -> tuple[Position, Mapping[str, Array]] | None:
        """The last copy and where it was taken."""
        return None if self._position is None else (self._position, self._kept)


def copied(state: Mapping[str, Array], into: Mapping[str, Array]) -> dict[str, Array]:
    """Copies of arrays, into those of an older copy where they are there: fresh memory costs more than what is written to it."""
    if into.keys() != state.keys():
        return {name: array.copy() for name, array in state.items()}
    for name, array in state.items():
        into[name][...] = array
    return dict(into)


def first_not_finite(arrays: Mapping[str, Array]) -> str | None:
    """The first array that holds NaN or an infinity and what it holds, weights before all else."""
    bad = [name for name, array in arrays.items() if not finite(array)]
    if not bad:
        return None
    name = min(bad, key=lambda n: "/" in n)
    return f"`{name}` holds {described(arrays[name])}"


def finite(array: Array) -> bool:
    """Whether no element is NaN or infinite. The sum tells at the speed of memory; one that overflows asks each element."""
    if array.dtype.kind != "f" or not array.size:
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(array.sum())) or bool(np.isfinite(array).all())


def described(array: Array) -> str:
    """`NaN`, `an infinity` or both."""
    kinds = ["NaN"] if np.isnan(array).any() else []
    kinds += ["an infinity"] if np.isinf(array).any() else []
    return " and ".join(kinds)
