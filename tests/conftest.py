"""Options of the whole test suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dslc.ops  # noqa: F401  (registers the operators)
from dslc.backends.cpu import build

LONGEST = ("test_twins.py", "test_verification.py")


def pytest_configure() -> None:
    """A job in a shell's background is started with Ctrl-C ignored; tests of it, and the processes they start, need it heard."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the expectations of golden files; read the diff")


@pytest.fixture(scope="session", autouse=True)
def lasting_workers() -> Iterator[None]:
    """Compile workers serve one test after another: to start two takes longer than most tests compile."""
    idle: list[subprocess.Popen[str]] = []
    start, end, usual, here = build.new_worker, build.discard, build.WORKER, os.getpid()

    def new_worker() -> subprocess.Popen[str]:
        same = usual == build.WORKER and os.getpid() == here  # a fork would share our pipes
        return idle.pop() if same and idle else start()

    def discard(process: subprocess.Popen[str]) -> None:
        if process.args == [sys.executable, *usual] and process.poll() is None and os.getpid() == here:
            idle.append(process)
        else:
            end(process)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "new_worker", new_worker)
        patch.setattr(build, "discard", discard)
        yield
    for process in idle:
        end(process)


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of kernels of the module's own."""
    folder = tmp_path_factory.mktemp("cache") / "dslc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSLC_CACHE", str(folder))
        yield folder


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))
