"""The thread pool: worker threads that run jobs of kernel calls, without OpenMP and without Numba (Linux).

`pool_code.py` says how threads share a job. Here: how many threads there are, starting, forking and stopping them, and the cached
object file with their code. *Threads* is into how many shares a step is cut (asked for, results do not depend on it); *workers* is
how many operating system threads run the shares, the caller included: never more than processors that this process may use,
unless asked.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import logging
import math
import os
import platform
import signal
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from dslc.runtime import pool_code as code
from dslc.runtime.cache import Cache
from dslc.runtime.loader import Library, LoadError, load_object

MAX_THREADS = 256
# A thread that lets others have its processor is back only after their time slice, which is longer than most programs run: where every
# worker has a processor of its own, it spins and then sleeps. An idle worker spins for as long as Python takes between two calls.
SPIN_S, IDLE_S, STEAL_S = 100e-6, 200e-6, 3e-6
CROWDED_SPIN_S, CROWDED_IDLE_S, CROWDED_POLITE_S = 20e-6, 10e-6, 5e-6  # with more workers than processors
NEVER = 1 << 62  # turns
_log = logging.getLogger("dslc.pool")


def available_cpus() -> int:
    """Processors that this process may use: its affinity, and the whole ones of its control group's quota; at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, count if quota is None else min(count, math.floor(quota + 1e-6)))


