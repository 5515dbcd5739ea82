"""What attention does not look at: behind the number of keys anything may stand, and hidden keys never show in a result.

The interpreter, plain operators and the kernels for few and for many queries keep the same rule.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dslc
from dslc.ir.operator import OPERATORS

Array = np.ndarray[Any, Any]
pytestmark = pytest.mark.usefixtures("own_cache")

S, THERE = 70, 41
SETTINGS = {"causal": True, "window": None, "scale": 0.5}
# Few queries are a kernel of their own; lengths that are known only at run time, as of `open`, are written out in plain operators.
TEXT = "dim N <= 128\n" + "\n".join(
    f"""
model {name}(q: f32[{t}, 8], k: f32[{s}, 8], v: f32[{s}, 8], there: i64[])
    -> (y: f32[{t}, 8], dq: f32[{t}, 8], dk: f32[{s}, 8], dv: f32[{s}, 8], masked: f32[{t}, 8]) {{
  y = attention[causal = true, scale = 0.5](q[none], k[none], v[none], there)[0]
  dq, dk, dv = grad[q, k, v](sum(sin(y)))
  return y, dq, dk, dv, attention[scale = 0.5](q[none], k[none], v[none], iota[{s}] < 40)[0]
}}
"""
    for name, t, s in (("Few", 4, S), ("Many", 30, S), ("Open", 4, "N"))
)


def inputs(queries: int) -> dict[str, Array]:
    rng = np.random.default_rng(queries)
    shapes = {"q": (queries, 8), "k": (S, 8), "v": (S, 8)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} | {"there": np.array(THERE)}


@pytest.mark.parametrize(("model", "queries"), [("Few", 4), ("Many", 30), ("Open", 4)])
def test_what_is_not_seen_does_not_show(model: str, queries: int) -> None:
    program = dslc.compile(TEXT, model)
    given = inputs(queries)
    wanted = program(**given)
    for lost in (np.nan, np.inf):
        spoilt = {name: x.copy() for name, x in given.items()}
        spoilt["k"][THERE:] = spoilt["v"][THERE:] = lost
        found = program(**spoilt)
        for name in ("y", "dq", "dk", "dv"):
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=f"{name}: {lost} behind the number of keys")
        assert not found["dk"][THERE:].any() and not found["dv"][THERE:].any()
        spoilt["v"] = given["v"]
        np.testing.assert_array_equal(program(**spoilt)["masked"], wanted["masked"], err_msg=f"{lost} in keys behind a mask")


def test_the_interpreter_keeps_the_rule() -> None:
    given = inputs(30)
    q, k, v = (given[name][None] for name in "qkv")
    forward, backward = OPERATORS["attention_forward"], OPERATORS["attention_backward"]
    settings = {"causal": True, "window": 0, "scale": 0.5}

    def results(k: Array, v: Array) -> list[Array]:
        four, count = [x[None] for x in (q, k, v)], np.array([THERE])
        y, logsum = forward.reference(*four, count, **settings)
        dout = np.cos(y)
        gradients = backward.reference(*four, logsum, (dout * y).sum(-1), dout, count, **settings)
        return [y, *gradients, OPERATORS["attention"].reference(q, k, v, np.array(THERE), **SETTINGS)]

    spoilt = [x.copy() for x in (k, v)]
    for x in spoilt:
        x[:, THERE:] = np.nan
    for found, wanted in zip(results(*spoilt), results(k, v), strict=True):
        np.testing.assert_array_equal(found, wanted)
    mask = np.arange(S) < THERE
    y = OPERATORS["attention"].reference(q, spoilt[0], v, mask, **{**SETTINGS, "causal": False})
    np.testing.assert_array_equal(y, OPERATORS["attention"].reference(q, k, v, mask, **{**SETTINGS, "causal": False}))
