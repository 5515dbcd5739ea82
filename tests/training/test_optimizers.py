"""The optimizer library and the schedules against their formulas in NumPy, compiled, in f64; and in f32 within rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import update_rules as rules

import dslc

STEPS = 7


pytestmark = pytest.mark.usefixtures("own_cache")


def source(optimizers: Sequence[str], steps: int = STEPS, initial: str = "~ normal") -> str:
    """A parameter for each optimizer. The gradient of this loss by each is x itself, for a batch of one."""
    terms = " + ".join(f"(Part(x) as part{i})" for i in range(len(optimizers)))
    groups = "\n    ".join(f'over "M.part{i}.w" with {optimizer}' for i, optimizer in enumerate(optimizers))
    return f"""
block Part(x: f32[N, 3, 2]) -> float[N] {{
  param w: float[3, 2] {initial}
  return sum[axis = [1, 2]](w * x)
}}
model M(x: f32[N, 3, 2]) -> f32[N] {{ return {terms} }}
train t {{
  data x: f32[N, 3, 2] from "npz:none.npz"
  minimize mean(M(x))
    {groups}
  steps {steps}  batch 1
}}
"""


def trainer(optimizers: Sequence[str], precision: str | None, steps: int = STEPS, initial: str = "~ normal") -> dslc.Trainer:
    data = {"x": np.zeros((steps, 3, 2), np.float32)}
    return dslc.Trainer(source(optimizers, steps, initial), data=data, precision=precision, threads=1, seed=3)


def gradients() -> list[np.ndarray[Any, Any]]:
    """One of them all zeros, and one element that never moves."""
    drawn = [np.random.default_rng(i).standard_normal((3, 2)).astype(np.float32).astype(np.float64) for i in range(STEPS)]
    drawn[3][:] = 0
    for g in drawn:
        g[2, 1] = 0
    return drawn


CASES: dict[str, Any] = {
    "SGD[0.1]": (rules.sgd, {"lr": 0.1}),
    "SGD[0.1, momentum = 0.9, nesterov = true, decay = 0.01]": (
        rules.sgd,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "decay": 0.01},
    ),
    "RMSProp[0.01, momentum = 0.5]": (rules.rmsprop, {"lr": 0.01, "momentum": 0.5}),
    "Adagrad[0.1]": (rules.adagrad, {"lr": 0.1}),
    "Adagrad[0.1, start = 0.5]": (rules.adagrad, {"lr": 0.1, "start": 0.5}),
    "Adadelta": (rules.adadelta, {}),
    "Adadelta[0.5, rho = 0.95]": (rules.adadelta, {"lr": 0.5, "rho": 0.95}),
    "Adam[0.1]": (rules.adam, {"lr": 0.1}),
    "AdamW[0.1, decay = 0.05]": (rules.adamw, {"lr": 0.1, "decay": 0.05}),
    "Adamax[0.1]": (rules.adamax, {"lr": 0.1}),
    "Nadam[0.1]": (rules.nadam, {"lr": 0.1}),
    "Lion[0.1, decay = 0.1]": (rules.lion, {"lr": 0.1, "decay": 0.1}),
    "LAMB[0.1]": (rules.lamb, {"lr": 0.1}),
    "LAMB[0.1, decay = 0.0]": (rules.lamb, {"lr": 0.1, "decay": 0.0}),
}


@pytest.mark.parametrize("precision", ["f64", None])
def test_optimizers(precision: str | None) -> None:
    compiled = trainer(list(CASES), precision)
    expected = {name: array.astype(np.float64) for name, array in compiled.weights.items()}
    states: dict[str, dict[str, Any]] = {name: {} for name in expected}
    tolerance = {"rtol": 1e-12, "atol": 1e-14} if precision else {"rtol": 3e-6, "atol": 3e-6}
    for t, g in enumerate(gradients(), 1):
        compiled.train_on(x=g[None])
        for i, (optimizer, (rule, settings)) in enumerate(CASES.items()):
            name = f"M.part{i}.w"
            expected[name] = rule(expected[name], g, t, states[name], **settings)
            np.testing.assert_allclose(compiled.weights[name], expected[name], **tolerance, err_msg=f"{optimizer}, step {t}")


def test_moments_of_what_never_moves_become_zero() -> None:
    """Numbers below 1e-38 cost a hundred times as much, and a moment that shrinks by a tenth a step would never leave them."""
    compiled = trainer(["SGD[0.1, momentum = 0.9]", "RMSProp[0.1, alpha = 0.9]", "Adam[0.1, b2 = 0.9]", "Nadam[0.1]", "Adamax[0.1]"], None)
    compiled.train_on(x=np.ones((1, 3, 2)))
    for _ in range(900):
        compiled.train_on(x=np.zeros((1, 3, 2)))
    state = {name: array for name, array in compiled.program.state().items() if name.startswith("optimizer/") and array.shape}
    assert sum(not array.any() for array in state.values()) == 6, state
    least = np.finfo(np.float32).tiny
    assert all(np.all((array == 0) | (abs(array) >= least)) for array in state.values())


def test_lamb_leaves_a_parameter_of_zeros_its_rate() -> None:
    """Neither a parameter of zeros nor an update of zeros divides by zero."""
    compiled = trainer(["LAMB[0.1]"], "f64", initial="= 0")
    compiled.train_on(x=np.zeros((1, 3, 2)))
    assert not compiled.weights["M.part0.w"].any()
    compiled.train_on(x=np.ones((1, 3, 2)))
    expected = rules.lamb(np.zeros((3, 2)), np.ones((3, 2)), 2, {"m": 0.0, "v": 0.0}, 0.1)
    np.testing.assert_allclose(compiled.weights["M.part0.w"], expected, rtol=1e-12)


SCHEDULES: dict[str, Any] = {
    "one_cycle[0.5]": rules.one_cycle(0.5),
    "one_cycle[0.5, rise = 0.5, start = 0.1, end = 0.01]": rules.one_cycle(0.5, 0.5, 0.1, 0.01),
    "cosine_restarts[0.5, 4]": rules.cosine_restarts(0.5, 4),
    "cosine_restarts[0.5, 3, factor = 2, end = 0.1]": rules.cosine_restarts(0.5, 3, 2, 0.1),
    "cosine_restarts[0.5, 1, factor = 3]": rules.cosine_restarts(0.5, 1, 3),
    "exponential[0.5, 0.9]": rules.exponential(0.5, 0.9),
    "polynomial[0.5]": rules.polynomial(0.5),
    "polynomial[0.5, power = 1, end = 0.2]": rules.polynomial(0.5, 1, 0.2),
}


@pytest.mark.parametrize("precision", ["f64", None])
def test_schedules(precision: str | None) -> None:
    """The rate of every step is how far SGD moves with a gradient of one."""
    total = 40
    compiled = trainer([f"SGD[{schedule}]" for schedule in SCHEDULES], precision, total)
    before = compiled.weights
    for t in range(1, total + 1):
        compiled.train_on(x=np.ones((1, 3, 2)))
        after = compiled.weights
        for i, (schedule, rate) in enumerate(SCHEDULES.items()):
            old, new = before[f"M.part{i}.w"], after[f"M.part{i}.w"]
            atol = 1e-12 if precision else 2e-6 * max(1.0, float(abs(new).max()))
            np.testing.assert_allclose(old - new, rate(t, total), rtol=1e-9, atol=atol, err_msg=f"{schedule}, step {t}")
        before = after


def test_numbers_of_a_schedule_are_settings() -> None:
    compiled = trainer(["SGD[cosine_restarts[0.5, 4]]"], None)
    assert {"lr", "lr.period", "lr.factor", "lr.end", "lr.warmup"} <= dict(compiled.recipe.settings).keys()
