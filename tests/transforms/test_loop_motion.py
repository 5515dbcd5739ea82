"""What is taken out of loops: the same results, and the work where it belongs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dslc.compiler import transform
from dslc.frontend import elaborate
from dslc.interpret import interpret
from dslc.ir.graph import Graph, Op
from dslc.ir.scan import is_scan, parts
from dslc.ir.types import DType
from dslc.ir.verify import Stage, verify
from dslc.transforms.autodiff import differentiate
from dslc.transforms.constant_folding import constant_folding
from dslc.transforms.cse import cse
from dslc.transforms.dead_code import dead_code
from dslc.transforms.expand import expand_composites
from dslc.transforms.loops import out_of_loops
from dslc.transforms.simplify import simplify
from dslc.transforms.split_sums import split_sums

STAGE = Stage(names=frozenset({"N"}), differentiated=True, expanded=True)
RNG = np.random.default_rng(11)


def both(text: str, sizes: dict[str, int] | None = None) -> tuple[Graph, Graph]:
    """A model's graph before and after its loops are relieved, after checking that every input gives the same."""
    program = elaborate(f"dim N <= 8\n{text}", model="M").module.programs["infer"]
    before = simplify(expand_composites(differentiate(program.graph)))
    after = verify(out_of_loops(before), STAGE)
    last = verify(dead_code(cse(constant_folding(split_sums(after)))), STAGE)
    arrays = []
    for value in before.inputs:
        shape = [3 if not isinstance(n, int) else n for n in value.type.shape]
        arrays.append(RNG.normal(size=shape) if value.type.dtype.floating else RNG.integers(0, 4, shape))
    expected = interpret(before, arrays, {"N": 3}, wide=True)
    for graph in (after, last):
        for one, other in zip(interpret(graph, arrays, {"N": 3}, wide=True), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    return before, after


def loops(graph: Graph) -> list[Op]:
    return [op for op in graph.ops if is_scan(op)]


def inside(op: Op) -> Counter[str]:
    return Counter(o.kind for o in op.regions[0].ops)


LSTM = """
block Lstm[D, reverse = false, recompute = false](x: float[M, S, In]) -> (out: float[M, S, D], h: float[M, D], c: float[M, D]) {
  param w: float[In + D, 4 * D] ~ orthogonal
  param b: float[4 * D] = 0
  out, h, c = scan[axis = 1, reverse = reverse, recompute = recompute] xt in x carry h = zeros[M, D], c = zeros[M, D] {
    i, f, g, o = split[4, axis = -1](concat[axis = -1](xt, h) @ w + b)
    c = sigmoid(f + 1) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    yield h
    return h, c
  }
  return out, h, c
}
model Net(x: f32[N, 5, 3]) -> f32[N, 2] {
  y, _, _ = Lstm[16, reverse = true](x |> Dense[4] as first) as a
  _, h, _ = Lstm[16](y) as b
  return h |> Dense[2] as last
}
"""


def test_the_projection_of_elements_is_made_before_the_loop() -> None:
    _, after = both(LSTM + "model M(x: f32[N, 5, 3]) -> f32[N, 2] { return Net(x) }")
    for loop in loops(after):
        scan = parts(loop)
        assert inside(loop)["dot_general"] == 1 and inside(loop)["concat"] == 0
        assert [s.type.shape[-1] for s in scan.sequences] == [64]
    assert [op.inputs[1].type.shape for op in after.ops if op.kind == "dot_general"][1:3] == [(4, 64), (16, 64)]


def test_gradients_of_weights_and_elements_are_made_behind_the_loop() -> None:
    text = (
        LSTM + "model M(x: f32[N, 5, 3], y: f32[N, 2]) -> (a: f32[20, 64], b: f32[64], c: f32[32, 64], d: f32[3, 4], e: f32[N, 5, 3]) {\n"
    )
    text += "  loss = mean((Net(x) - y) ** 2)\n"
    text += "  return grad[Net.a.w](loss), grad[Net.a.b](loss), grad[Net.b.w](loss), grad[Net.first.w](loss), grad[x](loss)\n}"
    _, after = both(text)
    found = loops(cse(after))
    assert len(found) == 4
    for loop in found[2:]:
        scan = parts(loop)
        assert len(scan.carries) == 2, "only the cotangents of h and c are carried"
        assert inside(loop)["dot_general"] == 1
        assert [y.type.shape[-1] for y in scan.yields] == [64], "only the cotangent of the gates is stacked"
        assert {v.type.shape for v in scan.captures} == {(16, 64)}


def test_sixteen_bits_are_stacked_as_such() -> None:
    text = "precision bf16\n" + LSTM + "model M(x: f32[N, 5, 3]) -> (a: f32[20, 64], b: f32[64]) {\n"
    text += "  loss = sum(cast[f32](Net(x)))\n  return grad[Net.a.w](loss), grad[Net.a.b](loss)\n}"
    program = elaborate(f"dim N <= 8\n{text}", model="M").module.programs["infer"]
    after = verify(out_of_loops(simplify(expand_composites(differentiate(program.graph)))), STAGE)
    for loop in loops(after)[2:]:
        scan = parts(loop)
        assert len(scan.carries) == 2 and all(y.type.dtype == DType.BF16 for y in scan.yields)


def test_recompute_prepares_nothing_for_all_iterations() -> None:
    text = LSTM.replace("Lstm[16](y)", "Lstm[16, recompute = true](y)").replace("Lstm[16, reverse = true]", "Lstm[16, recompute = true]")
    _, after = both(text + "model M(x: f32[N, 5, 3]) -> f32[16, 1] {\n  loss = sum(Net(x))\n  return grad[Net.b.w](loss)[0:16, 0:1]\n}")
    forward, *_ = loops(after)
    assert inside(forward)["dot_general"] == 1 and inside(forward)["concat"] == 1
    assert {y.type.shape[-1] for y in parts(forward).yields} == {16}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        # a map is no loop
        ("model M(x: f32[N, 5, 3]) -> f32[N, 5, 4] { param w: f32[3, 4] ~ normal  return scan[axis = 1] v in x { yield relu(v @ w) } }", None),
        ("model M(x: f32[4, N]) -> f32[N, 4] { return scan[axis = 0] i, v in enumerate(x) { yield v * i } |> transpose }", None),
        ("model M(x: f32[4, 3, 2]) -> f32[4, 2, 3] { return scan v in x { yield transpose(v) |> reshape[2, 3] } }", None),
        ("model M(x: f32[2, 4, 3]) -> f32[2, 4] { return scan[axis = 1] v in x { yield sum[axis = 1](v) + max(v) } }", None),
        ("model M(x: f32[3, 4, 2], y: f32[2]) -> f32[3, 4, 5] { return scan[axis = 1] v in x { yield concat[axis = 1](v, y + zeros[3, 2], 1 + zeros[3, 1]) } }", None),
        ("model M(x: i64[N, 4]) -> f32[N, 4, 3] { param e: f32[7, 3] ~ normal  return scan[axis = 1] i in x { yield gather(e, i) } }", None),
        # a product of two elements stays
        ("model M(x: f32[4, 2, 2]) -> f32[4, 2, 2] { return scan v in x { yield v @ v } }", {"dot_general": 1}),
        # what depends on captures alone is computed once, constants are not made outside
        (
            "model M(x: f32[5, 3]) -> f32[3] { param w: f32[3] ~ normal  return scan v in x carry h = zeros[3] { h = h * sigmoid(w) + v + 2.5  return h } }",
            {"mul": 1, "add": 2, "full": 1},
        ),
        # nor does one much larger than its operand, which the loop may be there for
        (
            "model M(x: f32[6, 2]) -> f32[6] { param w: f32[2, 100] ~ normal  return scan v in x { yield max(v @ w) } }",
            {"dot_general": 1, "max": 1},
        ),
        # a sum over iterations of a sum
        ("model M(x: f32[5, 3]) -> f32[] { return scan v in x carry s = 0.0 { s = s + sum(v * v)  return s } }", None),
        ("model M(x: f32[5, 3]) -> f32[] { return scan v in x carry s = 7.0 { s = s + sum(v)  return s } }", None),
        # a carry that stays, one that nothing reads, a yield that is the element, one sequence twice
        (
            "model M(x: f32[5, 3]) -> f32[5, 3] { a, b, c, d = scan u, v in zip(x, x) carry h = x[0], k = x[1], n = x[2] "
            "{ n = n * k  h = h * u + v + k  yield v, h  return k, n }  return a + b + c + 0 * d }",
            {"add": 2, "mul": 2},
        ),
    ],
)  # fmt: skip
def test_what_remains_of_a_loop(text: str, kinds: dict[str, int] | None) -> None:
    _, after = both(text)
    assert [dict(inside(op)) for op in loops(after)] == ([] if kinds is None else [kinds])


