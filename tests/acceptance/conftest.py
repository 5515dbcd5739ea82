"""What the tests of whole compiled programs share: one cache of kernels, and a way to run Python elsewhere with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import ROOT, Python


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that starts empty; test workers of one run share it, so that every kernel is compiled once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "acceptance"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / "cache"


@pytest.fixture(scope="session")
def python(cache: Path) -> Python:
    """`python(code, *arguments, **environment)` in a process of its own; it must end with status 0 within `timeout` seconds."""

    def call(code: str, *arguments: object, timeout: float = 120, before: tuple[str, ...] = (), **environment: str) -> object:
        command = [*before, sys.executable, "-c", code, *map(str, arguments)]
        path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
        env = {**os.environ, "PYTHONPATH": path, "DSLC_CACHE": str(cache), "NO_COLOR": "1", **environment}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return call  # type: ignore[return-value]
