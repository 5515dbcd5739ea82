"""`dslc bench --against`: what is refused before anything is compiled, and a comparison where the libraries are there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from dslc.api import contest
from dslc.cli.bench import command
from dslc.diagnostics import DiagnosticError
from tests.frontend.from_text import made

NET = "dim N <= 64\nmodel Net(x: f32[N, 3]) -> f32[N, 2] {\n  return x |> Dense[2]\n}\n"


def refused(names: str, training: bool = False) -> str:
    with pytest.raises(DiagnosticError) as error:
        contest.wanted(names, training)
    (diagnostic,) = error.value.diagnostics
    return diagnostic.code


def test_unknown_peers_are_refused() -> None:
    assert refused("tensorflow") == "DL0832"
    assert refused(" , ") == "DL0832"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DiagnosticError, match="onnxruntime and onnx must be installed"):
        contest.wanted("onnxruntime", False)


def test_training_is_compared_with_torch_only() -> None:
    assert refused("onnxruntime", True) == "DL0831"


def test_a_profile_is_no_comparison() -> None:
    result = CliRunner().invoke(command, ["lenet", "--profile", "--against", "torch"])
    assert result.exit_code == 2
    assert "do not go together" in result.output


def test_results_of_draws_are_not_compared_in_loops_either(tmp_path: Path) -> None:
    """Nothing is there to be read."""
    body = "return scan t in 0..3 carry h = x { h = h + random_normal[N, 3]  return h }"
    program = made(f"dim N <= 64\nmodel Net(x: f32[N, 3]) -> f32[N, 3] {{ {body} }}").module.programs["infer"]
    task: Any = SimpleNamespace(program=lambda folder: program, training=False)
    assert contest._errors(tmp_path, task, ["torch"]) == {}


@pytest.mark.peer
@pytest.mark.parametrize("arguments", [["--against", "torch"], ["--against", "torch", "--train", "--batch", "4"]])
def test_compares(arguments: list[str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    file = tmp_path / "net.dl"
    file.write_text(NET)
    result = CliRunner().invoke(command, [f"{file}:Net", "--rounds", "1", "--threads", "1", "--json", *arguments], catch_exceptions=False)
    report: dict[str, Any] = json.loads(result.output)
    assert [row["name"] for row in report["standings"]] == ["dslc", "torch", "torch channels-last"]
    assert all(row["error"] < 1e-3 for row in report["standings"][1:])
    assert report["best_peer_over_dslc"] > 0
