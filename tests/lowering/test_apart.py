"""Loops that threads run apart: which ones do, that the others do not, and the same bits for every batch and number of threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dslc
from dslc.api.sources import Source

HEAD = "dim N <= 64\nblock Step[D: int](v: f32[N, D], h: f32[N, D]) -> f32[N, D] {\n  return v + (Dense[D](h) as head)\n}\n"


def scanned(body: str, size: int = 24, results: str = "f32[N, 5, D]") -> Source:
    """A model that walks x with a carry h."""
    result = results.replace("D", str(size))
    walk = "scan[axis = 1] v in x carry h = zeros[N, " + str(size) + "] { " + body + " yield h }"
    return Source(f"{HEAD}model M(x: f32[N, 5, {size}]) -> {result} {{ return {walk} }}")


def loops(source: Source, cache: Path) -> list[bool]:
    program = dslc.compile(source, threads=2, cache=cache)
    return [loop.apart for loop in program._program.plan.loops]


APART = {
    "elementwise": scanned("h = tanh(0.5 * h + v)"),
    "a product": scanned("h = tanh(Step[24](v, h) as step)"),
    "rows of examples": scanned("h = softmax[axis = 1](h + v)"),
}
TOGETHER = {
    "the mean of all examples": scanned("h = 0.5 * h + v - mean[axis = 0](h)"),
    "another example's state": scanned("h = 0.5 * h + v + h[0:1]"),
    "noise": scanned("h = 0.5 * h + v + random_uniform[N, 24]"),
    "weights that no cache of one thread holds": scanned("h = tanh(Step[640](v, h) as step)", 640),
}


@pytest.mark.parametrize("name", APART)
def test_examples_that_do_not_touch_each_other(name: str, tmp_path: Path) -> None:
    assert loops(APART[name], tmp_path) == [True]


@pytest.mark.parametrize("name", TOGETHER)
def test_examples_that_depend_on_each_other(name: str, tmp_path: Path) -> None:
    assert loops(TOGETHER[name], tmp_path) == [False]


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "RNN"])
def test_the_same_bits_for_every_batch_and_number_of_threads(layer: str, tmp_path: Path) -> None:
    """Forwards and backwards, with gradients: also for batches whose last tile of rows is short, and an example alone is what it is in company."""
    rest = "_, _" if layer == "LSTM" else "_"
    text = f"""
    dim N <= 64
    model M(x: f32[N, 7, 20]) -> f32[N, 3] {{ out, {rest} = {layer}[40](x) as cell  return Dense[3](out[:, 6]) as head }}
    train t {{
      data x: f32[N, 7, 20], y: f32[N, 3] from "python"
      minimize mse(M(x), y) over M with SGD[0.1]
      epochs 1  batch 64  seed 1
    }}
    """
    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((64, 7, 20)).astype(np.float32), draw.standard_normal((64, 3)).astype(np.float32)
    seen: dict[int, list[bytes]] = {}
    for threads in (1, 2, 3, 5):
        trainer = dslc.Trainer(Source(text), data={"train": (x, y)}, batch=64, threads=threads, save=False, cache=tmp_path)
        assert [loop.apart for loop in trainer._program.train.plan.loops] == [True, True]
        found = []
        for batch in (64, 16, 41, 15, 64, 1, 24):
            trainer.train_on(x=x[:batch], y=y[:batch])
            found += [np.ascontiguousarray(w).tobytes() for _, w in sorted(trainer.weights.items())]
        seen[threads] = found
    assert all(found == seen[1] for found in seen.values())
