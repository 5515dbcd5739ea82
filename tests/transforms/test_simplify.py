"""Every equation holds numerically, to the bit where it says so; what does not hold is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.diagnostics import Span
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.dims import name
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.operator import OPERATORS
from dslc.ir.text import parse_graph
from dslc.ir.types import DType, TensorType
from dslc.ir.verify import verify
from dslc.transforms.dead_code import dead_code
from dslc.transforms.rewrite import Apply, Number, Rule, Term, Variable, rewrite
from dslc.transforms.simplify import RULES, simplify

F32, F64, I32, BOOL = DType.F32, DType.F64, DType.I32, DType.BOOL
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-42, -3e38, 0.1, -2.5, 7.0, 1e30, 3.0, -1e-30, 2.0]


def subterms(term: Term) -> list[Term]:
    return [term, *(part for operand in term.operands for part in subterms(operand))] if isinstance(term, Apply) else [term]


def left_side(rule: Rule, sample: Mapping[str, Any]) -> Graph:
    """The equation's left side as a graph whose inputs are its variables."""
    b = Builder()
    names = dict.fromkeys(term.name for term in subterms(rule.left) if isinstance(term, Variable))
    header = ", ".join(f"%{i}: {sample.get(n, 'f32[5, 4]')}" for i, n in enumerate(names))
    types = [value.type for value in parse_graph(f"graph({header}) {{ return }}").inputs]
    values = {n: b.input(t.dtype, *t.shape) for n, t in zip(names, types, strict=True)}

    def build(term: Term) -> Value:
        if isinstance(term, Variable):
            return values[term.name]
        if isinstance(term, Number):
            dtype = BOOL if isinstance(term.value, bool) else types[0].dtype
            return b.scalar(term.value if dtype.floating else int(term.value), dtype)
        return b.apply(term.kind, *map(build, term.operands), **{attr: sample[bound] for attr, bound in term.attrs})

    return b.graph(build(rule.left))


def arrays_of(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    made = []
    for value in graph.inputs:
        count = int(np.prod(value.type.shape))
        if value.type.dtype.floating:
            array = np.resize(rng.permutation(SPECIAL), count)
        elif value.type.dtype == BOOL:
            array = np.arange(count) % 3 == 0
        else:
            array = rng.permutation(np.resize([0, 1, -1, 255, -(2**31), 2**31 - 1, 16777217, 77], count))
        made.append(array.reshape(value.type.shape).astype(value.type.dtype.numpy))
    return made


def same_bits(x: np.ndarray, y: np.ndarray) -> bool:
    numbers = np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
    return x.dtype == y.dtype and numbers and bool(np.all((np.signbit(x) == np.signbit(y)) | np.isnan(x)) if x.dtype.kind == "f" else True)


CASES = [(rule, sample) for rule in RULES for sample in rule.samples]


@pytest.mark.parametrize(("rule", "sample"), CASES, ids=lambda v: v.equation if isinstance(v, Rule) else "")
def test_equation_holds(rule: Rule, sample: Mapping[str, Any]) -> None:
    graph = left_side(rule, sample)
    padded = Graph(graph.inputs, graph.ops, graph.outputs)
    b = Builder(padded.inputs, padded.ops)  # an identity after it, so that an output may become an input
    padded = b.graph(b.identity(padded.outputs[0]))
    small = verify(dead_code(rewrite(padded, [rule])))
    assert small != dead_code(padded), "the rule does not apply to its own sample"
    roots = [op.kind for op in padded.ops if op.outputs == graph.outputs]
    assert roots == [rule.left.kind]
    arrays = arrays_of(graph)
    if rule.left.kind == "dot_general" or any(isinstance(t, Apply) and t.kind == "dot_general" for t in subterms(rule.left)):
        arrays = [np.round(np.random.default_rng(1).uniform(-9, 9, a.shape)).astype(a.dtype) for a in arrays]  # exact in any order
    (before,), (after,) = interpret(padded, arrays), interpret(small, arrays)
    if rule.ulps == 0:
        assert same_bits(before, after), (before, after)
    else:
        finite = np.isfinite(before)
        assert np.array_equal(before[~finite], after[~finite], equal_nan=True)
        np.testing.assert_array_max_ulp(before[finite], after[finite], rule.ulps)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.equation)
