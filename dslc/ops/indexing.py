"""Operators whose indices are data: gather, its gradient, one_hot."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.routines import Routine
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index, Shape, check_shape, count, normal_axis, require

F32, F64, I32, I64, BOOL = DType.F32, DType.F64, DType.I32, DType.I64, DType.BOOL
_INDEX = np.array([2, 0, 2, 1, 4])


@operator
class Gather(Operator):
    """Slices of a table along an axis, picked by an integer tensor, whose axes take that axis's place.

    A table of [V, D] and an index of [N, T] give [N, T, D]. An index outside the table is moved to its nearest end.
    """

    moves = True
    onnx = "Gather"
    family = "indexing"
    inputs = ("table", "index")
    attrs = {"axis": Attr("axis", 0, "the axis of the table that is indexed")}
    samples = [
        Sample(((5, 3), _INDEX)),
        Sample(((5, 3), np.array([[0, 2], [1, 1]], np.int32)), {"axis": 1}),
        Sample(((5, 3), np.array(1)), {"axis": -1}),
        Sample(((4,), np.array([-3, 9]))),
    ]
    errors = [
        BadSample((TensorType(F32, (4, 2)), TensorType(F32, (3,))), {}, "integer"),
        BadSample((TensorType(F32, (4, 2)), TensorType(I64, (3,))), {"axis": 2}, "no axis 2"),
        BadSample((TensorType(F32, (0, 2)), TensorType(I64, (3,))), {}, "no elements"),
    ]

    def infer(self, table: TensorType, index: TensorType, axis: int) -> TensorType:
        at = normal_axis(axis, table)
        if not index.dtype.integer:
            raise TypeFailure(f"gather needs an integer index, not {index}", inputs=(1,), hint="convert it with cast[i64](...)")
        if table.shape[at] == 0:
            raise TypeFailure(f"gather from {table}: axis {at} has no elements", inputs=(0,), axes=(at,))
        return table.with_shape((*table.shape[:at], *index.shape, *table.shape[at + 1 :]))

    def body(self, index: Index, table: Reader, picks: Reader, axis: int) -> Expr:
        at = normal_axis(axis, table.type)
        inner = at + picks.type.rank
        pick = loops.cast(picks[index[at:inner]], I64)
        return table.at((*index[:at], 0, *index[inner:]), at, pick)

    def vjp(self, b: Builder, dy: Value, y: Value, table: Value, index: Value, axis: int) -> tuple[Value | None, None]:
        if not table.type.dtype.floating:
            return None, None
        at = normal_axis(axis, table.type)
        return b.gather_grad(dy, index, axis=at, size=table.type.shape[at]), None

    def reference(self, table: Array, index: Array, axis: int) -> Any:
        return np.take(table, index, axis=axis, mode="clip")


@operator
class GatherGrad(Operator):
    """The gradient of gather by its table: each slice of dy is added to the slice of the table that it was read from.

    A sum over all picks in their row-major order, never an atomic addition, so the result does not depend on threads. Its cost is
    that of dy and the table, not of their product.
    """

    family = "indexing"
    internal = True
    inputs = ("dy", "index")
    attrs = {
        "axis": Attr("axis", doc="the axis of the table that was indexed, counted from the front"),
        "size": Attr("dim", doc="the table's size along it"),
    }
    samples = [
        Sample(((5, 3), _INDEX), {"axis": 0, "size": 5}),
        Sample(((5, 2, 2), np.array([[0, 2], [1, 1]], np.int32)), {"axis": 1, "size": 3}),
        Sample(((5,), np.array(1)), {"axis": 1, "size": 3}),
        Sample(((2,), np.array([-3, 9])), {"axis": 0, "size": 4}),
    ]
    errors = [
        BadSample((TensorType(F32, (4, 2)), TensorType(I64, (3,))), {"axis": 0, "size": 5}, "axis 0 is 4, not 3"),
        BadSample((TensorType(F32, (4, 2)), TensorType(I64, (3, 1))), {"axis": 1, "size": 5}, "3 axes"),
    ]

    def infer(self, dy: TensorType, index: TensorType, axis: int, size: Dim) -> TensorType:
        require("floating", self.name, dy)
        if dy.rank < axis + index.rank:
            raise TypeFailure(f"gather_grad of {dy} needs at least {axis + index.rank} axes", inputs=(0,))
        for a, extent in enumerate(index.shape, axis):
            if dy.shape[a] != extent:
                raise TypeFailure(f"gather_grad of {dy} and {index}: axis {a} is {dy.shape[a]}, not {extent}", inputs=(0, 1))
        return dy.with_shape((*dy.shape[:axis], *check_shape((size,)), *dy.shape[axis + index.rank :]))

    def routine(self, dy: TensorType, index: TensorType, axis: int, size: Dim) -> Routine:
        outer, inner = count(dy, tuple(range(axis))), count(dy, tuple(range(axis + index.rank, dy.rank)))
        sizes = (("outer", outer), ("count", index.size), ("size", size), ("inner", inner))
        return Routine("scatter", sizes, (("based", False), ("adds", True), ("each", False)))

    def vjp(self, b: Builder, dz: Value, z: Value, dy: Value, index: Value, axis: int, size: Dim) -> tuple[Value, None]:
        return b.gather(dz, index, axis=axis), None

    def reference(self, dy: Array, index: Array, axis: int, size: int) -> Any:
        after = dy.shape[axis + index.ndim :]
        rows = np.moveaxis(dy.reshape(*dy.shape[:axis], index.size, *after), axis, 0)
        table = np.zeros((size, *rows.shape[1:]), dy.dtype)
        np.add.at(table, np.clip(index.ravel(), 0, size - 1), rows)
        return np.moveaxis(table, 0, axis)


@operator
class OneHot(Operator):
    """1 at the position that x says and 0 elsewhere, along a new last axis of size K; all 0 where x is outside of 0..K."""

    onnx = "OneHot"
    family = "indexing"
    differentiable = False
    attrs = {
        "size": Attr("dim", doc="K, the size of the new axis"),
        "dtype": Attr("dtype", F32, "the element type of the result"),
    }
    samples = [
        Sample((_INDEX,), {"size": 6}),
        Sample((np.array([[1, -1], [3, 0]], np.int32),), {"size": 3, "dtype": F64}),
        Sample((np.array(1),), {"size": 2, "dtype": I32}),
        Sample((np.array([1, 0], np.uint8),), {"size": 2, "dtype": BOOL}),
    ]
    errors = [
        BadSample((TensorType(F32, (4,)),), {"size": 3}, "integer"),
        BadSample((TensorType(I64, (4,)),), {"size": -1}, "at least 0"),
    ]

    def infer(self, x: TensorType, size: Dim, dtype: DType) -> TensorType:
        require("integer", self.name, x)
        shape: Shape = (*x.shape, *check_shape((size,)))
        return TensorType(dtype, shape)

    def body(self, index: Index, x: Reader, size: Dim, dtype: DType) -> Expr:
        here = loops.binary("eq", loops.cast(x[index[:-1]], I64), IndexValue(index[-1]))
        return here if dtype == BOOL else loops.cast(here, dtype)

    def reference(self, x: Array, size: int, dtype: DType) -> Any:
        return (x[..., None] == np.arange(size)).astype(dtype.numpy)