def _quota(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> float | None:
    """The tightest processor quota on the way from this process's control group to the root; version 2 and version 1."""
    try:
        rows = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return None
    quotas: list[float] = []
    for row in rows:
        if len(row) != 3 or not (row[1] == "" or "cpu" in row[1].split(",")):
            continue
        base = root if row[1] == "" else root / "cpu"
        folder = base / row[2].lstrip("/")
        for place in (folder, *folder.parents):
            quotas += _quota_of(place)
            if place == base:
                break
    return min(quotas, default=None)


def _quota_of(folder: Path) -> list[float]:
    try:
        quota, period = (folder / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota, period = (folder / "cpu.cfs_quota_us").read_text().strip(), (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return []
    return [int(quota) / int(period)] if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0 else []


def thread_count(asked: int | None = None) -> int:
    """Into how many shares to cut the work: what was asked for, else one a processor."""
    return min(MAX_THREADS, max(1, asked)) if asked is not None else min(MAX_THREADS, available_cpus())


# ---------------------------------------------------------------------------------------------------------- its code

_code_lock = threading.Lock()
_code: Library | None = None


def pool_object(cache: Cache | None = None) -> bytes:
    """The pool's object code for this machine, from the cache or built (some 80 ms). LoadError on a machine without a pool."""
    text = code.pool_ir(platform.machine())
    if text is None or platform.system() != "Linux":
        raise LoadError(f"no thread pool for {platform.system()} on {platform.machine()}")
    key = hashlib.sha256("\0".join((text, llvmlite.__version__, platform.machine())).encode()).hexdigest()
    built = cache.get("object", key) if cache is not None else None
    if built is None:
        built = build_object(text)
        if cache is not None:
            cache.put("object", key, built)
    return built


def build_object(text: str, features: str = "") -> bytes:
    """Compile LLVM IR text to an object file for this machine; `features` are LLVM's, the plain architecture otherwise."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, features=features, jit=True)
    module = llvm.parse_assembly(text)
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(2))
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))


def pool_library(cache: Cache | None = None) -> Library:
    """The pool's code in this process; stays for good, since workers may sleep in it."""
    global _code
    with _code_lock:
        if _code is None:
            _code = load_object(pool_object(cache), imports=code.IMPORTS)
        return _code


def _function(name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)(pool_library().addresses[name])


# ---------------------------------------------------------------------------------------------------------- the pool


class Pool:
    """`run(job address)` runs a job (see `pool_code.py`) and returns 0 or its error word; `alone` does so on the caller's thread,
    for a job whose first word says one thread.

    Workers start with the first job. Jobs of several Python threads run one after the other. A worker that cannot be started is done
    without; after a fork the child's pool starts its own. `run` is to be looked up anew for each call.
    """

    def __init__(self, threads: int, workers: int | None = None, cache: Cache | None = None):
        self.threads = threads
        self.asked_workers = workers
        self.started = 0
        self.run: Callable[[int], int]
        self._handles: list[int] = []
        self._keep: list[Any] = []
        self._lock = threading.Lock()
        pool_library(cache)
        self.alone: Callable[[int], int] = _function("dslc_alone", ctypes.c_int64, ctypes.c_void_p)
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        """Forget workers, if any; the next job starts new ones. The old state stays: a fork copied it from running threads."""
        self._lock = threading.Lock()
        self._handles = []
        self.started = 0
        self.run = self.alone if self.threads == 1 else self._run_first

    def _run_first(self, job: int) -> int:
        with self._lock:
            if self.run == self._run_first:
                self._start()
        return self.run(job)

    def _start(self) -> None:
        cpus = available_cpus()
        workers = min(self.threads, self.asked_workers or cpus)
        state, words = _aligned(code.STATE_BYTES + code.CLAIM_BYTES * self.threads)
        self._keep.append(words)
        turn = self._turn_seconds(state)
        crowded = workers > cpus
        steal = max(2, round(STEAL_S / turn))
        settings = {
            code.WORKERS: workers,
            code.STEAL: steal,
            code.SPIN: steal + round((CROWDED_SPIN_S if crowded else SPIN_S) / turn),
            code.IDLE: round((CROWDED_IDLE_S if crowded else IDLE_S) / turn),
            code.POLITE: round(CROWDED_POLITE_S / turn) if crowded else NEVER,
        }
        for offset, value in settings.items():
            ctypes.c_int64.from_address(state + offset).value = value
        self._start_workers(state, workers)
        self.run = partial(_function("dslc_launch", ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p), state)
        self._state = state

    def _start_workers(self, state: int, workers: int) -> None:
        start = _function("dslc_start", ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
        handles = (ctypes.c_size_t * workers)()
        # the process's signals are for Python's threads: a worker that took one would let a sleeping main thread sleep on
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            for thread in range(1, workers):
                record = (ctypes.c_int64 * 2)(state, thread)
                self._keep.append(record)
                status = start(ctypes.addressof(handles) + 8 * thread, record)
                if status != 0:
                    _log.warning("only %d of %d threads could be started: %s", thread, workers, os.strerror(status))
                    ctypes.c_int64.from_address(state + code.WORKERS).value = thread
                    break
                self._handles.append(handles[thread])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.started = len(self._handles) + 1

    @staticmethod
    def _turn_seconds(state: int) -> float:
        """How long one turn of the wait loop takes: a spin hint is 5 to 150 cycles, by processor."""
        spin = _function("dslc_spin", None, ctypes.c_void_p, ctypes.c_int64)
        best = math.inf
        for _ in range(5):
            begin = time.perf_counter()
            spin(state, 500)
            best = min(best, time.perf_counter() - begin)
        return max(best / 500, 1e-9)

    def __del__(self) -> None:
        # workers sleep on memory that goes with this object
        if getattr(self, "_handles", None):
            self.close()

    def close(self) -> None:
        """Stop and join the workers. Later jobs run on the caller's thread alone."""
        with self._lock:
            handles, self._handles = self._handles, []
            if not handles:
                return
            _function("dslc_stop", None, ctypes.c_void_p)(self._state)
            join = ctypes.CDLL(None).pthread_join
            for handle in handles:
                join(ctypes.c_void_p(handle), None)
            self.started = 1


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_shared: dict[int, Pool] = {}
_shared_lock = threading.Lock()


def shared_pool(threads: int, cache: Cache | None = None) -> Pool:
    """The process's pool for this number of threads."""
    with _shared_lock:
        pool = _shared.get(threads)
        if pool is None:
            pool = _shared[threads] = Pool(threads, cache=cache)
        return pool


def _aligned(size: int) -> tuple[int, Any]:
    """Zeroed memory at a multiple of 128, and what keeps it."""
    memory = ctypes.create_string_buffer(size + 128)
    return -(-ctypes.addressof(memory) // 128) * 128, memory


def _after_fork() -> None:
    global _shared_lock, _code_lock
    _shared_lock, _code_lock = threading.Lock(), threading.Lock()
    for pool in list(_pools):
        pool._reset()


def _at_exit() -> None:
    for pool in list(_pools):
        pool.close()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
