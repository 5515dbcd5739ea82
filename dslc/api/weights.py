"""Weights in files: safetensors, with the description of the data that they were trained on.

A file may be one that `save_weights` wrote, a checkpoint of a training run (the optimizer's tensors, whose names have a slash, are
passed over), an artifact, or one from elsewhere with the right names.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.recipe import AVERAGE
from dslc.runtime.cache import atomic_file
from dslc.runtime.convert import Array, bf16_values

FORMAT = "dslc-weights"
CHECKPOINT = "dslc-checkpoint"
_ARTIFACT = "persistent/"


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Tensors by path; `data` is the JSON of the data's description, if the file has one.

    `ordered` says that they stand in the order of definition, which a file does not keep. `own`: they were written by dslc, so that the
    first part of a name is a model.
    """

    tensors: Mapping[str, Array]
    data: str | None = None
    ordered: bool = False
    own: bool = False

    def of_models(self, models: Collection[str]) -> Mapping[str, Array]:
        """The tensors, without those of other models that were trained along with these."""
        if not self.own or not any(_model(name) in models for name in self.tensors):
            return self.tensors
        return {name: tensor for name, tensor in self.tensors.items() if _model(name) in models}


def _model(path: str) -> str:
    return path.partition(".")[0]


def from_arrays(arrays: Mapping[str, Any]) -> Weights:
    """Arrays by path, in the order of definition if they are a state dict."""
    return Weights({name: np.asarray(a) for name, a in arrays.items()}, ordered=True)


def read_weights(path: Path | str, ema: bool = False) -> Weights:
    """The weights in a file, those of bf16 as f32; with `ema` the averaged ones of a checkpoint. DL0802 where they are not there or it is no safetensors file."""
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
            tensors = {n.removeprefix(_ARTIFACT) if packed else n: _tensor(file, path, n) for n in wanted}
            averages = {n.removeprefix(AVERAGE): _tensor(file, path, n) for n in names if n.startswith(AVERAGE)} if ema else {}
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise _refused("DL0802", f"{path} holds no weights: {str(error)[:200]}", "weights are files in the safetensors format") from error
    if ema and not averages:
        hint = "they are in a checkpoint of a recipe that says `minimize ... with AdamW[1e-3], ema = 0.999`"
        raise _refused("DL0802", f"{path} holds no averaged weights", hint)
    tensors |= averages
    data = metadata.get("data")
    if packed:
        signature = _json(metadata["dslc"]).get("signature")
        data = signature.get("data") if isinstance(signature, dict) else None
    own = metadata.get("format") in (FORMAT, CHECKPOINT)
    return Weights(tensors, data if isinstance(data, str) else None, own=own)


def _tensor(file: Any, path: Path, name: str) -> Array:
    """A tensor; bf16, which NumPy lacks, is read by its place in the file, which safetensors has checked."""
    if file.get_slice(name).get_dtype() != "BF16":
        tensor: Array = file.get_tensor(name)
        return tensor
    with path.open("rb") as raw:
        size = int.from_bytes(raw.read(8), "little")
        entry = json.loads(raw.read(size))[name]
        begin, end = entry["data_offsets"]
        raw.seek(8 + size + begin)
        return bf16_values(np.frombuffer(raw.read(end - begin), "<u2")).reshape(entry["shape"])


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


def _refused(code: str, message: str, hint: str) -> DiagnosticError:
    return DiagnosticError(Diagnostic(code, message, hint=hint))
