"""`scan` from text: what it walks over, carries and gives, with states, draws, parameters and gradients in its body."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dslc.diagnostics import DiagnosticError
from dslc.frontend import check, elaborate
from dslc.interpret import interpret
from dslc.ir.module import PortKind
from dslc.ir.verify import verify_module
from tests.frontend.from_text import made, run

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(5)
X = RNG.normal(size=(2, 5, 3))  # [N, T, D]


def value_of(body: str, result: str, before: str = "", inputs: str = "x: f64[N, 5, 3]", **given: Array) -> Array:
    text = f"dim N <= 8\n{before}\nmodel M({inputs}) -> {result} {{ {body} }}"
    elaborated = made(text)
    verify_module(elaborated.module)
    return run(elaborated, **({"x": X} | given))["output"]


@pytest.mark.parametrize(
    ("body", "result", "expected"),
    [
        ("return scan[axis = 1] v in x carry h = zeros[N, 3, dtype = f64] { h = h + v  yield h }", "f64[N, 5, 3]", np.cumsum(X, 1)),
        ("return scan[axis = 1] v in x carry h = zeros[N, 3, dtype = f64] { h = h + v  return h }", "f64[N, 3]", X.sum(1)),
        (
            "return scan[axis = 1, reverse = true] v in x carry h = zeros[N, 3, dtype = f64] { h = h + v  yield h }",
            "f64[N, 5, 3]",
            np.cumsum(X[:, ::-1], 1)[:, ::-1],
        ),
        ("return scan[axis = -1] v in x { yield v * v }", "f64[N, 5, 3]", X * X),
        ("return scan[axis = 1] v in x { yield sum[axis = 1](v) }", "f64[N, 5]", X.sum(2)),
        ("return scan[axis = 1] u, v in zip(x, x * 2) { yield u + v }", "f64[N, 5, 3]", 3 * X),
        ("return scan[axis = 1] i, v in enumerate(x) { yield v * i }", "f64[N, 5, 3]", X * np.arange(5)[:, None]),
        ("return scan[axis = 1] i, v in zip(3..8, x) { yield v * i }", "f64[N, 5, 3]", X * np.arange(3, 8)[:, None]),
        ("return scan[axis = 1, reverse = true] i, v in enumerate(x) { yield v * i }", "f64[N, 5, 3]", X * np.arange(5)[:, None]),
        ("return scan[axis = 1] v in x over S { yield v * S }", "f64[N, 5, 3]", X * 5),
        ("return scan i in 0..4 carry a = x { a = a * (i + 1)  return a }", "f64[N, 5, 3]", X * 24),
        ("return scan i in 0..4 carry a = x, b = 2 * x { a, b = b, a  return a + i }", "f64[N, 5, 3]", X + 3),
        ("b, y = scan i in 0..4 carry a = x { b = a * 2  a = b - x  return b, x }  return b + y", "f64[N, 5, 3]", X * 3),
        ("h = scan i in 0..3 carry hs = [x, x + 1] { hs = [hs[1], hs[0] * 2]  return hs }  return h[1]", "f64[N, 5, 3]", X * 4),
        ("a, b = scan[axis = 1] v in x { yield v  yield -v }  return a - b", "f64[N, 5, 3]", 2 * X),
        ("a, b, c = scan[axis = 1] v in x carry h = 0.0 { yield v, -v  h = h + 1  return h }  return a - b + c", "f64[N, 5, 3]", 2 * X + 5),
        ("return scan a, b, c in transpose[1, 2, 0](x) over 5 { yield a - b * c }", "f64[5, N]", (X[..., 0] - X[..., 1] * X[..., 2]).T),
        (
            "return scan[axis = 1] v in x carry t = zeros[N, 3, dtype = f64] "
            "{ s = scan i in 0..3 carry a = t { a = a + v * i  return a }  t = s  yield t }",
            "f64[N, 5, 3]",
            3 * np.cumsum(X, 1),
        ),
        ("return scan[axis = 1] v in x { for k in 0..2 { v = v * 2 }  if 3 > 2 { yield v } else { yield -v } }", "f64[N, 5, 3]", 4 * X),
        ("n = scan i in 0..6 carry n = 0 { n = n + i  return n }  return x * n", "f64[N, 5, 3]", 15 * X),
        ("s = scan v in transpose(x) carry s = 0.0 { s = s + sum(v)  return s }  return x * s", "f64[N, 5, 3]", X * np.float32(X.sum())),
    ],
)
def test_what_a_scan_gives(body: str, result: str, expected: Array) -> None:
    np.testing.assert_allclose(value_of(body, result), expected, rtol=1e-6, atol=1e-12)


STEPS = st.lists(
    st.sampled_from(["h = h * v", "h = h + v * c", "c = tanh(h) - c", "h, c = c, h", "v = v + 1", "c = c * x[1, 2]"]),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(STEPS, st.booleans())
def test_a_scan_is_the_unrolled_loop(steps: list[str], reverse: bool) -> None:
    body = "\n".join(steps)
    order = "reversed(0..5)" if reverse else "0..5"
    text = f"""
    model M(x: f64[5, 3]) -> (all: f64[5, 3], h: f64[3], c: f64[3], all2: f64[5, 3], h2: f64[3], c2: f64[3]) {{
      all, h1, c1 = scan[reverse = {str(reverse).lower()}] v in x carry h = x[0], c = x[4] {{
        {body}
        yield h - 2 * c
        return h, c
      }}
      h = x[0]
      c = x[4]
      ys = []
      for i in {order} {{
        v = x[i]
        {body}
        ys = {"[(h - 2 * c)[none]] + ys" if reverse else "ys + [(h - 2 * c)[none]]"}
      }}
      return all, h1, c1, concat[axis = 0](ys), h, c
    }}"""
    found = run(made(text), x=X[0])
    for one, other in (("all", "all2"), ("h", "h2"), ("c", "c2")):
        np.testing.assert_array_equal(found[one], found[other])


# --- what stands in a body ---------------------------------------------------------------------------------------------------


def test_parameters_of_a_body_are_made_once() -> None:
    elaborated = made(
        """
        dim N <= 8
        block Twice(x: f32[M, D]) -> f32[M, D] {
          param inner = Dense[D]
          return inner(inner(x))
        }
        model M(x: f32[N, 5, 3]) -> f32[N, 5, 3] {
          y = x |> Dense[3]
          return scan[axis = 1] v in y {
            param scale: f32[3] = 2
            w = v * scale |> Twice |> Dense[3]
            yield Twice(w)
          }
        }
        """
    )
    paths = [
        "dense.w",
        "dense.b",
        "scale",
        "twice.inner.w",
        "twice.inner.b",
        "dense[1].w",
        "dense[1].b",
        "twice[1].inner.w",
        "twice[1].inner.b",
    ]
    assert list(elaborated.module.buffers) == [f"M.{p}" for p in paths]


STATES = """
dim N <= 8
block Counting(x: f32[M, D]) -> f32[M, D] {
  state seen: f32[] = 10
  if training { update seen = seen + sum(x) }
  return x + seen
}
model M(x: f32[N, 4, 3]) -> f32[N, 4, 3] {
  state count: f32[] = 1
  before = count
  y = scan[axis = 1] v in x {
    param c = Counting
    if training { update count = count * 2 }
    yield c(c(v)) * count + before + 0 * sum(v)
  }
  return y + count
}
train t {
  data x: f32[N, 4, 3], y: f32[N, 4, 3] from "npz:none.npz"
  z = M(x) |> Dense[1]
  minimize mean((z - y) ** 2) over M with SGD[0.1]
  epochs 1
}
"""


def test_states_are_carried() -> None:
    """Each iteration reads what the one before has left, and what follows the loop reads the last; outside training nothing changes."""
    text = STATES.replace("z = M(x) |> Dense[1]", "z = M(x)").replace("minimize", "metric all = sum(z)\n  minimize")
    text = text.replace("0 * sum(v)", "0 * sum(w)").replace("before = count", "param w: f32[1] = 1\n  before = count")
    elaborated = elaborate(text, recipe="t")
    x = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    program = elaborated.module.programs["train"]
    found = run(
        elaborated,
        "train",
        {"M.c.seen": np.float32(10), "M.count": np.float32(1), "M.w": np.ones(1, np.float32), **_zeros(program)},
        x=x,
        y=x,
    )
    seen, count, z = 10.0, 1.0, np.zeros_like(x)
    for t in range(4):
        v = x[:, t]
        for _ in range(2):
            seen += v.sum()
            v = v + seen
        count *= 2
        z[:, t] = v * count + 1
    np.testing.assert_allclose(found["M.c.seen"], seen, rtol=1e-5)
    np.testing.assert_allclose(found["M.count"], 16)
    np.testing.assert_allclose(found["all"], (z + 16).sum(), rtol=1e-5)
    alone = run(
        elaborate(text, model="M"), given={"M.c.seen": np.float32(10), "M.count": np.float32(1), "M.w": np.ones(1, np.float32)}, x=x
    )
    np.testing.assert_allclose(alone["output"], x + 20 + 1 + 1, rtol=1e-5)


def _zeros(program: Any) -> dict[str, Array]:
    named = zip(program.inputs, program.graph.inputs, strict=True)
    return {
        p.name: np.zeros(v.type.shape, v.type.dtype.numpy) for p, v in named if p.kind == PortKind.BUFFER and not p.name.startswith("M.")
    }


def test_draws_are_never_repeated() -> None:
    """By stream, by iteration of each loop around, and by the step of the program."""
    text = """
    model M(x: f32[4]) -> (a: f32[3, 2, 4], b: f32[3, 4], c: f32[4]) {
      a, b = scan i in 0..3 {
        yield scan j in 0..2 { yield random_normal[4] + 0 * j * x }
        yield random_normal[4] + 0 * i
      }
      return a, b, random_normal[4]
    }"""
    elaborated = made(text)
    runs = [run(elaborated, x=np.zeros(4, np.float32), counter=step) for step in (0, 1, 2)]
    numbers = np.concatenate([r[k].ravel() for r in runs for k in "abc"])
    assert len(np.unique(numbers)) == len(numbers) == 3 * (24 + 12 + 4)


def test_gradients_in_a_body() -> None:
    text = """
    dim N <= 8
    model Net(x: f32[N, 4]) -> f32[N, 2] { return x |> Dense[3, tanh] |> Dense[2] }
    block pgd[net, eps = 0.3, rate = 0.1, steps = 4](x: f32[*L], y: i64[M]) -> f32[*L] {
      return scan i in 0..steps carry a = x {
        a = a + rate * sign(grad[a](cross_entropy(eval[net](a), y))) + 0.0 * i
        a = clip[0.0, 1.0](x + clip[-eps, eps](a - x))
        return a
      }
    }
    model Attack(x: f32[N, 4], y: i64[N]) -> f32[N, 4] { return pgd[Net](x, y) }
    model Loss(x: f32[N, 4], y: i64[N]) -> f32[] { return cross_entropy(Net(x), y) }
    """
    x, y = RNG.uniform(0.3, 0.7, (2, 4)).astype(np.float32), np.array([0, 1])
    attack, loss = elaborate(text, model="Attack"), elaborate(text, model="Loss")
    moved = run(attack, x=x, y=y)["output"]
    assert np.abs(moved - x).max() <= 0.3 + 1e-6
    assert run(loss, x=moved, y=y)["output"] > run(loss, x=x, y=y)["output"] + 0.01


def test_a_gradient_by_what_lies_outside_of_the_body_is_refused_with_the_reason() -> None:
    text = "model M(x: f32[3]) -> f32[2, 3] {\n  y = x * x\n  return scan i in 0..2 { yield grad[x](sum(y) * i) }\n}"
    (error,) = check(text).errors
    assert error.code == "DL0401" and error.hint is not None and "inside of the scan" in error.hint


def test_a_trip_count_is_known_when_compiled() -> None:
    text = "dim N <= 8\nmodel M(x: f32[N, 3]) -> f32[N, 3] { return scan v in x { yield v } }"
    assert check(text).errors == ()  # N may be bound
    with pytest.raises(DiagnosticError, match="a scan runs N times, and N is only known at run time"):
        elaborate(text)
    np.testing.assert_array_equal(run(made(text, dims={"N": 2}), x=X[0, :2])["output"], X[0, :2].astype(np.float32))


@pytest.mark.parametrize(
    ("scan", "code", "message"),
    [
        ("scan[axs = 1] v in x { yield v }", "DL0103", "no setting `axs`"),
        ("scan[axis = 1, axis = 0] v in x { yield v }", "DL0307", "given twice"),
        ("scan[reverse = 1] v in x { yield v }", "DL0305", "`reverse` of scan is true or false"),
        ("scan a, a in zip(x, x) { yield a }", "DL0102", "`a` stands twice"),
        ("scan a in x carry a = w { yield a }", "DL0102", "`a` stands twice"),
        ("scan a, b in zip(x, x, x) { yield a + b }", "DL0309", "3 values for 2 names"),
        ("scan a in zip() { yield a }", "DL0301", "zip takes sequences"),
        ("scan a in zip(x, [1, 2]) { yield a }", "DL0332", "not over a list of 2"),
        ("scan v in x { yield relu }", "DL0305", "what a scan yields is a tensor"),
        ("scan v in x carry h = relu { h = v  yield v }", "DL0305", "the carry `h` is a tensor"),
        ("scan v in x over relu { yield v }", "DL0305", "what a scan goes over is a size"),
        ("scan i in 0..3000000000 { yield w + i }", "DL0217", "at most 2^31 - 1"),
        ("scan v in x { for i in 0..2 { return v }  yield v }", "DL0314", "`return` stands in a `for`"),
        ("scan v in x { update s = v  yield v }", "DL0409", "`s` is no state"),
    ],
)
def test_what_is_refused(scan: str, code: str, message: str) -> None:
    text = f"dim N <= 8\nmodel M(x: f32[4, 3], w: f32[3]) -> f32[4, 3] {{ y = {scan}  return x + y * w }}"
    errors = check(text).errors
    assert code in {e.code for e in errors} and any(message in e.message for e in errors)


def test_what_the_body_reads_is_explicit_and_seen_by_the_verifier() -> None:
    text = "model M(x: f32[4, 3]) -> f32[4] { y = x * 2  return scan v in x { yield sum(v) + sum(y) } }"
    program = verify_module(made(text).module).programs["infer"]
    scan = program.graph.ops[-1]
    assert [v.type.shape for v in scan.inputs] == [(4, 3), (4, 3)]
    assert interpret(program.graph, [np.ones((4, 3))])[0].tolist() == [27.0] * 4


def test_settings_are_static_arguments_and_names_of_a_body_stay_in_it() -> None:
    text = """
    block running[reverse: bool](x: f32[*L]) -> f32[*L] { return scan[axis = -1, reverse = reverse] v in x carry s = 0.0 * x[..., 0] { s = s + v  yield s } }
    model M(x: f32[2, 3]) -> (a: f32[2, 3], b: f32[2, 3]) { return running[false](x), running[true](x) }
    """
    found = run(made(text), x=X[0, :2])
    np.testing.assert_allclose(found["a"], np.cumsum(X[0, :2], 1), rtol=1e-6)
    np.testing.assert_allclose(found["b"], np.cumsum(X[0, :2, ::-1], 1)[:, ::-1], rtol=1e-6)
    unknown = "model M(x: f32[3]) -> f32[3] { y = scan v in x { z = v  yield z }  return y + z }"
    assert [d.code for d in check(unknown).errors] == ["DL0101"]
