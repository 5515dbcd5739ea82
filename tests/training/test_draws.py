"""Random numbers of evaluations: each batch has its own, every evaluation the same, none those of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recipes import Array, Stop, StopAt

import dslc

pytestmark = pytest.mark.usefixtures("own_cache")

# The draws stand in a loop too: its counters are made of the batch's.
NOISY = """
dim N <= 64
model Net(x: f32[N, 2]) -> f32[N, 2] { return Dense[2](x) }
train t {
  data x: f32[N, 2] from "npz:none.npz"
  u = random_uniform[N]
  looped = scan[axis = 1] _i in 0..3 { yield random_uniform[N] }
  minimize mean((Net(x) - u[:, none]) ** 2) over Net with SGD[0.1]
  metric drawn = mean(u)
  epochs 3  batch 4  seed 5
  save "noisy.safetensors" with every_steps = 1
}
"""
DATA = {"train": np.ones((12, 2), np.float32), "test": np.ones((10, 2), np.float32)}


def trained(folder: Path, **options: Any) -> tuple[dslc.Trainer, list[Array]]:
    """A trainer at its end, and for each evaluation what it drew for each example."""
    seen: list[Array] = []

    def keep(u: Array, looped: Array) -> float:
        seen.append(np.column_stack([u, looped]))
        return 0.0

    trainer = dslc.Trainer(NOISY, data=DATA, folder=folder, threads=1, metrics={"kept": keep}, **options)
    trainer.fit()
    return trainer, seen


def test_every_batch_of_an_evaluation_has_numbers_of_its_own(tmp_path: Path) -> None:
    trainer, seen = trained(tmp_path, seed=5)
    assert len(seen) == 3 and all(np.array_equal(drawn, seen[0]) for drawn in seen), "epochs are measured with the same numbers"
    assert len(np.unique(seen[0])) == seen[0].size
    measured = [report.test_metrics["drawn"] for report in trainer.history]
    assert measured == pytest.approx([seen[0][:, 0].mean()] * 3, rel=1e-6)
    _, others = trained(tmp_path, seed=6)
    assert not np.isin(others[0], seen[0]).any(), "they follow the seed of the run"


def test_evaluations_do_not_draw_what_training_draws(tmp_path: Path) -> None:
    _, seen = trained(tmp_path, save=False)
    trainer = dslc.Trainer(NOISY, data=DATA, threads=1, save=False)
    in_training = [float(trainer.train_on(x=DATA["train"][:4])["drawn"]) for _ in range(9)]
    in_evaluation = [seen[0][first : first + 4, 0].mean() for first in (0, 4)]
    assert len(set(in_training)) == 9 and not np.isclose(np.subtract.outer(in_evaluation, in_training), 0, atol=1e-6).any()


def test_a_resumed_run_evaluates_with_the_same_numbers(tmp_path: Path) -> None:
    whole, seen = trained(tmp_path / "whole", save=False)
    with pytest.raises(Stop):
        trained(tmp_path, observers=[StopAt(5)])
    resumed, again = trained(tmp_path, resume=True)
    assert [r.test_metrics for r in resumed.history] == [r.test_metrics for r in whole.history]
    assert len(again) == 2 and np.array_equal(again[0], seen[0])
    assert {n: a.tobytes() for n, a in resumed.weights.items()} == {n: a.tobytes() for n, a in whole.weights.items()}
