"""Writing to places that data names: scatter, elements along an axis, parts at a run-time offset, positions of what is not zero."""

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
from dslc.ops.shapes import Array, Index, broadcast_to, check_shape, count, extent, normal_axis, require, reshaped

F32, F64, I32, I64, BOOL = DType.F32, DType.F64, DType.I32, DType.I64, DType.BOOL
_INDEX = np.array([2, 0, 2, 1, 4])


def _moved_inside(pick: Expr, size: Dim) -> Expr:
    """An index from data, moved to the nearest end of its axis where it lies outside."""
    return loops.binary("min", loops.binary("max", loops.cast(pick, I64), loops.const(0, I64)), IndexValue(size - 1))


def _check_updates(name: str, x: TensorType, index: TensorType, updates: TensorType, axis: int) -> int:
    """The axis of x that is indexed, where updates are what a gather would give."""
    at = normal_axis(axis, x)
    if not index.dtype.integer:
        raise TypeFailure(f"{name} needs an integer index, not {index}", inputs=(1,), hint="convert it with cast[i64](...)")
    if x.shape[at] == 0:
        raise TypeFailure(f"{name} into {x}: axis {at} has no elements", inputs=(0,), axes=(at,))
    expected = x.with_shape((*x.shape[:at], *index.shape, *x.shape[at + 1 :]))
    if updates != expected:
        raise TypeFailure(f"{name} into {x} at {index} on axis {at} needs updates {expected}, not {updates}", inputs=(0, 1, 2))
    return at


_AXIS = {"axis": Attr("axis", 0, "the axis of x that is indexed")}
_SCATTER_ERRORS = [
    BadSample((TensorType(F32, (4, 2)), TensorType(F32, (3,)), TensorType(F32, (3, 2))), {}, "integer"),
    BadSample((TensorType(F32, (4, 2)), TensorType(I64, (3,)), TensorType(F32, (3,))), {}, "needs updates f32[3, 2]"),
    BadSample((TensorType(F32, (4, 2)), TensorType(I64, (3,)), TensorType(F32, (3, 2))), {"axis": 2}, "no axis 2"),
    BadSample((TensorType(F32, (0, 2)), TensorType(I64, (3,)), TensorType(F32, (3, 2))), {}, "no elements"),
]


@operator
class ScatterAdd(Operator):
    """x with each slice of the updates added to the slice of x that the index names: what gather reads, the other way round.

    For x of [V, D] and an index of [N, T] the updates are [N, T, D]. Updates of one slice are added in their row-major order, so the
    result does not depend on threads. An index outside of x is moved to its nearest end.
    """

    onnx = "ScatterND"
    family = "indexing"
    inputs = ("x", "index", "updates")
    attrs = _AXIS
    samples = [
        Sample(((5, 3), _INDEX, (5, 3))),
        Sample(((5, 3, 2), np.array([[0, 2], [1, 1]], np.int32), (5, 2, 2, 2)), {"axis": 1}),
        Sample(((5, 3), np.array(1), (5,)), {"axis": -1}),
        Sample(((4,), np.array([-3, 9]), (2,))),
        Sample(((40, 70), np.arange(50) * 7 % 41, (50, 70)), gradient=False),
        Sample((np.array([[1, 2], [3, 4]], np.int32), np.array([1, 1, 0]), np.array([[1, 1], [5, -6], [2, 2]], np.int32)), gradient=False),
    ]
    errors = [*_SCATTER_ERRORS, BadSample((TensorType(BOOL, (4,)), TensorType(I64, (3,)), TensorType(BOOL, (3,))), {}, "not bool[4]")]

    def infer(self, x: TensorType, index: TensorType, updates: TensorType, axis: int) -> TensorType:
        require("number", self.name, x)
        _check_updates(self.name, x, index, updates, axis)
        return x

    def routine(self, x: TensorType, index: TensorType, updates: TensorType, axis: int) -> Routine:
        at = normal_axis(axis, x)
        outer, inner = count(x, tuple(range(at))), count(x, tuple(range(at + 1, x.rank)))
        sizes = (("outer", outer), ("count", index.size), ("size", x.shape[at]), ("inner", inner))
        return Routine("scatter", sizes, (("based", True), ("adds", True), ("each", False)))

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, index: Value, updates: Value, axis: int
    ) -> tuple[Value | None, None, Value | None]:
        if not x.type.dtype.floating:
            return None, None, None
        return dy, None, b.gather(dy, index, axis=axis)

    def reference(self, x: Array, index: Array, updates: Array, axis: int) -> Any:
        at = axis % x.ndim
        table = np.moveaxis(x, at, 0).copy()
        rows = np.moveaxis(updates.reshape(*x.shape[:at], index.size, *x.shape[at + 1 :]), at, 0)
        np.add.at(table, np.clip(index.ravel(), 0, len(table) - 1), rows)
        return np.moveaxis(table, 0, at)


