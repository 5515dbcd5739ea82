"""The build with sums in any order, against which the cost of the same bits is measured: it computes the same, but for rounding."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import dslc

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

from reduction_order import order


def trained(name: str, cache: Path) -> tuple[dict[str, np.ndarray], set[str]]:
    """Parameters after some steps, and the keys of the kernels."""
    with order(name):
        trainer = dslc.Trainer("digits", steps=20, save=False, cache=cache, threads=2, width=16)
    trainer.fit()
    return {path: np.array(a) for path, a in trainer.weights.items()}, set(trainer._ready.objects)


def test_both_orders_train_alike(cache: Path) -> None:
    (fixed, mine), (free, theirs) = trained("fixed", cache), trained("free", cache)
    assert not mine & theirs, "kernels of the two builds have keys of their own"
    assert any(fixed[path].tobytes() != free[path].tobytes() for path in fixed), "otherwise there is nothing to compare"
    for path, values in fixed.items():
        scale = np.abs(values).max()
        assert np.abs(values - free[path]).max() <= 1e-3 * scale, path


def test_both_orders_infer_alike(cache: Path) -> None:
    image = np.random.default_rng(0).random((9, 1, 28, 28), np.float32)
    results = []
    for name in ("fixed", "free"):
        with order(name):
            results.append(dslc.compile("mlp", cache=cache, threads=2, width=16)(image=image))
    assert np.abs(results[0] - results[1]).max() <= 1e-5 * np.abs(results[0]).max()
