"""Simplification: exact equations over the graph, for after the gradients are taken.

Every equation holds to the bit, NaN, infinities and signed zeros included, but the powers, whose right sides are the more
accurate: `x + 0.0` is no x where x is -0.0, and `x * 0.0` no 0 where x is infinite, so these two are not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dslc.ir.graph import Graph
from dslc.ir.types import DType
from dslc.transforms.rewrite import Match, Rule, rewrite


def simplify(graph: Graph) -> Graph:
    """`graph` with the equations of RULES applied from left to right. Not before autodiff: it drops stop_gradient."""
    assert all(op.kind != "grad" for op in graph.ops), "simplify runs after autodiff"
    return rewrite(graph, RULES)


# ---- conditions ---------------------------------------------------------------------------------------------------


def _integer(match: Match) -> bool:
    return match.result.dtype.integer


def _floating(match: Match) -> bool:
    return match.result.dtype.floating


def _same_type(match: Match) -> bool:
    return match.values["x"].type == match.result


def _power_of_two(match: Match) -> bool | Mapping[str, Any]:
    """c is a power of two whose reciprocal is a normal number: dividing and multiplying round alike."""
    value = float(match.attrs["c"])
    if not math.isfinite(value) or value == 0 or abs(math.frexp(value)[0]) != 0.5 or abs(math.frexp(value)[1]) > 120:
        return False
    return {"r": 1 / value}


def _widening(match: Match) -> bool:
    """The inner conversion loses nothing, and the outer one treats both its operand's types alike."""
    source, middle, target = match.values["x"].type.dtype, match.attrs["d"], match.attrs["e"]
    if source == DType.BOOL:
        return bool(middle != DType.BOOL)
    if source.floating:
        return middle in (DType.F64, source) or (source.half and middle == DType.F32)
    wide = (DType.I32, DType.I64, DType.F32, DType.F64)
    holds = {DType.I8: wide, DType.U8: wide, DType.I32: (DType.I64, DType.F64)}
    if middle not in (source, *holds.get(source, ())):
        return False
    return bool(middle.integer or target.floating or target == DType.BOOL)  # a float saturates where an integer wraps


def _identity_order(match: Match) -> bool:
    return _order(match.attrs["p"], match.result.rank) == tuple(range(match.result.rank))


def _composed_order(match: Match) -> Mapping[str, Any]:
    rank = match.result.rank
    inner, outer = _order(match.attrs["p"], rank), _order(match.attrs["q"], rank)
    return {"r": tuple(inner[axis] for axis in outer)}


def _order(axes: tuple[int, ...] | None, rank: int) -> tuple[int, ...]:
    return tuple(axis % rank for axis in axes) if axes else tuple(reversed(range(rank)))


def _result_shape(match: Match) -> Mapping[str, Any]:
    return {"u": match.result.shape}


def _whole(match: Match) -> bool:
    """A slice that takes everything."""
    return match.result == match.values["x"].type and all(step == 1 for step in match.attrs["s"])


def _left_transposed(match: Match) -> bool | Mapping[str, Any]:
    return _transposed_operand(match, "x", 0)


def _right_transposed(match: Match) -> bool | Mapping[str, Any]:
    return _transposed_operand(match, "y", 1)


def _transposed_operand(match: Match, name: str, side: int) -> bool | Mapping[str, Any]:
    """The axes of a dot_general on an operand before its transpose, where its free axes keep their order."""
    rank = match.values[name].type.rank
    order = _order(match.attrs["p"], rank)
    contract, batch = list(match.attrs["c"]), list(match.attrs["b"])
    free = [order[axis] for axis in range(rank) if axis not in contract[side] + batch[side]]
    if free != sorted(free):
        return False
    contract[side] = tuple(order[axis] for axis in contract[side])
    batch[side] = tuple(order[axis] for axis in batch[side])
    return {"d": tuple(contract), "e": tuple(batch)}


