"""Programs made from text: values, types, parameter paths, ports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from from_text import IMAGE, Array, X, made, model, run, value_of

from dslc.diagnostics import DiagnosticError
from dslc.frontend import check, elaborate
from dslc.ir.module import PortKind

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
