"""Order along an axis: argsort, sort, top_k. Stable; NaN comes last in either direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.routines import Routine
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, count, cut, normal_axis, require

F32, I32, I64, BOOL = DType.F32, DType.I32, DType.I64, DType.BOOL
LARGEST_SELECTION = 64  # of more than so many elements a whole sort costs less
_DESCENDING = Attr("bool", False, "the largest first")
_SPECIAL = np.array([[2.0, np.nan, -0.0, 0.0, -np.inf, 2.0, np.inf, -1.5], [np.nan, np.nan, 1.0, -1.0, 0.0, -0.0, -1e-310, 1e-45]])
_TIES = np.array([[3, 1, 3, -7, 1], [0, 0, 0, 0, -1]], np.int32)


def _positions(x: Array, descending: bool) -> Array:
    """Along the last axis; NumPy's stable sort, which puts NaN last."""
    if not descending:
        return np.argsort(x, axis=-1, kind="stable").astype(np.int64)
    if x.dtype.kind == "f":
        return np.argsort(-x, axis=-1, kind="stable").astype(np.int64)
    wide = x.astype(np.int64)
    return np.argsort(~wide, axis=-1, kind="stable").astype(np.int64)


def _last_axis(b: Builder, x: Value, axis: int) -> tuple[Value, tuple[int, ...] | None]:
    """x with `axis` as its last axis, and the axes that exchange the two, where they differ."""
    last = x.type.rank - 1
    if axis == last:
        return x, None
    order = tuple(last if a == axis else axis if a == last else a for a in range(x.type.rank))
    return b.transpose(x, axes=order), order


@operator
class RowOrder(Operator):
    """The positions that put the elements along the last axis in order."""

    family = "sorting"
    internal = True
    differentiable = False
    attrs = {"descending": _DESCENDING}
    samples = [
        Sample(((5, 7),)),
        Sample(((5, 7),), {"descending": True}),
        Sample((_SPECIAL,)),
        Sample((_SPECIAL,), {"descending": True}),
        Sample((_TIES,)),
        Sample((_TIES,), {"descending": True}),
        Sample((np.arange(3 * 200).reshape(3, 200) * 37 % 101,), {"descending": True}),
        Sample((np.arange(3 * 129).reshape(3, 129) * 37 % 101 - 50.0,)),
        Sample((np.array([7, 0, 255, 7, 1], np.uint8),), {"descending": True}),
        Sample((np.zeros((3, 1)),)),
    ]
    errors = [
        BadSample((TensorType(BOOL, (3,)),), {}, "not bool[3]"),
        BadSample((TensorType(F32, ()),), {}, "at least one axis"),
    ]

    def infer(self, x: TensorType, descending: bool) -> TensorType:
        require("number", self.name, x)
        if not x.rank:
            raise TypeFailure(f"sorting needs at least one axis, not {x}", inputs=(0,))
        return TensorType(I64, x.shape)

    def routine(self, x: TensorType, descending: bool) -> Routine:
        flat = TensorType(I64, (x.size,))
        rows = count(x, tuple(range(x.rank - 1)))
        scratch = (flat, flat) if x.dtype.size == 8 else (flat,)
        return Routine("sort", (("rows", rows), ("count", x.shape[-1])), (("descending", descending),), scratch)

    def reference(self, x: Array, descending: bool) -> Array:
        return _positions(x, descending)


@operator
class RowTop(Operator):
    """The positions of the first `k` elements along the last axis in their order."""

    family = "sorting"
    internal = True
    differentiable = False
    attrs = {"k": Attr("int", doc="how many"), "descending": _DESCENDING}
    samples = [
        Sample(((5, 7),), {"k": 3}),
        Sample(((5, 70),), {"k": 10, "descending": True}),
        Sample((_SPECIAL,), {"k": 8}),
        Sample((_SPECIAL,), {"k": 5, "descending": True}),
        Sample((_TIES,), {"k": 2, "descending": True}),
    ]
    errors = [
        BadSample((TensorType(F32, (3,)),), {"k": 4}, "3 elements"),
        BadSample((TensorType(F32, (3,)),), {"k": 0}, "at least 1"),
    ]

    def infer(self, x: TensorType, k: int, descending: bool) -> TensorType:
        _check_top(x, k, x.rank - 1)
        return TensorType(I64, (*x.shape[:-1], k))

    def routine(self, x: TensorType, k: int, descending: bool) -> Routine:
        rows = count(x, tuple(range(x.rank - 1)))
        scratch = (TensorType(I64, (rows * k,)),)
        return Routine("top", (("rows", rows), ("count", x.shape[-1]), ("k", k)), (("descending", descending),), scratch)

    def reference(self, x: Array, k: int, descending: bool) -> Array:
        return _positions(x, descending)[..., :k]


def _check_top(x: TensorType, k: int, axis: int) -> None:
    require("number", "top_k", x)
    if k < 1:
        raise TypeFailure(f"top_k takes at least 1 element, not {k}")
    size = x.shape[axis]
    if isinstance(size, int) and k > size:
        raise TypeFailure(f"top_k of {k}: axis {axis} of {x} has {size} elements", inputs=(0,), axes=(axis,))


