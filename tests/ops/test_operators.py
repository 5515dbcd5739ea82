"""Generated tests of every operator in the registry, driven by its own samples and errors.

Bodies and expansions against the NumPy references, gradients (first and second order) against central differences in f64,
special values, refusals, symbolic sizes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.interpret import interpret
from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Value
from dslc.ir.operator import OPERATORS, REQUIRED, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.transforms.autodiff import gradients
from dslc.transforms.expand import expand_composites, is_composite
from tests.ops.evaluate import evaluate_body

Array = np.ndarray[Any, Any]
STEP = 1e-6
BATCH = 5  # a sample whose first input has this leading size must work with a symbolic one


def samples(wanted: Callable[[Operator, Sample], bool] = lambda op, sample: True) -> list[Any]:
    return [
        pytest.param(kind, sample, id=f"{kind}-{number}")
        for kind, op in sorted(OPERATORS.items())
        for number, sample in enumerate(op.samples)
        if wanted(op, sample)
    ]


def arrays_of(kind: str, sample: Sample, dtype: DType = DType.F64) -> list[Array]:
    """The sample's inputs: floating ones in `dtype`, shapes filled with normal numbers from a seed of their own."""
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    made: list[Array] = []
    for given in sample.inputs:
        array = given if isinstance(given, np.ndarray) else np.asarray(rng.standard_normal(given))
        made.append(array.astype(dtype.numpy) if array.dtype.kind == "f" else array)
    return made


def type_of(array: Array) -> TensorType:
    dtype = next(d for d in DType if d.memory == array.dtype)
    return TensorType(dtype, tuple(int(size) for size in array.shape))


def settings(kind: str, sample: Sample) -> dict[str, Any]:
    return {name: a.default for name, a in OPERATORS[kind].attrs.items() if a.default is not REQUIRED} | dict(sample.attrs)


def build(kind: str, types: list[TensorType], attrs: Any) -> tuple[Builder, list[Value], tuple[Value, ...]]:
    b = Builder()
    inputs = [b.input(t.dtype, *t.shape) for t in types]
    made = b.apply(kind, *inputs, **attrs)
    return b, inputs, made if isinstance(made, tuple) else (made,)


