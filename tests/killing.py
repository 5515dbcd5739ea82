"""Runs of training in a process of their own that is stopped while they work, and what they leave behind.

Such a process writes `ready STEP` when it is about to train; checkpoints are in `a.safetensors`, the log in `log.jsonl`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
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
        process.communicate(timeout=100)
        return process.returncode
    finally:
        process.kill()
        process.wait()


def last_logged_step(folder: Path) -> int:
    steps = [r["step"] for r in read_log(folder / "log.jsonl") if r["event"] == "steps"]
    return int(str(steps[-1])) if steps else 0


def check_same(folder: Path, whole: Path, steps: int) -> None:
    """Both runs came to their end at step `steps`, with the same bits and the same metrics."""
    ours, theirs = checkpoint.load(folder / "a.safetensors"), checkpoint.load(whole / "a.safetensors")
    assert ours.run.step == theirs.run.step == steps
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert [name for name in ours.tensors if ours.tensors[name].tobytes() != theirs.tensors[name].tobytes()] == []
    metrics = [[(r.epoch, r.step, r.metrics, r.test_metrics) for r in c.run.history] for c in (ours, theirs)]
    assert metrics[0] == metrics[1]
