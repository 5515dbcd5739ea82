"""Examples from sequences of numbers: windows of a stream, documents packed into rows, or a document a row.

| field | windows | packed | documents |
|---|---|---|---|
| integers [N, T], the first | T symbols in a row | documents one behind the other | the document's first T, then 0 |
| integers [N, T], the second | the symbols one further | the same within a document, -1 at its end | the same, -1 behind |
| `segment` [N, T] | | 1, 2, .. for the row's documents, 0 behind | |
| `position` [N, T] | | from 0 in each document | |
| bool or float [N, T] | | where a symbol is | where a symbol is |
| `length` [N] | | how many symbols there are | how many symbols there are |
| `next` [N] | the symbol behind the window | | |
| any other integer [N] | the document's class | | the document's class |

Windows go across the ends of documents, but for data whose class is asked for: then each lies in one document.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dslc.data.dataset import Split, make_split
from dslc.data.description import Array, Field, refuse
from dslc.data.places import check_memory

NOTHING = -1
"""Stands in targets where there is no next symbol: `cross_entropy[ignore_index = -1]` leaves it out."""


@dataclass(frozen=True, slots=True)
class Document:
    """The numbers of one text, and its class, -1 for none."""

    numbers: NDArray[np.int32]
    label: int = -1


@dataclass(frozen=True, slots=True)
class Layout:
    """What each field of a recipe holds, by role, and the length T of a row."""

    roles: Mapping[str, str]
    length: int
    rows: str

    def has(self, role: str) -> bool:
        return role in self.roles.values()


def layout(fields: Sequence[Field], rows: str, source: str) -> Layout:
    """The roles of the fields. Error: DL0704."""
    roles: dict[str, str] = {}
    lengths: set[int] = set()
    for field in fields:
        role = _role(field, rows, tuple(roles.values()))
        if role is None or (role in roles.values()):
            raise refuse(
                "DL0704",
                f"'{source}' cannot give {field}" if role is None else f"'{source}' cannot give {field} beside another one like it",
                f'with `rows = "{rows}"` it has {_offer(rows)}',
            )
        roles[field.name] = role
        if field.shape:
            lengths.add(field.shape[0])
    if "symbols" not in roles.values() or len(lengths) != 1:
        raise refuse(
            "DL0704",
            f"'{source}' needs rows of one length" if lengths else f"'{source}' needs a field for its symbols",
            "declare tokens: i64[N, 64], and what goes with them with the same second size",
        )
    return Layout(roles, lengths.pop(), rows)


def _role(field: Field, rows: str, before: Collection[str]) -> str | None:
    name, whole = field.name.removesuffix("s"), field.dtype in ("i32", "i64", "u8")
    if len(field.shape) == 1:
        if not whole:
            return "mask" if rows != "windows" else None
        if name in ("segment", "position"):
            return name if rows == "packed" else None
        return "symbols" if "symbols" not in before else "targets" if field.dtype != "u8" else None
    if field.shape or not whole:
        return None
    if name == "length":
        return name if rows != "windows" else None
    if name == "next":
        return name if rows == "windows" else None
    return "label" if rows != "packed" else None


def _offer(rows: str) -> str:
    two = "the symbols, i64[N, T], and then the next ones, i64[N, T]"
    return {
        "windows": f"{two}, `next`: i64[N], and a class, i64[N]",
        "packed": f"{two}, `segment` and `position`: i64[N, T], a mask, bool[N, T], and `length`: i64[N]",
        "documents": f"{two}, a mask, bool[N, T], `length`: i64[N], and a class, i64[N]",
    }[rows]


# --- windows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """A column whose examples are parts of one sequence: `length` elements from each start, taken when a batch needs them.

    `sequence` is [count] or [count, columns]; with `columns_first` an example of the latter is [columns, length].
    """

    sequence: Array
    starts: NDArray[np.int64]
    length: int
    columns_first: bool = False

    costly = False  # a batch is a few copies in memory

    @property
    def held(self) -> tuple[Array, ...]:
        return self.sequence, self.starts

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.sequence.dtype

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, indices: NDArray[np.intp], out: Array) -> None:
        places = self.starts[indices][:, None] + np.arange(self.length)
        if self.sequence.ndim == 1:
            np.take(self.sequence, places, out=out, mode="clip")
        else:
            taken = self.sequence[places]
            out[...] = (taken.swapaxes(1, 2) if self.columns_first else taken).reshape(out.shape)

    def pick(self, indices: NDArray[np.intp]) -> Windows:
        return Windows(self.sequence, self.starts[indices], self.length, self.columns_first)

    def checksum(self, start: int) -> int:
        crc = zlib.crc32(f"{self.sequence.dtype.str} {self.sequence.shape} {self.length}".encode(), start)
        crc = zlib.crc32(np.ascontiguousarray(self.sequence).data.cast("B"), crc)
        return zlib.crc32(self.starts.data.cast("B"), crc)


def stored(numbers: NDArray[np.int32], size: int) -> Array:
    """Numbers below `size` in the smallest type that holds them."""
    return numbers.astype(np.uint8 if size <= 256 else np.uint16 if size <= 65536 else np.int32)


def windows(fields: Sequence[Field], plan: Layout, documents: Sequence[Document], size: int, stride: int, where: str) -> Split:
    """Windows that begin every `stride` symbols, over all documents in a row or, where a class is asked for, in each of them."""
    length = plan.length
    needed = length + (1 if plan.has("targets") or plan.has("next") else 0)
    sequence = stored(np.concatenate([d.numbers for d in documents]) if documents else np.zeros(0, np.int32), size)
    ends = np.cumsum([0, *(len(d.numbers) for d in documents)])
    if plan.has("label"):
        parts = [np.arange(first, last - needed + 1, stride) for first, last in pairwise(ends.tolist())]
        labels = np.repeat([d.label for d in documents], [len(p) for p in parts]).astype(np.int64)
        starts = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    else:
        starts, labels = np.arange(0, len(sequence) - needed + 1, stride), np.zeros(0, np.int64)
    if not len(starts):
        raise refuse(
            "DL0706", f"{where} has {len(sequence):,} symbols, too few for a window of {needed}", "declare shorter rows, or give more text"
        )
    check_memory(8 * len(starts), where)
    starts = starts.astype(np.int64)
    columns: dict[str, object] = {}
    for field in fields:
        role = plan.roles[field.name]
        if role == "label":
            columns[field.name] = labels
        elif role == "next":
            columns[field.name] = sequence[starts + length]
        else:
            columns[field.name] = Windows(sequence, starts + (1 if role == "targets" else 0), length)
    return make_split(fields, columns, where)


# --- documents in rows ---------------------------------------------------------------------------------------------------


def packed(fields: Sequence[Field], plan: Layout, documents: Sequence[Document], where: str) -> Split:
    """Documents one behind the other in as few rows as their order allows; a longer one than a row is cut into pieces.

    A piece begins a new row where the present one has no room for all of it: nothing is cut that fits into a row.
    """
    length = plan.length
    pieces = [d.numbers[i : i + length] for d in documents for i in range(0, len(d.numbers), length)]
    rows: list[list[NDArray[np.int32]]] = []
    room = 0
    for piece in pieces:
        if len(piece) > room:
            rows.append([])
            room = length
        rows[-1].append(piece)
        room -= len(piece)
    arrays = _rows(fields, plan, len(rows), where)
    for n, row in enumerate(rows):
        at = 0
        for number, piece in enumerate(row):
            stop = at + len(piece)
            for name, role in plan.roles.items():
                if role == "length":
                    arrays[name][n] = stop
                else:
                    arrays[name][n, at:stop] = _content(role, piece, number)
            at = stop
    return make_split(fields, arrays, where)


def one_each(fields: Sequence[Field], plan: Layout, documents: Sequence[Document], where: str) -> Split:
    """A document a row: its first T symbols. Documents without symbols are left out."""
    documents = [d for d in documents if len(d.numbers)]
    arrays = _rows(fields, plan, len(documents), where)
    for n, document in enumerate(documents):
        count = min(len(document.numbers), plan.length)
        for name, role in plan.roles.items():
            if role == "length":
                arrays[name][n] = count
            elif role == "label":
                arrays[name][n] = document.label
            elif role == "targets":
                following = document.numbers[1 : count + 1]
                arrays[name][n, : len(following)] = following
            else:
                arrays[name][n, :count] = _content(role, document.numbers[:count], 0)
    return make_split(fields, arrays, where)


def _rows(fields: Sequence[Field], plan: Layout, count: int, where: str) -> dict[str, Array]:
    """Rows without anything in them."""
    check_memory(count * sum(f.size * (1 if plan.roles[f.name] == "mask" else 8) for f in fields), where)
    made: dict[str, Array] = {}
    for field in fields:
        role = plan.roles[field.name]
        kind = np.bool_ if role == "mask" else np.int64
        made[field.name] = np.full((count, *field.shape), NOTHING if role == "targets" else 0, kind)
    return made


def _content(role: str, piece: NDArray[np.int32], number: int) -> Array | int | bool:
    match role:
        case "symbols":
            return piece
        case "targets":
            return np.append(piece[1:], NOTHING)
        case "segment":
            return number + 1
        case "position":
            return np.arange(len(piece))
        case _:
            return True
