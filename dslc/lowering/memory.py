"""Memory plan: intervals of life become offsets in one arena, greedily, largest first.

Two regions are planned apart: what has a fixed size, and what scales with the batch, which is planned per example. Their
sum is the exact peak.
"""
from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Interval:
    """A buffer alive from step `first` to step `last`, both inclusive."""

    key: Hashable
    first: int
    last: int
    nbytes: int

    def overlaps(self, other: Interval) -> bool:
        return self.first <= other.last and other.first <= self.last


def aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def assign(intervals: Sequence[Interval]) -> tuple[dict[Hashable, int], int]:
    """Offsets (multiples of 64) and the exact total: the largest buffers first, each at the lowest free place among those alive with it."""
    offsets: dict[Hashable, int] = {}
    placed: list[tuple[Interval, int]] = []
    total = 0
    for interval in sorted(intervals, key=lambda i: (-i.nbytes, i.first, str(i.key))):
        size = aligned(interval.nbytes)
        at = 0
        for start, end in sorted((o, o + aligned(i.nbytes)) for i, o in placed if i.overlaps(interval)):
            if at + size <= start:
                break
            at = max(at, end)
        offsets[interval.key] = at
        placed.append((interval, at))
        total = max(total, at + interval.nbytes)
    return offsets, total
