"""Checkpoints: safetensors files that are either whole or not there.

A file holds every tensor that training changes and, in the safetensors metadata, the position of the run:

| key | content |
|---|---|
| `format`, `version` | "dslc-checkpoint", "1" |
| `run` | JSON of `RunState` |
| `data` | JSON of the data set's description: fields, scaling, class names |
| `crc32` | checksum of all of the above and of every tensor's name, type, shape and bytes |

Format of the container: https://github.com/huggingface/safetensors. Names with a slash are not weights (optimizer state, counters).
The file is written under another name in the same folder, synced and renamed over the old one, and the folder is synced, so
that at every moment the old or the new checkpoint is whole on disk.
"""

from __future__ import annotations

import json
import os
import platform
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from dslc.data.description import Array
from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.training.protocol import EpochReport

FORMAT = "dslc-checkpoint"
VERSION = 1
_TYPES = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u1": "U8", "b1": "BOOL"}

# Called with "write" (once a tensor, with part of the file written), "sync", "rename" and "renamed" (the folder not yet synced).
# Tests kill the process there.
StageHook = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands. The order of the data follows from `seed` and `epoch`; `example` of them are done in this epoch.

    Random numbers in the program follow from `seed` and `step`, and so does the phase that is next. `sums` are the metric sums of the
    unfinished epoch over `counted` examples (`counts` of each metric, where that differs), which took `seconds`.
    """

    epoch: int
    example: int
    step: int
    seed: int
    batch: int
    data: str
    source_digest: str
    sums: Mapping[str, float]
    counted: int
    seconds: float
    history: tuple[EpochReport, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> RunState:
        """Reads `to_json`. Raises ValueError for anything else."""
        try:
            raw = json.loads(text)
            history = tuple(EpochReport(**report) for report in raw.pop("history"))
            state = RunState(**raw, history=history)
            whole = all(isinstance(n, int) and n >= 0 for n in (state.epoch, state.example, state.step, state.seed, state.counted))
            sums = {str(k): float(v) for k, v in state.sums.items()}
            whole = whole and state.counts.keys() <= sums.keys() and all(isinstance(n, int) and n >= 0 for n in state.counts.values())
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        if not whole or not isinstance(state.seconds, float | int) or len(sums) != len(state.sums):
            raise ValueError("a position is not a whole number")
        return state


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    tensors: Mapping[str, Array]
    run: RunState
    data: str

    @property
    def weights(self) -> dict[str, Array]:
        """Parameters and block states, without the optimizer's."""
        return {name: array for name, array in self.tensors.items() if "/" not in name}


def save(path: Path, checkpoint: Checkpoint, hook: StageHook | None = None) -> None:
    """Puts the checkpoint at `path`, replacing an older one at once. Error: DL0725 where it cannot be written."""
    at = hook or (lambda stage: None)
    target = path.resolve()  # through a link, so that the link stays
    _remove_leftovers(target)
    temporary = target.with_name(f"{_prefix(target)}{os.getpid()}.tmp")
    try:
        try:
            _write(temporary, checkpoint, at)
            at("rename")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        at("renamed")
        _sync_folder(target.parent)
    except OSError as error:
        raise _refused(
            "DL0725",
            f"cannot write the checkpoint {path}: {error.strerror or error}",
            "give a folder that exists, may be written and has room; the older checkpoint is untouched",
        ) from error


