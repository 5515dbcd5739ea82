"""`csv:f.csv`: a table of numbers with a header row, unscaled.

A field of one number an example takes the column of its name. A field `x: f32[N, 4]` takes `x0`..`x3` or `x_0`..`x_3`; one field
without such columns takes all the columns that are left, in file order, when their number is right. An integer field whose
column holds words gets the positions of those words among the sorted distinct ones: they are the class names. A vector of integers
has one list of names for all its columns, taken in file order where one of them holds words in the first row.

`columns` names the columns instead: as many as the fields have numbers, in the fields' order.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dslc.data.description import Array, Field, refuse
from dslc.data.places import check_memory

_BLOCK = 4096  # rows held as Python numbers before they become an array
_BYTES_A_BYTE = 4  # what a table of one-digit numbers takes in memory for a byte of text
_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})


class _Reader(Protocol):
    """What `csv.reader` returns; its class has no public name."""

    @property
    def line_num(self) -> int: ...
    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class _Row:
    path: Path
    line: int
    header: Sequence[str]
    values: Sequence[str]

    def bad(self, column: int, wanted: str) -> Exception:
        text = self.values[column]
        if _missing(text):
            return refuse(
                "DL0707", f"{self.path}, line {self.line}: the value of '{self.header[column]}' is missing", "fill it in or remove the row"
            )
        return refuse("DL0707", f"{self.path}, line {self.line}: '{self.header[column]}' is {text[:40]!r}, not {wanted}")


def read_csv(path: Path, fields: Sequence[Field], chosen: Sequence[str] = ()) -> tuple[Mapping[str, Array], Mapping[str, tuple[str, ...]]]:
    """The arrays by field name, and the class names of the fields whose columns hold words."""
    try:
        check_memory(path.stat().st_size * _BYTES_A_BYTE, str(path))
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            columns = _chosen(path, header, fields, chosen) if chosen else _columns(path, header, fields)
            words: dict[str, list[str]] | None = None
            blocks: dict[str, list[Array]] = {f.name: [] for f in fields}
            for rows in _blocks(reader, path, header):
                if words is None:
                    words = {f.name: [] for f in fields if _holds_words(f, rows[0], columns[f.name])}
                for field in fields:
                    if field.name in words:
                        words[field.name] += [_word(row, column) for row in rows for column in columns[field.name]]
                    else:
                        blocks[field.name].append(_numbers(rows, field, columns[field.name]))
    except FileNotFoundError as error:
        raise refuse("DL0702", f"there is no file {path}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise refuse("DL0703", f"cannot read {path}: {error}", "it must be comma-separated UTF-8 text with a header row") from error
    if words is None:
        raise refuse("DL0708", f"{path} has no rows below its header")
    classes = {name: tuple(sorted(set(found))) for name, found in words.items()}
    arrays: dict[str, Array] = {name: np.concatenate(parts) for name, parts in blocks.items() if parts}
    for name, found in words.items():
        number = {word: i for i, word in enumerate(classes[name])}
        shape = next(f.shape for f in fields if f.name == name)
        arrays[name] = np.array([number[word] for word in found], dtype=np.int64).reshape(-1, *shape)
    return arrays, classes


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    """The index of each column by its name."""
    if not header:
        raise refuse("DL0708", f"{path} is empty", "its first row names the columns")
    where = {name: i for i, name in reversed(list(enumerate(header)))}
    doubled = next((n for i, n in enumerate(header) if where[n] != i), None)
    if doubled is not None:
        raise refuse("DL0708", f"{path} has two columns named '{doubled}'", "the first row must name every column once")
    return where


def _chosen(path: Path, header: Sequence[str], fields: Sequence[Field], chosen: Sequence[str]) -> dict[str, list[int]]:
    """The indices of each field's columns, as the option `columns` lists them."""
    where = _places(path, header)
    missing = next((name for name in chosen if name not in where), None)
    if missing is not None:
        raise refuse("DL0708", f"{path} does not have the column '{missing}'", f"its columns are {_shown(header)}")
    needed = sum(f.size for f in fields)
    if len(chosen) != needed:
        listed = ", ".join(str(f) for f in fields)
        raise refuse("DL0708", f"`columns` lists {len(chosen)} columns, and the fields have {needed} numbers", f"the fields are {listed}")
    left = [where[name] for name in chosen]
    found = {}
    for field in fields:
        found[field.name], left = left[: field.size], left[field.size :]
    return found