def _exchanged(match: Match) -> bool | Mapping[str, Any]:
    """The transpose exchanges the free axes of the two operands."""
    (left, right), (left_batch, right_batch) = match.attrs["c"], match.attrs["b"]
    batches = len(left_batch)
    rows = match.values["x"].type.rank - batches - len(left)
    rank = match.result.rank
    wanted = (*range(batches), *range(batches + rows, rank), *range(batches, batches + rows))
    return {"d": (right, left), "e": (right_batch, left_batch)} if _order(match.attrs["p"], rank) == wanted else False


# ---- the rules ----------------------------------------------------------------------------------------------------

_INTEGERS = {"x": "i32[5, 4]"}
_BOTH: tuple[Mapping[str, Any], ...] = ({}, _INTEGERS)
_BOOLS: tuple[Mapping[str, Any], ...] = ({"x": "bool[6]"},)

ARITHMETIC = (
    Rule("add(x, -0.0) = x"),
    Rule("add(x, 0) = x", _integer, (_INTEGERS,)),
    Rule("sub(x, 0) = x", samples=_BOTH),
    Rule("mul(x, 1) = x", samples=_BOTH),
    Rule("mul(x, -1) = neg(x)", samples=_BOTH),
    Rule("div(x, 1) = x"),
    Rule("neg(neg(x)) = x", samples=_BOTH),
    Rule("add(x, neg(y)) = sub(x, y)", samples=({}, {"x": "i32[4]", "y": "i32[5, 4]"})),
    Rule("sub(x, neg(y)) = add(x, y)", samples=({}, {"x": "i32[4]", "y": "i32[5, 4]"})),
    Rule("mul(neg(x), neg(y)) = mul(x, y)", samples=({}, {"y": "f32[4]"})),
    Rule("abs(neg(x)) = abs(x)", samples=_BOTH),
    Rule("abs(abs(x)) = abs(x)", samples=_BOTH),
    Rule(
        "div(x, full[value: c, dtype: d, shape: s]()) = mul(x, full[value: r, dtype: d, shape: s]())",
        _power_of_two,
        tuple({"c": c, "d": d, "s": (), "x": f"{d.value}[5, 4]"} for d in (DType.F32, DType.F64) for c in (64.0, -0.25, 2.0**100)),
    ),
    Rule("pow(x, 1) = x", _floating),
    Rule("pow(x, 2) = mul(x, x)", _floating, ulps=1),
    Rule("pow(x, 3) = mul(mul(x, x), x)", _floating, ulps=2),
    Rule("pow(x, -1) = div(1, x)", _floating, ulps=1),
    Rule("relu(relu(x)) = relu(x)"),
)

CHOICE = (
    Rule("maximum(x, x) = x", samples=_BOTH),
    Rule("minimum(x, x) = x", samples=_BOTH),
    Rule("where(true, x, y) = x", samples=({}, {"x": "f32[4]"})),
    Rule("where(false, x, y) = y", samples=({}, {"y": "f32[]"})),
    Rule("where(c, x, x) = x", samples=({"c": "bool[4]"}, {"c": "bool[3, 5, 4]"})),
    Rule("where(not(c), x, y) = where(c, y, x)", samples=({"c": "bool[5, 1]"},)),
    Rule("not(not(x)) = x", samples=_BOOLS),
    Rule("and(x, x) = x", samples=_BOOLS),
    Rule("or(x, x) = x", samples=_BOOLS),
    Rule("and(x, true) = x", samples=_BOOLS),
    Rule("or(x, false) = x", samples=_BOOLS),
    Rule("and(x, false) = false", samples=_BOOLS),
    Rule("or(x, true) = true", samples=_BOOLS),
)

CONVERSION = (
    Rule("cast[dtype: d](x) = x", _same_type, ({"d": DType.F32}, {"d": DType.I32, **_INTEGERS})),
    Rule(
        "cast[dtype: e](cast[dtype: d](x)) = cast[dtype: e](x)",
        _widening,
        (
            {"d": DType.F64, "e": DType.I64},
            {"d": DType.F64, "e": DType.BOOL},
            {"d": DType.I64, "e": DType.U8, **_INTEGERS},
            {"d": DType.F64, "e": DType.F32, **_INTEGERS},
            {"d": DType.F32, "e": DType.I64, "x": "bool[6]"},
            {"d": DType.F32, "e": DType.F64, "x": "u8[6]"},
        ),
    ),
)

