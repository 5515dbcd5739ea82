"""Training on a machine without compiler, linker or OpenMP: `digits` from an empty cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import ROOT

# Loaded by every Python that is started, the compile workers included: refuses programs other than Python, and such libraries.
GUARD = """
import os, sys

WORDS = ("gomp", "libomp", "iomp", "tbb")

def watch(event, arguments):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn"):
        program = os.fsdecode(arguments[0] if event != "subprocess.Popen" or arguments[0] else arguments[1][0])
        if os.path.realpath(program) != os.path.realpath(sys.executable):
            raise RuntimeError(f"started {program}")
    elif event == "ctypes.dlopen" and any(word in str(arguments[0]) for word in WORDS):
        raise RuntimeError(f"loaded {arguments[0]}")

sys.addaudithook(watch)
"""

TRAIN = """
import sys, dslc
trainer = dslc.Trainer("digits", save=False, cache=sys.argv[1], epochs=15)
reports = trainer.fit()
mapped = [line.split("/")[-1].strip() for line in open("/proc/self/maps") if any(w in line for w in ("gomp", "libomp", "iomp", "libtbb"))]
print(trainer.compiled_kernels, reports[-1].test_metrics["accuracy"], mapped)
"""


def train(folder: Path, *before: str) -> tuple[int, float, str]:
    """Kernels compiled, accuracy, OpenMP libraries mapped; PATH leads to Python alone."""
    site, tools = folder / "site", folder / "bin"
    site.mkdir(exist_ok=True)
    tools.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(GUARD)
    for name in ("python", "python3"):
        (tools / name).symlink_to(sys.executable)
    environment = {n: v for n, v in os.environ.items() if n not in ("CC", "CXX", "LD", "LD_PRELOAD", "LD_LIBRARY_PATH")}
    environment |= {"PATH": str(tools), "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [*before, sys.executable, "-c", TRAIN, str(folder / "cache")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    compiled, accuracy, mapped = done.stdout.split(maxsplit=2)
    return int(compiled), float(accuracy), mapped.strip()


def test_digits_train_without_tools(tmp_path: Path) -> None:
    """No other program is started, by this process or its workers, and no OpenMP library is loaded."""
    compiled, accuracy, mapped = train(tmp_path)
    assert compiled > 10 and accuracy >= 0.97 and mapped == "[]"


def hidden() -> list[str]:
    """Compilers, linkers and OpenMP libraries of this machine."""
    tools = [shutil.which(n) for n in ("cc", "gcc", "c99", "clang", "ld", "ld.bfd", "ld.gold", "ld.lld", "as", "g++")]
    folders = [Path("/lib"), Path("/usr/lib"), Path("/usr/local/lib")]
    libraries = [
        p for f in folders if f.is_dir() for pattern in ("*gomp*.so*", "*iomp*.so*") for p in (*f.glob(pattern), *f.glob(f"*/{pattern}"))
    ]
    return sorted({str(Path(p).resolve()) for p in (*tools, *libraries) if p})


def test_digits_train_where_tools_are_unreadable(tmp_path: Path) -> None:
    """An empty file is mounted over each of them, for this process alone."""
    sh, unshare, mount = shutil.which("sh"), shutil.which("unshare"), shutil.which("mount")
    if not (sh and unshare and mount) or subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace of its own; the test above needs none")
    if not hidden():
        pytest.skip("this machine has neither compiler nor OpenMP")
    script = "".join(f"{mount} --bind /dev/null '{path}' || exit 9\n" for path in hidden()) + 'exec "$@"\n'
    compiled, accuracy, mapped = train(tmp_path, unshare, "-rm", sh, "-c", script, "sh")
    assert compiled > 10 and accuracy >= 0.97 and mapped == "[]"


@pytest.mark.parametrize("code", ["import subprocess; subprocess.run(['/bin/true'])", "import ctypes; ctypes.CDLL('libgomp.so.1')"])
def test_the_guard_guards(tmp_path: Path, code: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert "RuntimeError: " in done.stderr