def _columns(path: Path, header: Sequence[str], fields: Sequence[Field]) -> dict[str, list[int]]:
    """The indices of each field's columns."""
    where = _places(path, header)
    found: dict[str, list[int]] = {}
    left: list[Field] = []
    for field in fields:
        spellings = [[field.name]] if field.size == 1 else []
        if field.shape:
            spellings += [[f"{field.name}{join}{i}" for i in range(field.size)] for join in ("", "_")]
        match = next((s for s in spellings if all(n in where for n in s)), None)
        if match is None:
            left.append(field)
        else:
            found[field.name] = [where[n] for n in match]
    used = {i for columns in found.values() for i in columns}
    rest = [i for i in range(len(header)) if i not in used]
    if len(left) == 1 and left[0].shape and len(rest) == left[0].size:
        found[left[0].name] = rest
        left = []
    if left:
        field = left[0]
        wanted = f"{field.size} columns '{field.name}0'..'{field.name}{field.size - 1}'" if field.shape else f"a column '{field.name}'"
        raise refuse("DL0708", f"{path} does not have {wanted} for the field '{field.name}'", f"its columns are {_shown(header)}")
    return found


def _shown(header: Sequence[str]) -> str:
    return ", ".join(f"'{n}'" for n in header[:8]) + (", ..." if len(header) > 8 else "")


def _blocks(reader: _Reader, path: Path, header: Sequence[str]) -> Iterator[list[_Row]]:
    """The rows, some thousands at a time; blank lines are passed over."""
    rows: list[_Row] = []
    for values in reader:
        if not values:
            continue
        row = _Row(path, reader.line_num, header, values)
        if len(values) != len(header):
            raise refuse(
                "DL0707", f"{path}, line {row.line}: {len(values)} values where the header names {len(header)} columns", "complete the row"
            )
        rows.append(row)
        if len(rows) == _BLOCK:
            yield rows
            rows = []
    if rows:
        yield rows


def _holds_words(field: Field, row: _Row, columns: Sequence[int]) -> bool:
    texts = [row.values[c] for c in columns]
    return not field.floating and any(_real(text) is None and not _missing(text) for text in texts)


def _numbers(rows: Sequence[_Row], field: Field, columns: Sequence[int]) -> Array:
    read, kind, wanted = (_real, np.float64, "a number") if field.floating else (_whole, np.int64, f"a whole number, as in {field}")
    values = np.empty((len(rows), len(columns)), dtype=kind)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            value = read(row.values[column])
            if value is None:
                raise row.bad(column, wanted)
            values[i, j] = value
    if field.floating:
        with np.errstate(over="ignore"):
            values = values.astype(field.numpy)
        if not np.isfinite(values).all():
            i, j = (int(n) for n in np.argwhere(~np.isfinite(values))[0])
            raise rows[i].bad(columns[j], f"a number within {field.dtype}")
    return values.reshape(len(rows), *field.shape)


def _word(row: _Row, column: int) -> str:
    word = row.values[column].strip()
    if _missing(word):
        raise row.bad(column, "a class name")
    return word


def _missing(text: str) -> bool:
    return text.strip().lower() in _MISSING


def _real(text: str) -> float | None:
    """The finite number that the text spells, or None."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(text: str) -> int | None:
    """The 64-bit integer that the text spells (3 or 3.0), or None."""
    try:
        value = int(text) if "_" not in text else None
    except ValueError:
        real = _real(text)
        value = int(real) if real is not None and real == int(real) else None
    return value if value is not None and -(2**63) <= value < 2**63 else None
