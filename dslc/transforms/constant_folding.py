"""Constant folding: what depends on constants alone is computed now, by the operators' NumPy references.

Only small results are kept: a large constant costs more in the artifact and in memory than the kernel that makes it.
"""

from __future__ import annotations

import math

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import DimExpr
from dslc.ir.graph import ConstantData, Graph, Op, Value
from dslc.ir.operator import OPERATORS
from dslc.ir.types import TensorType
from dslc.transforms.regions import in_regions

LIMIT = 4096  # bytes of a result


def constant_folding(graph: Graph, limit: int = LIMIT) -> Graph:
    """`graph` with operations on constants replaced by their results, where these have at most `limit` bytes.

    What makes a constant without looking at one (`full`, `iota`) stays: a kernel has it for nothing.
    """
    builder = Builder(graph.inputs, graph.ops)
    builder.ops = []
    renamed: dict[Value, Value] = {}
    known: dict[Value, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
    for old in graph.ops:
        op = in_regions(old.with_inputs(tuple(renamed.get(v, v) for v in old.inputs)), lambda region: constant_folding(region, limit))
        if not _foldable(op, limit) or any(v not in known for v in op.inputs):
            builder.ops.append(op)
            continue
        arrays = _evaluate(op, [known[v] for v in op.inputs])
        known.update(zip(op.outputs, arrays, strict=True))
        if not op.inputs:
            builder.ops.append(op)
            continue
        builder.span = op.span
        for value, array in zip(op.outputs, arrays, strict=True):
            renamed[value] = _constant(builder, value.type, array)
            known[renamed[value]] = array
    return Graph(graph.inputs, tuple(builder.ops), tuple(renamed.get(v, v) for v in graph.outputs))


def _foldable(op: Op, limit: int) -> bool:
    operator = OPERATORS.get(op.kind)
    if operator is None or op.regions or operator.draw or not (operator.has("reference") or op.kind == "constant"):
        return False
    if any(_symbolic(value) for _, value in op.attrs) or any(v.type.dtype.half for v in op.outputs):
        return False  # constants have no 16-bit floats: the compiler of the kernel folds their conversion
    return all(all(isinstance(n, int) for n in v.type.shape) and _bytes(v.type) <= limit for v in op.outputs)


def _symbolic(attr: object) -> bool:
    return any(map(_symbolic, attr)) if isinstance(attr, tuple) else isinstance(attr, DimExpr)


def _bytes(type: TensorType) -> int:
    return math.prod(n for n in type.shape if isinstance(n, int)) * type.dtype.size


def _evaluate(
    op: Op, arrays: list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    if op.kind == "constant":
        data: ConstantData = op.attr("data")
        results: tuple[object, ...] = (np.frombuffer(data.data, data.type.dtype.numpy).reshape([int(str(n)) for n in data.type.shape]),)
    else:
        with np.errstate(all="ignore"):
            made = OPERATORS[op.kind].reference(*arrays, **dict(op.attrs))
        results = made if isinstance(made, tuple) else (made,)
    return [np.asarray(array, v.type.dtype.numpy) for array, v in zip(results, op.outputs, strict=True)]


def _constant(builder: Builder, type: TensorType, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Value:
    """A `full` where all elements have the same bits, so that other rules see the number; else a constant."""
    content = np.ascontiguousarray(array).tobytes()
    if array.size and content == content[: array.itemsize] * array.size:
        value: Value = builder.like(array.reshape(-1)[0].item(), type)
        return value
    return builder.constant(array, type.dtype)
