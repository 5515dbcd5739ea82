"""Layouts: where the elements of a value lie in its buffer."""
from __future__ import annotations

from dataclasses import dataclass, replace

from dslc.ir.dims import Dim


@dataclass(frozen=True, slots=True)
class Layout:
    """Element strides a logical axis; a halo of zeros may stand around the axes (`before`, `after`, in elements of each axis).

    `order` lists the axes from the outermost to the innermost in memory. `address` gives the element offset. A part of another
    value's memory has `given` strides, and may begin `origin` elements behind where that value's buffer does.
    """

    order: tuple[int, ...]
    extents: tuple[Dim, ...]  # logical sizes
    before: tuple[int, ...]
    after: tuple[int, ...]
    pitch: int = 1  # the innermost row is padded to a multiple of so many elements
    given: tuple[Dim, ...] | None = None
    origin: Dim = 0

    @property
    def padded(self) -> tuple[Dim, ...]:
        """Sizes with the halo, a logical axis each."""
        return tuple(lo + e + hi for e, lo, hi in zip(self.extents, self.before, self.after, strict=True))

    @property
    def strides(self) -> tuple[Dim, ...]:
        if self.given is not None:
            return self.given
        strides: list[Dim] = [0] * len(self.order)
        step: Dim = 1
        padded = self.padded
        for position, axis in enumerate(reversed(self.order)):
            strides[axis] = step
            extent = padded[axis]
            if position == 0 and self.pitch > 1:
                extent = -(-extent // self.pitch) * self.pitch
            step = step * extent
        return tuple(strides)

    @property
    def size(self) -> Dim:
        """Elements of the buffer, halo included; of a part its own elements."""
        if not self.order:
            return 1
        if self.given is not None:
            count: Dim = 1
            for own in self.extents:
                count = count * own
            return count
        outer = self.order[0]
        rest = self.strides[outer]
        extent = self.padded[outer]
        if len(self.order) == 1 and self.pitch > 1:
            extent = -(-extent // self.pitch) * self.pitch
        return extent * rest

    @property
    def halo(self) -> bool:
        return any(self.before) or any(self.after)

    def address(self, index: tuple[Dim, ...]) -> Dim:
        total = self.origin
        for i, stride, lo in zip(index, self.strides, self.before, strict=True):
            total = total + (i + lo) * stride
        return total


def row_major(shape: tuple[Dim, ...]) -> Layout:
    zeros = (0,) * len(shape)
    return Layout(tuple(range(len(shape))), shape, zeros, zeros)


def strided(shape: tuple[Dim, ...], strides: tuple[Dim, ...]) -> Layout:
    """Elements of another value's memory, so far apart along each axis; row-major where that is all the same."""
    plain = row_major(shape)
    same = all(extent == 1 or a == b for extent, a, b in zip(shape, strides, plain.strides, strict=True))
    return plain if same else replace(plain, given=strides)


def channels_last(shape: tuple[Dim, ...], halo: tuple[tuple[int, int], ...] | None = None) -> Layout:
    """[N, C, H, W] with the channel innermost; `halo` is (before, after) an axis."""
    rank = len(shape)
    order = (0, *range(2, rank), 1)
    before = tuple(h[0] for h in halo) if halo else (0,) * rank
    after = tuple(h[1] for h in halo) if halo else (0,) * rank
    return Layout(order, shape, before, after)


def with_halo(layout: Layout, before: tuple[int, ...], after: tuple[int, ...]) -> Layout:
    """The layout with at least this halo."""
    lo = tuple(max(a, b) for a, b in zip(layout.before, before, strict=True))
    hi = tuple(max(a, b) for a, b in zip(layout.after, after, strict=True))
    return Layout(layout.order, layout.extents, lo, hi, layout.pitch)
