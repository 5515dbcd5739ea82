"""`coco:folder/`: pictures with boxes, as instances in the JSON of COCO (https://cocodataset.org/#format-data).

A part is a folder with `annotations.json` (or `instances.json`) and its pictures in `images/` or beside it; a folder with such parts
`train/` and `val/`; or the published layout, `annotations/instances_train2017.json` beside `train2017/`.

| field | holds |
|---|---|
| a picture, f32[N, 3, H, W] | the picture, stretched to the declared size unless `fit` says otherwise |
| f32[N, K, 4] | boxes x1, y1, x2, y2 in pixels of that size, at most K, then zeros |
| i64[N, K] | the class of each box, -1 where there is none |
| i64[N] | how many boxes there are |

Boxes of crowds are left out, as are boxes that cropping leaves nothing of.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dslc.data.dataset import Column, DataSet, Split, make_split
from dslc.data.description import Array, DataDescription, Field, FieldDescription, refuse
from dslc.data.folders import parts, picture_column
from dslc.data.images import Geometry, geometry, held, picture_size
from dslc.data.places import check_memory, files, inside

_BYTES_A_BYTE = 16  # what parsed JSON takes for a byte of text, at most
_NAMES = ("annotations.json", "instances.json")


@dataclass(frozen=True, slots=True)
class Annotated:
    """One picture: its file, its size in the annotations, and boxes x, y, width, height with their classes."""

    path: Path
    width: float
    height: float
    boxes: tuple[tuple[float, float, float, float], ...]
    classes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """The JSON and the folders its pictures may be in."""

    annotations: Path
    pictures: tuple[Path, ...]


def open_coco(folder: Path, root: Path, fields: Sequence[Field], fit: str) -> DataSet:
    """The DataSet of a folder. Errors: DL0704, DL0705, DL0711, DL0712, DL0713, DL0715."""
    roles = {f.name: _role(f) for f in fields}
    size = next((geometry(f.shape, fit) for f in fields if roles[f.name] == "image"), None)
    if size is None:
        raise refuse("DL0704", "boxes are given in pixels of a picture, and no field is one", "declare image: f32[N, 3, 128, 128] too")
    train, test = _parts(folder, root)
    examples, categories = _read(train, root)
    described = tuple(_describe(f, roles[f.name], tuple(categories.values()), fit) for f in fields)
    made = _split(fields, roles, described, size, examples, train)
    tested = None
    if test is not None:
        held_out, other = _read(test, root)
        if other != categories:
            raise refuse("DL0713", f"{test.annotations} has other categories than {train.annotations}", "both need the same ids and names")
        tested = _split(fields, roles, described, size, held_out, test)
    return DataSet(DataDescription(folder.name, described), made, tested)


def _role(field: Field) -> str:
    if field.floating and len(field.shape) == 2 and field.shape[1] == 4:
        return "boxes"
    if not field.floating and field.dtype in ("i32", "i64") and len(field.shape) < 2:
        return "classes" if field.shape else "count"
    if geometry(field.shape) is not None and len(field.shape) == 3 and field.dtype != "bool":
        return "image"
    raise refuse(
        "DL0704",
        f"annotated pictures cannot give {field}",
        "they have pictures, f32[N, 3, H, W], boxes, f32[N, K, 4], classes, i64[N, K], and the number of boxes, i64[N]",
    )


def _describe(field: Field, role: str, classes: tuple[str, ...], fit: str) -> FieldDescription:
    if role == "image":
        return FieldDescription(field, scale=1.0 / 255 if field.floating else 1.0, full=255.0, fit=fit)
    return FieldDescription(field, classes=classes if role == "classes" else ())


def _parts(folder: Path, root: Path) -> tuple[Part, Part | None]:
    published = folder / "annotations"
    if published.is_dir():
        inside(published, root)
        found = [p for p in files(published, root, (".json",)) if p.stem.startswith("instances_")]
        train = next((p for p in found if p.stem.startswith("instances_train")), None)
        test = next((p for p in found if p.stem.startswith(("instances_val", "instances_test"))), None)
        if train is None:
            raise refuse("DL0712", f"{published} holds no instances_train*.json", "put the annotations of COCO's detection task there")
        return _published(train, folder, root), _published(test, folder, root) if test is not None else None
    first, second = parts(folder, root)
    return _part(first, root), _part(second, root) if second is not None else None


def _published(annotations: Path, folder: Path, root: Path) -> Part:
    name = annotations.stem.removeprefix("instances_")
    places = tuple(inside(folder / n, root) for n in (name, "images") if (folder / n).is_dir())
    return Part(annotations, places)


def _part(folder: Path, root: Path) -> Part:
    annotations = next((folder / n for n in _NAMES if (folder / n).is_file()), None)
    if annotations is None:
        raise refuse("DL0712", f"{folder} holds no {_NAMES[0]}", "put the annotations there, and the pictures into images/")
    return Part(inside(annotations, root), tuple(inside(p, root) for p in (folder / "images", folder) if p.is_dir()))


# --- the annotations -----------------------------------------------------------------------------------------------------


def _read(part: Part, root: Path) -> tuple[list[Annotated], dict[int, str]]:
    """The pictures in the order of their ids, and the classes' names by category id, in the order of the ids."""
    path = part.annotations
    try:
        check_memory(path.stat().st_size * _BYTES_A_BYTE, str(path))
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise refuse("DL0713", f"{path} is no JSON: {error}", "it must be a whole file of COCO instances") from error
    categories = {_whole(path, c, "id", "category"): _text(path, c, "name", "category") for c in _list(path, raw, "categories")}
    categories = dict(sorted(categories.items()))
    position = {number: i for i, number in enumerate(categories)}
    boxes: dict[int, list[tuple[tuple[float, float, float, float], int]]] = {}
    pictures: dict[int, dict[str, Any]] = {}
    for picture in _list(path, raw, "images"):
        pictures[_whole(path, picture, "id", "image")] = picture
    for entry in _list(path, raw, "annotations"):
        if entry.get("iscrowd"):
            continue
        image, category = _whole(path, entry, "image_id", "annotation"), _whole(path, entry, "category_id", "annotation")
        if image not in pictures or category not in position:
            what = f"the image {image}" if image not in pictures else f"the category {category}"
            raise refuse("DL0713", f"{path}: an annotation names {what}, which the file does not have", "complete the file")
        boxes.setdefault(image, []).append((_box(path, entry), position[category]))
    if not pictures:
        raise refuse("DL0713", f"{path} lists no images", "it must be a file of COCO instances")
    examples = []
    for number in sorted(pictures):
        entry, found = pictures[number], boxes.get(number, [])
        width, height = (_size(path, entry, key) for key in ("width", "height"))
        file = _picture(path, _text(path, entry, "file_name", "image"), part, root)
        if picture_size(file) != (width, height):
            real = " x ".join(map(str, picture_size(file)))
            raise refuse(
                "DL0713",
                f"{file} has {real} pixels, {width:.0f} x {height:.0f} in {path}",
                "boxes are in pixels of the picture: they would be misplaced",
            )
        examples.append(Annotated(file, width, height, tuple(b for b, _ in found), tuple(c for _, c in found)))
    return examples, categories