@operator
class LastOf(Operator):
    """For each of `size` places the last position, in row-major order, of an index that names it; -1 where none does."""

    family = "indexing"
    internal = True
    differentiable = False
    inputs = ("index",)
    attrs = {"size": Attr("dim", doc="the number of places")}
    samples = [
        Sample((_INDEX,), {"size": 6}),
        Sample((np.array([[0, 2], [2, 9]], np.int32),), {"size": 4}),
        Sample((np.array(1),), {"size": 3}),
    ]
    errors = [BadSample((TensorType(F32, (4,)),), {"size": 3}, "integer")]

    def infer(self, index: TensorType, size: Dim) -> TensorType:
        require("integer", self.name, index)
        return TensorType(I64, check_shape((size,)))

    def routine(self, index: TensorType, size: Dim) -> Routine:
        return Routine("last", (("count", index.size), ("size", size)))

    def reference(self, index: Array, size: int) -> Array:
        places = np.full(size, -1)
        for position, place in enumerate(np.clip(index.ravel(), 0, len(places) - 1)):
            places[place] = position
        return places


@operator
class Scatter(Operator):
    """x with the slices that the index names replaced by those of the updates; the last in row-major order where one is named twice.

    For x of [V, D] and an index of [N, T] the updates are [N, T, D]. An index outside of x is moved to its nearest end. Updates that
    others replace get no gradient.
    """

    onnx = "ScatterND"
    family = "indexing"
    inputs = ("x", "index", "updates")
    attrs = _AXIS
    samples = [
        Sample(((5, 3), _INDEX, (5, 3))),
        Sample(((5, 3, 2), np.array([[0, 2], [1, 1]], np.int32), (5, 2, 2, 2)), {"axis": 1}),
        Sample(((5, 3), np.array(1), (5,)), {"axis": -1}),
        Sample(((4,), np.array([-3, 9]), (2,))),
        Sample((np.array([True, False, True]), np.array([0, 1, 0]), np.array([False, True, True])), gradient=False),
    ]
    errors = _SCATTER_ERRORS

    def infer(self, x: TensorType, index: TensorType, updates: TensorType, axis: int) -> TensorType:
        _check_updates(self.name, x, index, updates, axis)
        return x

    def expand(self, b: Builder, x: Value, index: Value, updates: Value, axis: int) -> Value:
        at = normal_axis(axis, x.type)
        before, after = x.type.shape[:at], x.type.shape[at + 1 :]
        if index.type.size == 0:
            return x
        last = b.last_of(index, size=x.type.shape[at])
        slices = reshaped(b, updates, (*before, index.type.size, *after))
        column = reshaped(b, last, (x.type.shape[at], *(1 for _ in after)))
        result: Value = b.where(b.ge(column, b.scalar(0, I64)), b.gather(slices, last, axis=at), x)
        return result

    def reference(self, x: Array, index: Array, updates: Array, axis: int) -> Any:
        at = axis % x.ndim
        table = np.moveaxis(x, at, 0).copy()
        rows = np.moveaxis(updates.reshape(*x.shape[:at], index.size, *x.shape[at + 1 :]), at, 0)
        for place, row in zip(np.clip(index.ravel(), 0, len(table) - 1), rows, strict=True):
            table[place] = row
        return np.moveaxis(table, 0, at)


