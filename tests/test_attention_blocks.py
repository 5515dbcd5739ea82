"""Blocks of `std/attention.dl` against plain NumPy: attention with its projections, Transformer layers, positions, times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dslc

Array = np.ndarray[Any, Any]
T, S, D, C, HEADS = 6, 5, 8, 4, 4
TEXT = f"""
precision f64
dim N <= 4
model M(x: f64[N, {T}, {D}], memory: f64[N, {S}, {C}], length: i64[N], t: f64[N]) -> (
    own: f64[N, {T}, {D}], grouped: f64[N, {T}, {D}], padded: f64[N, {T}, {D}], cross: f64[N, {T}, {D}], short: f64[N, {T}, {D}],
    after: f64[N, {T}, {D}], before: f64[N, {T}, {D}], lengths: f64[N, {T}, {D}], decoded: f64[N, {T}, {D}], gated: f64[N, {T}, {D}],
    turned: f64[N, {T}, {D}], halves: f64[N, {T}, {D}], waves: f64[{T}, {D}], learned: f64[N, {T}, {D}], times: f64[N, {D}],
    embedded: f64[N, {D}], mask: bool[3, 5]) {{
  own = MultiHeadAttention[{HEADS}, causal = true](x) as own
  grouped = MultiHeadAttention[{HEADS}, groups = 2, window = 3, bias = false, rotate = true](x) as grouped
  padded = PaddedAttention[{HEADS}](x, length) as padded
  cross = CrossAttention[{HEADS}](x, memory) as cross
  short = PaddedCrossAttention[{HEADS}, groups = 1](x, memory, length) as short
  after = TransformerEncoderLayer[{HEADS}, causal = true](x) as after
  before = TransformerEncoderLayer[{HEADS}, inner = 12, act = gelu, first = true](x) as before
  lengths = PaddedEncoderLayer[{HEADS}](x, length) as lengths
  decoded = TransformerDecoderLayer[{HEADS}, first = true](x, memory) as decoded
  gated = SwiGLU[12](x) as gated
  at = iota[{T}, dtype = i64] + 3
  turned = rotary(x, at)
  halves = rotary[halves = true](x, at)
  waves = sinusoidal_positions[{D}](at)
  learned = LearnedPositions[9](x) as learned
  times = time_features[{D}](t)
  embedded = TimeEmbedding[{D}](t) as embedded
  mask = causal_mask[3, 5]()
  return own, grouped, padded, cross, short, after, before, lengths, decoded, gated, turned, halves, waves, learned, times, embedded, mask
}}
"""


class Given:
    """The inputs, what the program makes of them, and its weights."""

    def __init__(self, folder: Any):
        program = dslc.compile(TEXT, cache=folder)
        rng = np.random.default_rng(1)
        program.load_weights({path: rng.normal(size=old.shape) for path, old in program.weights.items()})
        self.x, self.memory = rng.normal(size=(3, T, D)), rng.normal(size=(3, S, C))
        self.length, self.t = np.array([5, 2, 4]), np.array([0.0, 3.0, 250.0])
        self.made = program(x=self.x, memory=self.memory, length=self.length, t=self.t)
        self.weights = {path.removeprefix("M."): a for path, a in program.weights.items()}

    def dense(self, path: str, x: Array) -> Array:
        bias = self.weights.get(f"{path}.b")
        return x @ self.weights[f"{path}.w"] + (0 if bias is None else bias)

    def norm(self, path: str, x: Array) -> Array:
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * self.weights[f"{path}.scale"] + self.weights[f"{path}.bias"]

    def attend(self, path: str, q: Array, k: Array, v: Array, seen: Array | None = None) -> Array:
        """Heads [3, H, T, E]; fewer of k and v are repeated."""
        k, v = (np.repeat(a, q.shape[1] // a.shape[1], 1) for a in (k, v))
        scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1])
        if seen is not None:
            scores = np.where(seen, scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return self.dense(f"{path}.output", (p @ v).swapaxes(1, 2).reshape(3, q.shape[2], -1))

    def own_heads(self, path: str, x: Array, groups: int = HEADS) -> list[Array]:
        wide = groups * D // HEADS
        y = self.dense(f"{path}.heads.project", x)
        return [heads(y[..., :D], HEADS), heads(y[..., D : D + wide], groups), heads(y[..., D + wide :], groups)]

    def cross_heads(self, path: str, x: Array, groups: int = HEADS) -> list[Array]:
        wide = groups * D // HEADS
        y = self.dense(f"{path}.heads.project", self.memory)
        return [heads(self.dense(f"{path}.heads.query", x), HEADS), heads(y[..., :wide], groups), heads(y[..., wide:], groups)]

    def forward(self, path: str, x: Array, act: Any) -> Array:
        return self.dense(f"{path}.forward.outer", act(self.dense(f"{path}.forward.inner", x)))


def heads(x: Array, count: int) -> Array:
    return x.reshape(*x.shape[:2], count, -1).swapaxes(1, 2)


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def turned(x: Array, at: Array) -> Array:
    """Neighbouring features as complex numbers, turned."""
    angle = at[:, None] * 10000.0 ** (-2 * np.arange(x.shape[-1] // 2) / x.shape[-1])
    z = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([z.real, z.imag], -1).reshape(x.shape)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(tmp_path_factory.mktemp("cache"))


def same(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-11)


CAUSAL = np.tri(T, dtype=bool)


def test_attention(given: Given) -> None:
    real = np.arange(T) < given.length[:, None, None, None]
    same(given.made["own"], given.attend("own", *given.own_heads("own", given.x), CAUSAL))
    same(given.made["padded"], given.attend("padded", *given.own_heads("padded", given.x), real))
    same(given.made["cross"], given.attend("cross", *given.cross_heads("cross", given.x)))
    same(given.made["short"], given.attend("short", *given.cross_heads("short", given.x, 1), real[..., :S]))


def test_grouped_queries_turned_by_their_positions(given: Given) -> None:
    q, k, v = given.own_heads("grouped", given.x, 2)
    near = np.abs(np.arange(T)[:, None] - np.arange(T)) < 3
    same(given.made["grouped"], given.attend("grouped", turned(q, np.arange(T)), turned(k, np.arange(T)), v, near))


def test_encoder_layers(given: Given) -> None:
    x = given.norm("after.attention_norm", given.x + given.attend("after.attention", *given.own_heads("after.attention", given.x), CAUSAL))
    same(given.made["after"], given.norm("after.norm", x + given.forward("after", x, relu)))
    h = given.norm("before.attention_norm", given.x)
    x = given.x + given.attend("before.attention", *given.own_heads("before.attention", h))
    same(given.made["before"], x + given.forward("before", given.norm("before.norm", x), gelu))
    real = np.arange(T) < given.length[:, None, None, None]
    h = given.attend("lengths.attention", *given.own_heads("lengths.attention", given.x), real)
    x = given.norm("lengths.attention_norm", given.x + h)
    same(given.made["lengths"], given.norm("lengths.norm", x + given.forward("lengths", x, relu)))


def test_decoder_layer(given: Given) -> None:
    h = given.norm("decoded.attention_norm", given.x)
    x = given.x + given.attend("decoded.attention", *given.own_heads("decoded.attention", h), CAUSAL)
    h = given.norm("decoded.cross_norm", x)
    x = x + given.attend("decoded.cross", *given.cross_heads("decoded.cross", h))
    same(given.made["decoded"], x + given.forward("decoded", given.norm("decoded.norm", x), relu))


def test_gated_layer(given: Given) -> None:
    gate = silu(given.dense("gated.gate", given.x))
    same(given.made["gated"], given.dense("gated.down", gate * given.dense("gated.up", given.x)))


def test_positions(given: Given) -> None:
    at = np.arange(T) + 3
    same(given.made["turned"], turned(given.x, at))
    order = np.arange(D).reshape(D // 2, 2).T.ravel()  # a half's features stand where every second one stood
    back = np.empty_like(given.x)
    back[..., order] = given.x
    same(given.made["halves"], turned(back, at)[..., order])
    angle = at[:, None] / 10000.0 ** (2 * np.arange(D // 2) / D)
    same(given.made["waves"], np.stack([np.sin(angle), np.cos(angle)], -1).reshape(T, D))
    same(given.made["learned"], given.x + given.weights["learned.w"][:T])
    np.testing.assert_array_equal(given.made["mask"], np.tri(3, 5, 2, dtype=bool))


def test_times(given: Given) -> None:
    angle = given.t[:, None] * np.exp(-np.log(10000.0) / (D // 2 - 1) * np.arange(D // 2))
    features = np.concatenate([np.sin(angle), np.cos(angle)], -1)
    same(given.made["times"], features)
    same(given.made["embedded"], given.dense("embedded.outer", silu(given.dense("embedded.inner", features))))


DECODING = """
dim N <= 4, T = 12
model M(x: f32[N, T, 8], w: f32[8, 24]) -> (at_once: f32[N, T, 8], step_by_step: f32[N, T, 8]) {
  y = x @ w
  q, k, v = y |> rearrange["n t (c h e) -> c n h t e", c = 3, h = 2]
  at_once = attention[causal = true](q, k, v) |> rearrange["n h t e -> n t (h e)"]
  step_by_step, _k, _v = scan[axis = 1] i, now in enumerate(x) carry keys = zeros[N, 2, T, 4], values = zeros[N, 2, T, 4] {
    z = now @ w
    keys = dynamic_update_slice[axis = 2](keys, reshape[N, 2, 1, 4](z[:, 8:16]), i)
    values = dynamic_update_slice[axis = 2](values, reshape[N, 2, 1, 4](z[:, 16:]), i)
    yield reshape[N, 8](attention(reshape[N, 2, 1, 4](z[:, 0:8]), keys, values, i + 1))
    return keys, values
  }
  return at_once, step_by_step
}
"""


def test_decoding_with_a_cache(tmp_path: Path) -> None:
    """A loop that keeps keys and values gives what causal attention gives at once, and copies neither cache."""
    program = dslc.compile(DECODING, cache=tmp_path)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3, 12, 8)).astype(np.float32), rng.normal(size=(8, 24)).astype(np.float32)
    made = program(x=x, w=w)
    np.testing.assert_allclose(made["step_by_step"], made["at_once"], rtol=0, atol=1e-5)
