"""Opening the data set that a recipe names: `open_data("fashion-mnist", ...)`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dslc.data import digits, idx
from dslc.data.coco import open_coco
from dslc.data.dataset import DataSet, Split, make_split
from dslc.data.description import Array, DataDescription, Field, FieldDescription, refuse
from dslc.data.folders import IMAGES, SOUNDS, open_classes, open_pairs
from dslc.data.npz import read_npz
from dslc.data.places import find_file, find_folder
from dslc.data.settings import Settings, read_settings
from dslc.data.shapes import COUNT, open_shapes
from dslc.data.splits import prepared
from dslc.data.table import read_csv
from dslc.diagnostics import DiagnosticError, Span
from dslc.ir.recipe import DataOption

NAMES = ("digits", "mnist", "fashion-mnist", "cifar10", "shapes", "tones", "brown")
FILES = ("npz", "csv", "text", "series")
FOLDERS = ("images", "pairs", "coco", "wav", "text")
_TEXT = ("level", "vocabulary", "rows", "stride", "documents", "bucket")
_TAKEN = {
    "csv": ("columns",),
    "shapes": ("count", "seed"),
    "tones": ("count", "seed"),
    "images": ("fit",),
    "pairs": ("fit",),
    "coco": ("fit",),
    "text": _TEXT,
    "brown": _TEXT,
    "series": ("columns", "stride"),
}
_ORDERED = ("text", "brown", "series")  # held out by place: a share of the end, not of the examples


def open_data(
    source: str,
    fields: Sequence[Field],
    *,
    options: Mapping[str, DataOption] | None = None,
    folders: Sequence[Path] = (),
    base: Path | None = None,
    span: Span | None = None,
) -> DataSet:
    """The data set `source` with the given fields, in memory as far as that has room.

    `folders` are those of `--data`, searched first; `base` is the folder of the `.dl` file. `span` is where the recipe names the
    source. `options` are those of the `data` statement (see `Settings`). Errors: DL0701 to DL0708, DL0710 to DL0715.
    """
    try:
        kind, colon, file = source.partition(":")
        known = [*NAMES, *(f"{k}:FILE" for k in FILES), *(f"{k}:FOLDER/" for k in FOLDERS)]
        if not (source in NAMES or (colon and kind in (*FILES, *FOLDERS))):
            near = difflib.get_close_matches(source, known, n=1)
            raise refuse(
                "DL0701",
                f"there is no data source '{source[:80]}'",
                f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}",
            )
        settings = read_settings(options or {}, source, _TAKEN.get(kind, ()))
        places = [*folders, base or Path.cwd()]
        if kind in _ORDERED:
            return _open_ordered(kind, file, fields, folders, places, settings)
        if not colon:
            data = _open_named(source, fields, folders, settings)
        elif kind in FILES:
            data = _open_file(kind, file, fields, places, settings)
        else:
            data = _open_folder(kind, file, fields, places, settings)
        return prepared(data, settings)
    except DiagnosticError as error:
        placed = (replace(d, span=d.span or span) for d in error.diagnostics)
        raise DiagnosticError(*placed, sources=error.sources) from error.__cause__


def _open_ordered(
    kind: str, name: str, fields: Sequence[Field], folders: Sequence[Path], places: Sequence[Path], settings: Settings
) -> DataSet:
    """What is no heap of examples, but a text or a series."""
    from dslc.data import series, text  # here: every start imports this file

    if kind == "series":
        return series.open_series(name, fields, places, settings)
    return text.open_text(name, fields, places, settings) if kind == "text" else text.open_brown(fields, folders, settings)


def _open_folder(kind: str, name: str, fields: Sequence[Field], places: Sequence[Path], settings: Settings) -> DataSet:
    folder, root = find_folder(name, places)
    if kind == "coco":
        return open_coco(folder, root, fields, settings.fit or "stretch")
    if kind == "pairs":
        return open_pairs(folder, root, fields, settings.fit or "crop")
    return open_classes(IMAGES if kind == "images" else SOUNDS, folder, root, fields, settings.fit or "crop")


def _open_named(name: str, fields: Sequence[Field], folders: Sequence[Path], settings: Settings) -> DataSet:
    """A set of pictures with class labels. Its parts go to the recipe's fields by kind: one number is the label, else the image."""
    if name == "shapes":
        return open_shapes(fields, settings.count or COUNT, settings.seed or 0)
    if name == "tones":
        from dslc.data import tones

        return tones.open_tones(fields, settings.count or tones.COUNT, settings.seed or 0)
    channels, side, full = {"digits": (1, 8, digits.FULL), "cifar10": (3, 32, 255)}.get(name, (1, 28, 255))
    roles = {f.name: _role(name, f, channels, side) for f in fields}
    if name == "digits":
        train, test = digits.load()
        classes, attribution = digits.CLASSES, digits.ATTRIBUTION
    elif name == "cifar10":
        from dslc.data import cifar  # here: its reader of pickles is slow to import, and every start imports this file

        train, held = cifar.load(folders)
        test = held if held is not None else {}
        classes, attribution = cifar.CLASSES, cifar.ATTRIBUTION
    else:
        wanted = frozenset(roles.values())
        loaded, held_out = idx.load(name, folders, wanted)
        train, test = loaded, held_out if held_out is not None else {}
        fashion = name == "fashion-mnist"
        classes = idx.FASHION_CLASSES if fashion else idx.DIGIT_CLASSES
        attribution = idx.FASHION_ATTRIBUTION if fashion else idx.MNIST_ATTRIBUTION
    described = tuple(_described(f, roles[f.name], full, classes) for f in fields)
    description = DataDescription(name, described, attribution)
    size = (side, side) if channels == 1 else (channels, side, side)
    return DataSet(description, _pictures(name, fields, roles, train, size), _pictures(name, fields, roles, test, size) if test else None)


