"""`"shapes"`: pictures of discs, rectangles and triangles on a noisy ground, drawn when the data are opened.

| field | holds |
|---|---|
| f32[N, 3, H, W], f32[N, 1, H, W], f32[N, H, W] | the picture, 0..1 |
| i64[N, H, W] | the class of every pixel: 0 ground, 1 disc, 2 rectangle, 3 triangle |
| f32[N, K, 4] | boxes x1, y1, x2, y2 in pixels around what can be seen of at most K shapes, largest first, then zeros |
| i64[N, K] | their classes 0 disc, 1 rectangle, 2 triangle; -1 where there is none |
| i64[N], named `count` | how many shapes can be seen |
| i64[N] | the class of the largest |

A picture follows from `seed`, its number and the declared size, by raw outputs of NumPy's Philox 4x64-10 and arithmetic that rounds in
one way, so that it is the same everywhere. Later shapes hide earlier ones; what a shape keeps visible is at least half of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dslc.data.dataset import DataSet, Split, make_split
from dslc.data.description import Array, DataDescription, Field, FieldDescription, refuse
from dslc.data.places import check_memory

NAMES = ("disc", "rectangle", "triangle")
COUNT = 2000
HELD_OUT_SHARE = 4  # a fourth of the number of training pictures is drawn for the test
_MOST_SHAPES = 4
_MOST_COUNT = 1_000_000
_LEAST_SIDE = 16
_TEST_KEY = 1 << 63


@dataclass(frozen=True, slots=True)
class _Roles:
    """What each field holds, the pictures' size, and the most shapes one may have."""

    roles: Mapping[str, str]
    height: int
    width: int
    most: int


