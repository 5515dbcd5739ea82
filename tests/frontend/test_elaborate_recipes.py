"""Programs made from recipes: steps, optimizers, schedules, settings, augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from from_text import Array, X, made, run

from dslc.frontend import elaborate
from dslc.ir.module import PortKind, Program, Role

RECIPE = """
  dim N <= 64
  model Net(x: f32[N, 4]) -> f32[N, 3] { return x |> Dense[5, tanh] as hidden |> Dense[3] as head }
  train t {
    data x: f32[N, 4], y: i64[N] from "digits"
    logits = Net(x)
    minimize cross_entropy(logits, y) over Net with OPTIMIZER
    metric accuracy = mean(argmax[axis = 1](logits) == y)
    epochs 2  batch 16  seed 3
  }
"""
LABEL = np.array([0, 2, 1])


def losses_of(optimizer: str, steps: int) -> list[Array]:
    """The losses of some steps on one batch."""
    elaborated = made(RECIPE.replace("OPTIMIZER", optimizer), recipe="t")
    state: dict[str, Any] = {}
    losses = []
    for _ in range(steps):
        out = run(elaborated, "train", state, x=X, y=LABEL, total=10)
        losses.append(out["loss"])
        state = {k: v for k, v in out.items() if k in elaborated.module.buffers}
    return losses


def test_every_optimizer_lowers_the_loss() -> None:
    optimizers = ["SGD[0.3]", "SGD[0.1, momentum = 0.9]", "SGD[0.1, momentum = 0.9, nesterov = true]", "RMSProp[0.01]"]
    optimizers += ["RMSProp[0.01, momentum = 0.5]", "Adam[0.01]", "AdamW[0.01]", "SGD[0.3], clip = 0.1"]
    for optimizer in optimizers:
        losses = losses_of(optimizer, 4)
        assert losses[-1] < losses[0], optimizer


def test_adamw_is_the_published_rule() -> None:
    text = """
      dim N <= 8
      model W(x: f32[N]) -> f32[N] { param w: f32[] = 1  return w * x }
      train t { data x: f32[N] from "digits"  minimize mean(W(x)) over W with AdamW[0.1, decay = 0.5]  epochs 1 }
    """
    elaborated = made(text, recipe="t")
    w, m, v, state = 1.0, 0.0, 0.0, {}
    for t in range(1, 4):
        x = np.full(2, t, np.float32)
        out = run(elaborated, "train", state, x=x)
        state = {k: a for k, a in out.items() if k in elaborated.module.buffers}
        m, v = 0.9 * m + 0.1 * t, 0.999 * v + 0.001 * t * t
        w -= 0.1 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.5 * w)
        np.testing.assert_allclose(out["W.w"], w, rtol=1e-5)
    assert state["t.step"] == 3


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("0.5", [0.5] * 4),
        ("constant[0.5, warmup = 2]", [0.25, 0.5, 0.5, 0.5]),
        ("step[0.8, 2, factor = 0.5]", [0.8, 0.8, 0.4, 0.4]),
        ("linear[0.4]", [0.4, 0.3, 0.2, 0.1]),
        ("cosine[0.4]", [0.4 * 0.5 * (1 + np.cos(np.pi * k / 4)) for k in range(4)]),
        ("cosine[0.4, warmup = 2]", [0.2, 0.4, 0.4, 0.2]),
        ("warmup[0.4, 4]", [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    text = f"""
      dim N <= 8
      model W(x: f32[N]) -> f32[N] {{ param w: f32[] = 1  return w * x }}
      train t {{ data x: f32[N] from "digits"  minimize mean(W(x)) over W with SGD[{schedule}]  epochs 1 }}
    """
    elaborated = made(text, recipe="t")
    state: dict[str, Any] = {}
    rates, before = [], 1.0
    for _ in range(4):
        out = run(elaborated, "train", state, x=np.ones(2, np.float32), total=4)
        state = {k: a for k, a in out.items() if k in elaborated.module.buffers}
        rates.append(before - float(out["W.w"]))
        before = float(out["W.w"])
    np.testing.assert_allclose(rates, expected, atol=1e-6)


def test_settings_are_run_time_values() -> None:
    def train(text: str) -> Program:
        return made(text, recipe="t").module.programs["train"]

    first = RECIPE.replace("OPTIMIZER", "AdamW[cosine[1e-3, warmup = 10]], clip = 1.0")
    other = (
        first.replace("1e-3", "2e-4")
        .replace("warmup = 10", "warmup = 77")
        .replace("clip = 1.0", "clip = 5.0")
        .replace("batch 16  seed 3", "batch 99  seed 8")
    )
    a, b = train(first), train(other.replace("epochs 2", "epochs 7"))
    assert [(op.kind, op.inputs, op.attrs) for op in a.graph.ops] == [(op.kind, op.inputs, op.attrs) for op in b.graph.ops]
    defaults = {p.name: p.default for p in b.inputs if p.kind == PortKind.SETTING}
    assert defaults == {"total": 1, "clip": 5.0, "lr": 2e-4, "lr.end": 0.0, "lr.warmup": 77.0}
    recipe = made(other, recipe="t").recipe
    assert recipe is not None and recipe.batch == 99 and dict(recipe.settings)["lr"] == 2e-4


def test_groups_and_frozen_parameters() -> None:
    optimizer = 'SGD[0.0] over "*.head.*" with SGD[1.0] freeze "Net.head.w"'
    elaborated = elaborate(RECIPE.replace("OPTIMIZER", optimizer), "test.dl", recipe="t")
    out = run(elaborated, "train", x=X, y=LABEL)
    assert "Net.head.w" in elaborated.module.buffers and "Net.head.w" not in out
    assert np.abs(out["Net.head.b"]).max() > 0 and np.abs(out["Net.hidden.b"]).max() == 0
    assert dict(elaborated.recipe.settings if elaborated.recipe else ()) == {"total": 1, "lr": 0.0, "lr[1]": 1.0}


def test_training_draws_follow_the_step_and_augmentation_is_for_training() -> None:
    text = """
      dim N <= 8
      model Net(x: f32[N, 1, 4, 4]) -> f32[N, 3] { return x |> flatten |> dropout[0.5] |> Dense[3] }
      train t {
        data x: f32[N, 1, 4, 4], y: i64[N] from "digits" with augment = [random_shift[1], random_flip[axis = -1]]
        minimize cross_entropy(Net(x), y) over Net with SGD[0.1]
        epochs 1
      }
    """
    elaborated = made(text, recipe="t")
    train, evaluate = (elaborated.module.programs[n] for n in ("train", "evaluate"))
    assert [op.attr("stream") for op in train.graph.ops if "stream" in dict(op.attrs)] == [0, 1, 2]
    assert not any("stream" in dict(op.attrs) for op in evaluate.graph.ops)
    assert PortKind.COUNTER not in [p.kind for p in train.inputs]
    assert elaborated.recipe is not None and elaborated.recipe.augment == ("random_shift", "random_flip")


def test_roles_of_buffers() -> None:
    roles = {p: b.role for p, b in made(RECIPE.replace("OPTIMIZER", "Adam[0.1]"), recipe="t").module.buffers.items()}
    assert roles["t.step"] == Role.COUNTER and roles["Net.head.w"] == Role.PARAMETER and roles["adam.Net.head.w.m"] == Role.OPTIMIZER


def test_users_write_layers_optimizers_and_schedules() -> None:
    text = """
      dim N <= 8
      block Dense[D](x: float[N, In]) -> float[N, D] { param own: float[In, D] ~ normal[0.1]  return x @ own }
      optimizer Lion[lr, b1 = 0.9, b2 = 0.99](p: float[*L], g: float[*L], step: i64[]) -> float[*L] {
        state m: f32[*L] = 0
        direction = sign(b1 * m + (1 - b1) * g)
        update m = b2 * m + (1 - b2) * g
        return p - lr(step) * direction
      }
      block half[rate](step: i64[], total: i64[]) -> f32[] { return where(step * 2 > total, rate / 2, rate) }
      model Net(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) }
      train t { data x: f32[N, 4] from "digits"  minimize mean(Net(x)) over Net with Lion[half[0.1]]  epochs 1 }
    """
    out = run(made(text, recipe="t"), "train", x=X, total=10)
    assert set(out) == {"t.step", "loss", "Net.dense.own", "lion.Net.dense.own.m"}