MOVEMENT = (
    Rule("stop_gradient(x) = x"),
    Rule("identity(x) = x"),
    Rule("transpose[axes: p](x) = x", _identity_order, ({"p": (0, 1)}, {"p": None, "x": "f32[4]"})),
    Rule(
        "transpose[axes: q](transpose[axes: p](x)) = transpose[axes: r](x)",
        _composed_order,
        ({"p": (2, 0, 1), "q": (0, -1, 1), "x": "f32[2, 3, 4]"}, {"p": None, "q": (1, 0, 2), "x": "f32[2, 3, 4]"}),
    ),
    Rule("reshape[shape: s](x) = x", _same_type, ({"s": (5, 4)},)),
    Rule("reshape[shape: t](reshape[shape: s](x)) = reshape[shape: t](x)", samples=({"s": (2, 10), "t": (20,)},)),
    Rule("expand[shape: s](x) = x", _same_type, ({"s": (5, 4)},)),
    Rule("expand[shape: t](expand[shape: s](x)) = expand[shape: t](x)", samples=({"x": "f32[4]", "s": (1, 4), "t": (3, 4)},)),
    *(
        Rule(
            f"{kind}[{attr}: a](full[value: v, dtype: d, shape: s]()) = full[value: v, dtype: d, shape: u]()",
            _result_shape,
            ({"a": attribute, "v": -0.0, "d": DType.F32, "s": (1, 4)},),
        )
        for kind, attr, attribute in (("expand", "shape", (3, 4)), ("reshape", "shape", (2, 2)), ("transpose", "axes", (1, 0)))
    ),
    Rule("concat[axis: a](x) = x", samples=({"a": 1},)),
    Rule(
        "slice[starts: a, stops: b, steps: s](x) = x",
        _whole,
        ({"a": (0, None), "b": (5, 4), "s": (1, 1)}, {"a": (-5, None), "b": (None, None), "s": (1, 1)}),
    ),
    Rule("pad[low: a, high: b, value: v, mode: m](x) = x", _same_type, ({"a": (0, 0), "b": (0, 0), "v": 1.0, "m": "wrap"},)),
)

_MATRICES = {"b": ((), ()), "c": ((1,), (0,))}
_BATCHES = {"b": ((0,), (1,)), "c": ((2,), (2,)), "x": "f32[4, 3, 2]", "y": "f32[5, 2, 4]"}

CONTRACTION = (
    Rule(
        "dot_general[batch: b, contract: c](transpose[axes: p](x), y) = dot_general[batch: e, contract: d](x, y)",
        _left_transposed,
        ({**_MATRICES, "p": (1, 0), "x": "f32[4, 3]", "y": "f32[4, 5]"}, {**_BATCHES, "p": (2, 1, 0)}),
    ),
    Rule(
        "dot_general[batch: b, contract: c](x, transpose[axes: p](y)) = dot_general[batch: e, contract: d](x, y)",
        _right_transposed,
        ({**_MATRICES, "p": (1, 0), "y": "f32[3, 4]"}, {**_BATCHES, "p": (1, 0, 2), "x": "f32[2, 3, 4]", "y": "f32[2, 5, 4]"}),
    ),
    Rule(
        "transpose[axes: p](dot_general[batch: b, contract: c](x, y)) = dot_general[batch: e, contract: d](y, x)",
        _exchanged,
        ({**_MATRICES, "p": (1, 0), "y": "f32[4, 3]"}, {**_BATCHES, "p": (0, 2, 1), "x": "f32[2, 3, 4]"}),
        once=True,
    ),
)

RULES = (*ARITHMETIC, *CHOICE, *CONVERSION, *MOVEMENT, *CONTRACTION)
