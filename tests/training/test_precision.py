"""`precision bf16` and `precision f16` in training: f32 parameters, the same bits everywhere, and networks that learn as well as in f32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_recipes import bits, recipe, trained

import dslc
from dslc.data.idx import DEBIAN_FASHION
from dslc.options import resource

FLOATING = recipe("AdamW[1e-2], clip = 1.0, ema = 0.9").replace("f32", "float")
KEPT = "norm = f32, softmax = f32, loss = f32"


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_a_small_recipe(precision: str) -> None:
    """Everything that is stored is f32; the loss is near that of f32 and not the same."""
    exact, half = trained(FLOATING), trained(f"precision {precision}\n{FLOATING}", width=16, threads=2)
    assert {array.dtype for array in half.weights.values()} == {np.dtype(np.float32)}
    ours, theirs = half.history[-1].metrics["loss"], exact.history[-1].metrics["loss"]
    assert ours != theirs and ours == pytest.approx(theirs, rel=0.03)
    assert bits(half) == bits(trained(f"precision {precision}\n{FLOATING}", width=8, threads=1))


@pytest.mark.slow
@pytest.mark.skipif(not (DEBIAN_FASHION / "train-images-idx3-ubyte.gz").is_file(), reason="dataset-fashion-mnist is not installed")
@pytest.mark.parametrize(("model", "name"), [("lenet", "lenet"), ("resnet", "resnet20")])
def test_learns_as_well_as_in_f32(model: str, name: str, tmp_path: Path) -> None:
    """Within half a point of accuracy on the test images, at the recipe's own settings."""
    text = (resource("models") / f"{model}.dl").read_text(encoding="utf-8")
    accuracy = []
    for number, head in enumerate(("", f"precision bf16, {KEPT}\n")):
        file = tmp_path / f"{number}" / f"{model}.dl"
        file.parent.mkdir()
        file.write_text(head + text, encoding="utf-8")
        trainer = dslc.Trainer(file, name, save=False)
        trainer.fit()
        test = trainer.history[-1].test_metrics
        accuracy.append(test["accuracy"])
    assert accuracy[1] > accuracy[0] - 0.005, accuracy
