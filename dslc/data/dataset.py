"""Examples in memory: one array a field, kept in the smallest type that holds it.

Eight-bit images stay eight-bit (Fashion-MNIST takes 55 MB, not 220); `Batches` converts the 64 that a step needs.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dslc.data.description import Array, DataDescription, Field, refuse

_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1), "uint8": (0, 255), "bool": (0, 1)}


@runtime_checkable
class Column(Protocol):
    """A field whose examples are made when a batch needs them, as too many to hold in memory: read from files, or cut from a sequence."""

    @property
    def costly(self) -> bool:
        """Whether a batch takes long enough to be made ahead."""
        ...

    @property
    def held(self) -> Sequence[Array]:
        """What of it lies in memory; columns may share arrays."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored type, as an array's."""
        ...

    def __len__(self) -> int:
        """How many examples."""
        ...

    def read(self, indices: NDArray[np.intp], out: Array) -> None:
        """Writes these examples into the rows of `out` `[len(indices), size]`. Raises DiagnosticError for a damaged file."""
        ...

    def pick(self, indices: NDArray[np.intp]) -> Column:
        """These examples alone, in this order."""
        ...

    def checksum(self, start: int) -> int:
        """A CRC-32 that goes on from `start` over what tells these examples from others: the names and sizes of the files."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Arrays by field name, each `[count, *field.shape]`, C-contiguous, as stored (not yet scaled); or columns that make examples.

    With a `bucket` the batches of training have examples of like length: `lengths` says how long each is (see `batches.bucketed_order`).
    """

    arrays: Mapping[str, Array]
    count: int
    columns: Mapping[str, Column] = dataclasses.field(default_factory=dict)
    lengths: NDArray[np.int64] | None = None
    bucket: int = 0

    @property
    def nbytes(self) -> int:
        shared = {id(a): a.nbytes for column in self.columns.values() for a in column.held}
        return sum(a.nbytes for a in self.arrays.values()) + sum(shared.values())

    def pick(self, indices: NDArray[np.intp]) -> Split:
        """The examples with these numbers, in this order."""
        return Split(
            MappingProxyType({name: a[indices] for name, a in self.arrays.items()}),
            len(indices),
            MappingProxyType({name: c.pick(indices) for name, c in self.columns.items()}),
            None if self.lengths is None else self.lengths[indices],
            self.bucket,
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """A data set that is ready to train from. `test` is None where the source has no held-out examples."""

    description: DataDescription
    train: Split
    test: Split | None = None

    @property
    def name(self) -> str:
        return self.description.name

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(f.field for f in self.description.fields)

    @property
    def nbytes(self) -> int:
        """Bytes that the stored examples take."""
        return self.train.nbytes + (self.test.nbytes if self.test else 0)

    def fingerprint(self) -> str:
        """A checksum of the training examples, by which a resumed run knows that its data are the same."""
        crc = 0
        for name, array in sorted(self.train.arrays.items()):
            head = f"{name} {array.dtype.str} {array.shape}".encode()
            crc = zlib.crc32(array.data.cast("B") if array.size else b"", zlib.crc32(head, crc))
        for name, column in sorted(self.train.columns.items()):
            crc = column.checksum(zlib.crc32(name.encode(), crc))
        return f"{crc:08x}"


def make_split(fields: Sequence[Field], arrays: Mapping[str, object], where: str) -> Split:
    """Checks what a file or a caller gave for every field and makes a Split. `where` names the origin in messages.

    Arrays are kept without a copy where type and layout allow, so a caller's own array must not change while it is used. A Column fits
    its field already.
    """
    stored: dict[str, Array] = {}
    columns: dict[str, Column] = {}
    for field in fields:
        if field.name not in arrays:
            raise refuse(
                "DL0706", f"{where} has nothing for the field '{field.name}'", f"it has {_listed(arrays)}; fields are found by their names"
            )
        given = arrays[field.name]
        if isinstance(given, np.ndarray) or not isinstance(given, Column):
            stored[field.name] = _stored(field, given, where)
        else:
            columns[field.name] = given
    counts = {f.name: len(columns[f.name]) if f.name in columns else len(stored[f.name]) for f in fields}
    if len(set(counts.values())) > 1:
        each = ", ".join(f"'{name}' has {count}" for name, count in counts.items())
        raise refuse("DL0706", f"the fields of {where} differ in their number of examples: {each}", "the first axis counts examples")
    count = next(iter(counts.values()), 0)
    if count == 0:
        raise refuse("DL0706", f"{where} holds no examples", "training needs at least one")
    return Split(MappingProxyType(stored), count, MappingProxyType(columns))


def _stored(field: Field, given: object, where: str) -> Array:
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise refuse(
            "DL0709", f"'{field.name}' of {where} is no array: {error}", f"it must be an array of shape {_shape(field)}"
        ) from error
    if array.dtype.kind not in "biuf":
        raise refuse(
            "DL0704",
            f"'{field.name}' of {where} holds {array.dtype}, which is no number",
            f"the recipe declares {field}; give numbers of that kind",
        )
    if array.ndim == 0 or array.shape[1:] != field.shape:
        return _stored(field, _reshaped(field, array, where), where)
    return np.ascontiguousarray(_typed(field, array, where))


def _reshaped(field: Field, array: Array, where: str) -> Array:
    """Axes of size 1 may differ ([n, 28, 28] for [N, 1, 28, 28], [n, 1] for [N]), and an example may be given flat."""
    squeezed = tuple(s for s in array.shape[1:] if s != 1)
    wanted = tuple(s for s in field.shape if s != 1)
    if array.ndim and (squeezed == wanted or squeezed == (field.size,)):
        return array.reshape(len(array), *field.shape)
    raise refuse(
        "DL0704",
        f"'{field.name}' of {where} has the shape {list(array.shape)}, the recipe declares {field}",
        f"give it as {_shape(field)}, or change the declaration",
    )


def _typed(field: Field, array: Array, where: str) -> Array:
    """The array in a type from which a batch is made without loss of range; small integers stay small."""
    wanted = field.numpy
    if array.dtype == wanted or (field.floating and array.dtype in (np.uint8, np.int8, np.bool_)):
        return array
    if field.floating:
        return array.astype(wanted)
    if array.dtype.kind == "f":
        raise refuse(
            "DL0704",
            f"'{field.name}' of {where} holds {array.dtype}, the recipe declares {field}",
            "convert it to integers, so that no fraction is lost unseen",
        )
    if array.dtype == np.uint8 and wanted.itemsize > 1:
        return array
    low, high = _RANGES[wanted.name]
    if array.size and not (low <= int(array.min()) and int(array.max()) <= high):
        raise refuse(
            "DL0704",
            f"'{field.name}' of {where} ranges from {array.min()} to {array.max()}, beyond {field.dtype}",
            f"declare it as i64 or bring it to {low}..{high}",
        )
    return array.astype(wanted)


def _shape(field: Field) -> str:
    return f"[n{''.join(f', {s}' for s in field.shape)}]"


def _listed(arrays: Mapping[str, object]) -> str:
    names = sorted(str(a) for a in arrays)
    return ", ".join(f"'{n}'" for n in names[:8]) + (", ..." if len(names) > 8 else "") if names else "no arrays"
