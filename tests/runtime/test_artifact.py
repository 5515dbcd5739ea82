"""Artifacts come back as they were written; hostile files are refused and never decide what runs."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import safetensors.numpy
from programs import constants, objects, plan

from dslc.diagnostics import DiagnosticError
from dslc.ir.plan_text import dumps
from dslc.runtime import artifact as artifacts
from dslc.runtime.artifact import (
    Artifact,
    approve,
    check_weights,
    embedded_objects,
    executable_parts,
    load,
    recall,
    remember,
    save,
    weights,
)
from dslc.runtime.cache import Cache
from dslc.runtime.executable import Executable

SOURCE = "ab" * 32
WEIGHTS = {"w": np.arange(1, 5, dtype=np.float32)}


def made(**changes: Any) -> Artifact:
    fields: dict[str, Any] = {
        "plan": dumps(plan()),
        "graph": "graph main { }",
        "source": SOURCE,
        "versions": {"dslc": "0.1.0"},
        "signature": {"inputs": ["x"]},
        "data": {"classes": ["a", "b"]},
        "notes": {"parameters": 4},
        "constants": constants(),
    }
    return Artifact(**(fields | changes))


def same(one: Artifact, other: Artifact) -> bool:
    plain = replace(one, constants={}) == replace(other, constants={})
    return plain and one.digest == other.digest and all(np.array_equal(one.constants[k], other.constants[k]) for k in one.constants)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "net.dlc"
    save(file, made(), WEIGHTS)
    return file


def refused(code: str, part: str = "") -> Any:
    return pytest.raises(DiagnosticError, match=rf"(?s)\[{code}\].*{part}")


def test_round_trip(path: Path) -> None:
    read = load(path)
    assert same(read, made())
    assert read.executable_plan() == plan()
    [(name, array)] = list(weights(path))
    assert name == "w"
    assert np.array_equal(array, WEIGHTS["w"])
    assert embedded_objects(path) == {}
    assert [p.name for p in path.parent.iterdir() if p.suffix == ".dlc"] == ["net.dlc"]


def test_weights_are_plain_safetensors(path: Path) -> None:
    assert set(safetensors.numpy.load_file(path)) == {"persistent/w", "constant/c"}


def test_code_runs_from_the_users_cache(path: Path, cache: Cache) -> None:
    assert executable_parts(load(path), path, cache) is None, "nothing is known of this plan yet"
    approve(cache, made(), objects())
    parts = executable_parts(load(path), path, cache)
    assert parts == objects()
    run = Executable(load(path).executable_plan(), parts, load(path).constants)
    for name, array in weights(path):
        run.set(name, array)
    assert np.array_equal(run.call("step", {})["w"], WEIGHTS["w"] + 1)


def test_foreign_code_needs_trust(tmp_path: Path, cache: Cache) -> None:
    file = tmp_path / "foreign.dlc"
    save(file, made(), WEIGHTS, objects())
    assert executable_parts(load(file), file, cache) is None
    assert executable_parts(load(file), file, None) is None
    assert executable_parts(load(file), file, cache, trust=True) == objects()
    assert executable_parts(load(file), file, None, trust=True) == objects()
    assert executable_parts(load(file), file, cache) is None, "trusting once does not put code into the cache"


def test_known_objects_with_another_plan_are_not_run(tmp_path: Path, cache: Cache) -> None:
    """Object code from the cache with a forged plan would write wherever the plan says."""
    approve(cache, made(), objects())
    forward = programs.forward()
    forged = replace(plan(), programs=(replace(forward, batch_bound=10**6),))
    for artifact in (made(plan=dumps(forged)), made(constants={"c": np.zeros(3, np.float32)})):
        file = tmp_path / "forged.dlc"
        save(file, artifact, WEIGHTS)
        assert executable_parts(load(file), file, cache) is None


def test_lost_objects_mean_compiling_again(path: Path, cache: Cache) -> None:
    approve(cache, made(), objects())
    cache.remove("object", programs.objects_key("copy"))
    assert executable_parts(load(path), path, cache) is None


def test_another_cpu_means_compiling_again(tmp_path: Path, cache: Cache) -> None:
    file, other = tmp_path / "other.dlc", made(plan=dumps(plan(features=("+quantum",))))
    save(file, other, WEIGHTS, objects())
    approve(cache, other, objects())
    assert executable_parts(load(file), file, cache, trust=True) is None
    remember(cache, SOURCE, other, objects())
    assert recall(cache, SOURCE) is None


def test_found_by_source_digest(cache: Cache) -> None:
    assert recall(cache, SOURCE) is None
    remember(cache, SOURCE, made(), objects())
    found = recall(cache, SOURCE)
    assert found is not None
    assert same(found[0], made())
    assert found[1] == objects()
    assert recall(cache, "cd" * 32) is None
    cache.remove("object", programs.objects_key("copy"))
    assert recall(cache, SOURCE) is None


def test_no_constants_is_fine(tmp_path: Path, cache: Cache) -> None:
    bare = made(constants={}, plan=dumps(replace(plan(), constants=(), programs=(programs.forward(),))))
    save(tmp_path / "bare.dlc", bare, {})
    assert same(load(tmp_path / "bare.dlc"), bare)
    remember(cache, SOURCE, bare, objects())
    found = recall(cache, SOURCE)
    assert found is not None
    assert same(found[0], bare)


# ------------------------------------------------------------------------------------------------------------ hostile


def container(manifest: object, tensors: dict[str, np.ndarray] | None = None) -> bytes:
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    return bytes(safetensors.numpy.save(tensors or {"constant/c": np.zeros(1, np.float32)}, metadata={"dslc": text}))


def header(size: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", size) + text


GOOD = {"format": 1, "plan": "", "graph": "", "source": "", "versions": {}, "signature": None, "data": None, "notes": {}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04" + bytes(100),
        b"\x80\x04cos\nsystem\n",
        header(2),
        header(2**63, b"{}"),
        header(2**40, b"{}"),
        header(17 << 20, b"{}" + b" " * 1000),
        header(30, b'{"a":{"dtype":"F32","shape":['),
        header(10, b"[" * 10),
        container("not json"),
        container("[" * 100_000),
        container("[]"),
        container({}),
        container({**GOOD, "format": "1"}),
        container({**GOOD, "versions": 3}),
        container({**GOOD, "plan": {"version": 1}}),
        bytes(safetensors.numpy.save({"persistent/w": np.zeros(1)})),
        container(GOOD, {"constant/" + "x" * 600: np.zeros(1)}),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "hostile.dlc"
    file.write_bytes(content)
    with pytest.raises(DiagnosticError) as caught:
        load(file)
    assert caught.value.diagnostics[0].code in ("DL0663", "DL0664")


def test_truncated_files_are_refused(path: Path, tmp_path: Path) -> None:
    content, file = path.read_bytes(), tmp_path / "cut.dlc"
    for cut in (7, 8, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:cut])
        with refused("DL0663"):
            load(file)
            list(weights(file))


def test_damaged_plan_is_refused(tmp_path: Path, cache: Cache) -> None:
    for text in ("", "{}", dumps(plan()).replace('"batch_bytes":64', '"batch_bytes":0')):
        file = tmp_path / "x.dlc"
        save(file, made(plan=text), WEIGHTS)
        with refused("DL0663"):
            executable_parts(load(file), file, cache, trust=True)


def test_later_formats_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "later.dlc"
    file.write_bytes(container({**GOOD, "format": artifacts.FORMAT_VERSION + 1}))
    with refused("DL0664", "update"):
        load(file)


def test_missing_and_unwritable_files(tmp_path: Path) -> None:
    with refused("DL0663", "no file"):
        load(tmp_path / "none.dlc")
    with refused("DL0663"):
        load(tmp_path)
    with refused("DL0665"):
        save(tmp_path / "no" / "folder.dlc", made(), WEIGHTS)


def test_weights_must_fit() -> None:
    check_weights(plan(), WEIGHTS)
    for wrong in ({}, {"w": WEIGHTS["w"][:3]}, {"w": WEIGHTS["w"].astype(np.float64)}, {**WEIGHTS, "v": WEIGHTS["w"]}):
        with refused("DL0659"):
            check_weights(plan(), wrong)