def load(path: Path) -> Checkpoint:
    """Reads and checks a checkpoint. Errors: DL0721 not there, DL0722 damaged, DL0723 another kind of file or a newer version."""
    if not path.is_file():
        raise _refused("DL0721", f"there is no checkpoint {path}", "train without --resume to begin one")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise _refused(
                    "DL0723",
                    f"{path} holds tensors but is no checkpoint of dslc",
                    "weights from elsewhere are read by a `load` statement or by --weights",
                )
            if metadata.get("version") != str(VERSION):
                raise _refused(
                    "DL0723",
                    f"{path} has version {metadata.get('version', '?')[:20]} of the checkpoint format, this dslc reads {VERSION}",
                    "use the dslc that wrote it, or a newer one",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if metadata.get("crc32") != _checksum(tensors, metadata):
        raise _damaged(path, "its checksum does not fit its contents")
    try:
        return Checkpoint(tensors, RunState.from_json(metadata["run"]), metadata["data"])
    except (KeyError, ValueError) as error:
        raise _damaged(path, f"its position cannot be read: {error}") from error


def check_fit(tensors: Mapping[str, Array], expected: Mapping[str, Array], where: str) -> None:
    """Refuses (DL0724) tensors that are not exactly those of a program: same names, types and shapes."""
    missing = sorted(expected.keys() - tensors.keys())
    left_over = sorted(tensors.keys() - expected.keys())
    differing = [
        f"{name} is {_type(tensors[name])} in the file and {_type(expected[name])} in the program"
        for name in sorted(expected.keys() & tensors.keys())
        if _type(tensors[name]) != _type(expected[name])
    ]
    parts = [f"missing: {_some(missing)}"] if missing else []
    parts += [f"left over: {_some(left_over)}"] if left_over else []
    parts += [f"different: {_some(differing)}"] if differing else []
    if parts:
        raise _refused(
            "DL0724",
            f"{where} does not fit this program; {'; '.join(parts)}",
            "it was written for another version of the model or optimizer: train anew, or take its weights with a `load` statement",
        )


def _write(path: Path, checkpoint: Checkpoint, at: StageHook) -> None:
    # The largest elements first keep every tensor aligned; the rest of the order is by name, so that equal states give equal files.
    arrays = sorted(checkpoint.tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    metadata = {"format": FORMAT, "version": str(VERSION), "run": checkpoint.run.to_json(), "data": checkpoint.data}
    metadata["crc32"] = _checksum(checkpoint.tensors, metadata)
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays:
        assert array.dtype.str[1:] in _TYPES, f"{name} is {array.dtype}, which dslc does not have"
        header[name] = {"dtype": _type_name(array), "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb", buffering=0) as file:
        _write_all(file.write, len(text).to_bytes(8, "little") + text)
        for _, array in arrays:
            at("write")
            _write_all(file.write, _bytes(array))
        at("sync")
        os.fsync(file.fileno())


def _write_all(write: Callable[[memoryview], int | None], data: bytes | memoryview) -> None:
    room = memoryview(data)
    while room:
        room = room[write(room) or 0 :]


def _bytes(array: Array) -> memoryview:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _checksum(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    crc = zlib.crc32(f"{metadata.get('run')}\0{metadata.get('data')}".encode())
    for name, array in sorted(tensors.items()):
        crc = zlib.crc32(f"\0{name} {_type(array)}".encode(), crc)
        crc = zlib.crc32(_bytes(array), crc)
    return f"{crc:08x}"


def _type_name(array: Array) -> str:
    return _TYPES.get(array.dtype.str[1:], str(array.dtype))


def _type(array: Array) -> str:
    return f"{_type_name(array).lower()}{list(array.shape)}"


def _prefix(path: Path) -> str:
    host = re.sub(r"[^A-Za-z0-9]", "-", platform.node())
    return f".{path.name}.{host}."


def _remove_leftovers(path: Path) -> None:
    """Deletes what processes of this machine that were killed while they wrote have left behind."""
    prefix = _prefix(path)
    try:
        names = [p.name for p in path.parent.iterdir() if p.name.startswith(prefix) and p.name.endswith(".tmp")]
    except OSError:
        return  # the folder is not there; writing says so
    for name in names:
        pid = name.removeprefix(prefix).removesuffix(".tmp")
        if pid.isdigit() and not _alive(int(pid)):
            path.with_name(name).unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Makes the rename durable; without this a power cut may bring the old name back."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _damaged(path: Path, why: str) -> DiagnosticError:
    return _refused("DL0722", f"{path} is damaged: {why}", "restore it from a copy, or train anew")


def _refused(code: str, message: str, hint: str) -> DiagnosticError:
    return DiagnosticError(Diagnostic(code, message, hint=hint))