def open_shapes(fields: Sequence[Field], count: int, seed: int) -> DataSet:
    """The DataSet of `count` training pictures and a fourth as many for the test. Errors: DL0704, DL0710, DL0715."""
    if not 1 <= count <= _MOST_COUNT:
        raise refuse("DL0710", f"'shapes' has no {count:,} pictures", f"`count` is a whole number from 1 to {_MOST_COUNT:,}")
    roles = _roles(fields)
    each = sum(f.size * (1 if roles.roles[f.name] in ("image", "mask") else 8) for f in fields)
    check_memory(2 * count * each, "'shapes'")
    described = tuple(_describe(f, roles.roles[f.name]) for f in fields)
    held_out = max(1, count // HELD_OUT_SHARE)
    description = DataDescription("shapes", described)
    return DataSet(description, _drawn(fields, roles, seed, 0, count), _drawn(fields, roles, seed, _TEST_KEY, held_out))


def _roles(fields: Sequence[Field]) -> _Roles:
    roles: dict[str, str] = {}
    sizes: set[tuple[int, int]] = set()
    most = _MOST_SHAPES
    for field in fields:
        shape, whole = field.shape, field.dtype in ("i32", "i64", "u8")
        if shape == () and whole:
            roles[field.name] = "count" if field.name == "count" else "label"
        elif len(shape) == 3 and shape[0] in (1, 3) and field.dtype != "bool":
            roles[field.name] = "image"
            sizes.add((shape[1], shape[2]))
        elif len(shape) == 2 and shape[1] == 4 and field.floating:
            roles[field.name] = "boxes"
            most = min(most, shape[0])
        elif len(shape) == 2:
            roles[field.name] = "image" if field.floating else "mask"
            sizes.add((shape[0], shape[1]))
        elif len(shape) == 1 and whole and field.dtype != "u8":
            roles[field.name] = "classes"
            most = min(most, shape[0])
        else:
            raise _unfit(field)
    if len(sizes) != 1 or min(min(sizes)) < _LEAST_SIDE:
        raise refuse(
            "DL0704",
            "'shapes' needs the size of its pictures" if not sizes else "'shapes' draws pictures of one size, of 16 x 16 pixels at least",
            "declare image: f32[N, 3, 64, 64], and masks of the same height and width",
        )
    if most == 0:
        raise refuse("DL0704", "'shapes' has at least one box a picture", "declare boxes: f32[N, 4, 4]")
    height, width = sizes.pop()
    return _Roles(roles, height, width, most)


def _unfit(field: Field) -> Exception:
    return refuse(
        "DL0704",
        f"'shapes' cannot give {field}",
        "it has images, f32[N, 3, H, W], masks, i64[N, H, W], boxes, f32[N, K, 4], their classes, i64[N, K], and labels, i64[N]",
    )


def _describe(field: Field, role: str) -> FieldDescription:
    if role == "image":
        return FieldDescription(field, scale=1.0 / 255 if field.floating else 1.0, full=255.0)
    return FieldDescription(field, classes={"mask": ("ground", *NAMES), "classes": NAMES, "label": NAMES}.get(role, ()))


# --- drawing -------------------------------------------------------------------------------------------------------------


def _drawn(fields: Sequence[Field], roles: _Roles, seed: int, first: int, count: int) -> Split:
    arrays: dict[str, Array] = {}
    for field in fields:
        role = roles.roles[field.name]
        kind = {"image": np.uint8, "mask": np.uint8, "boxes": np.float64}.get(role, np.int64)
        arrays[field.name] = np.full((count, *field.shape), -1 if role == "classes" else 0, kind)
    for number in range(count):
        picture = _Picture(roles, seed, first + number)
        for field in fields:
            role, row = roles.roles[field.name], arrays[field.name][number : number + 1]
            if role == "image":
                row[...] = picture.pixels(field.size // (roles.height * roles.width)).reshape(row.shape)
            elif role == "mask":
                row[0] = picture.mask
            elif role == "boxes":
                row[0, : len(picture.order)] = picture.boxes()
            elif role == "classes":
                row[0, : len(picture.order)] = [picture.kinds[i] for i in picture.order]
            else:
                row[0] = len(picture.order) if role == "count" else picture.kinds[picture.order[0]]
    return make_split(fields, arrays, "'shapes'")


class _Picture:
    """One picture: the shape that is seen at every pixel, the kinds of the shapes, and their order by visible size."""

    def __init__(self, roles: _Roles, seed: int, number: int):
        self._height, self._width = roles.height, roles.width
        self._random = np.random.Philox(key=np.array([seed, number], np.uint64))
        self.kinds: list[int] = []
        self._areas: list[int] = []  # in full, of each shape
        self._seen = np.full((self._height, self._width), -1, np.int64)
        for _ in range(1 + self._below(roles.most)):
            self._add()
        sizes = np.bincount(self._seen[self._seen >= 0], minlength=len(self.kinds))
        self.order: list[int] = np.argsort(-sizes, kind="stable").tolist()

    @property
    def mask(self) -> NDArray[np.int64]:
        """The class of every pixel, 0 for the ground."""
        result: NDArray[np.int64] = np.array([0, *(k + 1 for k in self.kinds)])[self._seen + 1]
        return result

    def boxes(self) -> NDArray[np.float64]:
        """[n, 4], in the shapes' order."""
        found = []
        for shape in self.order:
            rows, columns = np.nonzero(self._seen == shape)
            found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        return np.array(found, np.float64)

    def pixels(self, channels: int) -> NDArray[np.uint8]:
        """[channels, H, W]: a dark ground, light shapes whose channels differ, and noise of 5 % on both."""
        colors = np.array([[20 + self._below(60) for _ in range(channels)] for _ in range(len(self.kinds) + 1)])
        colors[1:] += 60 + np.array([[self._below(110) for _ in range(channels)] for _ in self.kinds])
        noise = self._random.random_raw((channels * self._height * self._width + 7) // 8).astype("<u8").view(np.uint8)
        speckle = noise[: channels * self._height * self._width].reshape(channels, self._height, self._width).astype(np.int64) % 25 - 12
        result: NDArray[np.uint8] = np.clip(colors.T[:, self._seen + 1] + speckle, 0, 255).astype(np.uint8)
        return result

    def _below(self, bound: int) -> int:
        """A whole number from 0 to `bound` - 1; the bias of 2**-50 and less does not matter here."""
        return int(self._random.random_raw()) % bound

    def _add(self) -> None:
        """Draws one more shape over the others, unless it would leave less than half of one of them visible."""
        kind, small = self._below(len(NAMES)), min(self._height, self._width)
        half_h, half_w = (small // 8 + self._below(small // 6 + 1) for _ in range(2))
        if kind == 0:
            half_w = half_h
        y, x = half_h + self._below(self._height - 2 * half_h), half_w + self._below(self._width - 2 * half_w)
        rows, columns = np.ogrid[: self._height, : self._width]
        down, across = rows - y, columns - x
        if kind == 0:
            inside = down * down + across * across <= half_h * half_h
        elif kind == 1:
            inside = (abs(down) <= half_h) & (abs(across) <= half_w)
        else:  # upright: its width grows from the tip, at -half_h, to the base
            inside = (abs(down) <= half_h) & (2 * half_h * abs(across) <= half_w * (down + half_h))
        seen = np.where(inside, len(self.kinds), self._seen)
        visible = np.bincount(seen[seen >= 0], minlength=len(self.kinds) + 1)
        if (2 * visible[:-1] >= np.array(self._areas, np.int64)).all():
            self.kinds.append(kind)
            self._seen = seen
            self._areas.append(int(inside.sum()))
