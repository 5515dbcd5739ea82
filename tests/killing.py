"""Runs of training in a process of their own that is stopped while they work, and what they leave behind.

Such a process writes `ready STEP` when it is about to train; checkpoints are in `a.safetensors`, the log in `log.jsonl`.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dslc.training import checkpoint
from dslc.training.log import read_log


def start(script: Path, *arguments: object, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def ready(process: subprocess.Popen[str]) -> int:
    """Waits until the process is about to train and returns the step that it begins at."""
    assert process.stdout is not None
    word, step = process.stdout.readline().split()
    assert word == "ready"
    return int(step)


def finish(process: subprocess.Popen[str]) -> int:
    """The exit status."""
    try:
        process.communicate(timeout=600)
        return process.returncode
    finally:
        process.kill()
        process.wait()


def last_logged_step(folder: Path) -> int:
    steps = [r["step"] for r in read_log(folder / "log.jsonl") if r["event"] == "steps"]
    return int(str(steps[-1])) if steps else 0


def kill_at_random(
    start: Callable[[], subprocess.Popen[str]], folder: Path, whole: Path, steps: int, *, times: int, longest: float, every: int
) -> bool:
    """Kills a run and goes on with it, `times` times, each at most `longest` seconds after it began to train.

    No more than one interval of `every` steps between checkpoints may be lost, and every checkpoint loads. On a busy machine a moment may
    come when the run is over: that is one like the `whole` one, and the next begins from nothing. Returns whether any began from a checkpoint.
    """
    moments = random.Random(11)
    reached = kills = 0
    resumed = False
    for _ in range(10 * times):
        process = start()
        step = ready(process)
        assert reached - step <= every, "more than one interval between checkpoints was lost"
        resumed |= step > 0
        time.sleep(moments.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        if finish(process) == 0:
            check_same(folder, whole, steps)
            for left in folder.iterdir():
                left.unlink()
            reached = 0
            continue
        assert process.returncode == -signal.SIGKILL
        kills += 1
        reached = last_logged_step(folder)
        if (folder / "a.safetensors").exists():
            assert reached - checkpoint.load(folder / "a.safetensors").run.step <= every
        if kills == times:
            return resumed
    raise AssertionError(f"{kills} kills of {times}: runs are over before they can be killed")


def check_same(folder: Path, whole: Path, steps: int) -> None:
    """Both runs came to their end at step `steps`, with the same bits and the same metrics."""
    ours, theirs = checkpoint.load(folder / "a.safetensors"), checkpoint.load(whole / "a.safetensors")
    assert ours.run.step == theirs.run.step == steps
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert [name for name in ours.tensors if ours.tensors[name].tobytes() != theirs.tensors[name].tobytes()] == []
    metrics = [[(r.epoch, r.step, r.metrics, r.test_metrics) for r in c.run.history] for c in (ours, theirs)]
    assert metrics[0] == metrics[1]