def close(got: Array, expected: Array, dtype: DType, scale: float = 1.0) -> None:
    """Equal up to rounding of `dtype`; NaN and infinities in the same places."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    tolerance = scale * (1e-12 if dtype == DType.F64 else 2e-5)
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


# ---- bodies and expansions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [DType.F64, DType.F32])
@pytest.mark.parametrize(("kind", "sample"), samples())
def test_reference_has_the_inferred_types(kind: str, sample: Sample, dtype: DType) -> None:
    arrays = arrays_of(kind, sample, dtype)
    attrs = settings(kind, sample)
    with np.errstate(all="ignore"):
        made = OPERATORS[kind].reference(*arrays, **attrs)
    inferred = OPERATORS[kind].infer(*map(type_of, arrays), **attrs)
    assert isinstance(made, tuple) == isinstance(inferred, tuple)
    for array, t in zip(made, inferred, strict=True) if isinstance(inferred, tuple) else [(made, inferred)]:
        assert type_of(np.asarray(array)) == t


@pytest.mark.parametrize("dtype", [DType.F64, DType.F32])
@pytest.mark.parametrize(("kind", "sample"), samples(lambda op, sample: op.has("body")))
def test_body_is_the_reference(kind: str, sample: Sample, dtype: DType) -> None:
    arrays = arrays_of(kind, sample, dtype)
    attrs = settings(kind, sample)
    types = [type_of(a) for a in arrays]
    with np.errstate(all="ignore"):
        expected = np.asarray(OPERATORS[kind].reference(*arrays, **attrs))
    close(evaluate_body(kind, arrays, types, attrs, OPERATORS[kind].infer(*types, **attrs)), expected, dtype)


@pytest.mark.parametrize("dtype", [DType.F64, DType.F32])
@pytest.mark.parametrize(("kind", "sample"), samples(lambda op, sample: op.has("expand")))
def test_expansion_is_the_reference(kind: str, sample: Sample, dtype: DType) -> None:
    arrays = arrays_of(kind, sample, dtype)
    b, _, outputs = build(kind, [type_of(a) for a in arrays], sample.attrs)
    graph = b.graph(*outputs)
    if is_composite(kind):
        plain = expand_composites(graph)
        assert not any(is_composite(op.kind) for op in plain.ops)
    else:
        plain = expanded_once(graph)
    for got, expected in zip(interpret(plain, arrays), interpret(graph, arrays), strict=True):
        close(got, expected, dtype)


def expanded_once(graph: Graph) -> Graph:
    """The expansion of an operator that has a body too."""
    from dslc.transforms.expand import expand_op

    (op,) = graph.ops
    return Graph(graph.inputs, expand_op(Builder(graph.inputs, graph.ops), op), graph.outputs)


# ---- special values -----------------------------------------------------------------------------------------------

SPECIAL = {
    DType.F64: [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -1e-310, 1.0, -1.0, 0.5, -2.5, 3.0, 30.0, -30.0, 1e300, -1e300],
    DType.F32: [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-40, 1.0, -1.0, 0.5, -2.5, 3.0, 30.0, -30.0, 1e38, -1e38],
}
ZERO_SIGN_IS_FREE = {"maximum", "minimum", "clip", "where", "mod", "floordiv", "gelu", "softplus", "elu"}


def special_operators() -> list[Any]:
    """Elementwise operators of floating tensors, with the settings of their samples."""
    found: list[Any] = []
    for kind, op in sorted(OPERATORS.items()):
        if not op.elementwise or not op.has("body"):
            continue
        for number, sample in enumerate(op.samples):
            if sample.inputs and all(a.dtype.kind in "fb" for a in arrays_of(kind, sample)) and (number == 0 or sample.attrs):
                found.append(pytest.param(kind, sample, id=f"{kind}-{number}"))
    return found


@pytest.mark.parametrize("dtype", [DType.F64, DType.F32])
@pytest.mark.parametrize(("kind", "sample"), special_operators())
def test_special_values(kind: str, sample: Sample, dtype: DType) -> None:
    """NaN, infinities, zeros of both signs, subnormals and the ends of the range, in all pairs."""
    values = np.array(SPECIAL[dtype], dtype.numpy)
    floats = [a.dtype.kind == "f" for a in arrays_of(kind, sample, dtype)]
    grid = iter(np.meshgrid(*[values] * sum(floats), indexing="ij"))
    pool = [next(grid) if f else None for f in floats]
    shape = next(a for a in pool if a is not None).shape if any(floats) else (2,)
    alternating = (np.arange(int(np.prod(shape))) % 2 == 0).reshape(shape)
    arrays = [alternating if a is None else a for a in pool]
    attrs = settings(kind, sample)
    types = [type_of(a) for a in arrays]
    with np.errstate(all="ignore"):
        expected = np.asarray(OPERATORS[kind].reference(*arrays, **attrs))
    got = evaluate_body(kind, arrays, types, attrs, OPERATORS[kind].infer(*types, **attrs))
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected)
        return
    tiny = float(np.finfo(dtype.numpy).smallest_normal)
    np.testing.assert_allclose(got, expected, rtol=1e-12 if dtype == DType.F64 else 2e-5, atol=4 * tiny)
    if kind not in ZERO_SIGN_IS_FREE:
        zero = (expected == 0) & (got == 0)
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(expected[zero]))


# ---- gradients ----------------------------------------------------------------------------------------------------


def differentiable(op: Operator, sample: Sample) -> bool:
    if not op.differentiable or not sample.gradient:
        return False
    return any(not isinstance(a, np.ndarray) or a.dtype.kind == "f" for a in sample.inputs)


def weighted_sum(b: Builder, values: tuple[Value, ...], seed: int) -> Value:
    """A scalar that depends on every element of the floating values, each with a weight of its own."""
    rng = np.random.default_rng(seed)
    total = b.scalar(0.0, DType.F64)
    for v in values:
        if v.type.dtype == DType.F64:
            weights = b.constant(np.asarray(rng.standard_normal(v.type.shape)), DType.F64)
            total = b.add(total, b.sum(b.mul(v, weights)))
    return total


def differences(graph: Graph, arrays: list[Array], which: int) -> Array:
    """Central differences of the only output of `graph`, a scalar, by one input."""
    result = np.zeros_like(arrays[which])
    for index in np.ndindex(*result.shape):
        ends = []
        for step in (STEP, -STEP):
            moved = [a.copy() for a in arrays]
            moved[which][index] += step
            ends.append(float(interpret(graph, moved)[0]))
        result[index] = (ends[0] - ends[1]) / (2 * STEP)
    return result


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("kind", "sample"), samples(differentiable))
def test_gradient(kind: str, sample: Sample, order: int) -> None:
    """vjp, and the vjp of vjp, against central differences."""
    arrays = arrays_of(kind, sample)
    b, inputs, outputs = build(kind, [type_of(a) for a in arrays], sample.attrs)
    scalar = weighted_sum(b, outputs, 1)
    floating = [v for v in inputs if v.type.dtype == DType.F64]
    if order == 2:
        scalar = weighted_sum(b, gradients(b, scalar, floating), 2)
    plain = b.graph(scalar)
    graph = b.graph(*gradients(b, scalar, floating))
    for got, value in zip(interpret(graph, arrays), floating, strict=True):
        expected = differences(plain, arrays, inputs.index(value))
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6 * max(1.0, float(np.max(np.abs(expected), initial=0.0))))


def test_every_differentiable_operator_has_a_gradient_sample() -> None:
    plain = {kind: op for kind, op in OPERATORS.items() if not op.regions}  # loops have tests of their own: there is no sample without a body
    assert not [kind for kind, op in plain.items() if op.differentiable and not any(differentiable(op, s) for s in op.samples)]


# ---- gradients at kinks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "attrs", "inputs", "expected"),
    [
        ("relu", {}, [[-1.0, 0.0, 2.0]], [[0.0, 0.0, 1.0]]),
        ("leaky_relu", {"slope": 0.2}, [[-1.0, 0.0, 2.0]], [[0.2, 0.2, 1.0]]),
        ("abs", {}, [[-3.0, 0.0, 3.0]], [[-1.0, 0.0, 1.0]]),
        ("maximum", {}, [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]], [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]]),
        ("minimum", {}, [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]], [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]),
        ("clip", {"low": 0.0, "high": 1.0}, [[-1.0, 0.0, 0.5, 1.0, 2.0]], [[0.0, 1.0, 1.0, 1.0, 0.0]]),
        ("max", {}, [[1.0, 2.0, 2.0, 0.0]], [[0.0, 0.5, 0.5, 0.0]]),
        ("min", {}, [[1.0, 0.0, 0.0, 0.0]], [[0.0, 1 / 3, 1 / 3, 1 / 3]]),
        ("norm", {}, [[0.0, 0.0]], [[0.0, 0.0]]),
        ("sign", {}, [[-1.0, 0.0, 2.0]], [[0.0, 0.0, 0.0]]),
        ("stop_gradient", {}, [[1.0, 2.0]], [[0.0, 0.0]]),
        ("pow", {}, [[0.0, 0.0, 0.0, -2.0], [0.0, 1.0, 2.0, 2.0]], [[0.0, 1.0, 0.0, -4.0], [0.0, 0.0, 0.0, np.nan]]),
        ("floordiv", {}, [[3.5], [2.0]], [[0.0], [0.0]]),
        ("round", {}, [[0.5, 1.2]], [[0.0, 0.0]]),
        ("relu6", {}, [[-1.0, 0.0, 3.0, 6.0, 7.0]], [[0.0, 0.0, 1.0, 0.0, 0.0]]),
        ("hard_tanh", {}, [[-2.0, -1.0, 0.0, 1.0]], [[0.0, 0.0, 1.0, 0.0]]),
        ("hard_sigmoid", {}, [[-3.0, 0.0, 3.0]], [[0.0, 1 / 6, 0.0]]),
        ("hard_swish", {}, [[-4.0, -3.0, 0.0, 3.0, 4.0]], [[0.0, 0.0, 0.5, 1.0, 1.0]]),
        ("soft_shrink", {}, [[-1.0, -0.5, 0.0, 0.5, 1.0]], [[1.0, 0.0, 0.0, 0.0, 1.0]]),
        ("prelu", {}, [[[-2.0, 0.0, 3.0]], [0.25]], [[[0.25, 0.25, 1.0]], [-2.0]]),
        ("selu", {}, [[0.0, 1.0]], [[1.0507009873554805 * 1.6732632423543772, 1.0507009873554805]]),
    ],
)
def test_gradient_at_kinks(kind: str, attrs: dict[str, Any], inputs: list[list[float]], expected: list[list[float]]) -> None:
    """The conventions that docstrings state, which are PyTorch's."""
    arrays = [np.array(a) for a in inputs]
    b, values, (y,) = build(kind, [type_of(a) for a in arrays], attrs)
    graph = b.graph(*gradients(b, b.sum(y), values))
    for got, wanted in zip(interpret(graph, arrays), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_gradient_of_where_ignores_nan_on_the_other_side() -> None:
    b = Builder()
    x = b.input(DType.F64, 3)
    safe = b.where(b.gt(x, b.scalar(0.0, DType.F64)), b.sqrt(x), b.scalar(0.0, DType.F64))
    got = interpret(b.graph(b.where(b.gt(x, b.scalar(0.0, DType.F64)), *gradients(b, b.sum(safe), (x,)), x)), [np.array([-1.0, 0.0, 4.0])])
    np.testing.assert_array_equal(got[0], [-1.0, 0.0, 0.25])


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bad"), [pytest.param(k, e, id=f"{k}-{n}") for k, op in sorted(OPERATORS.items()) for n, e in enumerate(op.errors)]
)
def test_bad_inputs_are_refused(kind: str, bad: Any) -> None:
    b = Builder()
    inputs = [b.input(t.dtype, *t.shape) for t in bad.inputs]
    with pytest.raises(TypeFailure) as caught:
        b.apply(kind, *inputs, **bad.attrs)
    assert bad.message in caught.value.message
    assert all(0 <= position < len(inputs) for position in caught.value.inputs)
    assert len(caught.value.axes) in (0, len(caught.value.inputs))
    for position, axis in zip(caught.value.inputs, caught.value.axes, strict=False):
        assert 0 <= axis < inputs[position].type.rank


