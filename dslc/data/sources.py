"""Opening the data set that a recipe names: `open_data("fashion-mnist", ...)`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dslc.data import digits, idx
from dslc.data.dataset import DataSet, Split, make_split
from dslc.data.description import Array, DataDescription, Field, FieldDescription, refuse
from dslc.data.npz import read_npz
from dslc.data.table import read_csv
from dslc.diagnostics import DiagnosticError, Span

NAMES = ("digits", "mnist", "fashion-mnist")
FILES = ("npz", "csv")


def open_data(
    source: str, fields: Sequence[Field], *, folders: Sequence[Path] = (), base: Path | None = None, span: Span | None = None
) -> DataSet:
    """The data set `source` with the given fields in memory.

    `folders` are those of `--data`, searched first; `base` is the folder of the `.dl` file. `span` is where the recipe names the
    source. Errors: DL0701 (no such source) to DL0708.
    """
    try:
        kind, colon, file = source.partition(":")
        if colon and kind in FILES:
            return _open_file(kind, file, fields, [*folders, base or Path.cwd()])
        if source in NAMES:
            return _open_named(source, fields, folders)
        known = [*NAMES, *(f"{k}:FILE" for k in FILES)]
        near = difflib.get_close_matches(source, known, n=1)
        raise refuse(
            "DL0701", f"there is no data source '{source[:80]}'", f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
        )
    except DiagnosticError as error:
        placed = (replace(d, span=d.span or span) for d in error.diagnostics)
        raise DiagnosticError(*placed, sources=error.sources) from error.__cause__


def _open_named(name: str, fields: Sequence[Field], folders: Sequence[Path]) -> DataSet:
    """A set of pictures with class labels. Its parts go to the recipe's fields by kind: one number is the label, else the image."""
    side, full = (8, digits.FULL) if name == "digits" else (28, 255)
    roles = {f.name: _role(name, f, side) for f in fields}
    if name == "digits":
        train, test = digits.load()
        classes, attribution = digits.CLASSES, digits.ATTRIBUTION
    else:
        wanted = frozenset(roles.values())
        loaded, held_out = idx.load(name, folders, wanted)
        train, test = loaded, held_out if held_out is not None else {}
        fashion = name == "fashion-mnist"
        classes = idx.FASHION_CLASSES if fashion else idx.DIGIT_CLASSES
        attribution = idx.FASHION_ATTRIBUTION if fashion else idx.MNIST_ATTRIBUTION
    described = tuple(_described(f, roles[f.name], full, classes) for f in fields)
    description = DataDescription(name, described, attribution)
    return DataSet(description, _pictures(name, fields, roles, train, side), _pictures(name, fields, roles, test, side) if test else None)


def _role(name: str, field: Field, side: int) -> str:
    if field.shape == () and not field.floating and field.dtype != "bool":
        return "label"
    if field.shape in ((1, side, side), (side, side), (side * side,)) and field.dtype != "bool":
        return "image"
    raise refuse(
        "DL0704",
        f"'{name}' cannot give {field}",
        f"it has images, f32[N, 1, {side}, {side}], f32[N, {side}, {side}] or f32[N, {side * side}] with values 0..1, and labels, i64[N]",
    )


def _described(field: Field, role: str, full: int, classes: tuple[str, ...]) -> FieldDescription:
    """Images of a floating type are scaled to 0..1, so that black, and what padding adds, is 0."""
    if role == "label":
        return FieldDescription(field, classes=classes)
    return FieldDescription(field, scale=1.0 / full if field.floating else 1.0, full=float(full))


def _pictures(name: str, fields: Sequence[Field], roles: Mapping[str, str], parts: Mapping[str, Array], side: int) -> Split:
    for role, array in parts.items():
        if role == "image" and array.shape[1:] != (side, side):
            raise refuse("DL0703", f"the images of '{name}' are {list(array.shape[1:])}, not {side} x {side}", "these are other files")
        if role == "label" and array.max() > 9:
            raise refuse("DL0703", f"the labels of '{name}' go up to {array.max()}, not 9", "these are other files")
    return make_split(fields, {f.name: parts[roles[f.name]].reshape(-1, *f.shape) for f in fields}, f"'{name}'")


def _open_file(kind: str, name: str, fields: Sequence[Field], folders: Sequence[Path]) -> DataSet:
    path = _inside(name, folders)
    where = str(path)
    if kind == "npz":
        train, test = read_npz(path, fields)
        description = DataDescription(path.name, tuple(FieldDescription(f) for f in fields))
        return DataSet(description, make_split(fields, train, where), make_split(fields, test, where) if test else None)
    arrays, classes = read_csv(path, fields)
    description = DataDescription(path.name, tuple(FieldDescription(f, classes=classes.get(f.name, ())) for f in fields))
    return DataSet(description, make_split(fields, arrays, where))


def _inside(name: str, folders: Sequence[Path]) -> Path:
    """The file of that name in the first of the folders that has it; a name may not lead out of its folder, links included."""
    if not name or "\0" in name:
        raise refuse("DL0702", "the data source names no file", 'write it as "npz:data.npz"')
    for folder in folders:
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise refuse(
                "DL0705", f"'{name}' leads out of {folder}", "data files lie in the folder of the .dl file or in one given with --data"
            )
        if path.is_file():
            return path
    looked = ", ".join(str(f) for f in folders)
    raise refuse("DL0702", f"there is no file '{name}' (looked in {looked})", "put it beside the .dl file, or name its folder with --data")
