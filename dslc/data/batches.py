"""Batches of a split: seeded shuffling, conversion into buffers that are made once, and a position to resume from.

The order of an epoch is the stable argsort of `count` raw 64-bit outputs of NumPy's Philox 4x64-10 with the key
(seed, epoch). NumPy promises the raw output of its bit generators, not the algorithms of `Generator` (NEP 19), so this
order is the same on every machine and under every NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dslc.data.dataset import Split
from dslc.data.description import Array, FieldDescription

_MASK = (1 << 64) - 1


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.intp]:
    """The order in which epoch number `epoch` visits `count` examples."""
    key = np.array([seed & _MASK, epoch & _MASK], dtype=np.uint64)
    raw = np.random.Philox(key=key).random_raw(count)
    return np.argsort(raw, kind="stable").astype(np.intp, copy=False)


class Batches:
    """Makes batches of the named fields of one split.

    The arrays of a batch are buffers of this object: they hold until the next batch is made. One `Batches` serves one thread.
    """

    def __init__(self, split: Split, fields: Sequence[FieldDescription], batch: int):
        assert batch >= 1, "a batch has at least one example"
        self.count = split.count
        self.batch = min(batch, split.count)  # a larger buffer would never be filled
        self._gathers = tuple(_Gather(split.arrays[f.field.name], f, self.batch) for f in fields)
        self._whole = {g.name: g.result for g in self._gathers}

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(g.nbytes for g in self._gathers)

    def shuffled(self, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[dict[str, Array], int]]:
        """The batches of an epoch and their sizes, after the first `start` examples; the last one may be smaller."""
        order = epoch_order(self.count, seed, epoch)
        for first in range(start, self.count, self.batch):
            yield self._gather(order[first : first + self.batch])

    def in_order(self) -> Iterator[tuple[dict[str, Array], int]]:
        """Every example once, as stored: for evaluation."""
        for first in range(0, self.count, self.batch):
            yield self._slice(first, min(first + self.batch, self.count))

    def _gather(self, indices: NDArray[np.intp]) -> tuple[dict[str, Array], int]:
        count = len(indices)
        for gather in self._gathers:
            gather.take(indices)
        return self._filled(count), count

    def _slice(self, first: int, last: int) -> tuple[dict[str, Array], int]:
        for gather in self._gathers:
            gather.copy(first, last)
        return self._filled(last - first), last - first

    def _filled(self, count: int) -> dict[str, Array]:
        return dict(self._whole) if count == self.batch else {name: a[:count] for name, a in self._whole.items()}


class _Gather:
    """One field: stored rows -> a staging buffer of the stored type -> the field's type -> scale and shift.

    Buffers are flat ([batch, size]), because NumPy's inner loops run over whole examples then.
    """

    def __init__(self, stored: Array, description: FieldDescription, batch: int):
        field = description.field
        self.name = field.name
        self._stored = stored.reshape(len(stored), field.size)
        self._flat = np.zeros((batch, field.size), dtype=field.numpy)
        self._staging = self._flat if stored.dtype == field.numpy else np.zeros((batch, field.size), dtype=stored.dtype)
        self._scale = field.numpy.type(description.scale) if description.scale != 1.0 and field.floating else None
        self._shift = field.numpy.type(description.shift) if description.shift != 0.0 and field.floating else None
        self.result = self._flat.reshape(batch, *field.shape)

    @property
    def nbytes(self) -> int:
        return self._flat.nbytes + (0 if self._staging is self._flat else self._staging.nbytes)

    def take(self, indices: NDArray[np.intp]) -> None:
        count = len(indices)
        # The indices are ours and in range; "clip" lets take write straight into `out`, "raise" would go through a copy.
        np.take(self._stored, indices, axis=0, out=self._staging[:count], mode="clip")
        if self._staging is not self._flat:
            self._flat[:count] = self._staging[:count]
        self._finish(count)

    def copy(self, first: int, last: int) -> None:
        self._flat[: last - first] = self._stored[first:last]
        self._finish(last - first)

    def _finish(self, count: int) -> None:
        flat = self._flat[:count]
        if self._scale is not None:
            np.multiply(flat, self._scale, out=flat)
        if self._shift is not None:
            np.add(flat, self._shift, out=flat)
