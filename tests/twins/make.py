"""Writes `stored/CASE.npz`, what PyTorch computes for the narrow networks: `python tests/twins/make.py PYTHON [CASE...]`.

PYTHON is an interpreter that has PyTorch (2.13 when the arrays were made). Each file holds PyTorch's f64 results for the first draws,
named `DRAW:NAME`, and for every draw the errors of PyTorch's own f32 results against them, named `error:NAME`: max |f32 - f64|
over max |f64|, a number a draw.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.twins.cases import CASES, FOLDER, Arrays, Case, inputs, relative_error

STORED = FOLDER / "stored"


def twin(case: Case, draws: list[Arrays], python: str) -> tuple[list[Arrays], list[Arrays]]:
    """PyTorch's results in f64 and in f32, for each draw."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
        given = {f"{n}:{name}": array for n, draw in enumerate(draws) for name, array in draw.items()}
        np.savez(source, case=np.array(case.model), optimizers=np.array(case.optimizers, str), **given)  # type: ignore[arg-type]
        subprocess.run([python, str(FOLDER / "torch_twins.py"), str(source), str(target)], check=True)
        with np.load(target) as made:
            found = dict(made)
    wide: list[Arrays] = [{} for _ in draws]
    single: list[Arrays] = [{} for _ in draws]
    for name, array in found.items():
        draw, rest = name.removeprefix("f32:").split(":", 1)
        (single if name.startswith("f32:") else wide)[int(draw)][rest] = array
    return wide, single


def errors(wide: list[Arrays], single: list[Arrays]) -> Arrays:
    """Of each tensor, the error of the f32 results in every draw."""
    return {name: np.array([relative_error(s[name], w[name]) for w, s in zip(wide, single, strict=True)]) for name in wide[0]}


def main(python: str, *cases: str) -> None:
    STORED.mkdir(exist_ok=True)
    for case in CASES.values():
        if (cases and case.model not in cases) or not case.has_narrow:
            continue
        wide, single = twin(case, [inputs(case, False, n) for n in range(48 if case.zoo else 16)], python)
        kept = {f"{n}:{name}": array for n in range(case.stored) for name, array in wide[n].items()}
        np.savez_compressed(STORED / f"{case.model}.npz", **kept, **{f"error:{n}": e for n, e in errors(wide, single).items()})  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
