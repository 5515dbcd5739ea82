"""Options of the whole test suite."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import dslc.ops  # noqa: F401  (registers the operators)

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
