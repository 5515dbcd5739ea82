"""Checkpoints: round trip, refusal of damaged and foreign files, and the old file kept until the new one is in place."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dslc.diagnostics import DiagnosticError
from dslc.training import EpochReport, checkpoint
from dslc.training.checkpoint import Checkpoint, RunState

REPORT = EpochReport(1, 23, {"loss": 0.1 + 0.2}, {"loss": 1 / 3}, 1.5, 958.0)
RUN = RunState(1, 128, 25, 7, 64, "0a1b2c3d", "ff00", {"loss": 2 / 3}, 128, 0.25, (REPORT,))


def sample() -> Checkpoint:
    rng = np.random.default_rng(0)
    tensors = {
        "Net.w": rng.normal(size=(5, 3)).astype(np.float32),
        "Net.flag": np.array([True, False, True]),
        "Net.mean": np.array(-0.0),
        "Net.bytes": rng.integers(0, 256, 7, np.uint8),
        "Net.empty": np.empty((0, 4), np.float32),
        "optimizer/Net.w.m": np.asfortranarray(rng.normal(size=(5, 3))),
        "optimizer/step": np.array(25),
        "optimizer/i": np.array([-1], np.int32),
    }
    return Checkpoint(tensors, RUN, '{"name": "digits"}')


def refused(code: str, path: Path) -> str:
    with pytest.raises(DiagnosticError) as caught:
        checkpoint.load(path)
    assert [d.code for d in caught.value.diagnostics] == [code], caught.value.render()
    return caught.value.render()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def same(a: Checkpoint, b: Checkpoint) -> bool:
    if a.run != b.run or a.data != b.data or a.tensors.keys() != b.tensors.keys():
        return False
    pairs = [(a.tensors[n], b.tensors[n]) for n in a.tensors]
    return all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)


def test_round_trip_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, sample())
    loaded = checkpoint.load(path)
    assert same(loaded, sample())
    assert sorted(loaded.weights) == ["Net.bytes", "Net.empty", "Net.flag", "Net.mean", "Net.w"]
    assert names(tmp_path) == ["a.safetensors"]


def test_other_readers_of_safetensors_read_it_and_equal_states_give_equal_files(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", sample())
    other = sample()
    checkpoint.save(tmp_path / "b", Checkpoint(dict(reversed(other.tensors.items())), other.run, other.data))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert np.array_equal(load_file(tmp_path / "a")["Net.w"], other.tensors["Net.w"])


def test_nothing_there(tmp_path: Path) -> None:
    refused("DL0721", tmp_path / "a")
    refused("DL0721", tmp_path)


def test_foreign_and_newer_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_file({"w": np.ones(3)}, path)
    refused("DL0723", path)
    save_file({"w": np.ones(3)}, path, {"format": "pt"})
    refused("DL0723", path)
    save_file({"w": np.ones(3)}, path, {"format": "dslc-checkpoint", "version": "2"})
    assert "version 2" in refused("DL0723", path)
    for kind in (np.float64, np.uint16):
        save_file({"w": np.ones(3, kind)}, path, {"format": "dslc-checkpoint", "version": "1"})
        refused("DL0722", path)
    path.write_bytes(b"PK\x03\x04 a zip or a pickle")
    refused("DL0722", path)
    path.write_bytes(b"")
    refused("DL0722", path)


def test_every_cut_and_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    whole_path, path = tmp_path / "whole", tmp_path / "a"
    checkpoint.save(whole_path, sample())
    whole = whole_path.read_bytes()
    for end in range(0, len(whole), 41):
        path.write_bytes(whole[:end])
        refused("DL0722", path)
    path.write_bytes(whole + b"\0")
    refused("DL0722", path)
    rng = np.random.default_rng(5)
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ int(rng.integers(1, 256))]) + whole[at + 1 :])
        try:
            loaded = checkpoint.load(path)
        except DiagnosticError as error:
            assert error.diagnostics[0].code in ("DL0722", "DL0723")
        else:
            assert same(loaded, sample()), f"byte {at} changed what was read, unseen"


def test_a_position_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    good = json.loads(RUN.to_json())
    for bad in ("", "[]", "{}", json.dumps(good | {"step": -1}), json.dumps(good | {"epoch": "x"}), json.dumps(good | {"more": 1})):
        with pytest.raises(ValueError):
            RunState.from_json(bad)
    assert RunState.from_json(RUN.to_json()) == RUN
    checkpoint.save(path, Checkpoint({}, replace(RUN, step=-1), ""))
    refused("DL0722", path)


class Halt(Exception):
    pass


@pytest.mark.parametrize("stage", ["write", "sync", "rename", "renamed"])
def test_the_older_file_stays_until_the_new_one_is_in_place(tmp_path: Path, stage: str) -> None:
    path = tmp_path / "a"
    checkpoint.save(path, sample())
    newer = Checkpoint({"Net.w": np.zeros(3), "Net.b": np.ones(3)}, replace(RUN, step=30), "{}")
    stages = []

    def hook(name: str) -> None:
        stages.append(name)
        if name == stage and stages.count(name) == (2 if name == "write" else 1):
            raise Halt

    with pytest.raises(Halt):
        checkpoint.save(path, newer, hook)
    assert same(checkpoint.load(path), newer if stage == "renamed" else sample())
    assert names(tmp_path) == ["a"], "a temporary file was left"


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a"
    prefix = checkpoint._prefix(path)
    dead = tmp_path / f"{prefix}{2**22 + 1}.tmp"  # beyond the largest process number
    alive, foreign = tmp_path / f"{prefix}{os.getppid()}.tmp", tmp_path / ".a.other-host.1.tmp"
    for file in (dead, alive, foreign):
        file.write_bytes(b"")
    checkpoint.save(path, sample())
    assert not dead.exists() and alive.exists() and foreign.exists()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "disk" / "real")
    checkpoint.save(tmp_path / "a", sample())
    assert (tmp_path / "a").is_symlink() and same(checkpoint.load(tmp_path / "disk" / "real"), sample())


def test_a_folder_that_is_not_there_and_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError) as caught:
        checkpoint.save(tmp_path / "no" / "a", sample())
    assert caught.value.diagnostics[0].code == "DL0725"

    def full(stage: str) -> None:
        raise OSError(28, "No space left on device")

    checkpoint.save(tmp_path / "a", sample())
    with pytest.raises(DiagnosticError, match="No space left"):
        checkpoint.save(tmp_path / "a", replace_run(sample(), 99), full)
    assert same(checkpoint.load(tmp_path / "a"), sample()) and names(tmp_path) == ["a"]


def replace_run(whole: Checkpoint, step: int) -> Checkpoint:
    return Checkpoint(whole.tensors, replace(whole.run, step=step), whole.data)


def test_fit_lists_missing_left_over_and_different() -> None:
    a, b = np.zeros(3, np.float32), np.zeros((3, 1), np.float32)
    checkpoint.check_fit({"w": a}, {"w": a + 1}, "x")
    with pytest.raises(DiagnosticError) as caught:
        checkpoint.check_fit({"w": a, "old": a, "s": a}, {"w": b, "new": a, "s": a.astype(np.float64)}, "x.safetensors")
    message = caught.value.diagnostics[0].message
    assert caught.value.diagnostics[0].code == "DL0724"
    assert "missing: new" in message and "left over: old" in message
    assert "w is f32[3] in the file and f32[3, 1] in the program" in message
    assert "s is f32[3] in the file and f64[3] in the program" in message