def test_a_bias_goes_with_its_product() -> None:
    text = """
    model M(x: f32[N, 5, 3]) -> f32[N, 4] {
      param w: f32[3, 4] ~ normal
      param u: f32[4, 4] ~ normal
      param b: f32[4] = 1
      return scan[axis = 1] v in x carry h = zeros[N, 4] { h = tanh(v @ w + b + h @ u)  return h }
    }"""
    _, after = both(text)
    assert [inside(op)["add"] for op in loops(after)] == [1]


def test_an_output_that_turns_out_to_be_an_input_is_a_copy() -> None:
    text = "model M(x: f32[5, 3], w: f32[3]) -> (a: f32[3], b: f32[5, 3]) { b, a = scan v in x carry k = w { yield v  k = k  return k }  return a, b }"
    _, after = both(text)
    assert not loops(after) and not set(after.outputs) & set(after.inputs)


def test_inner_loops_come_first() -> None:
    """x[t] @ w of an inner loop leaves both loops, its rows read by the inner one."""
    text = """
    model M(x: f32[4, 5, 3]) -> f32[4, 2] {
      param w: f32[3, 2] ~ normal
      return scan rows in x carry s = zeros[2] {
        s = scan v in rows carry h = s { h = tanh(h + v @ w)  return h }
        yield s
      }
    }"""
    _, after = both(text)
    (outer,) = loops(after)
    assert [op.kind for op in after.ops if op.kind == "dot_general"] == ["dot_general"]
    assert [s.type.shape for s in parts(outer).sequences] == [(4, 5, 2)]


