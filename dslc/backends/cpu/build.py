"""Compiles kernel sources to object files in worker processes side by side, and keeps them in the cache."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KernelSource:
    """The source of one kernel: the whole text that is compiled, the name of its entry function, and the order of its sums."""

    text: str
    entry: str
    width: int
    order: str = "fixed"

    def key(self, environment: str) -> str:
        """The digest under which its object code is kept; `environment` covers versions and CPU features."""
        return hashlib.sha256("\n".join([environment, str(self.width), self.entry, *self._loose, self.text]).encode()).hexdigest()

    @property
    def symbol(self) -> str:
        """The kernel's name in its object file; `native.compile_object` gives it."""
        return f"{self.entry}_{hashlib.sha256(' '.join([str(self.width), *self._loose, self.text]).encode()).hexdigest()[:16]}"

    @property
    def _loose(self) -> tuple[str, ...]:
        return () if self.order == "fixed" else (self.order,)


@dataclass(frozen=True, slots=True)
class Built:
    """A compiled kernel."""

    code: bytes
    symbol: str
    seconds: float


WORKER = ["-m", "dslc.backends.cpu.worker"]


class BuildError(RuntimeError):
    """A kernel that does not compile: a defect of dslc, reported with the kernel's source."""


class Workers:
    """Compile workers, started ahead so that importing Numba overlaps with the front end."""

    def __init__(self, count: int | None = None):
        self.count = count or len(os.sched_getaffinity(0))
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, count: int | None = None) -> None:
        """Has `count` workers at least, or all."""
        while len(self._processes) < min(self.count, count or self.count):
            self._processes.append(new_worker())

    def compile(self, sources: Mapping[str, KernelSource], done: Callable[[str, Built], None] | None = None) -> dict[str, Built]:
        """All kernels, the longest sources first; raises BuildError for the first that fails.

        A worker that dies, as one may where memory is short, is replaced, and its kernel compiled once more.
        """
        self.start(max(1, len(sources)))
        waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for key in sorted(sources, key=lambda k: -len(sources[k].text)):
            waiting.put(key)
        built: dict[str, Built] = {}
        failures: list[str] = []
        again: set[str] = set()

        def serve(slot: int) -> None:
            while not failures:
                process = self._processes[slot]
                assert process.stdin is not None and process.stdout is not None
                try:
                    key = waiting.get_nowait()
                except queue.Empty:
                    return
                source = sources[key]
                request = {"key": key, "source": source.text, "entry": source.entry, "width": source.width, "order": source.order}
                try:
                    process.stdin.write(json.dumps(request) + "\n")
                    process.stdin.flush()
                    line = process.stdout.readline()
                except OSError:
                    line = ""
                if not line:
                    discard(process)
                    self._processes[slot] = new_worker()
                    if key in again:
                        failures.append(f"a compile worker died twice over\n{source.text}")
                    again.add(key)
                    waiting.put(key)
                    continue
                reply = json.loads(line)
                if "error" in reply:
                    failures.append(f"{reply['error']}\n{source.text}")
                    return
                built[key] = Built(base64.b64decode(reply["object"]), reply["symbol"], reply["seconds"])
                if done is not None:
                    done(key, built[key])

        threads = [threading.Thread(target=serve, args=(slot,), daemon=True) for slot in range(len(self._processes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise BuildError(failures[0])
        return built

    def close(self) -> None:
        for process in self._processes:
            discard(process)
        self._processes = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def new_worker() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=worker_environment(),
        start_new_session=True,
    )


def discard(process: subprocess.Popen[str]) -> None:
    """Ends a worker: it does when it has nothing more to read."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.close()
    except OSError:
        process.kill()
    process.stdout.close()
    process.wait()


def worker_environment() -> dict[str, str]:
    """A worker finds the same packages as this process, and keeps to one thread."""
    path = os.pathsep.join(p for p in sys.path if p)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
