"""The programs of `examples/` run and say what they should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SAID = {
    "embed.py": r"a call with 64 points takes [\d,]+ bytes[\s\S]*error\[DL\d{4}\]",
    "train_arrays.py": r"(100\.0|9\d\.\d)% of new points are on the right spiral",
    "optimizer.py": r"epoch 20: .* held-out accuracy 9[5-9]\.\d%",
    "add_operator.py": r"gradient of cut_square, largest error: 0\.0",
    "forecast.py": r"the last 8 years: 0\.\d\d ppm off; 1\.\d\d for the same month of the year before\n(wrote forecast\.png|no plot)",
    "similar.py": r"give the folder of all-MiniLM-L6-v2",
    "generate.py": r"give weights: gpt.safetensors",
    "sample.py": r"give weights: diffusion.safetensors",
    "demo.py": r"(9[6-9]|100)\.\d% of 360 held-out images are right[\s\S]*this is a \d[\s\S]*with probability",
}


def test_every_example_is_tested() -> None:
    assert {p.name for p in (ROOT / "examples").glob("*.py")} == set(SAID)


@pytest.mark.parametrize("name", list(SAID))
def test_example(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DSLC_CACHE": str(tmp_path / "cache"), "NO_COLOR": "1"}
    command = [sys.executable, str(ROOT / "examples" / name)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(SAID[name], done.stdout), done.stdout