# ---- elements along an axis -----------------------------------------------------------------------------------------


def _check_along(name: str, x: TensorType, index: TensorType, at: int) -> None:
    if not index.dtype.integer:
        raise TypeFailure(f"{name} needs an integer index, not {index}", inputs=(1,), hint="convert it with cast[i64](...)")
    if index.rank != x.rank or any(n != m for a, (n, m) in enumerate(zip(x.shape, index.shape, strict=False)) if a != at):
        raise TypeFailure(f"{name} along axis {at} of {x} needs an index of that shape but for the axis, not {index}", inputs=(0, 1))


@operator
class TakeAlong(Operator):
    """y[.., i, ..] = x[.., index[.., i, ..], ..] along an axis: each place has an index of its own, as in NumPy's take_along_axis.

    x and the index have one shape but for the axis. An index outside of x is moved to its nearest end.
    """

    onnx = "GatherElements"
    family = "indexing"
    inputs = ("x", "index")
    attrs = {"axis": Attr("axis", -1, "the axis along which elements are picked")}
    samples = [
        Sample(((5, 3), np.array([[0, 2], [1, 1], [2, 0], [2, 2], [-1, 7]]))),
        Sample(((4, 3), np.array([[3, 0, 1], [0, 0, 0]], np.int32)), {"axis": 0}),
        Sample(((5, 2, 2), np.arange(20).reshape(5, 2, 2) % 2), {"axis": 1}),
        Sample((np.array([3, 1, 2], np.int32), np.array([2, 2, 0, 1])), gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (4, 2)), TensorType(F32, (4, 2))), {}, "integer"),
        BadSample((TensorType(F32, (4, 2)), TensorType(I64, (3, 2))), {"axis": 1}, "of that shape but for the axis"),
        BadSample((TensorType(F32, (4, 2)), TensorType(I64, (4,))), {}, "of that shape but for the axis"),
        BadSample((TensorType(F32, (4, 0)), TensorType(I64, (4, 1))), {}, "no elements"),
    ]

    def infer(self, x: TensorType, index: TensorType, axis: int) -> TensorType:
        at = normal_axis(axis, x)
        _check_along(self.name, x, index, at)
        if x.shape[at] == 0:
            raise TypeFailure(f"take_along {x}: axis {at} has no elements", inputs=(0,), axes=(at,))
        return x.with_shape(index.shape)

    def body(self, index: Index, x: Reader, picks: Reader, axis: int) -> Expr:
        at = normal_axis(axis, x.type)
        return x.at((*index[:at], 0, *index[at + 1 :]), at, loops.cast(picks[index], I64))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, index: Value, axis: int) -> tuple[Value | None, None]:
        if not x.type.dtype.floating:
            return None, None
        at = normal_axis(axis, x.type)
        return b.take_along_grad(dy, index, axis=at, size=x.type.shape[at]), None

    def reference(self, x: Array, index: Array, axis: int) -> Any:
        return np.take_along_axis(x, np.clip(index, 0, x.shape[axis] - 1).astype(np.int64), axis)


