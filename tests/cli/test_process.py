"""The command line as a process: how it starts, what it loads, how it is interrupted, and that it needs no tools."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
SPY = """
import sys
from dslc.cli import run
status = run(sys.argv[1:])
loaded = sorted({m.split(".")[0] for m in sys.modules} & {"numba", "lark", "rich", "matplotlib", "PIL"})
mapped = sorted({line.split("/")[-1].strip() for line in open("/proc/self/maps") if any(w in line for w in ("libgomp", "libomp", "libtbb"))})
print("LOADED", loaded, "MAPPED", mapped)
sys.exit(status)
"""


def environment(cache: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "DSLC_CACHE": str(cache), **more}


def spy(folder: Path, cache: Path, *arguments: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SPY, *arguments], cwd=folder, env=environment(cache, **more), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_dslc_is_light() -> None:
    code = "import sys, dslc; print(sorted({'numpy', 'numba', 'lark', 'llvmlite', 'click', 'rich'} & set(sys.modules)), dslc.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("[] ")


def test_cached_programs_start_without_the_compiler(tmp_path: Path) -> None:
    """Nor is any tool or OpenMP library used: PATH is empty."""
    cache = tmp_path / "cache"
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 8, 8), np.float32))
    train = ("train", "digits", "--epochs", "2", "--no-log")
    run = ("run", "digits", "--weights", "digits.safetensors", "--input", "image=x.npy", "-o", "y.npz")
    assert "found compiled" not in spy(tmp_path, cache, *train, PATH="")
    spy(tmp_path, cache, *run, PATH="")
    for arguments in (train, run):
        out = spy(tmp_path, cache, *arguments, PATH="")
        assert "LOADED [] MAPPED []" in out, out


def test_a_changed_import_is_noticed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "part.dl").write_text("block scaled(x: f32[N]) -> f32[N] { return 2.0 * x }\n")
    (tmp_path / "net.dl").write_text('import "part.dl" as part\nmodel Net(x: f32[4]) -> f32[4] { return part.scaled(x) }\n')
    np.save(tmp_path / "x.npy", np.ones(4, np.float32))
    run = ("run", "net.dl", "--input", "x=x.npy", "--json")
    assert "[2.0, 2.0, 2.0, 2.0]" in spy(tmp_path, cache, *run)
    assert "LOADED []" in spy(tmp_path, cache, *run)
    (tmp_path / "part.dl").write_text("block scaled(x: f32[N]) -> f32[N] { return 3.0 * x }\n")
    assert "[3.0, 3.0, 3.0, 3.0]" in spy(tmp_path, cache, *run)


def test_ctrl_c_saves_and_exits_with_130(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dslc", "train", "digits", "--epochs", "100000", "--folder", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path / "cache"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(("epoch 3/", "epoch      3/")):
            break
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - begin < 10
    assert "saved" in err and "--resume" in err
    assert (tmp_path / "digits.safetensors").is_file()


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    script = f"{sys.executable} -m dslc ops | head -1"
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environment(tmp_path / "cache"), capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr


def test_a_cached_run_answers_at_once(tmp_path: Path) -> None:
    """At most 0.2 s more than `import numpy`: by the clock, or, where other processes keep this one waiting, of processor time."""
    cache = tmp_path / "cache"
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 28, 28), np.float32))
    command = [sys.executable, "-m", "dslc", "run", "lenet", "--input", "image=x.npy", "-o", "y.npz"]

    def seconds(arguments: list[str]) -> tuple[float, float]:
        before, begin = os.times(), time.perf_counter()
        subprocess.run(arguments, cwd=tmp_path, env=environment(cache), check=True, capture_output=True)
        after, end = os.times(), time.perf_counter()
        return end - begin, after.children_user - before.children_user + after.children_system - before.children_system

    seconds(command)
    numpy = [seconds([sys.executable, "-c", "import numpy"]) for _ in range(7)]
    run = [seconds(command) for _ in range(7)]
    extra = [min(r[n] for r in run) - min(r[n] for r in numpy) for n in (0, 1)]
    assert min(extra) < 0.2, extra
