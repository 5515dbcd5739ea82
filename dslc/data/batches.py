"""Batches of a split: seeded shuffling, conversion into buffers that are made once, and a position to resume from.

The order of an epoch is the stable argsort of `count` raw 64-bit outputs of NumPy's Philox 4x64-10 with the key
(seed, epoch). NumPy promises the raw output of its bit generators, not the algorithms of `Generator` (NEP 19), so this
order is the same on every machine and under every NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from dslc.data.dataset import Column, Split
from dslc.data.description import Array, FieldDescription
from dslc.data.prefetch import AHEAD, Prefetch

Batch = tuple[dict[str, Array], int]

_MASK = (1 << 64) - 1
_TURNS = 0x7475_726E  # of the order of batches whose examples are sorted
_HEAVY = 1 << 20  # bytes: below, a batch is made in less time than it takes to hand it over


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.intp]:
    """The order in which epoch number `epoch` visits `count` examples."""
    key = np.array([seed & _MASK, epoch & _MASK], dtype=np.uint64)
    raw = np.random.Philox(key=key).random_raw(count)
    return np.argsort(raw, kind="stable").astype(np.intp, copy=False)


def bucketed_order(order: NDArray[np.intp], lengths: NDArray[np.int64], batch: int, bucket: int, seed: int, epoch: int) -> NDArray[np.intp]:
    """`order` with examples of like length in each batch: of every `bucket` batches the examples are sorted by length, and then all
    whole batches take turns in another order. A smaller batch stays the last one."""
    pool = batch * bucket
    found = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in np.split(order, range(pool, len(order), pool))])
    whole = len(order) // batch
    turns = epoch_order(whole, seed ^ _TURNS, epoch)
    return np.concatenate([found[: whole * batch].reshape(whole, batch)[turns].reshape(-1), found[whole * batch :]])


class Batches:
    """Makes batches of the named fields of one split.

    The arrays of a batch are buffers of this object: they hold until the next batch is asked for. One `Batches` serves one thread.
    Batches that are costly to make (examples read from files, or a MiB and more) are made ahead by a thread within `ahead`.
    """

    def __init__(self, split: Split, fields: Sequence[FieldDescription], batch: int, threaded: bool | None = None):
        assert batch >= 1, "a batch has at least one example"
        self.count = split.count
        self._lengths, self._bucket = split.lengths, split.bucket
        self.batch = min(batch, split.count)  # a larger buffer would never be filled
        gathers = _gathers(split, fields, self.batch)
        costly = any(split.columns[f.field.name].costly for f in fields if f.field.name in split.columns)
        heavy = costly or sum(g.nbytes for g in gathers) >= _HEAVY
        self.threaded = heavy if threaded is None else threaded
        more = AHEAD if self.threaded else 0
        self._sets = (gathers, *(_gathers(split, fields, self.batch) for _ in range(more)))
        self._turn = 0
        self.waits = 0
        self.waited = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(g.nbytes for gathers in self._sets for g in gathers)

    @contextmanager
    def ahead(self, batches: Iterator[Batch]) -> Iterator[Iterator[Batch]]:
        """`batches` of this object, made ahead where that pays; `waits` and `waited` (seconds) add up what the reader waited."""
        if not self.threaded:
            yield batches
            return
        with Prefetch(batches) as prefetch:
            try:
                yield prefetch
            finally:
                self.waits += prefetch.waits
                self.waited += prefetch.waited

    def shuffled(self, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch and their sizes, after the first `start` examples; the last one may be smaller."""
        order = epoch_order(self.count, seed, epoch)
        if self._lengths is not None:
            order = bucketed_order(order, self._lengths, self.batch, self._bucket, seed, epoch)
        for first in range(start, self.count, self.batch):
            indices = order[first : first + self.batch]
            gathers = self._next_set()
            for gather in gathers:
                gather.take(indices)
            yield self._filled(gathers, len(indices))

    def in_order(self) -> Iterator[Batch]:
        """Every example once, as stored: for evaluation."""
        for first in range(0, self.count, self.batch):
            last = min(first + self.batch, self.count)
            gathers = self._next_set()
            for gather in gathers:
                gather.copy(first, last)
            yield self._filled(gathers, last - first)

    def _next_set(self) -> Sequence[_Gather]:
        self._turn = (self._turn + 1) % len(self._sets)
        return self._sets[self._turn]

    def _filled(self, gathers: Sequence[_Gather], count: int) -> Batch:
        return {g.name: g.result if count == self.batch else g.result[:count] for g in gathers}, count


def _gathers(split: Split, fields: Sequence[FieldDescription], batch: int) -> tuple[_Gather, ...]:
    stored: dict[str, Array | Column] = {**split.arrays, **split.columns}
    return tuple(_Gather(stored[f.field.name], f, batch) for f in fields)


class _Gather:
    """One field: stored rows -> a staging buffer of the stored type -> the field's type -> scale and shift.

    Buffers are flat ([batch, size]), because NumPy's inner loops run over whole examples then.
    """

    def __init__(self, stored: Array | Column, description: FieldDescription, batch: int):
        field = description.field
        self.name = field.name
        self._column = None if isinstance(stored, np.ndarray) else stored
        self._stored = stored.reshape(len(stored), field.size) if isinstance(stored, np.ndarray) else None
        self._flat = np.zeros((batch, field.size), dtype=field.numpy)
        self._staging = self._flat if stored.dtype == field.numpy else np.zeros((batch, field.size), dtype=stored.dtype)
        self._scale = description.factors(description.scale, 1.0) if field.floating else None
        self._shift = description.factors(description.shift, 0.0) if field.floating else None
        self.result = self._flat.reshape(batch, *field.shape)

    @property
    def nbytes(self) -> int:
        return self._flat.nbytes + (0 if self._staging is self._flat else self._staging.nbytes)

    def take(self, indices: NDArray[np.intp]) -> None:
        count = len(indices)
        if self._stored is None:
            assert self._column is not None
            self._column.read(indices, self._staging[:count])
        else:
            # The indices are ours and in range; "clip" lets take write straight into `out`, "raise" would go through a copy.
            np.take(self._stored, indices, axis=0, out=self._staging[:count], mode="clip")
        if self._staging is not self._flat:
            self._flat[:count] = self._staging[:count]
        self._finish(count)

    def copy(self, first: int, last: int) -> None:
        if self._stored is None:
            self.take(np.arange(first, last))
            return
        self._flat[: last - first] = self._stored[first:last]
        self._finish(last - first)

    def _finish(self, count: int) -> None:
        flat = self._flat[:count]
        if self._scale is not None:
            np.multiply(flat, self._scale, out=flat)
        if self._shift is not None:
            np.add(flat, self._shift, out=flat)
