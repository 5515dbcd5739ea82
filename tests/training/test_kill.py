"""`kill -9` at random moments and within saving: little is lost, every checkpoint loads, and the bits are those of a whole run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import killing
import numpy as np
import pytest
from killing import check_same, finish, kill_at_random, last_logged_step, ready
from victim import EVERY

from dslc.training import checkpoint

HERE = Path(__file__).resolve().parent
EPOCHS = 80
STEPS = 23 * EPOCHS


def start(folder: Path, *arguments: object, epochs: int = EPOCHS, milliseconds: float = 1) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(HERE.parent.parent), str(HERE)])
    # One thread of BLAS: the sums of a matrix product must not depend on how busy the machine is.
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return killing.start(HERE / "victim.py", folder, epochs, milliseconds, *arguments, environment=environment)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert finish(start(folder, milliseconds=0)) == 0
    return folder


def test_kill_at_random_moments(tmp_path: Path, whole: Path) -> None:
    resumed = kill_at_random(lambda: start(tmp_path), tmp_path, whole, STEPS, times=20, longest=0.15, every=EVERY)
    assert resumed, "every kill was in front of the first checkpoint"
    assert finish(start(tmp_path, milliseconds=0)) == 0
    check_same(tmp_path, whole, STEPS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "log.jsonl"], "a temporary file was left"


@pytest.mark.parametrize("stage", ["write", "sync", "rename", "renamed"])
def test_kill_within_saving(tmp_path: Path, whole: Path, stage: str) -> None:
    """Five times in each stage; the first kill is in the first checkpoint, when there is no older one."""
    reached = 0
    for count in (1, 2, 3, 5, 4):
        times = count * 8 - 3 if stage == "write" else count  # a checkpoint has eight tensors
        process = start(tmp_path, stage, times, milliseconds=0)
        step = ready(process)
        assert reached - step <= EVERY
        assert finish(process) == -signal.SIGKILL
        reached = last_logged_step(tmp_path)
        if reached > EVERY or stage == "renamed":
            assert reached - checkpoint.load(tmp_path / "a.safetensors").run.step <= EVERY
    process = start(tmp_path, milliseconds=0)
    assert finish(process) == 0
    check_same(tmp_path, whole, STEPS)


def test_ctrl_c_saves_within_a_second(tmp_path: Path, whole: Path) -> None:
    process = start(tmp_path)
    ready(process)
    time.sleep(0.2)
    pressed = time.perf_counter()
    process.send_signal(signal.SIGINT)
    assert finish(process) == 130
    assert time.perf_counter() - pressed < 1.0
    step = checkpoint.load(tmp_path / "a.safetensors").run.step
    assert step == last_logged_step(tmp_path) > 0, "a step was lost"
    assert finish(start(tmp_path, milliseconds=0)) == 0
    check_same(tmp_path, whole, STEPS)


def test_two_whole_runs_write_equal_parameters(tmp_path: Path, whole: Path) -> None:
    assert finish(start(tmp_path, milliseconds=0)) == 0
    check_same(tmp_path, whole, STEPS)
    weights = checkpoint.load(whole / "a.safetensors").weights
    assert np.abs(weights["Logistic.w"]).max() > 0.1, "nothing was learned"