@operator
class TakeAlongGrad(Operator):
    """The gradient of take_along by x: each element of dy added, in the order of the axis, to the one that it was read from."""

    family = "indexing"
    internal = True
    inputs = ("dy", "index")
    attrs = {"axis": Attr("axis", doc="the axis of the index"), "size": Attr("dim", doc="the size of x along it")}
    samples = [
        Sample(((5, 2), np.array([[0, 2], [1, 1], [2, 0], [2, 2], [-1, 7]])), {"axis": 1, "size": 3}),
        Sample(((2, 3), np.array([[3, 0, 1], [0, 0, 1]], np.int32)), {"axis": 0, "size": 4}),
        Sample(((2, 40, 19), np.arange(2 * 40 * 19).reshape(2, 40, 19) * 7 % 5), {"axis": 1, "size": 5}, gradient=False),
    ]
    errors = [BadSample((TensorType(F32, (4, 2)), TensorType(I64, (4, 3))), {"axis": 1, "size": 5}, "one shape")]

    def infer(self, dy: TensorType, index: TensorType, axis: int, size: Dim) -> TensorType:
        require("floating", self.name, dy)
        if dy.shape != index.shape:
            raise TypeFailure(f"take_along_grad needs dy and an index of one shape, not {dy} and {index}", inputs=(0, 1))
        return dy.with_shape((*dy.shape[:axis], *check_shape((size,)), *dy.shape[axis + 1 :]))

    def routine(self, dy: TensorType, index: TensorType, axis: int, size: Dim) -> Routine:
        outer, inner = count(dy, tuple(range(axis))), count(dy, tuple(range(axis + 1, dy.rank)))
        sizes = (("outer", outer), ("count", dy.shape[axis]), ("size", size), ("inner", inner))
        return Routine("scatter", sizes, (("based", False), ("adds", True), ("each", True)))

    def vjp(self, b: Builder, dz: Value, z: Value, dy: Value, index: Value, axis: int, size: Dim) -> tuple[Value, None]:
        return b.take_along(dz, index, axis=axis), None

    def reference(self, dy: Array, index: Array, axis: int, size: int) -> Array:
        x = np.zeros((*dy.shape[:axis], size, *dy.shape[axis + 1 :]), dy.dtype)
        places: list[Array] = list(np.indices(dy.shape))
        places[axis] = np.clip(index, 0, x.shape[axis] - 1)
        np.add.at(x, tuple(places), dy)
        return x


# ---- parts at a run-time offset -------------------------------------------------------------------------------------


def _check_start(name: str, start: TensorType, position: int) -> None:
    if start.rank or not start.dtype.integer:
        raise TypeFailure(f"{name} needs a start that is one integer, not {start}", inputs=(position,))


@operator
class DynamicSlice(Operator):
    """`size` elements of x along an axis from a start that is known when the program runs.

    A start from which they would leave x is moved until they fit. For several axes, one slice after the other.
    """

    onnx = "Slice"
    family = "indexing"
    inputs = ("x", "start")
    attrs = {"size": Attr("dim", doc="how many elements"), "axis": Attr("axis", 0, "the axis that is cut")}
    samples = [
        Sample(((5, 3), np.array(1)), {"size": 2}),
        Sample(((5, 4), np.array(7, np.int32)), {"size": 3, "axis": 1}),
        Sample(((5, 4), np.array(-2)), {"size": 3, "axis": -1}),
    ]
    errors = [
        BadSample((TensorType(F32, (4, 2)), TensorType(I64, (1,))), {"size": 2}, "one integer"),
        BadSample((TensorType(F32, (4, 2)), TensorType(I64, ())), {"size": 5}, "has 4 elements"),
        BadSample((TensorType(F32, (4, 2)), TensorType(I64, ())), {"size": 1, "axis": 2}, "no axis 2"),
    ]

    def infer(self, x: TensorType, start: TensorType, size: Dim, axis: int) -> TensorType:
        at = normal_axis(axis, x)
        _check_start(self.name, start, 1)
        have = x.shape[at]
        if isinstance(have, int) and isinstance(size, int) and not 0 < size <= have:
            raise TypeFailure(f"cannot take {size} elements from {x}: axis {at} has {have} elements", inputs=(0,), axes=(at,))
        return x.with_shape((*x.shape[:at], *check_shape((size,)), *x.shape[at + 1 :]))

    def expand(self, b: Builder, x: Value, start: Value, size: Dim, axis: int) -> Value:
        at = normal_axis(axis, x.type)
        most = extent(b, x.type.shape[at] - size, I64)
        first = b.maximum(b.minimum(b.cast(start, dtype=I64), most), b.scalar(0, I64))
        result: Value = b.gather(x, b.add(first, b.iota(size=size, dtype=I64)), axis=at)
        return result

    def reference(self, x: Array, start: Array, size: int, axis: int) -> Array:
        first = min(max(int(start), 0), x.shape[axis] - size)
        return np.take(x, np.arange(first, first + size), axis)


