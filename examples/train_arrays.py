"""Train from NumPy arrays: three spirals in the plane, told apart by a small network.

python examples/train_arrays.py
"""

from __future__ import annotations

import numpy as np

import dslc

TEXT = """
dim N <= 512

model Spirals(x: f32[N, 2]) -> f32[N, 3] {
  return x |> Dense[64, relu] |> Dense[64, relu] |> Dense[3]
}

train spirals {
  data x: f32[N, 2], y: i64[N] from "npz:spirals.npz"
  logits = Spirals(x)
  minimize cross_entropy(logits, y) over Spirals with AdamW[cosine[1e-2]]
  metric accuracy = mean(argmax[axis = 1](logits) == y)
  epochs 60  batch 64  seed 1
}
"""


def spirals(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` points [count, 2] with a little noise, and the spiral 0, 1 or 2 that each belongs to."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, count)
    radius = rng.uniform(0.1, 1.0, count)
    angle = 4.0 * radius + label * 2 * np.pi / 3 + 0.1 * rng.standard_normal(count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32), label


def main() -> None:
    trainer = dslc.Trainer(TEXT, data={"train": spirals(1500, 1), "test": spirals(500, 2)}, settings={"lr": 5e-3})
    for epoch in trainer:
        if epoch.epoch % 10 == 0:
            print(f"epoch {epoch.epoch}: loss {epoch.metrics['loss']:.4f}, test accuracy {epoch.test_metrics['accuracy']:.1%}")

    net = dslc.compile(TEXT)
    net.load_weights(trainer.weights)
    points, label = spirals(500, 3)
    right = (net(x=points).argmax(axis=1) == label).mean()
    print(f"{right:.1%} of new points are on the right spiral")


if __name__ == "__main__":
    main()
