"""Options, the environment, and the files that come with dslc."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dslc import options
from dslc.diagnostics import DiagnosticError
from dslc.options import Options, from_environment, resource


def test_environment() -> None:
    found = from_environment({"DSLC_THREADS": "3", "DSLC_WIDTH": "8", "DSLC_CACHE": "/tmp/c", "DSLC_DATA": "/a:/b", "NO_COLOR": "1"})
    assert found == Options(threads=3, width=8, cache=Path("/tmp/c"), data=(Path("/a"), Path("/b")), color=False)
    assert from_environment({}) == Options()


@pytest.mark.parametrize(
    "environment",
    [{"DSLC_THREADS": "0"}, {"DSLC_THREADS": "many"}, {"DSLC_WIDTH": "12"}, {"DSLC_THREADS": "-1"}, {"DSLC_WIDTH": "9" * 5000}],
    ids=lambda e: str(e)[:30],
)
def test_bad_environment_is_a_diagnostic(environment: dict[str, str]) -> None:
    with pytest.raises(DiagnosticError, match="DL0901"):
        from_environment(environment)


@pytest.mark.parametrize("change", [{"target": "tpu"}, {"precision": "f8"}, {"width": 5}, {"threads": 5000}], ids=str)
def test_bad_options_are_diagnostics(change: dict[str, object]) -> None:
    with pytest.raises(DiagnosticError, match="DL0901"):
        dataclasses.replace(Options(), **change)  # type: ignore[arg-type]


def test_resources_of_a_checkout() -> None:
    assert resource("grammars/dl.lark").is_file()
    assert resource("models").is_dir()


def test_resources_of_a_wheel_are_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside an installed package may stand somebody else's folder of the same name."""
    package = tmp_path / "site-packages" / "dslc"
    (package / "models").mkdir(parents=True)
    (package.parent / "models").mkdir()
    monkeypatch.setattr(options, "__file__", str(package / "options.py"))
    assert resource("models") == package / "models"
    assert resource("std") == package.parent / "std"
