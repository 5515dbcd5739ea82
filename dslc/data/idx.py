"""MNIST and Fashion-MNIST as published: four IDX files, plain or compressed with gzip.

Format: http://yann.lecun.com/exdb/mnist: two zero bytes, the element type (8 is u8), the rank, the sizes as big-endian 32-bit
integers, then the elements. Every size is checked against the file before memory is taken for it.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from dslc.data.description import Array, refuse
from dslc.data.places import check_memory

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # where `apt install dataset-fashion-mnist` puts it
FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DIGIT_CLASSES = tuple("0123456789")
FASHION_ATTRIBUTION = "Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, 2017, arXiv:1708.07747, MIT licence"
MNIST_ATTRIBUTION = "The MNIST database of handwritten digits, Y. LeCun, C. Cortes and C. Burges, 1998"

_TRAIN = {"image": "train-images-idx3-ubyte", "label": "train-labels-idx1-ubyte"}
_TEST = {"image": "t10k-images-idx3-ubyte", "label": "t10k-labels-idx1-ubyte"}
_DEFLATE_LIMIT = 1032  # deflate cannot make a byte of input into more bytes than this
_CHUNK = 1 << 18


def load(name: str, folders: Sequence[Path], roles: frozenset[str]) -> tuple[Mapping[str, Array], Mapping[str, Array] | None]:
    """The training and test examples of "mnist" or "fashion-mnist": `image` u8[n, 28, 28], `label` u8[n].

    Looks in each folder and in its subfolder `name`; then, for Fashion-MNIST, where Debian puts it. Only what `roles` names is read.
    """
    places = [p for f in folders for p in (f, f / name)]
    if name == "fashion-mnist":
        places.append(DEBIAN_FASHION)
    place = next((p for p in places if _file(p, _TRAIN["image"])), None)
    if place is None:
        looked = ", ".join(str(p) for p in places) or "no folder, as none was given"
        how = "give the folder that holds train-images-idx3-ubyte.gz and its three companions with --data FOLDER"
        if name == "fashion-mnist":
            how = f"`apt install dataset-fashion-mnist` installs it, or {how}"
        raise refuse("DL0702", f"the data set '{name}' is not on this machine (looked in {looked})", how)
    return _part(place, _TRAIN, roles), _part(place, _TEST, roles) if _file(place, _TEST["image"]) else None


def _part(place: Path, stems: Mapping[str, str], roles: frozenset[str]) -> Mapping[str, Array]:
    arrays: dict[str, Array] = {}
    for role in sorted(roles):
        stem = stems[role]
        path = _file(place, stem)
        if path is None:
            raise refuse("DL0702", f"{place} has no {stem} or {stem}.gz", "the four files of the data set belong in one folder")
        arrays[role] = read(path, rank=3 if role == "image" else 1)
    return arrays


def _file(folder: Path, stem: str) -> Path | None:
    return next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None)


def read(path: Path, rank: int) -> NDArray[np.uint8]:
    """The array of one IDX file of bytes. Refuses whatever is not whole: headers, sizes, truncation, trailing bytes, checksums."""
    try:
        size = path.stat().st_size
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                return _elements(cast(BinaryIO, packed), path, rank, size * _DEFLATE_LIMIT)
        with path.open("rb") as plain:
            return _elements(plain, path, rank, size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _broken(path, f"is damaged or cut off ({error})") from error
    except OSError as error:
        raise refuse("DL0702", f"cannot read {path}: {error.strerror or error}", "check the file's permissions") from error


def _elements(file: BinaryIO, path: Path, rank: int, most: int) -> NDArray[np.uint8]:
    header = file.read(4 + 4 * rank)
    if header[:4] != bytes((0, 0, 8, rank)):
        raise _broken(path, f"is no IDX file of bytes with {rank} axes: it begins with {header[:4].hex(' ') or 'nothing'}")
    if len(header) < 4 + 4 * rank:
        raise _broken(path, "ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(header, dtype=">u4", offset=4))
    total = 1
    for extent in shape:
        total *= extent
    if total == 0:
        raise _broken(path, f"announces the shape {list(shape)}: no examples")
    if total > most:
        raise _broken(path, f"announces {total:,} elements, more than a file of its size can hold")
    check_memory(total, str(path))
    elements = np.empty(total, dtype=np.uint8)
    room = elements.data
    done = 0
    while done < total:  # in pieces: a whole read would hold the data twice
        piece = file.read(min(_CHUNK, total - done))
        if not piece:
            raise _broken(path, f"ends after {done:,} of {total:,} elements")
        room[done : done + len(piece)] = piece
        done += len(piece)
    if file.read(1):  # for gzip this also reads and checks the checksum at the end
        raise _broken(path, f"goes on after its {total:,} elements")
    return elements.reshape(shape)


def _broken(path: Path, what: str) -> Exception:
    return refuse("DL0703", f"{path} {what}", "fetch the file again")
