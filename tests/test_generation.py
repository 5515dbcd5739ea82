"""Texts that GPT and Llama draw with a cache in one loop: the symbols that the networks give without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dslc
from dslc.api.sources import Source

ZOO = Path(__file__).parent.parent / "models"
CONTEXT = 9
NETWORKS = {"gpt": "Transformer[11, 16, 2, 2, 9, few = 4]", "llama": "Llama[11, 16, 2, 4, 2, 24, 9, few = 4]"}


def source(name: str) -> Source:
    """The network with 11 symbols, as `Narrow`: its logits of a whole context, and the text behind three symbols."""
    text = (
        f"model Narrow = {NETWORKS[name]}\n"
        "model Whole(symbols: i64[N, 9]) -> f32[N, 9, 11] {\n  return Narrow(symbols, 0.0).logits\n}\n"
        "model Text(symbols: i64[N, 3], temperature: f32[]) -> i64[N, 9] {\n  return Narrow(symbols, temperature).text\n}\n"
    )
    return Source((ZOO / f"{name}.dl").read_text(encoding="utf-8") + text, f"{name}.dl", ZOO)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_cache_changes_no_symbol(name: str, tmp_path: Path) -> None:
    """Positions behind those that are known do not matter to a causal network, so that one program serves for all lengths."""
    whole, cached = (dslc.compile(source(name), model=model, cache=tmp_path) for model in ("Whole", "Text"))
    rng = np.random.default_rng(1)
    drawn_new = {path: np.asarray(rng.standard_normal(w.shape), np.float32) for path, w in sorted(whole.weights.items()) if w.ndim == 2}
    weights = {**whole.weights, **drawn_new}
    whole.load_weights(weights)
    cached.load_weights(weights)
    start = rng.integers(0, 11, (5, 3))
    expected = np.zeros((5, CONTEXT), np.int64)
    expected[:, :3] = start
    for place in range(3, CONTEXT):
        expected[:, place] = whole(symbols=expected)[:, place - 1].argmax(axis=1)
    greedy = cached(symbols=start, temperature=0.0)
    assert len(np.unique(expected[:, 3:])) > 3
    assert (greedy == expected).all()

    drawn = cached(symbols=start, temperature=2.0, seed=1)
    assert (drawn[:, :3] == start).all() and (drawn != greedy).any()
    assert (drawn == cached(symbols=start, temperature=2.0, seed=1)).all()
    assert (drawn != cached(symbols=start, temperature=2.0, seed=2)).any()
    logits = whole(symbols=drawn)
    for place in range(3, CONTEXT):
        likelier = (logits[:, place - 1] > logits[np.arange(5), place - 1, drawn[:, place]][:, None]).sum(axis=1)
        assert (likelier < 4).all()
