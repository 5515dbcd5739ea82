"""Folders of examples: `images:folder/` and `wav:folder/` (a subfolder a class), `pairs:folder/` (a subfolder a field).

Each may have the parts `train/` and `test/` (or `val/`, `valid/`, `validation/`), each laid out so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dslc.data import images, sound
from dslc.data.dataset import Column, DataSet, make_split
from dslc.data.description import Array, DataDescription, Field, FieldDescription, refuse
from dslc.data.images import Pictures, geometry, held
from dslc.data.places import files, inside, subfolders
from dslc.data.sound import Sounds

TEST_PARTS = ("test", "val", "valid", "validation")

Parts = Mapping[str, Array | Column]


@dataclass(frozen=True, slots=True)
class Kind:
    """What the files of a folder are, and how a field reads them."""

    word: str
    endings: Sequence[str]
    describe: Callable[[Field, Sequence[Path], str], FieldDescription]
    column: Callable[[FieldDescription, Sequence[Path]], Pictures | Sounds]


def parts(folder: Path, root: Path) -> tuple[Path, Path | None]:
    """The folders of the training and of the held-out examples."""
    train = folder / "train"
    if not train.is_dir():
        return folder, None
    inside(train, root)
    test = next((folder / name for name in TEST_PARTS if (folder / name).is_dir()), None)
    return train, inside(test, root) if test is not None else None


# --- a subfolder a class -------------------------------------------------------------------------------------------------


def open_classes(kind: Kind, folder: Path, root: Path, fields: Sequence[Field], fit: str) -> DataSet:
    """The DataSet of files in class folders. The classes are the training part's subfolders by name. Errors: DL0704, DL0705, DL0711 to DL0715."""
    labels = [f for f in fields if f.shape == () and not f.floating and f.dtype != "bool"]
    train, test = parts(folder, root)
    classes = tuple(p.name for p in subfolders(train, root))
    if labels and not classes:
        raise refuse("DL0712", f"{train} has no subfolders", f"put the {kind.word}s of each class into a subfolder of the class's name")
    listed = _class_files(kind, train, root, classes)
    described = tuple(
        FieldDescription(f, classes=classes) if f in labels else kind.describe(f, listed[0], fit) for f in fields
    )  # fmt: skip
    description = DataDescription(folder.name, described)
    tested = None
    if test is not None:
        unknown = next((p for p in subfolders(test, root) if p.name not in classes), None)
        if unknown is not None:
            raise refuse(
                "DL0712", f"{unknown} is of a class that {train} does not have", "the classes are the subfolders of the training part"
            )
        present = tuple(c for c in classes if (test / c).is_dir())
        tested = _class_files(kind, test, root, present)
    positions = {name: i for i, name in enumerate(classes)}

    def split(found: tuple[list[Path], list[str]], where: Path) -> Parts:
        paths, names = found
        numbers = np.array([positions[n] for n in names], np.int64) if labels else np.zeros(0, np.int64)
        return {d.field.name: numbers if d.field in labels else _column(kind, d, paths) for d in described}

    made = make_split(fields, split(listed, train), str(train))
    return DataSet(description, made, make_split(fields, split(tested, test), str(test)) if tested and test else None)


