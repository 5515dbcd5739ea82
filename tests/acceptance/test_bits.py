"""The same bits: run twice, with any number of threads, at any vector width, and after a kill at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import killing
import numpy as np
import pytest
from digits_victim import EVERY, STEPS
from killing import check_same, finish, kill_at_random, last_logged_step, ready
from surroundings import ROOT, fashion

import dslc

HERE = Path(__file__).resolve().parent


def trained(name: str, cache: Path, data: Any = None, **options: Any) -> dict[str, bytes]:
    """Everything that training changes: parameters, optimizer state, counters."""
    trainer = dslc.Trainer(name, data=data, save=False, cache=cache, **options)
    before = {path: a.tobytes() for path, a in trainer.weights.items()}
    trainer.fit()
    state = {path: np.asarray(a).tobytes() for path, a in trainer.program.state().items()}
    assert all(state[path] != a for path, a in before.items()), "training changes every parameter"
    return state


@pytest.fixture(autouse=True)
def always_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small steps too are cut into shares, instead of one thread doing what is not worth meeting for."""
    monkeypatch.setattr("dslc.runtime.job.TRY_ALONE_BELOW", 0.0)


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    assert one.keys() == other.keys() and len(one) > 6
    return [name for name in one if one[name] != other[name]]


@pytest.fixture(scope="module")
def digits(cache: Path) -> dict[str, bytes]:
    return trained("digits", cache, epochs=3, threads=2, width=16)


@pytest.mark.parametrize("threads", [2, 1, 3])
def test_digits_again_and_with_other_threads(digits: dict[str, bytes], cache: Path, threads: int) -> None:
    assert differing(digits, trained("digits", cache, epochs=3, threads=threads, width=16)) == []


@pytest.mark.parametrize(("width", "threads"), [(8, 1), (8, 2), (4, 2), (4, 3)])
def test_digits_at_other_widths(digits: dict[str, bytes], cache: Path, width: int, threads: int) -> None:
    assert differing(digits, trained("digits", cache, epochs=3, threads=threads, width=width)) == []


def test_another_seed_gives_other_bits(digits: dict[str, bytes], cache: Path) -> None:
    """The comparison can fail."""
    assert differing(digits, trained("digits", cache, epochs=3, threads=2, width=16, seed=8)) != []


@pytest.fixture(scope="module")
def lenet(cache: Path) -> dict[str, bytes]:
    return trained("lenet", cache, fashion(300), epochs=2, threads=2, width=16)


@pytest.mark.parametrize(("width", "threads"), [(16, 2), (16, 1), (16, 3), (8, 1), (8, 2)])
def test_lenet(lenet: dict[str, bytes], cache: Path, width: int, threads: int) -> None:
    """The last batch of each epoch is a partial one, of 44 pictures."""
    assert differing(lenet, trained("lenet", cache, fashion(300), epochs=2, threads=threads, width=width)) == []


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("width", [16, 8, 4])
@pytest.mark.parametrize("name", ["lenet", "mlp"])
def test_every_width_with_every_number_of_threads(cache: Path, name: str, width: int, threads: int) -> None:
    whole = trained(name, cache, fashion(500), epochs=2, threads=2, width=16)
    assert differing(whole, trained(name, cache, fashion(500), epochs=2, threads=threads, width=width)) == []


# ------------------------------------------------------------------------------------------------------------- kills


def start(folder: Path, cache: Path, *arguments: object, milliseconds: float = 0) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DSLC_CACHE": str(cache)}
    return killing.start(HERE / "digits_victim.py", folder, milliseconds, *arguments, environment=environment)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert finish(start(folder, cache)) == 0
    return folder


def killed(folder: Path, whole: Path, cache: Path, times: int) -> None:
    run = partial(start, folder, cache, milliseconds=1)
    kill_at_random(run, folder, whole, STEPS, times=times, longest=0.9 / times, every=EVERY)
    assert finish(start(folder, cache)) == 0
    check_same(folder, whole, STEPS)
    assert sorted(p.name for p in folder.iterdir()) == ["a.safetensors", "log.jsonl"], "a temporary file was left"


def test_kill_at_random_moments(tmp_path: Path, whole: Path, cache: Path) -> None:
    killed(tmp_path, whole, cache, 3)


@pytest.mark.slow
def test_kill_at_many_random_moments(tmp_path: Path, whole: Path, cache: Path) -> None:
    killed(tmp_path, whole, cache, 20)


@pytest.mark.parametrize(("stage", "times"), [("write", 1), ("write", 50), ("sync", 3), ("rename", 1), ("rename", 4)])
def test_kill_within_saving(tmp_path: Path, whole: Path, cache: Path, stage: str, times: int) -> None:
    """In the first checkpoint, when there is no older one, and in later ones."""
    process = start(tmp_path, cache, stage, times)
    assert ready(process) == 0
    assert finish(process) == -signal.SIGKILL
    reached = last_logged_step(tmp_path)
    process = start(tmp_path, cache)
    assert reached - ready(process) <= EVERY
    assert finish(process) == 0
    check_same(tmp_path, whole, STEPS)
