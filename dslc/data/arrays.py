"""Data from Python: arrays, dictionaries of arrays, or any iterable of examples.

| given | means |
|---|---|
| `{"image": x, "label": y}` | arrays by field name |
| `(x, y)`, a tuple | arrays in the order of the recipe's fields |
| any other iterable, or what has a length and items by number | examples: tuples in the order of the fields, or dictionaries |
| `{"train": ..., "test": ...}` | one of these for each split |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from dslc.data.dataset import DataSet, Split, make_split
from dslc.data.description import Array, DataDescription, Field, FieldDescription, refuse
from dslc.data.settings import ALWAYS, read_settings
from dslc.data.splits import prepared
from dslc.ir.recipe import DataOption


def from_python(data: object, fields: Sequence[Field], name: str = "arrays", options: Mapping[str, DataOption] | None = None) -> DataSet:
    """A DataSet of the caller's own arrays or examples, unscaled; arrays are used where they are, not copied.

    Of the `options` of a `data` statement `test` holds only where no test data are given; those of the source that the recipe names
    do not concern the caller's data.
    """
    splits: Mapping[object, object] = {"train": data}
    if isinstance(data, Mapping) and data.keys() <= {"train", "test"} and "train" in data:
        splits = data
    train = _split(splits["train"], fields, "the training data")
    test = _split(splits["test"], fields, "the test data") if splits.get("test") is not None else None
    made = DataSet(DataDescription(name, tuple(FieldDescription(f) for f in fields)), train, test)
    settings = read_settings({n: v for n, v in (options or {}).items() if n in ALWAYS}, name, ())
    return prepared(made, settings if test is None else replace(settings, test=None))


def _split(data: object, fields: Sequence[Field], where: str) -> Split:
    if isinstance(data, Mapping):
        return make_split(fields, {str(k): v for k, v in data.items()}, where)
    if isinstance(data, tuple):
        if len(data) != len(fields):
            raise refuse(
                "DL0709",
                f"{where}: a tuple of {len(data)} arrays for the {len(fields)} fields {_names(fields)}",
                "give one array a field, in the recipe's order; a list or generator is read as examples",
            )
        return make_split(fields, {f.name: a for f, a in zip(fields, data, strict=True)}, where)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Iterable):
        data = map(data.__getitem__, range(len(data)))
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise refuse(
            "DL0709",
            f"{where}: {type(data).__name__} is no data",
            "give arrays by name, a tuple of arrays, or an iterable of examples",
        )
    return make_split(fields, _collected(data, fields, where), where)


def _collected(examples: Iterable[object], fields: Sequence[Field], where: str) -> dict[str, Array]:
    columns: dict[str, list[object]] = {f.name: [] for f in fields}
    for number, example in enumerate(examples):
        if isinstance(example, Mapping):
            missing = next((f.name for f in fields if f.name not in example), None)
            if missing is not None:
                raise refuse("DL0709", f"{where}: example {number} has no '{missing}'", f"each example needs {_names(fields)}")
            parts = [example[f.name] for f in fields]
        elif isinstance(example, tuple | list):
            parts = list(example)
        else:
            parts = [example]
        if len(parts) != len(fields):
            raise refuse(
                "DL0709", f"{where}: example {number} has {len(parts)} parts", f"each example needs {_names(fields)}, in this order"
            )
        for field, part in zip(fields, parts, strict=True):
            columns[field.name].append(part)
    try:
        return {f.name: _stacked(f, columns[f.name]) for f in fields}
    except (ValueError, TypeError) as error:
        raise refuse(
            "DL0709", f"{where}: the examples do not stack to arrays: {error}", "every example must have the same shapes"
        ) from error


def _stacked(field: Field, parts: Sequence[object]) -> Array:
    return np.stack([np.asarray(part) for part in parts]) if parts else np.empty((0, *field.shape), field.numpy)


def _names(fields: Sequence[Field]) -> str:
    return ", ".join(f"'{f.name}'" for f in fields)