def test_every_attribute_of_a_rule_is_named_and_every_rule_has_samples(rule: Rule) -> None:
    assert rule.samples
    for side in (rule.left, rule.right):
        for term in subterms(side):
            if isinstance(term, Apply):
                assert {attr for attr, _ in term.attrs} == set(OPERATORS[term.kind].attrs), term
    known = {t.name for t in subterms(rule.left) if isinstance(t, Variable)}
    assert {t.name for t in subterms(rule.right) if isinstance(t, Variable)} <= known


def unchanged(graph: Graph) -> bool:
    return len(dead_code(simplify(graph)).ops) == len(graph.ops)


def test_what_is_not_exact_is_left_alone() -> None:
    b = Builder()
    x, n = b.input(F32, 3), b.input(I32, 3)
    for value in (
        b.add(x, b.scalar(0.0, F32)),  # -0.0 + 0.0 is 0.0
        b.sub(x, b.scalar(-0.0, F32)),
        b.mul(x, b.scalar(0.0, F32)),
        b.div(x, b.scalar(3.0, F32)),
        b.div(x, b.scalar(2.0**-127, F32)),
        b.sub(x, x),
        b.cast(b.cast(x, dtype=I32), dtype=F32),
        b.cast(b.cast(n, dtype=F32), dtype=I32),
        b.cast(b.cast(n, dtype=F64), dtype=DType.U8),
        b.maximum(x, b.neg(x)),
    ):
        graph = dead_code(b.graph(value))
        assert unchanged(graph), graph


def test_a_smaller_operand_is_repeated_to_the_type_of_the_result() -> None:
    b = Builder()
    x = b.input(F32, 4)
    y = b.mul(x, b.like(1.0, TensorType(F32, (name("N"), 4))))
    small = dead_code(simplify(b.graph(y)))
    assert [op.kind for op in small.ops] == ["expand"]
    assert small.outputs[0].type == y.type


def test_an_output_is_never_an_input() -> None:
    b = Builder()
    x = b.input(F32, 4)
    graph = b.graph(b.identity(x), b.neg(b.neg(x)))
    small = dead_code(simplify(graph))
    assert not set(small.outputs) & set(small.inputs)
    np.testing.assert_array_equal(interpret(small, [np.ones(4)])[1], np.ones(4))


def test_rules_apply_to_what_rules_make_and_keep_places() -> None:
    b = Builder()
    x, w = b.input(F32, 3, 4), b.input(F32, 5, 4)
    b.span = Span("net.dl", 3, 1, 3, 9)
    y = b.transpose(b.dot_general(b.transpose(b.transpose(w)), b.transpose(x), contract=((1,), (0,))), axes=(1, 0))
    b.span = None
    graph = b.graph(b.mul(y, b.expand(b.scalar(1.0, F32), shape=(3, 5))))
    small = dead_code(simplify(graph))
    assert [op.kind for op in small.ops] == ["dot_general"]
    assert small.ops[0].span == Span("net.dl", 3, 1, 3, 9)
    assert small.ops[0].inputs == (x, w)


def test_free_axes_out_of_order_keep_their_transpose() -> None:
    b = Builder()
    x, w = b.input(F32, 2, 3, 4), b.input(F32, 4, 5)
    graph = b.graph(b.dot_general(b.transpose(x, axes=(1, 0, 2)), w, contract=((2,), (0,))))
    assert unchanged(graph)


def test_a_product_with_another_use_is_not_made_twice() -> None:
    b = Builder()
    x, w = b.input(F32, 3, 4), b.input(F32, 4, 5)
    y = b.dot_general(x, w, contract=((1,), (0,)))
    graph = b.graph(b.exp(y), b.transpose(y, axes=(1, 0)))
    assert unchanged(graph)


def test_regions_are_simplified() -> None:
    b = Builder()
    x = b.input(F32, 3)
    inner = b.graph(b.exp(b.neg(b.neg(x))))
    graph = Graph((x,), (Op("loop", (x,), (), (Value(9, x.type),), (inner,)),), (Value(9, x.type),))
    region = simplify(graph).ops[0].regions[0]
    assert "neg" not in [op.kind for op in dead_code(region).ops]


def test_equations_are_read_in_full() -> None:
    for text in ("mul(x, ?) = x", "mul(x = x"):
        with pytest.raises((AssertionError, IndexError)):
            Rule(text)
