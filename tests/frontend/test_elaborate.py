"""Programs made from text: values, types, parameter paths, ports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dslc.diagnostics import DiagnosticError
from dslc.frontend import check, elaborate
from dslc.frontend.elaborate import Elaborated
from dslc.interpret import interpret
from dslc.ir.module import PortKind, Program, Role
from dslc.runtime.initial import initial_value
from dslc.transforms.autodiff import differentiate

Array = np.ndarray[Any, Any]


def made(text: str, **kw: Any) -> Elaborated:
    """The programs of a text that has no warnings either."""
    result = elaborate(text, "test.dl", **kw)
    assert [w.message for w in result.warnings] == []
    return result


def run(elaborated: Elaborated, name: str = "infer", given: Mapping[str, Any] | None = None, **inputs: Any) -> dict[str, Array]:
    """Interprets a program: inputs and buffers by name, initial values for buffers not given."""
    program = elaborated.module.programs[name]
    arrays = []
    for port, value in zip(program.inputs, program.graph.inputs, strict=True):
        if port.kind == PortKind.BUFFER and port.name not in (given or {}):
            buffer = elaborated.module.buffers[port.name]
            described = {"kind": buffer.initial.kind, "settings": dict(buffer.initial.settings), "stream": buffer.initial.stream}
            arrays.append(initial_value(described, value.type.dtype.value, tuple(int(n) for n in value.type.shape), 1))
        elif port.kind == PortKind.BUFFER:
            arrays.append((given or {})[port.name])
        else:
            arrays.append(inputs.get(port.name, port.default if port.default is not None else 3))
    results = interpret(differentiate(program.graph), arrays)
    return {port.name: array for port, array in zip(program.outputs, results, strict=True)}


def model(body: str, inputs: str = "x: f32[N, 4]", result: str = "f32[N, 4]", before: str = "") -> str:
    return f"dim N <= 64\n{before}\nmodel M({inputs}) -> {result} {{ {body} }}"


X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).normal(size=(2, 3, 8, 6)).astype(np.float32)


def value_of(body: str, result: str = "f32[N, 4]", before: str = "", **kw: Any) -> Array:
    return run(made(model(body, result=result, before=before), **kw), x=X)["output"]


# --- expressions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "result", "expected"),
    [
        ("return x * 2 + 1", "f32[N, 4]", X * 2 + 1),
        ("return 1 - x / 4", "f32[N, 4]", 1 - X / 4),
        ("return -x ** 2", "f32[N, 4]", -(X**2)),
        ("return (x > 0) |> cast[f32]", "f32[N, 4]", (X > 0).astype(np.float32)),
        ("return where(x > 0 and not (x > 1), x, 0.0)", "f32[N, 4]", np.where((X > 0) & ~(X > 1), X, 0)),
        ("return x @ transpose(x)", "f32[N, N]", X @ X.T),
        ("return x |> relu |> sum[axis = 1]", "f32[N]", np.maximum(X, 0).sum(1)),
        ("y = x + 1  y = y * y  return y", "f32[N, 4]", (X + 1) ** 2),
        ("act = relu  return act(x)", "f32[N, 4]", np.maximum(X, 0)),
        ("act = leaky_relu[0.5]  return x |> act", "f32[N, 4]", np.where(X > 0, X, 0.5 * X)),
        ("fs = [relu, tanh, abs]  return fs[1](x)", "f32[N, 4]", np.tanh(X)),
        ("a, b = split[2, axis = 1](x)  return concat[axis = 1](b, a)", "f32[N, 4]", np.roll(X, 2, 1)),
        ("a, b, c, d = transpose(x)  return b", "f32[N]", X[:, 1]),
        ("return maximum(x, 0.5)", "f32[N, 4]", np.maximum(X, 0.5)),
        ("return x + zeros[4]", "f32[N, 4]", X),
        ("return x * ones[N, 1]", "f32[N, 4]", X),
        ("return full[2.5, [4]] + x", "f32[N, 4]", X + 2.5),
        ("return reshape[N, 2, 2](x)", "f32[N, 2, 2]", X.reshape(3, 2, 2)),
        ('return rearrange["n (a b) -> a n b", a = 2](x)', "f32[2, N, 2]", X.reshape(3, 2, 2).transpose(1, 0, 2)),
        ("return mean(x) + 0 * x", "f32[N, 4]", np.full_like(X, X.mean())),
        ("return x * sqrt(4) + log(1.0)", "f32[N, 4]", X * 2),
        ("return if 2 > 1 then x else relu(x)", "f32[N, 4]", X),
        ("return x * size(x) / 4", "f32[N, 4]", X * 3),
        ("return iota[4] + x", "f32[N, 4]", X + np.arange(4)),
        ('return einsum["i j, k j -> i k"](x, x)', "f32[N, N]", X @ X.T),
        ("return softmax[axis = -1](x)", "f32[N, 4]", np.exp(X) / np.exp(X).sum(1, keepdims=True)),
        ("return x * (1.0 / size(x))", "f32[N, 4]", X / 12),
        ("return sum(x > 0) + 0 * sum[axis = 1](x > 0)", "i64[N]", np.full(3, (X > 0).sum())),
        ("return one_hot[4](argmax[axis = 1](x))", "f32[N, 4]", np.eye(4)[X.argmax(1)]),
    ],
)
def test_expressions(body: str, result: str, expected: Array) -> None:
    np.testing.assert_allclose(value_of(body, result), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("index", "result", "expected"),
    [
        ("x[:, 1]", "f32[N]", X[:, 1]),
        ("x[:, -1]", "f32[N]", X[:, -1]),
        ("x[:, 1:3]", "f32[N, 2]", X[:, 1:3]),
        ("x[..., ::2]", "f32[N, 2]", X[..., ::2]),
        ("x[..., ::-1]", "f32[N, 4]", X[:, ::-1]),
        ("x[:, none, 1:]", "f32[N, 1, 3]", X[:, None, 1:]),
        ("x[:, argmax(x) % 4]", "f32[N]", X[:, X.argmax() % 4]),
        ("transpose(x)[argmax[axis = 1](x)]", "f32[N, N]", X.T[X.argmax(1)]),
        ("x[..., none]", "f32[N, 4, 1]", X[..., None]),
        ("x[:, :2][:, 1]", "f32[N]", X[:, 1]),
    ],
)
def test_indexing(index: str, result: str, expected: Array) -> None:
    np.testing.assert_array_equal(value_of(f"return {index}", result), expected)


def test_static_lists_loops_and_conditions() -> None:
    text = """
      xs = [x]
      for i, f in enumerate([relu, abs]) {
        if i % 2 == 0 { xs = xs + [f(xs[-1])] } else { xs = xs + [f(xs[i]) + i] }
      }
      total = xs[0] * 0
      for a, b in zip(xs, reversed(xs)) { total = total + a * b }
      return total * len(xs)
    """
    a, b = np.maximum(X, 0), np.maximum(X, 0) + 1
    np.testing.assert_allclose(value_of(text), 3 * (X * b + a * a + b * X), rtol=1e-5)


def test_constants_and_dimensions() -> None:
    before = "const K = 2 + 2\nconst table: f32[K] = iota[K] * 0.5\ndim T = 4"
    text = f"dim N <= 64\n{before}\nmodel M(x: f32[N, T]) -> f32[N, K] {{ return x * K + table }}"
    np.testing.assert_allclose(run(made(text), x=X)["output"], X * 4 + np.arange(4) / 2, rtol=1e-6)
    assert made(text).module.programs["infer"].bound == 64
    with pytest.raises(DiagnosticError, match="DL0210"):
        elaborate(text, "test.dl", dims={"T": 5})


# --- blocks and models ---------------------------------------------------------------------------------------------------


def test_parameter_paths() -> None:
    text = """
      dim N <= 8
      block Pair[D](x: float[N, D]) -> float[N, D] {
        param cell = Dense[D]
        y = x |> Dense[D] as inner
        return cell(cell(y)) + Dense[D](x)
      }
      block Deep[D](x: float[N, D]) -> float[N, D] {
        for _i in 0..2 { for _j in 0..2 { x = x |> Dense[D] as h } }
        x = x |> Dense[D] |> Pair[D] |> Dense[D] |> LayerNorm
        for _i in 0..1 { x = x |> Dense[D] }
        return (LayerNorm(x) as final) |> Pair[D]
      }
      model Net = Deep[4]
    """
    paths = [p.rsplit(".", 1)[0] for p in made(text).module.buffers]
    assert list(dict.fromkeys(paths)) == [
        *(f"Net.h[{i}]" for i in range(4)),
        "Net.dense",
        "Net.pair.inner",
        "Net.pair.cell",
        "Net.pair.dense",
        "Net.dense[1]",
        "Net.layernorm",
        "Net.dense[2]",
        "Net.final",
        "Net.pair[1].inner",
        "Net.pair[1].cell",
        "Net.pair[1].dense",
    ]


def test_a_model_has_one_set_of_parameters() -> None:
    text = """
      dim N <= 8
      model A(x: f32[N, 4]) -> f32[N, 4] { return Dense[4](x) }
      block Net[k](x: f32[N, 4]) -> f32[N, 4] { return x |> Dense[k] |> Dense[4] }
      model B = Net[3]
      model C = Net[3]
      model All(x: f32[N, 4]) -> f32[N, 4] { return A(A(x)) + B(x) + C(x) }
    """
    paths = list(made(text, model="All").module.buffers)
    assert [p for p in paths if p.endswith(".w")] == ["A.dense.w", "B.dense.w", "B.dense[1].w", "C.dense.w", "C.dense[1].w"]


def test_initial_values_do_not_depend_on_other_layers() -> None:
    small = made(model("return x |> Dense[4] as a")).module.buffers
    large = made(model("return x |> Dense[4] as b |> Dense[4] as a")).module.buffers
    assert small["M.a.w"].initial == large["M.a.w"].initial
    assert large["M.b.w"].initial.stream != large["M.a.w"].initial.stream


def test_layers_of_the_library() -> None:
    text = """
      dim N <= 8
      model M(x: f32[N, 3, 8, 6]) -> (a: f32[N, 4, 4, 3], b: f32[N, 3], c: f32[N, 3, 4, 3], d: f32[N, 3, 8, 6]) {
        return Conv2D[4, 3, 2, padding = 1](x), GlobalAvgPool(x), AvgPool2D[2](x), LayerNorm(x)
      }
    """
    out = run(made(text), x=IMAGE)
    assert out["a"].shape == (2, 4, 4, 3)
    np.testing.assert_allclose(out["b"], IMAGE.mean((2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["c"], IMAGE.reshape(2, 3, 4, 2, 3, 2).mean((3, 5)), rtol=1e-5, atol=1e-6)
    centred = IMAGE - IMAGE.mean(-1, keepdims=True)
    np.testing.assert_allclose(out["d"], centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5), rtol=1e-4)


def test_embedding_and_overlapping_pools() -> None:
    text = """
      dim N <= 8
      model M(i: i64[N, 5], x: f32[N, 3, 8, 6]) -> (e: f32[N, 5, 4], p: f32[N, 3, 4, 3]) {
        return Embedding[10, 4](i), MaxPool2D[3, 2, padding = 1](x)
      }
    """
    out = run(made(text), i=np.zeros((2, 5), int), x=IMAGE)
    assert out["e"].shape == (2, 5, 4) and out["p"].shape == (2, 3, 4, 3)


def test_batch_norm_in_training_and_outside() -> None:
    text = """
      dim N <= 8
      model M(x: f32[N, 3, 8, 6]) -> f32[N, 3, 8, 6] { return BatchNorm(x) }
      train t {
        data x: f32[N, 3, 8, 6] from "digits"
        minimize mean(M(x) ** 2) over M with SGD[0.0]
        epochs 1
      }
    """
    elaborated = made(text, recipe="t")
    out = run(elaborated, "train", x=IMAGE)
    np.testing.assert_allclose(out["loss"], 1.0, rtol=1e-4)
    np.testing.assert_allclose(out["M.batchnorm.running_mean"], 0.1 * IMAGE.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(out["M.batchnorm.running_var"], 0.9 + 0.1 * IMAGE.var((0, 2, 3), ddof=1), rtol=1e-4)
    outside = run(elaborated, "evaluate", x=IMAGE)
    assert set(outside) == {"loss"}
    np.testing.assert_allclose(outside["loss"], np.mean(IMAGE**2) / (1 + 1e-5), rtol=1e-4)


def test_states_thread_through_calls_in_order() -> None:
    text = """
      dim N <= 8
      block Counter(x: f32[N]) -> f32[N] { state n: f32[] = 1  update n = n * 2  return x * n }
      model C = Counter
      train t {
        data x: f32[N] from "digits"
        y = C(x) + 10 * C(x) + 100 * eval[C](x)
        minimize mean(y * W(x)) over W with SGD[0.1]
        epochs 1
      }
      model W(x: f32[N]) -> f32[N] { param w: f32[] = 1  return w * x }
    """
    out = run(made(text, recipe="t"), "train", x=np.ones(2, np.float32))
    assert out["C.n"] == 4.0
    np.testing.assert_allclose(out["loss"], 2 + 40 + 400)


def test_results_have_names() -> None:
    text = """
      dim N <= 8
      block both(x: f32[N, 4]) -> (up: f32[N, 4], down: f32[N, 4]) { return x + 1, x - 1 }
      model M(x: f32[N, 4]) -> (f32[N, 4], f32[N, 4]) { r = both(x)  return r.up * 2, both(x).down }
    """
    out = run(made(text), x=X)
    np.testing.assert_allclose(out["output0"], (X + 1) * 2, rtol=1e-6)
    np.testing.assert_allclose(out["output1"], X - 1, rtol=1e-6)


def test_rows_of_dimensions_and_solved_dimensions() -> None:
    text = """
      dim N <= 8
      block halves(x: float[*L, 2 * D]) -> (float[*L, D], float[*L, D]) { return x[..., 0:D], x[..., D:2 * D] }
      model M(x: f32[N, 4]) -> f32[N, 2] { a, b = halves(x)  return a + b }
    """
    np.testing.assert_allclose(run(made(text), x=X)["output"], X[:, :2] + X[:, 2:], rtol=1e-6)


def test_element_types_meet() -> None:
    text = """
      dim N <= 8
      model M(x: f32[N, 4], y: f64[N, 4], i: i32[]) -> (a: f64[N, 4], b: f32[N, 4], c: f32[N, 4]) { return x + y, x * i, y }
    """
    program = made(text).module.programs["infer"]
    assert [str(v.type) for v in program.graph.outputs] == ["f64[N, 4]", "f32[N, 4]", "f32[N, 4]"]


def test_precision() -> None:
    text = model("return x |> Dense[4]")
    double = made(text, precision="f64").module
    assert {str(b.type.dtype) for b in double.buffers.values()} == {"f64"}
    assert all(v.type.dtype.value == "f64" for v in double.programs["infer"].graph.values())
    mixed = made("precision f64\n" + model("return x |> Dense[4]")).module
    assert {str(b.type.dtype) for b in mixed.buffers.values()} == {"f64"}
    assert mixed.programs["infer"].graph.outputs[0].type.dtype.value == "f32"


# --- gradients and random numbers ------------------------------------------------------------------------------------------


def test_gradients_by_inputs_parameters_and_again() -> None:
    text = """
      dim N <= 8
      model W(x: f32[N, 4]) -> f32[N, 4] { param w: f32[4] = 2  return w * x ** 2 }
      model M(x: f32[N, 4]) -> (f32[N, 4], f32[4], f32[N, 4]) {
        loss = sum(W(x))
        dx = grad[x](loss)
        return dx, grad[W.w](loss), grad[x](sum(dx * dx))
      }
    """
    out = run(made(text, model="M"), x=X)
    np.testing.assert_allclose(out["output0"], 4 * X, rtol=1e-5)
    np.testing.assert_allclose(out["output1"], (X**2).sum(0), rtol=1e-5)
    np.testing.assert_allclose(out["output2"], 32 * X, rtol=1e-5)


def test_each_draw_has_its_own_stream() -> None:
    text = """
      dim N <= 8
      model M(x: f32[N, 4]) -> f32[N, 4] { return x + random_normal[N, 4] + random_uniform[4] + dropout[0.5](x) }
    """
    program = made(text).module.programs["infer"]
    streams = [op.attr("stream") for op in program.graph.ops if "stream" in dict(op.attrs)]
    assert streams == [0, 1]  # dropout is the identity outside training
    assert [p.kind for p in program.inputs if p.kind in (PortKind.SEED, PortKind.COUNTER)] == [PortKind.SEED, PortKind.COUNTER]


# --- recipes ---------------------------------------------------------------------------------------------------------------


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


# --- files -----------------------------------------------------------------------------------------------------------------


def test_imports(tmp_path: Path) -> None:
    (tmp_path / "blocks.dl").write_text(
        "block Twice[D](x: float[N, In]) -> float[N, D] { return x |> Dense[D] |> Dense[D] }\nmodel Shared(x: f32[N, 4]) -> f32[N, 4] { return Dense[4](x) }\n"
    )
    text = """
      import "blocks.dl" as b
      dim N <= 8
      model M(x: f32[N, 4]) -> f32[N, 2] { return b.Shared(x) |> b.Twice[2] }
    """
    elaborated = made(text, folder=tmp_path)
    assert [p for p in elaborated.module.buffers if p.endswith("w")] == ["b.Shared.dense.w", "M.twice.dense.w", "M.twice.dense[1].w"]
    assert set(elaborated.module.sources) >= {"test.dl", "blocks.dl"}


@pytest.mark.parametrize("path", ["../secret.dl", "/etc/passwd", "a/../../x.dl", "link.dl", "", "a\\\\b.dl"])
def test_imports_never_leave_the_folder(tmp_path: Path, path: str) -> None:
    outside = tmp_path / "secret.dl"
    outside.write_text("const K = 1")
    inside = tmp_path / "project"
    inside.mkdir()
    (inside / "link.dl").symlink_to(outside)
    result = check(f'import "{path}" as f\n', "test.dl", folder=inside)
    assert [d.code for d in result.errors] == ["DL0105"]


@pytest.mark.parametrize("file", sorted(p.name for p in (Path(__file__).parents[2] / "models").glob("*.dl")))
def test_the_zoo_elaborates(file: str) -> None:
    path = Path(__file__).parents[2] / "models" / file
    result = check(path.read_text(), file, folder=path.parent)
    assert result.diagnostics == ()
    for name in result.models:
        elaborated = elaborate(path.read_text(), file, folder=path.parent, model=name)
        assert elaborated.module.programs["infer"].batch == "N"
    for name in result.recipes:
        elaborated = elaborate(path.read_text(), file, folder=path.parent, recipe=name)
        assert {program.split(".")[0] for program in elaborated.module.programs} == {"train", "evaluate"}  # `train.` and the phase's name
