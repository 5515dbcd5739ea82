"""Artifacts: compiled programs as one file (`.dlc`), and what may be run of it.

A file is in the safetensors format: weights as `persistent/NAME`, constants as `constant/NAME`, object code, where it was asked for, as
bytes under `object/KEY`; the manifest is JSON text in the file's metadata. Reading one never runs anything.

A plan says where kernels write, so it is trusted like object code: `executable_parts` uses a plan that this user's cache knows by its
digest (it was compiled here, or trusted once) with objects from the same cache, or, with `trust=True`, what the file itself holds.
Otherwise the graph in the file is compiled again, which is always safe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from dslc.ir import plan_text
from dslc.ir.plan import ExecutablePlan, PlanError
from dslc.runtime import loader
from dslc.runtime.cache import Cache, atomic_file
from dslc.runtime.convert import DTYPES, Array, refuse

FORMAT_VERSION = 1
MAX_MANIFEST = 16 << 20
MAX_TENSORS = 100_000
MAX_NAME = 512
_PERSISTENT, _CONSTANT, _OBJECT = "persistent/", "constant/", "object/"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a `.dlc` file holds, but for weights and object code. `signature`, `data` and `notes` are JSON of upper layers.

    `plan` is canonical JSON text (`dslc.ir.plan_text.dumps`); `graph` the module's text form; `source` the digest of sources and options.
    """

    plan: str
    graph: str = ""
    source: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    signature: Any = None
    data: Any = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Names the plan, its constants included: they are what a kernel's addresses and index tables come from."""
        parts = [self.plan.encode()]
        for name in sorted(self.constants):
            array = self.constants[name]
            parts += [name.encode(), str(array.dtype).encode(), str(array.shape).encode(), array.tobytes()]
        return hashlib.sha256(b"\0".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()

    def executable_plan(self) -> ExecutablePlan:
        """The plan as data, validated; DL0663 where it is none."""
        try:
            return plan_text.loads(self.plan)
        except PlanError as error:
            raise refuse("DL0663", f"the artifact's plan is damaged: {error}") from error


# ------------------------------------------------------------------------------------------------------------- files


def save(path: Path | str, artifact: Artifact, weights: Mapping[str, Array], objects: Mapping[str, bytes] | None = None) -> None:
    """Write a `.dlc` file atomically. `objects` puts the code in, for readers who trust it."""
    tensors = {_PERSISTENT + name: np.ascontiguousarray(array) for name, array in weights.items()}
    tensors |= {_CONSTANT + name: np.ascontiguousarray(array) for name, array in artifact.constants.items()}
    tensors |= {_OBJECT + key: np.frombuffer(code, np.uint8) for key, code in (objects or {}).items()}
    try:
        with atomic_file(Path(path)) as temporary:
            safetensors.numpy.save_file(tensors, temporary, metadata={"dslc": _manifest(artifact)})
    except OSError as error:
        raise refuse("DL0665", f"{path} cannot be written: {error.strerror or error}") from error


def load(path: Path | str) -> Artifact:
    """Read a file's manifest and constants; DL0663 for what is no artifact, DL0664 for one of a later format."""
    with _opened(path) as file:
        manifest = (file.metadata() or {}).get("dslc")
        if manifest is None:
            raise refuse("DL0663", f"{path} is no artifact: it has no manifest", "make one with `dslc compile` or `Program.save`")
        names = _names(file, path)
        return _read_manifest(
            manifest, str(path), {n.removeprefix(_CONSTANT): file.get_tensor(n) for n in names if n.startswith(_CONSTANT)}
        )


def weights(path: Path | str) -> Iterator[tuple[str, Array]]:
    """The persistent buffers in a file, one at a time."""
    with _opened(path) as file:
        for name in _names(file, path):
            if name.startswith(_PERSISTENT):
                yield name.removeprefix(_PERSISTENT), file.get_tensor(name)


def embedded_objects(path: Path | str) -> dict[str, bytes]:
    """The object code in a file, by key: only for those who trust it."""
    with _opened(path) as file:
        return {n.removeprefix(_OBJECT): file.get_tensor(n).tobytes() for n in _names(file, path) if n.startswith(_OBJECT)}


def _opened(path: Path | str) -> Any:
    path = Path(path)
    try:
        if not path.is_file():
            raise refuse("DL0663", f"there is no file {path}")
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
        if size > MAX_MANIFEST:
            raise refuse("DL0663", f"{path} is no artifact: its header says {size:,} bytes, at most {MAX_MANIFEST:,} are read")
        return safe_open(path, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise refuse("DL0663", f"{path} is no artifact: {str(error)[:200]}") from error


def _names(file: Any, path: Path | str) -> list[str]:
    names = list(file.keys())
    if len(names) > MAX_TENSORS or any(len(n) > MAX_NAME for n in names):
        raise refuse("DL0663", f"{path} is no artifact: it has too many tensors, or names that are too long")
    return names


def _manifest(artifact: Artifact) -> str:
    return json.dumps(
        {
            "format": FORMAT_VERSION,
            "plan": artifact.plan,
            "graph": artifact.graph,
            "source": artifact.source,
            "versions": dict(artifact.versions),
            "signature": artifact.signature,
            "data": artifact.data,
            "notes": dict(artifact.notes),
        },
        sort_keys=True,
    )


def _read_manifest(text: str, where: str, constants: Mapping[str, Array]) -> Artifact:
    try:
        manifest = json.loads(text)
        version = manifest["format"]
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise refuse("DL0664", f"{where} has the format {version!r}, this version of dslc reads {FORMAT_VERSION}", "update dslc")
        artifact = Artifact(
            plan=manifest["plan"],
            graph=manifest["graph"],
            source=manifest["source"],
            versions=dict(manifest["versions"]),
            signature=manifest["signature"],
            data=manifest["data"],
            notes=dict(manifest["notes"]),
            constants=constants,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise refuse("DL0663", f"{where} is no artifact: {type(error).__name__} in its manifest") from error
    if not all(isinstance(t, str) for t in (artifact.plan, artifact.graph, artifact.source)):
        raise refuse("DL0663", f"{where} is no artifact: its plan is not text")
    return artifact


# ------------------------------------------------------------------------------------------------------------- trust


def approve(cache: Cache, artifact: Artifact, objects: Mapping[str, bytes]) -> None:
    """Remember that this plan and these objects were made here (or are trusted): later loads take them from the cache."""
    for key, code in objects.items():
        if cache.get("object", key) is None:
            cache.put("object", key, code)
    cache.put("plan", artifact.digest, artifact.plan.encode())


def executable_parts(artifact: Artifact, path: Path | str, cache: Cache | None, trust: bool = False) -> dict[str, bytes] | None:
    """The object code to run an artifact with, or None: then its graph has to be compiled.

    Without `trust`, nothing in the file decides what runs: plan and objects must both be known to this user's cache, and fit this CPU.
    """
    plan = artifact.executable_plan()
    if loader.missing_features(plan.features):
        return None
    known = cache is not None and cache.get("plan", artifact.digest) == artifact.plan.encode()
    if not known and not trust:
        return None
    embedded = embedded_objects(path) if trust else {}
    objects: dict[str, bytes] = {}
    for key in plan.object_keys:
        code = (cache.get("object", key) if cache is not None and known else None) or embedded.get(key)
        if code is None:
            return None
        objects[key] = code
    return objects


# ------------------------------------------------------------------------------------------- found without compiling


def remember(cache: Cache, key: str, artifact: Artifact, objects: Mapping[str, bytes]) -> None:
    """Store a compiled program under `key`, the digest of the source files and options: `recall` finds it without parsing anything."""
    approve(cache, artifact, objects)
    tensors = {_CONSTANT + name: np.ascontiguousarray(array) for name, array in artifact.constants.items()}
    cache.put("program", key, safetensors.numpy.save(tensors, metadata={"dslc": _manifest(artifact)}))


def recall(cache: Cache, key: str) -> tuple[Artifact, dict[str, bytes]] | None:
    """What `remember` stored, with its objects; None where anything is absent or this CPU cannot run it."""
    stored = cache.get("program", key)
    if stored is None:
        return None
    size = int.from_bytes(stored[:8], "little")
    manifest = json.loads(stored[8 : 8 + size])["__metadata__"]["dslc"]  # the cache has checked that it is what was stored
    constants = {name.removeprefix(_CONSTANT): array for name, array in safetensors.numpy.load(stored).items()}
    artifact = _read_manifest(manifest, "the cache", constants)
    plan = artifact.executable_plan()
    objects = {k: code for k in plan.object_keys if (code := cache.get("object", k)) is not None}
    if len(objects) < len(plan.object_keys) or loader.missing_features(plan.features):
        return None
    return artifact, objects


def check_weights(plan: ExecutablePlan, given: Mapping[str, Array]) -> None:
    """Every persistent buffer but the packed ones has a value of the right type and shape; DL0659 lists what does not fit."""
    wanted = {p.name: p for p in plan.persistent if p.role != "packed"}
    wrong = [f"`{n}` is missing" for n in wanted if n not in given]
    wrong += [f"`{n}` is not used" for n in given if n not in wanted]
    for name, p in wanted.items():
        if name in given and (given[name].shape != p.shape or given[name].dtype != DTYPES[p.dtype]):
            wrong.append(f"`{name}` is {given[name].dtype}{list(given[name].shape)}, not {p.dtype}{list(p.shape)}")
    if wrong:
        raise refuse(
            "DL0659", "the weights do not fit: " + "; ".join(wrong[:10]) + (f"; and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        )