def _role(name: str, field: Field, channels: int, side: int) -> str:
    if field.shape == () and not field.floating and field.dtype != "bool":
        return "label"
    shapes = [(channels, side, side), *([(side, side)] if channels == 1 else []), (channels * side * side,)]
    if field.shape in shapes and field.dtype != "bool":
        return "image"
    written = [f"f32[N, {', '.join(map(str, s))}]" for s in shapes]
    raise refuse(
        "DL0704",
        f"'{name}' cannot give {field}",
        f"it has images, {', '.join(written[:-1])} or {written[-1]} with values 0..1, and labels, i64[N]",
    )


def _described(field: Field, role: str, full: int, classes: tuple[str, ...]) -> FieldDescription:
    """Images of a floating type are scaled to 0..1, so that black, and what padding adds, is 0."""
    if role == "label":
        return FieldDescription(field, classes=classes)
    return FieldDescription(field, scale=1.0 / full if field.floating else 1.0, full=float(full))


def _pictures(name: str, fields: Sequence[Field], roles: Mapping[str, str], parts: Mapping[str, Array], size: tuple[int, ...]) -> Split:
    for role, array in parts.items():
        if role == "image" and array.shape[1:] != size:
            wanted = " x ".join(map(str, size))
            raise refuse("DL0703", f"the images of '{name}' are {list(array.shape[1:])}, not {wanted}", "these are other files")
        if role == "label" and array.max() > 9:
            raise refuse("DL0703", f"the labels of '{name}' go up to {array.max()}, not 9", "these are other files")
    return make_split(fields, {f.name: parts[roles[f.name]].reshape(-1, *f.shape) for f in fields}, f"'{name}'")


def _open_file(kind: str, name: str, fields: Sequence[Field], places: Sequence[Path], settings: Settings) -> DataSet:
    path = find_file(name, places)
    where = str(path)
    if kind == "npz":
        train, test = read_npz(path, fields)
        description = DataDescription(path.name, tuple(FieldDescription(f) for f in fields))
        return DataSet(description, make_split(fields, train, where), make_split(fields, test, where) if test else None)
    arrays, classes = read_csv(path, fields, settings.columns)
    description = DataDescription(path.name, tuple(FieldDescription(f, classes=classes.get(f.name, ())) for f in fields))
    return DataSet(description, make_split(fields, arrays, where))
