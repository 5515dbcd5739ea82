"""The reference executor: runs a graph with each operator's NumPy reference, for tests and for `--verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dslc.ir import dims
from dslc.ir.dims import Dim, DimExpr
from dslc.ir.graph import ConstantData, Graph, Op, Value
from dslc.ir.halves import as_values
from dslc.ir.operator import OPERATORS
from dslc.ir.scan import is_scan, parts
from dslc.ir.types import DType, TensorType

Array = np.ndarray[Any, Any]


class InterpreterError(ValueError):
    """Arrays that do not fit the graph, or an operation that has no reference."""


def interpret(graph: Graph, arrays: Sequence[Any], sizes: Mapping[str, int] | None = None, *, wide: bool = False) -> list[Array]:
    """The outputs of `graph` for arrays of its inputs.

    `sizes` gives the value of each symbolic size; those that are an axis of an input may be left out. With `wide`, f32, f16
    and bf16 are computed as f64 throughout, constants and conversions included: the yardstick for errors of kernels.
    Raises InterpreterError where the arrays do not fit, or for an operation that a transform must replace first.
    """
    values = evaluate(graph, arrays, sizes, wide=wide)
    return [values[value] for value in graph.outputs]


def evaluate(graph: Graph, arrays: Sequence[Any], sizes: Mapping[str, int] | None = None, *, wide: bool = False) -> dict[Value, Array]:
    """Every value of the graph, so that two stages of the compiler can be compared value by value."""
    if len(arrays) != len(graph.inputs):
        raise InterpreterError(f"the graph has {len(graph.inputs)} inputs, not {len(arrays)}")
    given = [np.asarray(array) for array in arrays]
    bound = _bind(graph.inputs, given, sizes or {})
    values: dict[Value, Array] = {}
    for value, array in zip(graph.inputs, given, strict=True):
        values[value] = _checked(value, _converted(array, value.type.dtype, wide), bound, "an input")
    with np.errstate(all="ignore"):
        for op in graph.ops:
            results = _run(op, [values[value] for value in op.inputs], bound, wide)
            for value, array in zip(op.outputs, results, strict=True):
                values[value] = _checked(value, _converted(array, value.type.dtype, wide), bound, op.kind)
    return values


def walk(
    graph: Graph, arrays: Sequence[Any], sizes: Mapping[str, int] | None = None
) -> Iterator[tuple[Op, list[Array], tuple[Array, ...]]]:
    """Each operation with its operands and results, in order. A value is forgotten when nothing reads it any more."""
    given = [np.asarray(array) for array in arrays]
    bound = _bind(graph.inputs, given, sizes or {})
    last = {value: number for number, op in enumerate(graph.ops) for value in op.inputs}
    values = {value: _converted(array, value.type.dtype, False) for value, array in zip(graph.inputs, given, strict=True)}
    for number, op in enumerate(graph.ops):
        operands = [values[value] for value in op.inputs]
        with np.errstate(all="ignore"):
            made = _run(op, operands, bound, False)
            results = tuple(_converted(array, value.type.dtype, False) for value, array in zip(op.outputs, made, strict=True))
        values |= {value: array for value, array in zip(op.outputs, results, strict=True) if value in last}
        yield op, operands, results
        for value in op.inputs:
            if last[value] == number:
                values.pop(value, None)


def _run(op: Op, arrays: list[Array], sizes: Mapping[str, int], wide: bool) -> tuple[Array, ...]:
    if is_scan(op):
        return _scan(op, arrays, sizes, wide)
    operator = OPERATORS[op.kind]
    if not operator.has("reference"):
        raise InterpreterError(f"{op.kind} is replaced by a transform before a graph runs")
    attrs = {name: _resolved(attr, sizes, wide) for name, attr in op.attrs}
    made = operator.reference(*arrays, **attrs)
    return tuple(np.asarray(array) for array in made) if len(op.outputs) > 1 or isinstance(made, tuple) else (np.asarray(made),)


def _scan(op: Op, arrays: list[Array], sizes: Mapping[str, int], wide: bool) -> tuple[Array, ...]:
    scan = parts(op)
    count, walked, carried = dims.evaluate(scan.length, sizes), len(scan.sequences), len(scan.initial)
    sequences, carries, captures = arrays[:walked], arrays[walked : walked + carried], arrays[walked + carried :]
    shapes = [tuple(dims.evaluate(size, sizes) for size in v.type.shape) for v in scan.stacked]
    stacked = [_converted(np.zeros(shape), v.type.dtype, wide) for shape, v in zip(shapes, scan.stacked, strict=True)]
    for index in reversed(range(count)) if scan.reverse else range(count):
        slices = [np.take(a, index, axis) for a, axis in zip(sequences, scan.elements, strict=True)]
        results = interpret(scan.body, [np.asarray(index), *slices, *carries, *captures], sizes, wide=wide)
        carries = results[:carried]
        for whole, axis, part in zip(stacked, scan.stacks, results[carried:], strict=True):
            np.moveaxis(whole, axis, 0)[index] = part
    return (*carries, *stacked)


def _resolved(attr: Any, sizes: Mapping[str, int], wide: bool) -> Any:
    """An attribute with its symbolic sizes as integers."""
    if isinstance(attr, tuple):
        return tuple(_resolved(part, sizes, wide) for part in attr)
    if isinstance(attr, DimExpr):
        return dims.evaluate(attr, sizes)
    if isinstance(attr, ConstantData):
        return replace(attr, type=_resolved_type(attr.type, sizes))
    return DType.F64 if wide and isinstance(attr, DType) and attr.floating else attr


def _resolved_type(type: TensorType, sizes: Mapping[str, int]) -> TensorType:
    return type.with_shape(tuple(dims.evaluate(size, sizes) for size in type.shape))


def _converted(array: Array, dtype: DType, wide: bool) -> Array:
    return as_values(array, DType.F64 if wide and dtype.floating else dtype)


def _bind(inputs: Sequence[Value], arrays: Sequence[Array], sizes: Mapping[str, int]) -> dict[str, int]:
    """`sizes`, and the symbolic sizes that are an axis of an input by themselves."""
    bound = dict(sizes)
    for value, array in zip(inputs, arrays, strict=True):
        if array.ndim != value.type.rank:
            raise InterpreterError(f"{value} is {value.type}, not an array of {array.ndim} axes")
        for size, actual in zip(value.type.shape, array.shape, strict=True):
            names = sorted(dims.names(size))
            if len(names) == 1 and size == dims.name(names[0]):
                bound.setdefault(names[0], int(actual))
    return bound


def _checked(value: Value, array: Array, sizes: Mapping[str, int], what: str) -> Array:
    expected = tuple(_evaluate(size, sizes) for size in value.type.shape)
    if array.shape != expected:
        raise InterpreterError(f"{value}: {value.type}, {what}, should have the shape {list(expected)}, not {list(array.shape)}")
    return array


def _evaluate(size: Dim, sizes: Mapping[str, int]) -> int:
    try:
        return dims.evaluate(size, sizes)
    except dims.DimError as error:
        raise InterpreterError(str(error)) from error