def _picture(path: Path, name: str, part: Part, root: Path) -> Path:
    pure = PurePosixPath(name)
    if not name or "\0" in name or pure.is_absolute() or ".." in pure.parts:
        raise refuse("DL0705", f"{path} names the picture {name[:80]!r}", "pictures are named within the folder of the data")
    for place in part.pictures:
        if (place / name).is_file():
            return inside(place / name, root)
    raise refuse("DL0712", f"the picture {name[:80]!r} of {path} is not there", "put the pictures into images/ beside the annotations")


def _list(path: Path, raw: object, key: str) -> list[dict[str, Any]]:
    found = raw.get(key) if isinstance(raw, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise refuse("DL0713", f"{path} has no list '{key}'", "COCO instances have the lists images, annotations and categories")
    return found


def _whole(path: Path, entry: Mapping[str, Any], key: str, what: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise refuse("DL0713", f"{path}: '{key}' of an {what} is {str(value)[:40]!r}, no whole number", "complete the file")
    return value


def _text(path: Path, entry: Mapping[str, Any], key: str, what: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise refuse("DL0713", f"{path}: '{key}' of an {what} is {str(value)[:40]!r}, no text", "complete the file")
    return value


def _size(path: Path, entry: Mapping[str, Any], key: str) -> float:
    value = _whole(path, entry, key, "image")
    if not 0 < value < 2**31:
        raise refuse("DL0713", f"{path}: the {key} of an image is {value}", "sizes are positive")
    return float(value)


def _box(path: Path, entry: Mapping[str, Any]) -> tuple[float, float, float, float]:
    raw = entry.get("bbox")
    if (
        isinstance(raw, list)
        and len(raw) == 4
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 2**31 for v in raw)
    ):
        x, y, width, height = map(float, raw)
        if math.isfinite(x + y + width + height) and width >= 0 and height >= 0:
            return x, y, width, height
    raise refuse("DL0713", f"{path}: an annotation has the box {str(raw)[:60]}", "a box is [x, y, width, height] in pixels")


# --- arrays --------------------------------------------------------------------------------------------------------------


def _split(
    fields: Sequence[Field],
    roles: Mapping[str, str],
    described: Sequence[FieldDescription],
    size: Geometry,
    examples: Sequence[Annotated],
    part: Part,
) -> Split:
    placed = [_placed(e, size) for e in examples]
    bound = min((f.shape[0] for f in fields if roles[f.name] in ("boxes", "classes")), default=None)
    for example, (boxes, _) in zip(examples, placed, strict=True):
        if bound is not None and len(boxes) > bound:
            raise refuse(
                "DL0713",
                f"{example.path} has {len(boxes)} boxes, the recipe declares room for {bound}",
                f"declare boxes: f32[N, {len(boxes)}, 4] or more",
            )
    made: dict[str, Array | Column] = {}
    for field, description in zip(fields, described, strict=True):
        role = roles[field.name]
        if role == "image":
            column = picture_column(description, [e.path for e in examples])
            made[field.name] = held(column, column.size, field.shape)
        elif role == "count":
            made[field.name] = np.array([len(boxes) for boxes, _ in placed], np.int64)
        else:
            check_memory(len(examples) * field.size * 8, f"'{field.name}'")
            made[field.name] = _padded(field, [pair[role == "classes"] for pair in placed], role == "classes")
    return make_split(fields, made, str(part.annotations))


def _padded(field: Field, rows: Sequence[Array], classes: bool) -> Array:
    padded = np.full((len(rows), *field.shape), -1 if classes else 0, np.int64 if classes else np.float64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def _placed(example: Annotated, size: Geometry) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Boxes [n, 4] as corners in pixels of the fitted picture, and classes [n]; what lies outside is cut off."""
    boxes = np.array(example.boxes, np.float64).reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    scale = np.array([size.width / example.width, size.height / example.height])
    if size.fit != "stretch":
        scale[:] = scale.max() if size.fit == "crop" else scale.min()
    shift = (np.array([size.width, size.height]) - scale * (example.width, example.height)) / 2
    corners = np.clip(corners * np.tile(scale, 2) + np.tile(shift, 2), 0, [size.width, size.height] * 2)
    kept = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    return corners[kept], np.array(example.classes, np.int64)[kept]
