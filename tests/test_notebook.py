"""The notebooks of `examples/` are well formed, and their cells run in order, without Jupyter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

pytestmark = pytest.mark.usefixtures("own_cache")


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    figures = 0

    def show() -> None:
        nonlocal figures
        figures += len(plt.get_fignums())
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["language"]) == (4, "python")
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    names: dict[str, Any] = {}
    for number, cell in enumerate(codes, 1):
        assert cell["execution_count"] == number, "kept as it is run: from the first cell to the last"
        exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
        kept = "".join(line for output in cell["outputs"] if output["output_type"] == "stream" for line in output["text"])
        assert capsys.readouterr().out == kept, f"cell {number} shows something else"
    pictures = sum("image/png" in output.get("data", {}) for cell in codes for output in cell["outputs"])
    assert figures == pictures > 0