@operator
class DynamicUpdateSlice(Operator):
    """x with `update` in place of as many elements along an axis, from a start that is known when the program runs.

    A start from which the update would leave x is moved until it fits.
    """

    family = "indexing"
    inputs = ("x", "update", "start")
    attrs = {"axis": Attr("axis", 0, "the axis along which a part is replaced")}
    samples = [
        Sample(((5, 3), (2, 3), np.array(1))),
        Sample(((5, 4), (5, 3), np.array(7, np.int32)), {"axis": 1}),
        Sample(((5, 4), (5, 1), np.array(-2)), {"axis": -1}),
        Sample((np.array([1, 2, 3]), np.array([7]), np.array(2)), gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (4, 2)), TensorType(F32, (1, 2)), TensorType(F32, ())), {}, "one integer"),
        BadSample((TensorType(F32, (4, 2)), TensorType(F32, (5, 2)), TensorType(I64, ())), {}, "does not fit"),
        BadSample((TensorType(F32, (4, 2)), TensorType(F64, (1, 2)), TensorType(I64, ())), {}, "does not fit"),
        BadSample((TensorType(F32, (4, 2)), TensorType(F32, (1, 1)), TensorType(I64, ())), {}, "does not fit"),
    ]

    def infer(self, x: TensorType, update: TensorType, start: TensorType, axis: int) -> TensorType:
        at = normal_axis(axis, x)
        _check_start(self.name, start, 2)
        same = update.dtype == x.dtype and update.rank == x.rank
        if not same or any(n != m for a, (n, m) in enumerate(zip(x.shape, update.shape, strict=True)) if a != at):
            raise TypeFailure(f"{update} does not fit into {x} along axis {at}", inputs=(0, 1))
        have, new = x.shape[at], update.shape[at]
        if isinstance(have, int) and isinstance(new, int) and not 0 < new <= have:
            raise TypeFailure(f"{update} does not fit into {x} along axis {at}", inputs=(0, 1))
        return x

    def body(self, index: Index, x: Reader, update: Reader, start: Reader, axis: int) -> Expr:
        at = normal_axis(axis, x.type)
        size = update.type.shape[at]
        first = _moved_inside(start[()], x.type.shape[at] - size + 1)
        offset = loops.binary("sub", IndexValue(index[at]), first)
        after = loops.binary("ge", offset, loops.const(0, I64))
        inside = loops.binary("and", after, loops.binary("lt", offset, IndexValue(size)))
        return loops.select(inside, update.at((*index[:at], 0, *index[at + 1 :]), at, offset), x[index])

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, update: Value, start: Value, axis: int
    ) -> tuple[Value | None, Value | None, None]:
        if not x.type.dtype.floating:
            return None, None, None
        at = normal_axis(axis, x.type)
        dx = b.dynamic_update_slice(dy, broadcast_to(b, b.scalar(0.0, x.type.dtype), update.type.shape), start, axis=at)
        return dx, b.dynamic_slice(dy, start, size=update.type.shape[at], axis=at), None

    def reference(self, x: Array, update: Array, start: Array, axis: int) -> Array:
        first = min(max(int(start), 0), x.shape[axis] - update.shape[axis])
        y = x.copy()
        np.moveaxis(y, axis, 0)[first : first + update.shape[axis]] = np.moveaxis(update, axis, 0)
        return y


