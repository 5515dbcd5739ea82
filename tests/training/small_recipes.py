"""A small network, its data, and recipes around it, for tests of compiled recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import dslc
from dslc.training import Observer

Array = np.ndarray[Any, Any]

NET = """
dim N <= 256
model Net(x: f32[N, 6]) -> f32[N, 3] {
  return x |> Dense[8, tanh] as body |> Dense[3] as head
}
"""


class Stop(Exception):
    """In place of a crash."""


class StopAt(Observer):
    """Stops behind the checkpoint of a step."""

    def __init__(self, step: int):
        self.step = step

    def saved(self, path: Path, step: int, seconds: float) -> None:
        if step == self.step:
            raise Stop


def recipe(minimize: str, *clauses: str, batch: int = 16, model: str = NET) -> str:
    lines = "\n  ".join(clauses)
    return f"""{model}
train t {{
  data x: f32[N, 6], y: i64[N] from "npz:none.npz"
  logits = Net(x)
  minimize cross_entropy(logits, y) over Net with {minimize}
  metric accuracy = mean(argmax[axis = 1](logits) == y)
  {lines}
  epochs 3  batch {batch}  seed 5
}}
"""


def examples(count: int = 150, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 6)).astype(np.float32)
    return x, (x @ np.random.default_rng(99).standard_normal((6, 3))).argmax(axis=1)


DATA = {"train": examples(), "test": examples(50, 1)}


def trained(text: str, **options: Any) -> dslc.Trainer:
    trainer = dslc.Trainer(text, data=DATA, **{"save": False, "threads": 1} | options)
    trainer.fit()
    return trainer


def bits(trainer: dslc.Trainer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in trainer.program.state().items()}


METRICS = (
    "pred = argmax[axis = 1](logits)",
    "metric top = top_k_accuracy[2](logits, y)",
    "metric table = ConfusionMatrix[3](pred, y)",
    "metric iou = MeanIoU[3](pred, y)",
    "metric iou2 = MeanIoU[3, of = 2](pred, y)",
    "metric precision_ = Precision[3](pred, y)",
    "metric recall = Recall[3](pred, y)",
    "metric f1 = F1[3](pred, y)",
    "metric f1_of_1 = F1[3, of = 1](pred, y)",
)
