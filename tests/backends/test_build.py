"""The pool of compile workers: one that dies is replaced, a kernel that cannot be compiled is reported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dslc.backends.cpu.build import WORKER, BuildError, KernelSource, Workers, worker_environment

SOURCE = KernelSource("def kernel(row, thread, threads, batch):\n    vstore_i64(ptr_i64(arg(row, 0)), 0, splat_i64(7))\n", "kernel", 8)


@pytest.fixture
def workers() -> Iterator[Workers]:
    with Workers(1) as pool:
        yield pool


def test_a_worker_that_dies_is_replaced(workers: Workers) -> None:
    workers.start()
    [process] = workers._processes
    process.kill()
    process.wait()
    told: list[str] = []
    built = workers.compile({"k": SOURCE}, lambda key, _: told.append(key))
    assert built["k"].symbol == SOURCE.symbol and told == ["k"]
    assert workers._processes != [process] and len(workers._processes) == 1


def test_a_kernel_that_kills_its_worker_is_reported(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dslc.backends.cpu.build.WORKER", ["-c", "input()"])
    with pytest.raises(BuildError, match="died twice"):
        workers.compile({"k": SOURCE})


def test_few_kernels_now_do_not_make_few_workers_later() -> None:
    with Workers(2) as pool:
        pool.start(1)
        assert len(pool._processes) == 1
        pool.start(5)
        assert len(pool._processes) == 2


def test_a_worker_whose_parent_is_gone_ends_quietly() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    worker = subprocess.Popen([sys.executable, *WORKER], text=True, env=worker_environment(), **pipes)
    assert worker.stdin is not None and worker.stdout is not None and worker.stderr is not None
    request = {"key": "k", "source": SOURCE.text, "entry": SOURCE.entry, "width": SOURCE.width, "order": SOURCE.order}
    worker.stdin.write(json.dumps(request) + "\n")
    worker.stdin.close()
    worker.stdout.close()  # as the system does it for a parent that was killed while it waited
    with worker.stderr as said:
        assert said.read() == ""
    assert worker.wait() == 0