def test_a_gradient_by_a_table_is_scattered_once() -> None:
    text = """
    model Net(x: i64[N, 4]) -> f32[] {
      param e: f32[7, 3] ~ normal
      h = scan[axis = 1] i in x carry h = zeros[N, 3] { h = tanh(h + gather(e, i))  return h }
      return sum(h * h)
    }
    model M(x: i64[N, 4]) -> f32[7, 3] { return grad[Net.e](Net(x)) }
    """
    _, after = both(text)
    assert all(inside(op)["gather_grad"] == 0 for op in loops(after))


TOTAL = """model M(x: f32[N, 5, 3]) -> (h: f32[N, 3], t: f32[3]) {
  h, t = scan[axis = 1] v in x carry h = zeros[N, 3], t = zeros[3] { h = tanh(h + v)  t = STEP  return h, t }
  return h, t
}"""


@pytest.mark.parametrize(
    ("step", "wide"),
    [
        ("t + sum[axis = 0](h * exp(h))", True),
        ("sum[axis = 0](h * exp(h)) + t", True),
        ("t - sum[axis = 0](h * exp(h))", False),
        ("0.5 * t + sum[axis = 0](h * exp(h))", False),
        ("t + exp(sum[axis = 0](h))", False),
    ],
)
def test_sums_of_the_batch_are_added_up_in_f64(step: str, wide: bool) -> None:
    """Only where nothing else happens to the total: another recurrence rounds each step."""
    text = TOTAL.replace("STEP", step)
    both(text)
    program = elaborate(f"dim N <= 8\n{text}", model="M").module.programs["infer"]
    graph = verify(split_sums(expand_composites(program.graph)), STAGE)
    (loop,) = loops(graph)
    assert [v.type.dtype for v in parts(loop).carries] == [DType.F32, DType.F64 if wide else DType.F32]
    assert [v.type for v in graph.outputs] == [v.type for v in program.graph.outputs]


