"""The last batch of an epoch is smaller: what is computed from the number of examples is computed anew."""

from __future__ import annotations

import numpy as np

import dslc

TEXT = """
dim N <= 64
model Net(x: f32[N, 4]) -> f32[N, 1] { return x |> Dense[1, bias = false] }
train t {
  data x: f32[N, 4] from "npz:none.npz"
  minimize mean(Net(x)) over Net with SGD[1.0]
  epochs 1  batch 16
}
"""


def test_the_gradient_is_that_of_the_batch_at_hand() -> None:
    x = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    trainer = dslc.Trainer(TEXT, data=(x,), save=False, precision="f64", cache=False)
    for count in (16, 6, 16, 1):
        before = trainer.weights["Net.dense.w"]
        trainer.train_on(x=x[:count])
        np.testing.assert_allclose(before - trainer.weights["Net.dense.w"], x[:count].astype(np.float64).mean(axis=0)[:, None], rtol=1e-9)
