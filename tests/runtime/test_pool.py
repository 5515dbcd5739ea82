"""The thread pool: every share runs once, barriers hold, and nothing hangs whatever happens to the threads."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from kernels import Step, address, float_control, make_job

from dslc.runtime import pool as pools
from dslc.runtime.pool import Pool, _quota, available_cpus, shared_pool, thread_count
from dslc.runtime.pool_code import pool_ir

HERE = Path(__file__).parent


@pytest.fixture(params=[(1, None), (2, None), (3, 3), (8, None), (8, 8)], ids=lambda p: f"{p[0]}threads-{p[1] or 'auto'}workers")
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    made = Pool(*request.param)
    yield made
    made.close()


def counted(pool: Pool, launches: int, groups: int) -> None:
    """`count` and `gather` in turns: a share run twice, or never, or before the barrier, shows in the sums."""
    counts, seen = np.zeros(pool.threads, np.int64), np.zeros(pool.threads, np.int64)
    steps = [[Step("count", (address(counts),))], [Step("gather", (address(counts), address(seen)))]]
    job = make_job(steps * groups, pool.threads)
    for launch in range(1, launches + 1):
        assert pool.run(address(job)) == 0
        assert (counts == launch * groups).all()
        assert (seen == launch * groups * pool.threads).all()


def test_shares_run_once_between_barriers(pool: Pool) -> None:
    counted(pool, launches=300, groups=7)


def test_after_idle_pauses(pool: Pool) -> None:
    for _ in range(5):
        time.sleep(0.003)
        counted(pool, launches=2, groups=5)


def test_serial_steps_run_once_in_order(pool: Pool) -> None:
    counts = np.zeros(pool.threads, np.int64)
    count = Step("count", (address(counts),))
    serial = Step("count", (address(counts),), serial=True)
    job = make_job([[serial], [count, serial, count], [serial], [count]], pool.threads)
    for launch in range(1, 200):
        pool.run(address(job))
        assert counts[0] == 6 * launch
        assert (counts[1:] == 3 * launch).all()


def test_static_split_covers_everything(pool: Pool) -> None:
    x = np.arange(7 * 13, dtype=np.float32)
    y = np.zeros_like(x)
    job = make_job([[Step("add_one", (address(x), address(y), 13))]], pool.threads, batch=7)
    pool.run(address(job))
    assert np.array_equal(y, x + 1)


def test_failed_kernel_is_reported_and_forgotten(pool: Pool) -> None:
    bad = make_job([[Step("nothing")], [Step("fail")], [Step("nothing")]], pool.threads)
    good = make_job([[Step("nothing")]], pool.threads)
    assert pool.run(address(bad)) == (2 << 32 | 7)
    assert pool.run(address(good)) == 0


def test_profile_records_every_share(pool: Pool) -> None:
    times = np.zeros((3, pool.threads, 3), np.int64)
    job = make_job([[Step("nothing")], [Step("nothing", serial=True)], [Step("nothing")]], pool.threads, profile=address(times))
    pool.run(address(job))
    assert (times[[0, 2]] > 0).all()
    assert (times[1, 0] > 0).all()
    assert (times[1, 1:] == 0).all()
    assert (times[:, :, 1] >= times[:, :, 0]).all()
    assert times[2, :, 0].min() >= times[0, :, 1].max(), "the barrier stands between step 0 and step 2"


def test_python_threads_at_once(pool: Pool) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            counted(pool, launches=100, groups=5)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert not any(t.is_alive() for t in threads)


def test_closed_pool_still_runs(pool: Pool) -> None:
    counted(pool, 1, 3)
    pool.close()
    pool.close()
    counted(pool, 20, 3)


def test_forgotten_pool_stops_its_workers() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = threads()
    pool = Pool(4, 4)
    counted(pool, 3, 3)
    assert threads() == before + 3
    del pool
    gc.collect()
    assert threads() == before


def test_woken_workers_keep_off_the_callers_processor() -> None:
    before = {t.name for t in Path("/proc/self/task").iterdir()}
    pool = Pool(3, 3)
    counted(pool, 1, 3)
    workers = [int(t.name) for t in Path("/proc/self/task").iterdir() if t.name not in before]
    assert len(workers) == 2
    for _ in range(3):
        time.sleep(0.02)
        counted(pool, 1, 3)
    allowed, mine = os.sched_getaffinity(workers[0]), os.sched_getaffinity(0)
    assert allowed == os.sched_getaffinity(workers[1])
    assert allowed <= mine
    assert len(allowed) == max(1, len(mine) - 1)
    pool.close()


def test_idle_workers_sleep() -> None:
    pool = Pool(4, 4)
    counted(pool, 10, 3)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.02
    pool.close()


def test_no_more_workers_than_processors_unless_asked() -> None:
    pool = Pool(thread_count(64))
    assert pool.threads == 64
    counted(pool, 3, 3)
    assert pool.started <= available_cpus()
    pool.close()
    forced = Pool(5, 5)
    counted(forced, 3, 3)
    assert forced.started == 5
    forced.close()


def test_missing_workers_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = pools._function, []

    def refuse_third(name: str, *types: object) -> object:
        function = real(name, *types)
        if name != "dslc_start":
            return function
        return lambda *arguments: calls.append(1) or (function(*arguments) if len(calls) < 3 else 11)

    monkeypatch.setattr(pools, "_function", refuse_third)
    pool = Pool(6, 6)
    counted(pool, 50, 5)
    assert pool.started == 3
    pool.close()


def test_workers_leave_signals_to_python() -> None:
    pool = Pool(3, 3)
    counted(pool, 3, 3)
    masks = []
    for task in Path("/proc/self/task").iterdir():
        status = (task / "status").read_text()
        masks.append(int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16))
    assert sum(bool(mask & 1 << (signal.SIGINT - 1)) for mask in masks) >= 2
    pool.close()


def test_interrupt_arrives_after_the_job() -> None:
    pool = Pool(2)
    out = np.zeros(64)
    job = make_job([[Step("work", (address(out), 400_000_000))]], 2)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(50):
            pool.run(address(job))
    timer.join()
    assert out[0] == out[16] == 200_000_000
    counted(pool, 5, 5)
    pool.close()


def test_fork_gets_new_workers() -> None:
    pool = Pool(3, 3)
    counted(pool, 5, 5)
    with pytest.warns(DeprecationWarning) if sys.version_info >= (3, 12) else _nothing():
        child = os.fork()
    if child == 0:
        try:
            counted(pool, 50, 5)
            os._exit(0 if pool.started == 3 else 3)
        except BaseException:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    counted(pool, 5, 5)
    pool.close()


def test_fork_while_another_thread_runs() -> None:
    pool = Pool(2)
    out = np.zeros(64)
    job = make_job([[Step("work", (address(out), 20_000_000))]] * 5, 2)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            pool.run(address(job))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3):
            time.sleep(0.02)
            with pytest.warns(DeprecationWarning) if sys.version_info >= (3, 12) else _nothing():
                child = os.fork()
            if child == 0:
                signal.alarm(20)
                try:
                    counted(pool, 10, 5)
                    os._exit(0)
                except BaseException:
                    os._exit(4)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        thread.join()
    pool.close()


def _nothing() -> object:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads MXCSR")
def test_kernels_run_under_the_default_float_mode() -> None:
    values = np.full((4, 2), 1e-30, np.float32)
    pool = Pool(4, 4)
    job = make_job([[Step("multiply", (address(values),))]], 4)
    flush, rounding = 0x8040, 0x2000  # flush to zero and denormals are zero; round down
    old = float_control(0x1F80 | flush | rounding)
    try:
        pool.run(address(job))
        left = float_control(0x1F80 | flush | rounding)
    finally:
        float_control(old)
    assert (values[:, 0] == np.float32(1e-30) * np.float32(1e-30)).all()
    values[:] = [1e-20, 1e-20]
    old = float_control(0x1F80 | flush)
    try:
        pool.run(address(job))
    finally:
        float_control(old)
    subnormal = np.float32(1e-20) * np.float32(1e-20)
    assert 0 < subnormal < np.finfo(np.float32).tiny
    assert (values[:, 0] == subnormal).all()
    assert left & 0xFFC0 == 0x1F80 | flush | rounding, "the caller's mode is put back"
    pool.close()


def test_shared_pool_is_shared() -> None:
    assert shared_pool(2) is shared_pool(2)
    assert shared_pool(2) is not shared_pool(1)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("0::/\n", {"cpu.max": "400000 100000"}, 4.0),
        ("2:cpu,cpuacct:/x\n1:memory:/y\n", {"cpu/x/cpu.cfs_quota_us": "200000", "cpu/x/cpu.cfs_period_us": "100000"}, 2.0),
        ("2:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"}, None),
        ("nonsense\n", {}, None),
    ],
)
def test_quota(tmp_path: Path, groups: str, files: dict[str, str], expected: float | None) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "groups").write_text(groups)
    assert _quota(tmp_path, tmp_path / "groups") == expected


def test_affinity_bounds_the_count() -> None:
    script = "from dslc.runtime.pool import available_cpus; import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); print(available_cpus())"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "1"


CROWD = """
import sys, time
sys.path.insert(0, sys.argv[1])
import llvmlite.binding as llvm
import numpy as np
from kernels import Step, address, make_job
from dslc.runtime.pool import Pool
def best(threads, workers):
    pool, out = Pool(threads, workers), np.zeros(16 * 256)
    job = make_job([[Step("work", (address(out), 60_000))]] * 10, threads)
    pool.run(address(job))
    times = []
    for _ in range(60):
        begin = time.perf_counter()
        pool.run(address(job))
        times.append(time.perf_counter() - begin)
    pool.close()
    return sorted(times)[len(times) // 2]
base, crowd = eval(sys.argv[2])
one, many = best(*base), best(*crowd)
print(many / one)
"""


@pytest.mark.parametrize(
    ("prefix", "base", "crowd"),
    [
        (["taskset", "-c", "0"], (1, None), (2, None)),
        (["taskset", "-c", "0"], (1, None), (2, 2)),
        ([], (2, None), (8, None)),
        ([], (2, None), (8, 8)),
    ],
    ids=["2-on-1", "2-workers-on-1", "8", "8-workers"],
)
def test_oversubscription_is_gentle(prefix: list[str], base: tuple[int, int | None], crowd: tuple[int, int | None]) -> None:
    """At most 1.5 times the time of as many threads as processors; best of a few tries, since other work shares this machine."""
    ratios = []
    for _ in range(4):
        command = [*prefix, sys.executable, "-c", CROWD, str(HERE), repr((base, crowd))]
        ratios.append(float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout))
        if ratios[-1] <= 1.5:
            return
    pytest.fail(f"ratios {ratios}")


def test_exit_with_sleeping_workers_is_clean() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from kernels import Step, address, make_job
from dslc.runtime.pool import Pool, shared_pool
pools = [Pool(3, 3), shared_pool(2)]
for pool in pools:
    pool.run(address(make_job([[Step("nothing")]] * 3, pool.threads)))
print("done")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "done", "")


def test_word_size_is_what_the_tables_assume() -> None:
    assert ctypes.sizeof(ctypes.c_void_p) == 8


@pytest.mark.parametrize(("machine", "triple"), [("x86_64", "x86_64-unknown-linux-gnu"), ("aarch64", "aarch64-unknown-linux-gnu")])
def test_code_for_both_architectures(machine: str, triple: str) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    text = pool_ir(machine)
    assert text is not None
    module = llvm.parse_assembly(text)
    module.verify()
    assert llvm.Target.from_triple(triple).create_target_machine(opt=2).emit_object(module)[:4] == b"\x7fELF"
    assert pool_ir("riscv64") is None