def test_every_operator_with_inputs_refuses_something() -> None:
    total = {"identity", "stop_gradient", "size"}
    assert not [kind for kind, op in OPERATORS.items() if op.inputs and not (op.errors or op.regions) and kind not in total]


def test_two_names_never_broadcast() -> None:
    b = Builder()
    x, y = b.input(DType.F32, dims.name("N"), 4), b.input(DType.F32, dims.name("M"), 4)
    with pytest.raises(TypeFailure, match="axis 0 is N and M") as caught:
        b.add(x, y)
    assert (caught.value.inputs, caught.value.axes) == ((0, 1), (0, 0))


# ---- symbolic sizes -----------------------------------------------------------------------------------------------


def leading_size(op: Operator, sample: Sample) -> int | None:
    """The first input's leading size, which becomes symbolic."""
    if not sample.inputs:
        return None
    first = sample.inputs[0]
    shape = first.shape if isinstance(first, np.ndarray) else first
    return shape[0] if shape and shape[0] > 1 else None


def symbolic(value: Any, batch: int) -> Any:
    """A leading size in a shape attribute becomes N."""
    if isinstance(value, tuple) and value and isinstance(value[0], int):
        return (dims.name("N") if value[0] == batch else value[0], *value[1:])
    return value


def symbolic_batch(kind: str, sample: Sample, batch: int) -> None:
    """infer, the references through the interpreter, the expansion and the body, with a leading size left symbolic."""
    arrays = arrays_of(kind, sample)
    b, _, outputs = build(kind, [type_of(a) for a in arrays], sample.attrs)
    types = []
    for array in arrays:
        t = type_of(array)
        types.append(t.with_shape((dims.name("N"), *t.shape[1:])) if t.shape and t.shape[0] == batch else t)
    sizes = ("shape", "dims", "any", "dim")
    attrs = {n: symbolic(v, batch) if OPERATORS[kind].attrs[n].kind in sizes else v for n, v in sample.attrs.items()}
    s, _, results = build(kind, types, attrs)
    for value, result in zip(outputs, results, strict=True):
        assert tuple(dims.evaluate(size, {"N": batch}) for size in result.type.shape) == value.type.shape
    expected = interpret(b.graph(*outputs), arrays)
    graphs = [s.graph(*results)] + ([expand_composites(s.graph(*results))] if is_composite(kind) else [])
    for graph in graphs:
        for got, wanted in zip(interpret(graph, arrays, {"N": batch}), expected, strict=True):
            close(got, wanted, DType.F64)
    if OPERATORS[kind].has("body"):
        got = evaluate_body(kind, arrays, types, settings(kind, sample) | attrs, results[0].type, {"N": batch})
        close(got, expected[0], DType.F64)


