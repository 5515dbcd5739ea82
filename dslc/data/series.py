"""`"series:f.csv"`: windows of a table whose rows follow each other in time: what was, and what came next.

| field | holds |
|---|---|
| f32[N, P], f32[N, P, C] or f32[N, C, P], the first | P rows of the C columns |
| the same with another length, the second | the rows directly behind them |
| i64[N] | the number of the row that comes next, from 0 |

A field of one axis has the first column alone. The held-out share is the end of the series: training sees no row of it, and every
held-out window has all that it must tell there. `normalize` takes mean and deviation of the rows before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dslc.data.dataset import DataSet, Split, make_split
from dslc.data.description import DataDescription, Factor, Field, FieldDescription, refuse
from dslc.data.places import check_memory, find_file
from dslc.data.sequences import Windows
from dslc.data.settings import Settings
from dslc.data.table import read_csv


@dataclass(frozen=True, slots=True)
class _Part:
    """One field: whether it lies in the future, how many rows it has, and whether columns come first; `single` has the first column."""

    field: Field
    future: bool
    length: int
    single: bool
    columns_first: bool


def open_series(name: str, fields: Sequence[Field], places: Sequence[Path], settings: Settings) -> DataSet:
    """The DataSet of windows, one for every `stride` rows. Errors: DL0702 to DL0708, DL0710, DL0715."""
    path = find_file(name, places)
    wide = [f for f in fields if f.shape]
    columns = len(settings.columns) or _columns(wide)
    table, _ = read_csv(path, [Field("series", "f64", (columns,))], settings.columns)
    values = np.asarray(table["series"], np.float64)
    parts = [_part(f, n > 0, columns, name) for n, f in enumerate(wide)]
    whole = [f for f in fields if not f.shape and f.dtype in ("i32", "i64")]
    if not 1 <= len(parts) <= 2 or len(whole) > 1 or len(parts) + len(whole) != len(fields):
        raise refuse(
            "DL0704",
            f"'series:{name}' cannot give these fields",
            "it has what was, f32[N, 12], what came next, f32[N, 3], and the place of that, i64[N]",
        )
    cut = len(values) - round(len(values) * settings.test) if settings.test is not None else len(values)
    scale, shift = _moments(values[:cut]) if settings.normalize else (np.ones(columns), np.zeros(columns))
    described = [_described(p, scale, shift) for p in parts]
    past, future = parts[0].length, sum(p.length for p in parts[1:])
    stride = settings.stride or 1
    starts = np.arange(0, len(values) - past - future + 1, stride, dtype=np.int64)
    trained = starts + past + future <= cut
    where = f"'{path.name}'"

    def split(chosen: NDArray[np.int64], what: str) -> Split:
        if not len(chosen):
            raise refuse("DL0706", f"{what} of {where} has no window of {past} + {future} rows", f"the file has {len(values):,}")
        check_memory(8 * len(chosen), where)
        made: dict[str, object] = {f.name: chosen + past for f in whole}
        for part in parts:
            sequence = np.ascontiguousarray(values[:, 0] if part.single else values)
            made[part.field.name] = Windows(sequence, chosen + (past if part.future else 0), part.length, part.columns_first)
        return make_split(fields, made, where)

    order = {d.field.name: d for d in [*described, *(FieldDescription(f) for f in whole)]}
    description = DataDescription(path.name, tuple(order[f.name] for f in fields))
    test = split(starts[starts + past >= cut], "the held-out part") if settings.test is not None else None
    return DataSet(description, split(starts[trained], "the training part"), test)


def _columns(fields: Sequence[Field]) -> int:
    """How many columns the fields speak of, where `columns` does not name them: the shorter axis."""
    return min((min(f.shape) for f in fields if len(f.shape) == 2), default=1)


def _part(field: Field, future: bool, columns: int, name: str) -> _Part:
    if field.floating and len(field.shape) == 1:
        return _Part(field, future, field.shape[0], True, False)
    if field.floating and len(field.shape) == 2 and columns in field.shape:
        first = field.shape[1] != columns
        return _Part(field, future, field.shape[1 if first else 0], False, first)
    raise refuse("DL0704", f"'series:{name}' cannot give {field}", f"declare f32[N, T], f32[N, T, {columns}] or f32[N, {columns}, T]")


def _moments(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift of each column that bring these rows to mean 0 and deviation 1; a column that never changes is only shifted."""
    if not len(values):
        raise refuse("DL0706", "the training part of the series has no rows", "hold out less")
    deviation = values.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    return 1.0 / deviation, -values.mean(axis=0) / deviation


def _described(part: _Part, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> FieldDescription:
    def factor(values: NDArray[np.float64]) -> Factor:
        return float(values[0]) if part.single or len(values) == 1 else tuple(values.tolist())

    described = FieldDescription(part.field, scale=factor(scale), shift=factor(shift))
    return described if part.single else replace(described, axis=0 if part.columns_first else 1)
