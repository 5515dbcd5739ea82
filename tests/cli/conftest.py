"""The command line in this process: fast, and with a cache of the session's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dslc.cli import run

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "dslc"


@pytest.fixture
def dslc(cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`dslc("check", "net.dl")` gives the exit status and what was written to standard output and standard error."""
    monkeypatch.setenv("DSLC_CACHE", str(cache_folder))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
