"""What is done with any data set once it is open: a share of the examples held out, and a field normalised.

Neither depends on the recipe's seed, so that runs with different seeds are judged by the same examples.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dslc.data.batches import epoch_order
from dslc.data.dataset import Column, DataSet, Split
from dslc.data.description import Array, DataDescription, FieldDescription, refuse
from dslc.data.settings import Settings

_BLOCK = 256  # examples that are summed at a time
_KEY = 0x6473_6C63  # of the order in which examples are held out


def prepared(data: DataSet, settings: Settings) -> DataSet:
    """The data with the options that every source takes."""
    if settings.test is not None:
        data = hold_out(data, settings.test)
    return normalized(data) if settings.normalize else data


def hold_out(data: DataSet, share: float) -> DataSet:
    """The DataSet whose test examples are `share` of the training examples, rounded to the nearest number, at least one of each.

    They stand where the source's own test examples stood. Where a field has class names, every class gives its share.
    """
    count = data.train.count
    wanted = round(count * share)
    if not 1 <= wanted < count:
        raise refuse("DL0710", f"`test = {share:g}` of {count} examples is {wanted}", "leave at least one example for each part")
    classes = next((f.field.name for f in data.description.fields if f.classes and f.field.shape == ()), None)
    labels = data.train.arrays[classes].reshape(-1) if classes is not None else np.zeros(count, np.int64)
    held = held_out(labels, wanted, _KEY)
    return replace(data, train=data.train.pick(np.flatnonzero(~held)), test=data.train.pick(np.flatnonzero(held)))


def held_out(labels: Array, wanted: int, key: int) -> NDArray[np.bool_]:
    """True for `wanted` examples: in every class the first of the order `epoch_order(count, key, 0)`, by largest remainder."""
    count = len(labels)
    values, members = np.unique(labels, return_inverse=True)
    share = np.bincount(members, minlength=len(values)) * wanted / count
    sizes = np.floor(share).astype(int)
    largest = np.argsort(-(share - sizes), kind="stable")[: wanted - int(sizes.sum())]
    sizes[largest] += 1
    order = epoch_order(count, seed=key, epoch=0)
    chosen = np.zeros(count, dtype=np.bool_)
    for value in range(len(values)):
        chosen[order[members[order] == value][: sizes[value]]] = True
    return chosen


def normalized(data: DataSet) -> DataSet:
    """The DataSet whose first field has mean 0 and deviation 1 over the training examples, by channel or column.

    A column that never changes is only shifted. The factors are part of the description. Error: DL0710 for a field of integers.
    """
    first = data.description.fields[0]
    if not first.field.floating:
        raise refuse("DL0710", f"`normalize` needs a field of floats, and the first is {first.field}", "declare it as f32")
    mean, deviation = _moments(data.train, first)
    deviation = np.where(deviation > 0, deviation, 1.0)
    scale, shift = 1.0 / deviation, -mean / deviation
    changed = replace(first, scale=_factor(scale), shift=_factor(shift))
    description: DataDescription = replace(data.description, fields=(changed, *data.description.fields[1:]))
    return replace(data, description=description)


def _factor(values: NDArray[np.float64]) -> float | tuple[float, ...]:
    numbers: list[float] = values.tolist()
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _moments(split: Split, description: FieldDescription) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of the stored numbers, for each place of the first axis, or one where the field is a grey picture or a scalar."""
    field = description.field
    groups = (
        field.shape[0] if len(field.shape) == 3 or (len(field.shape) == 1 and description.full is None and description.rate is None) else 1
    )
    column = split.columns.get(field.name)
    total, squares = np.zeros(groups), np.zeros(groups)
    center: NDArray[np.float64] | None = None  # near the mean, so that squares of large numbers do not cancel
    for first in range(0, split.count, _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, split.count))
        block = _read(column, rows, field.size) if column is not None else split.arrays[field.name][rows].astype(np.float64)
        grouped = block.reshape(len(rows), groups, -1)
        if center is None:
            center = grouped.mean(axis=(0, 2))
        moved = grouped - center[:, None]
        total += moved.sum(axis=(0, 2))
        squares += (moved * moved).sum(axis=(0, 2))
    assert center is not None, "a split has examples"
    numbers = split.count * (field.size // groups)
    offset = total / numbers
    return center + offset, np.sqrt(np.maximum(squares / numbers - offset * offset, 0.0))


def _read(column: Column, rows: NDArray[np.intp], size: int) -> NDArray[np.float64]:
    out = np.empty((len(rows), size), column.dtype)
    column.read(rows, out)
    return out.astype(np.float64)