def test_the_second_order_too() -> None:
    text = (
        LSTM + "model M(x: f32[N, 5, 3]) -> f32[20, 64] {\n  s = grad[x](sum(Net(x)))\n  return grad[Net.a.w](sum(s * s) + sum(Net(x)))\n}"
    )
    _, after = both(text)
    assert len(loops(after)) >= 6


STEPS = (
    "h = tanh(h @ w + v)",
    "h = tanh(concat[axis = 1](v, h) @ u)",
    "h = h + v @ w",
    "h = h * sigmoid(sum[axis = 0](w)) - c",
    "c = c + v * h",
    "c = tanh(v) @ transpose(w)",
    "h, c = c, h",
    "v = relu(v @ w)",
    "c = c * sum(w) + sum[axis = 0](v)",
    "v = v * exp(-h * h)",
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.booleans(), st.booleans())
def test_gradients_of_a_loop_are_those_of_the_unrolled_one(steps: list[str], reverse: bool, recompute: bool) -> None:
    """Through every pass, for elements, first values and what is captured."""
    body = "\n".join(steps)
    flags = f"reverse = {str(reverse).lower()}, recompute = {str(recompute).lower()}"
    text = f"""
    block looped(x: f64[2, 4, 3], h: f64[2, 3], w: f64[3, 3], u: f64[6, 3]) -> f64[] {{
      ys, h, c = scan[axis = 1, {flags}] v in x carry h = h, c = 0.5 * h {{ {body}  yield h - 2 * c + v  return h, c }}
      return sum(ys * ys) + sum(sin(h)) + sum(c)
    }}
    block unrolled(x: f64[2, 4, 3], h: f64[2, 3], w: f64[3, 3], u: f64[6, 3]) -> f64[] {{
      c = 0.5 * h
      total = 0.0
      for t in {"reversed(0..4)" if reverse else "0..4"} {{ v = x[:, t]  {body}  y = h - 2 * c + v  total = total + sum(y * y) }}
      return total + sum(sin(h)) + sum(c)
    }}
    model M(x: f64[2, 4, 3], h: f64[2, 3], w: f64[3, 3], u: f64[6, 3])
        -> (a: f64[], b: f64[2, 4, 3], c: f64[2, 3], d: f64[3, 3], e: f64[6, 3], a2: f64[], b2: f64[2, 4, 3], c2: f64[2, 3], d2: f64[3, 3], e2: f64[6, 3]) {{
      one = looped(x, h, w, u) + sum(w) + sum(u) + sum(h) + sum(x)
      two = unrolled(x, h, w, u) + sum(w) + sum(u) + sum(h) + sum(x)
      b, c, d, e = grad[x, h, w, u](one)
      b2, c2, d2, e2 = grad[x, h, w, u](two)
      return one, b, c, d, e, two, b2, c2, d2, e2
    }}"""
    program, _ = transform(elaborate(text, model="M").module.programs["infer"], {})
    verify(program.graph, STAGE)
    rng = np.random.default_rng(len(body))
    found = interpret(program.graph, [rng.normal(0, 0.5, v.type.shape) for v in program.graph.inputs])
    for one, other in zip(found[:5], found[5:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)
