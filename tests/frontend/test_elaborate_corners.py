"""Corners of the language: functions as values, static choices, shapes without batch, results as tuples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from from_text import X, run

from dslc.frontend import elaborate

CASES: dict[str, tuple[str, Any]] = {
    "noinputs": (
        "block Pos[T]() -> f32[T] { param p: f32[T] = 2  return p }\nmodel M(x: f32[N,4]) -> f32[N,4] { return x + Pos[4]() }",
        X + 2,
    ),
    "elseif": (
        "block f[k](x: f32[*L]) -> f32[*L] { if k == 0 { return x } else if k == 1 { return x + 1 } else { return x * 2 } }\nmodel M(x: f32[N,4]) -> f32[N,4] { return x |> f[1] |> f[2] }",
        (X + 1) * 2,
    ),
    "dtype param": (
        "block to[d: dtype = f64](x: f32[*L]) -> f32[*L] { return cast[d](x) }\nmodel M(x: f32[N,4]) -> f32[N,4] { return x |> to |> to[f32] |> cast[float] }",
        X,
    ),
    "model param": (
        "model W(x: f32[N,4]) -> f32[N,4] { return Dense[4](x) }\nblock app[net](x: f32[N,4]) -> f32[N,4] { return net(x) - eval[net](x) }\nmodel M(x: f32[N,4]) -> f32[N,4] { return app[W](x) }",
        X * 0,
    ),
    "shared list": (
        "model M(x: f32[N,4]) -> f32[N,4] { param cell = Dense[4]\n cells = [cell, cell]\n for c in cells { x = c(x) }\n return x }",
        None,
    ),
    "range": (
        "model M(x: f32[N,4]) -> f32[N,4] { t = 0.0 * x\n for i in 1..4 { t = t + x[:, i:i + 1] * i }\n return t }",
        sum(X[:, i : i + 1] * i for i in range(1, 4)) * np.ones((1, 4)),
    ),
    "const list": (
        "const widths = [8, 4]\nconst names = [relu, tanh]\nmodel M(x: f32[N,4]) -> f32[N,4] { for w, f in zip(widths, names) { x = x |> Dense[w] |> f }\n return x }",
        None,
    ),
    "static str": ('const p = "n (a b) -> n " + "b a"\nmodel M(x: f32[N,4]) -> f32[N,2,2] { return rearrange[p, a = 2](x) }', None),
    "int tensor": ("model M(x: f32[N,4]) -> i64[N,4] { i = cast[i64](x * 10)\n return i // 3 + i % 3 - 2 * i }", None),
    "where mix": ("model M(x: f32[N,4]) -> f32[N,4] { return where(x > 0 or x < -1, 1, x) }", np.where((X > 0) | (X < -1), 1, X)),
    "pow": ("model M(x: f32[N,4]) -> f32[N,4] { return x ** 2 + x ** 3 + 2 ** x + abs(x) ** 0.5 }", X**2 + X**3 + 2**X + np.abs(X) ** 0.5),
    "grad mid": ("model M(x: f32[N,4]) -> f32[N,4] { h = x * 3\n y = sum(h ** 2)\n return grad[h](y) }", 2 * (X * 3)),
    "grad two": ("model M(x: f32[N,4]) -> f32[N,4] { h = x * 3\n a, b = grad[x, h](sum(h * x))\n return a + b }", 6 * X + X),
    "if expr chain": ("model M(x: f32[N,4]) -> f32[N,4] { return x * (if 1 > 2 then 5 else (if 2 > 1 then 7 else 9)) }", X * 7),
    "tuple results": (
        "block two(x: f32[N,4]) -> (f32[N,4], f32[N]) { return x, sum[axis = 1](x) }\nmodel M(x: f32[N,4]) -> f32[N,4] { a, b = x |> two\n return a + b[:, none] }",
        X + X.sum(1, keepdims=True),
    ),
    "update outside": ("model M(x: f32[N,4]) -> f32[N,4] { state s: f32[] = 3\n update s = s + 1\n return x * s }", X * 3),
    "bool reduce": ("model M(x: f32[N,4]) -> f32[] { return mean(x > 0) }", (X > 0).mean()),
    "moments": ("model M(x: f32[N,4]) -> f32[4] { m, v = moments[keep = 1](x)\n return v }", X.var(0)),
    "clip": (
        "model M(x: f32[N,4]) -> f32[N,4] { return x |> clip[-0.5, 0.5] |> pad[[0, 1], [0, 0]] |> slice2 }\nblock slice2(x: f32[A, B]) -> f32[A, B - 1] given B >= 2 { return x[:, 1:] }",
        np.clip(X, -0.5, 0.5),
    ),
    "norm": ("model M(x: f32[N,4]) -> f32[N] { return norm[axis = [1]](x) }", np.linalg.norm(X, axis=1)),
    "unary chain": (
        "model M(x: f32[N,4]) -> f32[N,4] { return - -x + not_it(x) }\nblock not_it(x: f32[*L]) -> f32[*L] { return where(not (x > 0), x, 0.0) }",
        X + np.minimum(X, 0),
    ),
    "size": ("model M(x: f32[N,4]) -> f32[] { return cast[f32](size(x)) / size(x) }", 1),
    "max list": ("model M(x: f32[N,4]) -> f32[N,8] { return concat[axis = 1]([x, x * 2]) }", np.concatenate([X, 2 * X], 1)),
    "training flag": ("model M(x: f32[N,4]) -> f32[N,4] { return if training then x else x * 2 }", X * 2),
}


@pytest.mark.parametrize("name", CASES)
def test_corner(name: str) -> None:
    text, expected = CASES[name]
    elaborated = elaborate("dim N <= 8\n" + text, "test.dl", model="M")
    assert elaborated.warnings == ()
    result = next(iter(run(elaborated, x=X).values()))
    if expected is None:
        assert np.isfinite(result).all()
    else:
        np.testing.assert_allclose(result, expected, atol=1e-5)
