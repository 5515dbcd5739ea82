"""`npz:f.npz`: arrays of the user's own, by the names of the recipe's fields, unscaled."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dslc.data.description import Array, Field, refuse
from dslc.data.places import check_memory

_PARSING = (SyntaxError, tokenize.TokenError, struct.error)  # what NumPy lets through from a damaged array header


def read_npz(path: Path, fields: Sequence[Field]) -> tuple[Mapping[str, Array], Mapping[str, Array] | None]:
    """The training and test arrays: `image`, or `train_image` and `test_image` where the file has both parts. Never unpickles."""
    try:
        with path.open("rb") as raw:
            if not zipfile.is_zipfile(raw):
                raise refuse("DL0703", f"{path} is no .npz file", "write one with numpy.savez(path, image=..., label=...)")
            with zipfile.ZipFile(raw) as archive:
                sizes = {m.filename.removesuffix(".npy"): m.file_size for m in archive.infolist()}
            wanted = {p + f.name for f in fields for p in ("", "train_", "test_")}
            check_memory(sum(size for name, size in sizes.items() if name in wanted), str(path))
            raw.seek(0)
            file: np.lib.npyio.NpzFile = np.load(raw, allow_pickle=False)
            names = set(file.files)
            train = {f.name: _member(file, path, names, f.name, ("train_", "")) for f in fields}
            prefixed = any(f"test_{f.name}" in names for f in fields)
            test = {f.name: _member(file, path, names, f.name, ("test_",)) for f in fields} if prefixed else None
            return train, test
    except FileNotFoundError as error:
        raise refuse("DL0702", f"there is no file {path}") from error
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError, *_PARSING) as error:
        raise refuse(
            "DL0703", f"cannot read {path}: {error}", "write it with numpy.savez; arrays of Python objects are not read"
        ) from error


def _member(file: np.lib.npyio.NpzFile, path: Path, names: set[str], field: str, prefixes: Sequence[str]) -> Array:
    for prefix in prefixes:
        if prefix + field in names:
            array: Array = file[prefix + field]
            return array
    wanted = " or ".join(f"'{p}{field}'" for p in reversed(prefixes))
    has = ", ".join(f"'{n}'" for n in sorted(names)[:8])
    raise refuse("DL0706", f"{path} has no array {wanted}", f"it has {has or 'none'}; arrays are found by the names of the recipe's fields")
