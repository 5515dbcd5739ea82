"""Pictures from files: PNG and JPEG through Pillow, in the size and channels that a field declares.

`dslc train` and `dslc run` read pictures here, so a photo reaches a network as its training pictures did. Orientation tags are not
applied, transparency is dropped, 16-bit grey keeps its upper 8 bits. Whatever Pillow makes of a hostile file is a diagnostic that
names it (DL0711), and a picture's size is checked in its header, before memory is taken for its pixels.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from dslc.data.dataset import Column
from dslc.data.description import Array, refuse
from dslc.data.places import machine_memory

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

ENDINGS = (".png", ".jpg", ".jpeg")
MOST_PIXELS = 1 << 26
_FORMATS = ("PNG", "JPEG")
T = TypeVar("T")
_BLOCK = 32  # examples that a worker reads at a time


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a picture becomes: 1 or 3 channels, and how another size is fitted (see `FieldDescription`)."""

    channels: int
    height: int
    width: int
    fit: str = "stretch"

    @property
    def size(self) -> int:
        """Bytes of its pixels."""
        return self.channels * self.height * self.width


def geometry(shape: Sequence[int], fit: str = "stretch") -> Geometry | None:
    """What an example of this shape holds: [1 or 3, H, W], [H, W], or flat grey squares; None for what is no picture."""
    if len(shape) == 3 and shape[0] in (1, 3):
        return Geometry(shape[0], shape[1], shape[2], fit)
    if len(shape) == 2:
        return Geometry(1, shape[0], shape[1], fit)
    side = round(shape[0] ** 0.5) if len(shape) == 1 else 0
    if len(shape) == 1 and side * side == shape[0]:
        return Geometry(1, side, side, fit)
    return None


def read_picture(path: Path, wanted: Geometry) -> NDArray[np.uint8]:
    """The pixels `[channels, height, width]`. Error: DL0711."""

    def pixels(picture: Picture) -> NDArray[np.uint8]:
        if picture.mode.startswith("I"):  # Pillow would saturate 16 bits, not scale them
            picture = _grey8(picture)
        flat = np.asarray(_fitted(picture.convert("RGB" if wanted.channels == 3 else "L"), wanted), np.uint8)
        return np.ascontiguousarray(flat.transpose(2, 0, 1)) if wanted.channels == 3 else flat[None]

    return _read(path, pixels)


def read_mask(path: Path, wanted: Geometry) -> NDArray[np.uint8]:
    """The class of every pixel `[1, height, width]`: a palette's indices or grey values, never blended. Error: DL0711."""

    def classes(picture: Picture) -> NDArray[np.uint8]:
        from PIL import Image

        stored = np.asarray(picture)
        if stored.ndim == 3 and (stored[..., :1] == stored[..., :3]).all():
            stored = stored[..., 0]
        if stored.ndim != 2 or (stored.size and int(stored.max()) > 255):
            raise ValueError("a mask has one class from 0 to 255 a pixel: grey values or the indices of a palette")
        return np.asarray(_fitted(Image.fromarray(stored.astype(np.uint8)), wanted, smooth=False))[None]

    return _read(path, classes, formats=("PNG",))


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header. Error: DL0711."""
    return _read(path, lambda picture: picture.size)


def _read(path: Path, use: Callable[[Picture], T], formats: tuple[str, ...] = _FORMATS) -> T:
    from PIL import Image, UnidentifiedImageError

    try:
        with path.open("rb") as file, Image.open(file, formats=formats) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"it announces {width} x {height} pixels; at most {MOST_PIXELS:,} are read")
            return use(picture)
    except Exception as error:  # decoders of hostile files raise whatever their arithmetic comes to
        what = "it is not a whole PNG or JPEG file" if isinstance(error, UnidentifiedImageError) else f"{error or type(error).__name__}"
        raise refuse("DL0711", f"{path} cannot be read as a picture: {what}", "replace the file, or remove it from the data") from error


def _grey8(picture: Picture) -> Picture:
    from PIL import Image

    return Image.fromarray((np.clip(np.asarray(picture).astype(np.int64), 0, 65535) >> 8).astype(np.uint8))


def _fitted(picture: Picture, wanted: Geometry, smooth: bool = True) -> Picture:
    from PIL import Image

    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    (have_w, have_h), (w, h) = picture.size, (wanted.width, wanted.height)
    if (have_w, have_h) == (w, h):
        return picture
    if wanted.fit == "crop":
        scale = min(have_w / w, have_h / h)
        cut_w, cut_h = min(scale * w, have_w), min(scale * h, have_h)
        left, top = (have_w - cut_w) / 2, (have_h - cut_h) / 2
        return picture.resize((w, h), how, box=(left, top, left + cut_w, top + cut_h))
    if wanted.fit == "pad":
        scale = min(w / have_w, h / have_h)
        small = picture.resize((max(1, min(w, round(have_w * scale))), max(1, min(h, round(have_h * scale)))), how)
        canvas = Image.new(picture.mode, (w, h))
        canvas.paste(small, ((w - small.width) // 2, (h - small.height) // 2))
        return canvas
    return picture.resize((w, h), how)


# --- many of them --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pictures:
    """A column of pictures, or of masks, that are read when they are needed."""

    paths: tuple[Path, ...]
    geometry: Geometry
    masks: bool = False

    costly = True
    held = ()

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def size(self) -> int:
        return self.geometry.size

    def read(self, indices: NDArray[np.intp], out: Array) -> None:
        one = read_mask if self.masks else read_picture
        for row, index in enumerate(indices):
            out[row] = one(self.paths[index], self.geometry).reshape(-1)

    def pick(self, indices: NDArray[np.intp]) -> Pictures:
        return replace(self, paths=tuple(self.paths[i] for i in indices))

    def checksum(self, start: int) -> int:
        return names_and_sizes(self.paths, zlib.crc32(repr(self.geometry).encode(), start))


def names_and_sizes(paths: Sequence[Path], start: int) -> int:
    """A CRC-32 over the last two parts of every path and the file's size."""
    for path in paths:
        start = zlib.crc32(f"{path.parent.name}/{path.name} {path.stat().st_size}".encode(), start)
    return start


def held(column: Column, size: int, shape: Sequence[int]) -> Array | Column:
    """The examples of a column in memory, `[n, *shape]`, where they take at most a quarter of it; else the column.

    `size` is an example's number of elements. Files are read on all processors: decoders run without Python's lock.
    """
    from concurrent.futures import ThreadPoolExecutor  # here: a start without pictures does not pay for it

    count = len(column)
    if count * size * column.dtype.itemsize > machine_memory() // 4:
        return column
    flat = np.empty((count, size), column.dtype)

    def block(first: int) -> None:
        rows = np.arange(first, min(first + _BLOCK, count))
        column.read(rows, flat[first : first + len(rows)])

    workers = ThreadPoolExecutor(min(os.cpu_count() or 1, 16), thread_name_prefix="dslc-load")
    try:
        for _ in workers.map(block, range(0, count, _BLOCK)):
            pass  # an error of the first damaged file is raised here
    finally:
        workers.shutdown(cancel_futures=True)
    return flat.reshape(count, *shape)