@pytest.mark.parametrize("kind", sorted(kind for kind, op in OPERATORS.items() if any(leading_size(op, s) for s in op.samples)))
def test_symbolic_batch_agrees_with_concrete_one(kind: str) -> None:
    """For each sample, but for those where only numbers show that sizes fit; for at least one, and each of size 5 but reshape's."""
    refused = []
    batched = [(s, leading_size(OPERATORS[kind], s)) for s in OPERATORS[kind].samples]
    batched = [(s, n) for s, n in batched if n]
    for sample, batch in batched:
        try:
            symbolic_batch(kind, sample, batch)
        except TypeFailure as failure:
            assert batch != BATCH or kind == "reshape", failure.message
            refused.append(failure.message)
    assert len(refused) < len(batched), refused


# ---- the registry itself ------------------------------------------------------------------------------------------


def test_incomplete_operators_are_refused() -> None:
    with pytest.raises(TypeError, match=r"half_done lacks infer, reference, docstring, body or expand, vjp.*, samples"):

        @operator
        class HalfDone(Operator):
            pass

    assert "half_done" not in OPERATORS
    with pytest.raises(TypeError, match="defined twice"):
        operator(type(OPERATORS["add"]))


def test_operators_of_the_first_issue_exist() -> None:
    names = """add sub mul div floordiv mod neg eq ne lt le gt ge and or not xor where cast clip exp log sqrt rsqrt pow abs maximum
        minimum tanh sigmoid erf sin cos identity relu leaky_relu elu gelu silu softplus sum mean max min argmax logsumexp norm
        moments reshape flatten transpose rearrange expand concat split slice pad squeeze unsqueeze along gather one_hot
        stop_gradient size zeros ones full iota normalize"""
    assert set(names.split()) <= set(OPERATORS)


def test_docstrings_and_attributes_are_documented() -> None:
    for kind, op in OPERATORS.items():
        assert op.__doc__ and op.__doc__.strip()[0].isprintable(), kind
        for name, attr in op.attrs.items():
            assert attr.doc, f"{kind}.{name}"
