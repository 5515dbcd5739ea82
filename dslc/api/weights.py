"""Weights in files: safetensors, with the description of the data that they were trained on.

A file may be one that `save_weights` wrote, a checkpoint of a training run (the optimizer's tensors, whose names have a slash, are
passed over), an artifact, or one from elsewhere with the right names.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.runtime.cache import atomic_file
from dslc.runtime.convert import Array

FORMAT = "dslc-weights"
_ARTIFACT = "persistent/"
_SHOWN = 12


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Tensors by path; `data` is the JSON of the data's description, if the file has one."""

    tensors: Mapping[str, Array]
    data: str | None = None


def read_weights(path: Path | str) -> Weights:
    """The weights in a file. DL0802 where it is not there or no safetensors file."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise _refused("DL0802", f"there is no file {path}", "train first, or leave the weights out to run with initial values")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            names = list(file.keys())
            packed = "dslc" in metadata  # an artifact
            wanted = [n for n in names if n.startswith(_ARTIFACT)] if packed else [n for n in names if "/" not in n]
            tensors = {n.removeprefix(_ARTIFACT) if packed else n: file.get_tensor(n) for n in wanted}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise _refused("DL0802", f"{path} holds no weights: {str(error)[:200]}", "weights are files in the safetensors format") from error
    data = metadata.get("data")
    if packed:
        signature = _json(metadata["dslc"]).get("signature")
        data = signature.get("data") if isinstance(signature, dict) else None
    return Weights(tensors, data if isinstance(data, str) else None)


def _json(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_weights(path: Path | str, tensors: Mapping[str, Array], data: str | None) -> None:
    """A safetensors file, written under another name and renamed. DL0803 where it cannot be."""
    from safetensors.numpy import save_file

    metadata = {"format": FORMAT, "version": "1"} | ({"data": data} if data else {})
    try:
        with atomic_file(Path(path)) as temporary:
            save_file({name: np.ascontiguousarray(a) for name, a in tensors.items()}, temporary, metadata=metadata)
    except OSError as error:
        raise _refused(
            "DL0803", f"{path} cannot be written: {error.strerror or error}", "give a folder that exists and may be written"
        ) from error


def check_fit(given: Mapping[str, Array], wanted: Mapping[str, tuple[str, tuple[int, ...]]], where: str) -> None:
    """Refuses (DL0804) weights that are not exactly those that the program has; lists what is missing, left over or of another shape.

    `wanted` maps paths to dtype and shape.
    """
    missing = [n for n in wanted if n not in given]
    left_over = [n for n in given if n not in wanted]
    other = [
        f"`{n}` is {list(given[n].shape)} there and {list(shape)} here"
        for n, (_, shape) in wanted.items()
        if n in given and tuple(given[n].shape) != shape
    ]
    if not (missing or left_over or other):
        return
    parts = [f"missing: {_listed(f'`{n}`' for n in missing)}"] if missing else []
    parts += [f"left over: {_listed(f'`{n}`' for n in left_over)}"] if left_over else []
    parts += [f"of another shape: {_listed(other)}"] if other else []
    raise _refused("DL0804", f"{where} do not fit: {'; '.join(parts)}", _advice(missing, left_over))


def _advice(missing: list[str], left_over: list[str]) -> str:
    if missing and left_over:
        mine, theirs = missing[0].split(".")[0], left_over[0].split(".")[0]
        if mine != theirs:
            return f"these are weights of `{theirs}`, the program has `{mine}`"
        near = difflib.get_close_matches(missing[0], left_over, 1, 0.5)
        if near:
            return f"is `{near[0]}` the former name of `{missing[0]}`?"
    return "they were saved from another version of the model"


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def _refused(code: str, message: str, hint: str) -> DiagnosticError:
    return DiagnosticError(Diagnostic(code, message, hint=hint))
