"""What a run is judged by: held-out examples, the best epoch, patience; perplexity, masks; statistics in the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recipes import DATA, bits, recipe, trained

import dslc
from dslc.diagnostics import DiagnosticError
from dslc.frontend import check
from dslc.ir.recipe import Judged, Recipe
from dslc.training import EpochReport, Observer, checkpoint
from dslc.training.judge import exhausted, is_best
from dslc.training.log import JsonLog, read_log


def report(epoch: int, value: float, where: str = "test_metrics") -> EpochReport:
    metrics: dict[str, Any] = {"metrics": {"accuracy": 0.0}, "test_metrics": {}, where: {"accuracy": value}}
    return EpochReport(epoch=epoch, step=epoch, seconds=1.0, examples_per_second=1.0, **metrics)


@pytest.mark.parametrize("where", ["metrics", "test_metrics", "validation_metrics"])
def test_the_best_epoch_and_patience(where: str) -> None:
    history = [report(i + 1, v, where) for i, v in enumerate([0.1, 0.5, 0.4, 0.5, 0.45, 0.6])]
    up = Judged("accuracy")
    assert [is_best(history[:n], up) for n in range(1, 7)] == [True, True, False, False, False, True]
    waiting = Recipe("r", "d", (), patience=3, monitor=up)
    assert [exhausted(history[:n], waiting) for n in range(1, 7)] == [False, False, False, False, True, False]
    down = Judged("accuracy", larger=False)
    assert [is_best(history[:n], down) for n in range(1, 7)] == [True, False, False, False, False, False]
    nan = [report(1, float("nan"), where), report(2, -5.0, where)]
    assert is_best(nan, up) and is_best(nan, down)


def test_epochs_without_an_evaluation_do_not_count() -> None:
    none = EpochReport(2, 2, {"accuracy": 9.0}, {}, 1.0, 1.0)
    history = [report(1, 0.5), none, report(3, 0.4), none, report(5, 0.3)]
    assert not is_best([report(1, 0.5), none], Judged("accuracy"))
    assert exhausted(history, Recipe("r", "d", (), patience=2, monitor=Judged("accuracy")))
    assert not exhausted(history[:4], Recipe("r", "d", (), patience=2, monitor=Judged("accuracy")))


CLAUSES = ('save "run.safetensors" with every_steps = 1', 'save "best.safetensors" with best = accuracy', "validate 0.2  patience 2")


def long(*clauses: str) -> str:
    return recipe("SGD[3.0]", *clauses).replace("epochs 3", "epochs 40")


class Stop(Exception):
    """In place of a crash."""


class StopAt(Observer):
    def __init__(self, step: int):
        self.step = step

    def saved(self, path: Path, step: int, seconds: float) -> None:
        if step == self.step and path.name == "run.safetensors":
            raise Stop


def test_early_stopping_with_the_best_checkpoint(tmp_path: Path) -> None:
    """A rate so large that accuracy goes up and down; held-out examples judge, the test split is evaluated once."""
    whole = trained(long(*CLAUSES), save=True, folder=tmp_path / ".")
    history = whole.history
    accuracies = [r.validation_metrics["accuracy"] for r in history]
    best = int(np.argmax(accuracies))
    assert len(history) == best + 3 < 40, "two evaluations behind the best one"
    assert [bool(r.test_metrics) for r in history] == [False] * (len(history) - 1) + [True]
    stored = checkpoint.load(tmp_path / "best.safetensors")
    assert stored.run.epoch == best + 1 and stored.run.history[-1].validation_metrics["accuracy"] == max(accuracies)
    assert whole.data.train.count == 120 and whole.finished
    for stop in (1, 9, 8 * (len(history) - 1)):
        with pytest.raises(Stop):
            trained(long(*CLAUSES), save=True, folder=tmp_path, resume=stop > 1, observers=[StopAt(stop)])
    part = trained(long(*CLAUSES), save=True, folder=tmp_path, resume=True)
    assert bits(part) == bits(whole) and [r.validation_metrics for r in part.history] == [r.validation_metrics for r in history]
    assert checkpoint.load(tmp_path / "best.safetensors").run.epoch == best + 1


def test_the_same_examples_are_held_out_for_every_seed() -> None:
    parts = [dslc.Trainer(recipe("SGD[0.1]", "validate 0.2"), data=DATA, save=False, seed=seed).data.train.arrays["x"] for seed in (1, 2)]
    assert parts[0].tobytes() == parts[1].tobytes() and len(parts[0]) == 120
    rows = {row.tobytes() for row in DATA["train"][0]}
    assert {row.tobytes() for row in parts[0]} < rows
    with pytest.raises(DiagnosticError, match="DL0710"):
        dslc.Trainer(recipe("SGD[0.1]", "validate 0.001"), data=DATA, save=False)


def codes(*clauses: str) -> list[str]:
    return [d.code for d in check(recipe("SGD[0.1]", *clauses)).diagnostics]


def test_what_is_refused() -> None:
    assert codes("patience 3") == codes('patience 3  monitor "accuracy"') == codes('save "a" with best = -loss') == []
    assert codes('save "a" with best = loss') == codes('monitor "loss"') == ["DL0525"]
    assert codes('save "a" with best = acuracy') == codes('save "a" with best = accuracy, every = 1') == ["DL0525"]
    assert codes('save "a" with best = 1 + 2') == codes('save "a"', 'save "b"') == ["DL0525"]
    assert codes("validate 1.5") == codes("patience 0") == codes("monitor 3") == codes("statistics 1") == ["DL0508"]
    assert codes("metric table = ConfusionMatrix[3](argmax[axis = 1](logits), y)", 'monitor "table"') == ["DL0525"]


# ------------------------------------------------------------------------------------------------ masks and perplexity

TAGS = """
dim N <= 8
model Net(x: f32[N, 5, 3]) -> f32[N, 5, 4] { return x |> Dense[4] }
train t {
  data x: f32[N, 5, 3], length: i64[N], y: i64[N, 5] from "npz:none.npz"
  mask = sequence_mask[5](length)
  known = where(mask, y, -1)
  logits = Net(x)
  right = cast[f32](argmax[axis = -1](logits) == y)
  minimize cross_entropy[ignore_index = -1](transpose[0, 2, 1](logits), known) over Net with SGD[0.1]
  metric perplexity = Perplexity(logits, known)
  metric masked = MaskedMean(right, mask)
  metric batch = masked_mean(right, mask)
  metric weighted = weighted_mean(right, cast[f32](length)[:, none] * cast[f32](mask))
  epochs 1  batch 4
}
"""


def test_masks_and_perplexity() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((10, 5, 3)).astype(np.float32), rng.integers(0, 4, (10, 5))
    length = np.array([5, 1, 0, 3, 2, 5, 5, 4, 1, 2])
    trainer = dslc.Trainer(TAGS, data={"train": (x, length, y), "test": (x, length, y)}, save=False)
    [it] = trainer.fit()
    logits = x.astype(np.float64) @ trainer.weights["Net.dense.w"] + trainer.weights["Net.dense.b"]
    mask = np.arange(5) < length[:, None]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    own = np.take_along_axis(log_p, y[..., None], -1)[..., 0]
    right = logits.argmax(-1) == y
    assert it.test_metrics["perplexity"] == pytest.approx(np.exp(-own[mask].mean()), rel=1e-5)
    assert it.test_metrics["masked"] == pytest.approx(right[mask].mean(), rel=1e-6)
    parts = [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert it.test_metrics["batch"] == pytest.approx(sum(right[p][mask[p]].mean() * len(length[p]) for p in parts) / 10, rel=1e-6)
    weights = length[:, None] * mask
    means = [(right[p] * weights[p]).sum() / weights[p].sum() for p in parts]
    assert it.test_metrics["weighted"] == pytest.approx(sum(m * len(length[p]) for m, p in zip(means, parts, strict=True)) / 10, rel=1e-6)


# ------------------------------------------------------------------------------------------------------- statistics


def test_statistics_of_gradients_and_activations(tmp_path: Path) -> None:
    """They are in the log, right, and change nothing but roundings."""
    log = JsonLog(tmp_path / "t.jsonl")
    loud = trained(recipe("SGD[1.0]", "statistics true"), observers=[log], log_every=1, precision="f64", steps=2)
    quiet = trained(recipe("SGD[1.0]"), precision="f64", steps=2)
    for name, array in quiet.weights.items():
        np.testing.assert_allclose(loud.weights[name], array, rtol=1e-12, atol=1e-14)
    assert set(loud.history[0].metrics) == {"loss", "accuracy"}
    first, second = (r["statistics"] for r in read_log(tmp_path / "t.jsonl") if r["event"] == "steps")
    assert isinstance(first, dict) and isinstance(second, dict)
    paths = ("Net.body.w", "Net.body.b", "Net.head.w", "Net.head.b")
    names = {f"{kind}/{path}" for kind in ("gradient", "parameter") for path in paths}
    assert set(first) == names | {f"{kind}/{path}" for kind in ("activation", "zeros") for path in ("Net", "Net.body", "Net.head")}
    start = dslc.Trainer(recipe("SGD[1.0]"), data=DATA, save=False, precision="f64")
    before = start.weights
    after = trained(recipe("SGD[1.0]"), precision="f64", steps=1).weights
    for path in paths:
        assert first[f"gradient/{path}"] == pytest.approx(np.sqrt(np.mean((before[path] - after[path]) ** 2)), rel=1e-9)
        assert first[f"parameter/{path}"] == pytest.approx(np.sqrt(np.mean(before[path] ** 2)), rel=1e-9, abs=1e-12)
        assert second[f"parameter/{path}"] == pytest.approx(np.sqrt(np.mean(after[path] ** 2)), rel=1e-9)
    assert 0 < first["activation/Net.body"] < 1 and first["zeros/Net.body"] == 0


def test_statistics_of_what_a_loop_makes(tmp_path: Path) -> None:
    """Of a block that is called in a loop in a loop: over all of its iterations."""
    text = """
      dim N <= 16
      model Net(x: f64[N, 3, 2, 4]) -> f64[N, 5] {
        param cell = RNNCell[5, relu]
        return scan[axis = 1] row in x carry h = zeros[N, 5] {
          h = scan[axis = 1, reverse = true] v in row carry h = h { h = cell(v, h)  return h }
          return h
        }
      }
      train t {
        data x: f64[N, 3, 2, 4], y: f64[N, 5] from "npz:none.npz"
        minimize mse(Net(x), y) over Net with SGD[0.1]
        statistics true
        epochs 1  batch 10
      }
    """
    x = np.random.default_rng(3).standard_normal((10, 3, 2, 4))
    log = JsonLog(tmp_path / "t.jsonl")
    trainer = dslc.Trainer(text, data=(x, np.zeros((10, 5))), save=False, precision="f64", observers=[log], log_every=1, steps=1)
    w = {name.removeprefix("Net.cell."): array.copy() for name, array in trainer.weights.items()}
    made, h = [], np.zeros((10, 5))
    for t in range(3):
        for s in (1, 0):
            h = np.maximum(x[:, t, s] @ w["w_in"] + w["b_in"] + h @ w["w_h"] + w["b_h"], 0)
            made.append(h)
    trainer.fit()
    (found,) = (r["statistics"] for r in read_log(tmp_path / "t.jsonl") if r["event"] == "steps")
    assert found["activation/Net.cell"] == pytest.approx(np.sqrt(np.mean(np.square(made))), rel=1e-9)
    assert found["zeros/Net.cell"] == pytest.approx(np.mean(np.equal(made, 0)), rel=1e-6)
    assert found["activation/Net"] == pytest.approx(np.sqrt(np.mean(h**2)), rel=1e-9)
