"""NaN and infinities that begin in the body of a loop, forward and backward: told with the line in the body, the iteration and the step."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import dslc
from tests.training.test_finite import reported

NET = """
dim N <= 64
block planted[kind](h: f32[N, D], bad: f32[N]) -> f32[N, D] {
  b = bad[:, none]
  return if kind == "forward" then h + log(1.0 - b) else h + sqrt(1.0 - b + 0.0 * h)
}
block Deep[D: int, kind](x: f32[N, T, In], bad: f32[N, T]) -> f32[N, D] {
  param cell = LSTMCell[D]
  h, c = scan[axis = 1, reverse = REVERSE] v, b in zip(x, bad) carry h = zeros[N, D], c = zeros[N, D] {
    h, c = cell(v, h, c)
    h = planted[kind](h, b)
    return h, c
  }
  return h
}
model Net(x: f32[N, 5, 6], bad: f32[N, 5]) -> f32[N, 3] { return Deep[8, "KIND"](x, bad) as deep |> Dense[3] as head }
train t {
  data x: f32[N, 5, 6], bad: f32[N, 5], y: i64[N] from "npz:none.npz"
  minimize cross_entropy(Net(x, bad), y) over Net with SGD[1e-2]
  epochs 1  batch 16  seed 5
}
"""


@pytest.mark.parametrize(("kind", "reverse"), [("forward", "false"), ("backward", "true")])
def test_a_nan_in_an_iteration(kind: str, reverse: str, tmp_path: Path) -> None:
    """Of 48 examples one is bad, in its third element."""
    path = tmp_path / "t.dl"
    path.write_text(NET.replace("KIND", kind).replace("REVERSE", reverse))
    rng = np.random.default_rng(0)
    x, y, bad = rng.standard_normal((48, 5, 6)).astype(np.float32), rng.integers(0, 3, 48), np.zeros((48, 5), np.float32)
    bad[41, 2] = 1
    trainer = dslc.Trainer(path, data=(x, bad, y), folder=tmp_path, save=False, threads=1)
    text = reported(trainer.fit)
    operator = "log" if kind == "forward" else "sqrt|div|mul|rsqrt"
    step = trainer.step + 1
    assert re.search(rf"t\.dl:\d+:\d+: error\[DL0726\].* at step {step} \(epoch 1\): `({operator})` in the {kind} pass makes", text), text
    assert "t.dl:5:" in text.splitlines()[0], "the line of the planted function, inlined in the loop"
    assert re.search(r"\n +9 \|.*\n.* in the iteration of index 2 of this loop", text), text
    assert reported(lambda: trainer.replay(step)).splitlines()[0] == text.splitlines()[0]


def test_what_grows_in_a_loop_of_the_library_is_told_at_its_call(tmp_path: Path) -> None:
    """A layer whose states have no bound, after a step that was much too large."""
    text = """
      dim N <= 8
      model Net(x: f32[N, 40, 4]) -> f32[N, 2] {
        _, h = RNN[4, neg](x) as rnn
        return Dense[2](h) as head
      }
      train t {
        data x: f32[N, 40, 4], y: i64[N] from "npz:none.npz"
        minimize cross_entropy(Net(x), y) over Net with SGD[1e4]
        epochs 3  batch 8  seed 5
      }
    """
    path = tmp_path / "t.dl"
    path.write_text(text)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 40, 4)).astype(np.float32), rng.integers(0, 2, 16)
    found = reported(dslc.Trainer(path, data=(x, y), folder=tmp_path, save=False, threads=1).fit)
    assert re.search(r"t\.dl:4:\d+: error\[DL0726\].* at step \d \(epoch 1\).* in the forward pass makes an infinity", found), found
    assert re.search(r"in the iteration of index \d+ of this loop", found), found
