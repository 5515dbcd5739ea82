"""CIFAR-10 as published: the binary version (`data_batch_N.bin`), or the Python version, which is read without unpickling.

Format: https://www.cs.toronto.edu/~kriz/cifar.html. Binary: 3,073 bytes an image, its label and 32 x 32 pixels in planes of red,
green and blue. Python: a dictionary of `data` u8[n, 3072] and `labels`. Either five batches of training images, and one of test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dslc.data.description import Array, refuse
from dslc.data.pickles import read_pickle
from dslc.data.places import check_memory

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ATTRIBUTION = "CIFAR-10, A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
SIDE = 32

_PIXELS = 3 * SIDE * SIDE
_BATCHES = 5
_MOST_BYTES = 1 << 28  # of one file; the published ones have 31 MB
_PLACES = ("", "cifar10", "cifar-10-batches-bin", "cifar-10-batches-py")


def load(folders: Sequence[Path]) -> tuple[Mapping[str, Array], Mapping[str, Array] | None]:
    """The training and test examples: `image` u8[n, 3, 32, 32], `label` u8[n]. Errors: DL0702, DL0703.

    Looks in each folder and in its subfolders `cifar10`, `cifar-10-batches-bin` and `cifar-10-batches-py`.
    """
    places = [f / p for f in folders for p in _PLACES]
    for ending in (".bin", ""):
        place = next((p for p in places if (p / f"data_batch_1{ending}").is_file()), None)
        if place is not None:
            break
    else:
        looked = ", ".join(str(f) for f in folders) or "no folder, as none was given"
        raise refuse(
            "DL0702",
            f"the data set 'cifar10' is not on this machine (looked in {looked})",
            "give the folder that holds data_batch_1.bin and its companions with --data FOLDER",
        )
    names = [f"data_batch_{i + 1}{ending}" for i in range(_BATCHES)]
    missing = next((n for n in names if not (place / n).is_file()), None)
    if missing is not None:
        raise refuse("DL0702", f"{place} has no {missing}", "the six files of the data set belong in one folder")
    train = [read(place / n) for n in names]
    test = place / f"test_batch{ending}"
    joined = {key: np.concatenate([part[key] for part in train]) for key in ("image", "label")}
    return joined, read(test) if test.is_file() else None


def read(path: Path) -> dict[str, NDArray[np.uint8]]:
    """One batch. Error: DL0703 for whatever is not whole."""
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise _broken(path, f"has {size:,} bytes, more than a batch of CIFAR-10")
        check_memory(2 * size, str(path))
        data = path.read_bytes()
    except OSError as error:
        raise refuse("DL0702", f"cannot read {path}: {error.strerror or error}", "check the file's permissions") from error
    images, labels = _binary(path, data) if path.suffix == ".bin" else _python(path, data)
    if labels.size and labels.max() >= len(CLASSES):
        raise _broken(path, f"has the label {labels.max()}; the labels of CIFAR-10 go up to {len(CLASSES) - 1}")
    return {"image": images.reshape(-1, 3, SIDE, SIDE), "label": labels}


def _binary(path: Path, data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if not data or len(data) % (_PIXELS + 1):
        raise _broken(path, f"has {len(data):,} bytes, which is no number of images of {_PIXELS + 1:,} bytes each")
    rows = np.frombuffer(data, np.uint8).reshape(-1, _PIXELS + 1)
    return rows[:, 1:], rows[:, 0]


def _python(path: Path, data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    try:
        raw = read_pickle(data)
    except ValueError as error:
        raise _broken(path, f"is no batch of CIFAR-10: {error}") from error
    parts = {k.decode("latin-1") if isinstance(k, bytes) else k: v for k, v in raw.items()} if isinstance(raw, dict) else {}
    images, labels = parts.get("data"), parts.get("labels")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != _PIXELS or not len(images):
        raise _broken(path, f"has no 'data' of bytes [n, {_PIXELS}]")
    if not isinstance(labels, list) or len(labels) != len(images) or not all(isinstance(n, int) and 0 <= n < 256 for n in labels):
        raise _broken(path, "has no 'labels', one for each image")
    return images, np.array(labels, np.uint8)


def _broken(path: Path, what: str) -> Exception:
    return refuse("DL0703", f"{path} {what}", "fetch the file again")