# ---- positions of what is not zero ----------------------------------------------------------------------------------


@operator
class TruePositions(Operator):
    """The positions of the true elements of a vector in order, the first `bound` of them; -1 behind the last."""

    family = "indexing"
    internal = True
    differentiable = False
    attrs = {"bound": Attr("dim", doc="the number of results")}
    samples = [
        Sample((np.array([True, False, True, True, False]),), {"bound": 5}),
        Sample((np.array([True, False, True, True, False]),), {"bound": 2}),
        Sample((np.zeros(5, np.bool_),), {"bound": 2}),
    ]
    errors = [BadSample((TensorType(F32, (4,)),), {"bound": 3}, "a bool vector")]

    def infer(self, x: TensorType, bound: Dim) -> TensorType:
        if x.rank != 1 or x.dtype != BOOL:
            raise TypeFailure(f"true_positions needs a bool vector, not {x}", inputs=(0,))
        return TensorType(I64, check_shape((bound,)))

    def routine(self, x: TensorType, bound: Dim) -> Routine:
        return Routine("nonzero", (("count", x.size), ("bound", bound)), serial=True)

    def reference(self, x: Array, bound: int) -> Array:
        places = np.full(bound, -1)
        found = np.flatnonzero(x)[: len(places)]
        places[: len(found)] = found
        return places


@operator
class Nonzero(Operator):
    """The indices of the elements that are not 0 (or true), and how many there are: i64[bound, rank] and i64[].

    Indices stand in row-major order; rows behind the last one are -1. Where there are more than `bound`, the first ones are given and
    the number tells of all.
    """

    onnx = "NonZero"
    family = "indexing"
    differentiable = False
    attrs = {"bound": Attr("dim", doc="the number of rows of the result")}
    samples = [
        Sample((np.array([[0.0, 2.0, np.nan], [1.0, -0.0, 0.0]]),), {"bound": 4}),
        Sample((np.array([3, 0, 0, 2, 5]),), {"bound": 2}),
        Sample((np.arange(5 * 2 * 3).reshape(5, 2, 3) % 4 == 1,), {"bound": 9}),
    ]
    errors = [
        BadSample((TensorType(F32, ()),), {"bound": 3}, "at least one axis"),
        BadSample((TensorType(F32, (4,)),), {"bound": -1}, "at least 0"),
    ]

    def infer(self, x: TensorType, bound: Dim) -> tuple[TensorType, TensorType]:
        if not x.rank:
            raise TypeFailure(f"nonzero needs at least one axis, not {x}", inputs=(0,))
        (rows,) = check_shape((bound,))
        return TensorType(I64, (rows, x.rank)), TensorType(I64)

    def expand(self, b: Builder, x: Value, bound: Dim) -> tuple[Value, Value]:
        there = x if x.type.dtype == BOOL else b.ne(x, b.scalar(0.0 if x.type.dtype.floating else 0, x.type.dtype))
        places = b.true_positions(reshaped(b, there, (x.type.size,)), bound=bound)
        columns: list[Value] = []
        for axis in range(x.type.rank):
            stride = extent(b, count(x.type, tuple(range(axis + 1, x.type.rank))), I64)
            along = b.mod(b.floordiv(places, stride), extent(b, x.type.shape[axis], I64))
            columns.append(reshaped(b, b.where(b.lt(places, b.scalar(0, I64)), places, along), (bound, 1)))
        indices = columns[0] if len(columns) == 1 else b.concat(*columns, axis=1)
        return indices, b.sum(b.cast(there, dtype=I64))

    def reference(self, x: Array, bound: int) -> tuple[Array, Array]:
        rows = np.full((bound, x.ndim), -1)
        found = np.argwhere(x)
        rows[: len(found)] = found[: len(rows)]
        return rows, np.asarray(len(found))