class _Sorting(Operator):
    """Base of argsort and sort."""

    family = "sorting"
    attrs = {"axis": Attr("axis", -1, "the axis along which elements are sorted"), "descending": _DESCENDING}
    samples = [
        Sample(((5, 4),)),
        Sample(((5, 4),), {"axis": 0, "descending": True}),
        Sample(((5, 3, 4),), {"axis": 1}),
        Sample((_SPECIAL,), {"descending": True}, gradient=False),
        Sample((_TIES,), {"axis": 1}, gradient=False),
        Sample((_TIES,), {"axis": 0, "descending": True}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"axis": 2}, "no axis 2"),
        BadSample((TensorType(BOOL, (2, 3)),), {}, "not bool[2, 3]"),
    ]


@operator
class Argsort(_Sorting):
    """The positions, as i64, that put the elements along an axis in order. Equal elements keep theirs; NaN comes last."""

    differentiable = False

    def infer(self, x: TensorType, axis: int, descending: bool) -> TensorType:
        normal_axis(axis, x)
        require("number", self.name, x)
        return TensorType(I64, x.shape)

    def expand(self, b: Builder, x: Value, axis: int, descending: bool) -> Value:
        rows, back = _last_axis(b, x, normal_axis(axis, x.type))
        order: Value = b.row_order(rows, descending=descending)
        return order if back is None else b.transpose(order, axes=back)

    def reference(self, x: Array, axis: int, descending: bool) -> Any:
        return np.moveaxis(_positions(np.moveaxis(x, axis, -1), descending), -1, axis)


@operator
class Sort(_Sorting):
    """The elements along an axis in order, and their positions as i64. Equal elements keep their order; NaN comes last.

    The gradient of an element goes back to its position.
    """

    def infer(self, x: TensorType, axis: int, descending: bool) -> tuple[TensorType, TensorType]:
        normal_axis(axis, x)
        require("number", self.name, x)
        return x, TensorType(I64, x.shape)

    def expand(self, b: Builder, x: Value, axis: int, descending: bool) -> tuple[Value, Value]:
        order = b.argsort(x, axis=axis, descending=descending)
        return (b.take_along(x, order, axis=axis) if x.type.shape[normal_axis(axis, x.type)] != 0 else x), order

    def reference(self, x: Array, axis: int, descending: bool) -> Any:
        order = np.moveaxis(_positions(np.moveaxis(x, axis, -1), descending), -1, axis)
        return np.take_along_axis(x, order, axis), order


@operator
class TopK(Operator):
    """The `k` largest elements along an axis from the largest on, and their positions as i64; the smallest with `largest = false`.

    Of equal elements the first comes first. NaN comes after every number. The gradient of an element goes back to its position.
    """

    onnx = "TopK"
    family = "sorting"
    attrs = {
        "k": Attr("int", doc="how many"),
        "axis": Attr("axis", -1, "the axis along which they are picked"),
        "largest": Attr("bool", True, "the largest, not the smallest"),
    }
    samples = [
        Sample(((5, 4),), {"k": 2}),
        Sample(((5, 4),), {"k": 3, "axis": 0, "largest": False}),
        Sample(((5, 3, 4),), {"k": 1, "axis": 1}),
        Sample(((2, 100),), {"k": 70}, gradient=False),
        Sample((_SPECIAL,), {"k": 6}, gradient=False),
        Sample((_TIES,), {"k": 2}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"k": 4}, "3 elements"),
        BadSample((TensorType(F32, (2, 3)),), {"k": 0}, "at least 1"),
        BadSample((TensorType(F32, (2, 3)),), {"k": 1, "axis": 2}, "no axis 2"),
        BadSample((TensorType(BOOL, (2, 3)),), {"k": 1}, "not bool[2, 3]"),
    ]

    def infer(self, x: TensorType, k: int, axis: int, largest: bool) -> tuple[TensorType, TensorType]:
        at = normal_axis(axis, x)
        _check_top(x, k, at)
        shape: tuple[Dim, ...] = (*x.shape[:at], k, *x.shape[at + 1 :])
        return x.with_shape(shape), TensorType(I64, shape)

    def expand(self, b: Builder, x: Value, k: int, axis: int, largest: bool) -> tuple[Value, Value]:
        at = normal_axis(axis, x.type)
        rows, back = _last_axis(b, x, at)
        if k > LARGEST_SELECTION:
            order = cut(b, b.row_order(rows, descending=largest), x.type.rank - 1, 0, k)
        else:
            order = b.row_top(rows, k=k, descending=largest)
        order = order if back is None else b.transpose(order, axes=back)
        return b.take_along(x, order, axis=at), order

    def reference(self, x: Array, k: int, axis: int, largest: bool) -> Any:
        order = np.moveaxis(_positions(np.moveaxis(x, axis, -1), largest), -1, axis)
        order = np.take(order, np.arange(k), axis)
        return np.take_along_axis(x, order, axis), order