def _class_files(kind: Kind, folder: Path, root: Path, classes: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files by class and name, and the class of each; those of the folder itself where it has no classes."""
    paths: list[Path] = []
    names: list[str] = []
    for name in classes or [""]:
        place = folder / name if name else folder
        found = files(place, root, kind.endings)
        if not found:
            raise refuse("DL0712", f"{place} holds no {kind.word}s", f"files are taken that end in {', '.join(kind.endings)}")
        paths += found
        names += [name] * len(found)
    return paths, names


def _column(kind: Kind, description: FieldDescription, paths: Sequence[Path]) -> Array | Column:
    column = kind.column(description, paths)
    return held(column, column.size, description.field.shape)


# --- pictures and sounds -------------------------------------------------------------------------------------------------


def _describe_picture(field: Field, paths: Sequence[Path], fit: str) -> FieldDescription:
    if geometry(field.shape) is None or field.dtype == "bool":
        raise refuse(
            "DL0704",
            f"a folder of images cannot give {field}",
            "it has images, such as f32[N, 3, 64, 64] or f32[N, 64, 64] with values 0..1, and labels, i64[N]",
        )
    return FieldDescription(field, scale=1.0 / 255 if field.floating else 1.0, full=255.0, fit=fit)


def picture_column(description: FieldDescription, paths: Sequence[Path], masks: bool = False) -> Pictures:
    """The pictures of a field that `geometry` takes."""
    wanted = geometry(description.field.shape, description.fit)
    assert wanted is not None, "the field was checked when it was described"
    return Pictures(tuple(paths), wanted, masks)


def _describe_sound(field: Field, paths: Sequence[Path], fit: str) -> FieldDescription:
    if not field.floating or not (len(field.shape) == 1 or (len(field.shape) == 2 and field.shape[0] == 1)):
        raise refuse(
            "DL0704", f"a folder of sounds cannot give {field}", "it has sounds, f32[N, 16000] or f32[N, 1, 16000], and labels, i64[N]"
        )
    return FieldDescription(field, rate=sound.rate_of(paths))


def _sound_column(description: FieldDescription, paths: Sequence[Path]) -> Sounds:
    assert description.rate is not None
    return Sounds(tuple(paths), description.field.size, description.rate)


IMAGES = Kind("image", images.ENDINGS, _describe_picture, picture_column)
SOUNDS = Kind("sound", sound.ENDINGS, _describe_sound, _sound_column)


# --- a subfolder a field -------------------------------------------------------------------------------------------------


def open_pairs(folder: Path, root: Path, fields: Sequence[Field], fit: str) -> DataSet:
    """The DataSet of pictures that belong together by their names, such as `image/a.png` and `mask/a.png`.

    A field of integers or truth values of two dimensions holds classes, one a pixel; any other holds pictures.
    Errors: DL0704, DL0705, DL0711, DL0712.
    """
    train, test = parts(folder, root)
    described = tuple(_describe_pair(f, fit) for f in fields)

    def split(place: Path) -> Parts:
        listed = _matched(place, root, fields)
        return {
            d.field.name: _held_pictures(picture_column(d, listed[d.field.name], masks=d.full is None), d.field) for d in described
        }  # fmt: skip

    made = make_split(fields, split(train), str(train))
    description = DataDescription(folder.name, described)
    return DataSet(description, made, make_split(fields, split(test), str(test)) if test is not None else None)


def _held_pictures(column: Pictures, field: Field) -> Array | Column:
    stored = held(column, column.size, field.shape)
    return stored != 0 if isinstance(stored, np.ndarray) and field.dtype == "bool" else stored


def _describe_pair(field: Field, fit: str) -> FieldDescription:
    wanted = geometry(field.shape)
    if wanted is not None and wanted.channels == 1 and len(field.shape) > 1 and not field.floating:
        return FieldDescription(field, fit=fit)
    if wanted is None or field.dtype == "bool":
        raise refuse(
            "DL0704",
            f"a folder of pairs cannot give {field}",
            "it has pictures, such as f32[N, 3, 64, 64], and classes, one a pixel, such as i64[N, 64, 64]",
        )
    return FieldDescription(field, scale=1.0 / 255 if field.floating else 1.0, full=255.0, fit=fit)


def _matched(folder: Path, root: Path, fields: Sequence[Field]) -> dict[str, list[Path]]:
    """The files of every field's folder, in the same order: that of their names without endings."""
    found: dict[str, dict[str, Path]] = {}
    for field in fields:
        place = next((folder / n for n in (field.name, f"{field.name}s") if (folder / n).is_dir()), None)
        if place is None:
            raise refuse(
                "DL0712", f"{folder} has no folder '{field.name}' or '{field.name}s'", "each field's pictures are in a folder of its name"
            )
        by_stem: dict[str, Path] = {}
        for path in files(inside(place, root), root, images.ENDINGS):
            if path.stem in by_stem:
                raise refuse("DL0712", f"{path} and {by_stem[path.stem].name} have one name", "keep one of them")
            by_stem[path.stem] = path
        found[field.name] = by_stem
    first, *others = found.values()
    for other in others:
        for a, b in ((first, other), (other, first)):
            alone = next((path for stem, path in a.items() if stem not in b), None)
            if alone is not None:
                other_place = next(iter(b.values())).parent if b else "the other folder"
                raise refuse("DL0712", f"{alone} has no partner in {other_place}", "files belong together by their names without endings")
    if not first:
        raise refuse("DL0712", f"{folder} holds no pictures", f"files are taken that end in {', '.join(images.ENDINGS)}")
    return {name: [by_stem[stem] for stem in sorted(first)] for name, by_stem in found.items()}
