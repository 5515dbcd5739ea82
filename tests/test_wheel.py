"""The wheel, installed where nothing else of the project is: it brings the grammar, the library and the networks with it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without the network: what a build needs is among the requirements of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_what_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        "dslc/py.typed",
        "dslc/grammars/dl.lark",
        "dslc/grammars/ir.lark",
        "dslc/models/digits.dl",
        "dslc/std/layers.dl",
        "dslc/data/digits.npz",
    }
    assert wanted <= names
    assert not [n for n in names if n.startswith("tests/") or "__pycache__" in n]
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_installed_elsewhere_it_trains(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    environment = {**os.environ, "PYTHONPATH": str(site), "DSLC_CACHE": str(tmp_path / "cache"), "NO_COLOR": "1"}
    where = "import dslc, sys; print(dslc.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(site))
    train = [str(site / "bin" / "dslc"), "train", "digits"]
    done = subprocess.run(train, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    last = [line for line in done.stdout.splitlines() if line.startswith("epoch")][-1]
    accuracy = float(last.split("test loss")[1].split("accuracy")[1].split("%")[0])
    assert accuracy >= 96.0, last
    assert (tmp_path / "digits.safetensors").is_file()
