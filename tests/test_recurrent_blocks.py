"""Recurrent layers of the library against NumPy, step by step: both forms of weights, both directions, stacked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.frontend.from_text import made, run

Array = np.ndarray[Any, Any]
Weights = dict[str, Array]
RNG = np.random.default_rng(8)
X = RNG.normal(size=(2, 5, 3))
D = 4


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def products(w: Weights, x: Array, h: Array) -> tuple[Array, Array]:
    """x w_in and h w_h with their biases."""
    biases = (w["b_in"], w["b_h"]) if "b_in" in w else tuple(w["b"]) if w["b"].ndim == 2 else (w["b"], 0.0)
    return x @ w["w_in"] + biases[0], h @ w["w_h"] + biases[1]


def lstm_step(w: Weights, x: Array, state: tuple[Array, ...], forget: float = 0.0) -> tuple[Array, ...]:
    i, f, g, o = np.split(sum(products(w, x, state[0])), 4, axis=1)  # type: ignore[call-overload]
    c = sigmoid(f + forget) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(w: Weights, x: Array, state: tuple[Array, ...], keras: bool = False, after: bool = True) -> tuple[Array, ...]:
    (h,) = state
    a, b = products(w, x, h)
    (a1, a2, an), (b1, b2, bn) = np.split(a, 3, axis=1), np.split(b, 3, axis=1)
    r, z = (sigmoid(a2 + b2), sigmoid(a1 + b1)) if keras else (sigmoid(a1 + b1), sigmoid(a2 + b2))
    if not after:
        bias = w["b_h"] if "b_h" in w else w["b"][1]
        bn = ((r * h) @ w["w_h"] + bias)[:, 2 * D :] / r  # r times this is what the gate's place asks for
    n = np.tanh(an + r * bn)
    return ((1 - z) * n + z * h,)


def rnn_step(w: Weights, x: Array, state: tuple[Array, ...], act: Any = np.tanh) -> tuple[Array, ...]:
    return (act(sum(products(w, x, state[0]))),)


def walked(step: Any, w: Weights, x: Array, states: int, reverse: bool) -> tuple[Array, tuple[Array, ...]]:
    state = (np.zeros((len(x), D)),) * states
    out = np.zeros((*x.shape[:2], D))
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
        state = step(w, x[:, t], state)
        out[:, t] = state[0]
    return out, state


CASES = {
    "LSTM[4]": (lstm_step, 2, {}),
    'LSTM[4, form = "keras", forget = 1.0]': (lstm_step, 2, {"forget": 1.0}),
    "LSTM[4, layers = 2, bidirectional = true]": (lstm_step, 2, {}),
    "GRU[4]": (gru_step, 1, {}),
    'GRU[4, form = "keras", layers = 2]': (gru_step, 1, {"keras": True}),
    "GRU[4, bidirectional = true, reset_after = false]": (gru_step, 1, {"after": False}),
    'GRU[4, form = "keras", reset_after = false]': (gru_step, 1, {"keras": True, "after": False}),
    "RNN[4, layers = 3]": (rnn_step, 1, {}),
    'RNN[4, relu, bidirectional = true, form = "keras"]': (rnn_step, 1, {"act": lambda x: np.maximum(x, 0)}),
}


@pytest.mark.parametrize("block", CASES)
def test_a_layer_is_its_formula_step_by_step(block: str) -> None:
    step, states, settings = CASES[block]
    both = "bidirectional" in block
    width, names = D * (1 + both), ["h", "c"][:states]
    results = ", ".join(f"{n}: f64[N, {width}]" for n in names)
    text = f"precision f64\ndim N <= 8\nmodel M(x: f64[N, 5, 3]) -> (out: f64[N, 5, {width}], {results}) {{ return {block}(x) as r }}"
    elaborated = made(text)
    weights = {path: RNG.normal(size=b.type.shape) for path, b in elaborated.module.buffers.items()}
    found = run(elaborated, given=weights, x=X)
    x, last = X, ()
    layers = sum(path.endswith(".w_h") and ".forward" in path for path in weights)
    for layer in range(layers):
        parts = []
        for name, reverse in (("forward", False), ("backward", True))[: 1 + both]:
            own = f"M.r.{name}[{layer}]."
            w = {path.removeprefix(own): a for path, a in weights.items() if path.startswith(own)}
            assert len(w) == (4 if "b_in" in w else 3)
            parts.append(walked(lambda w, x, s: step(w, x, s, **settings), w, x, states, reverse))
        x = np.concatenate([out for out, _ in parts], axis=2)
        last = tuple(np.concatenate(found, axis=1) for found in zip(*(state for _, state in parts), strict=True))
    np.testing.assert_allclose(found["out"], x, rtol=1e-10, atol=1e-12)
    for name, value in zip(names, last, strict=True):
        np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-12)


def test_weights_stand_in_the_order_of_pytorch() -> None:
    text = "dim N <= 8\nmodel M(x: f32[N, 5, 3]) -> f32[N, 5, 8] { return LSTM[4, layers = 2, bidirectional = true](x).out }"
    paths = list(made(text).module.buffers)
    assert paths == [f"M.lstm.{d}[{n}].{p}" for n in (0, 1) for d in ("forward", "backward") for p in ("w_in", "w_h", "b_in", "b_h")]


def test_dropout_stands_between_layers_in_training_alone() -> None:
    text = """
    dim N <= 8
    model M(x: f32[N, 5, 3]) -> f32[N, 4] { return GRU[4, layers = 3, drop = 0.5](x).h }
    train t {
      data x: f32[N, 5, 3], y: f32[N, 4] from "npz:none.npz"
      minimize mean((M(x) - y) ** 2) over M with SGD[0.1]
      epochs 1
    }"""
    module = made(text, recipe="t").module
    drawn = {name: sum(op.kind == "dropout" for op in program.graph.ops) for name, program in module.programs.items()}
    assert drawn == {"train": 2, "evaluate": 0}


def test_an_unknown_form_is_refused() -> None:
    from dslc.frontend import check

    (error,) = check('model M(x: f32[2, 5, 3]) -> f32[2, 4] { return LSTM[4, form = "mxnet"](x).h }').errors
    assert error.code == "DL0214"
