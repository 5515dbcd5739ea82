"""Operators that move elements without arithmetic: reshape, transpose, expand, concat, slice, pad and what is built of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir import dims, loops
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import (
    Array,
    Index,
    Shape,
    check_shape,
    cut,
    ints,
    listing,
    normal_axis,
    read,
    same_dtype,
    unbroadcast,
)

F32, I32 = DType.F32, DType.I32


@operator
class Reshape(Operator):
    """The same elements, in row-major order, in another shape with as many of them."""

    moves = True
    onnx = "Reshape"
    family = "movement"
    attrs = {"shape": Attr("shape", doc="the new shape; every size is written")}
    samples = [
        Sample(((5, 4),), {"shape": (2, 10)}),
        Sample(((5, 4, 6),), {"shape": (5, 24)}),
        Sample(((5, 12),), {"shape": (5, 2, 3, 2)}),
        Sample(((5, 1, 4),), {"shape": (5, 4, 1)}),
        Sample(((4, 6),), {"shape": (2, 3, 4)}),
        Sample(((1,),), {"shape": ()}),
        Sample(((),), {"shape": (1, 1)}),
        Sample((np.array([[1, 2], [3, 4]], np.int32),), {"shape": (4,)}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"shape": (4,)}, "6 elements"),
        BadSample((TensorType(F32, (2, 3)),), {"shape": (-1, 3)}, "at least 0"),
    ]

    def infer(self, x: TensorType, shape: Shape) -> TensorType:
        result = x.with_shape(check_shape(shape))
        if result.size != x.size:
            raise TypeFailure(f"cannot reshape {x} to [{', '.join(map(str, shape))}]: {x.size} elements to {result.size}", inputs=(0,))
        return result

    def body(self, index: Index, x: Reader, shape: Shape) -> Expr:
        return x[reshape_index(index, shape, x.type.shape)]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, shape: Shape) -> tuple[Value]:
        return (b.reshape(dy, shape=x.type.shape),)

    def reference(self, x: Array, shape: Shape) -> Any:
        return np.reshape(x, ints(shape))


def reshape_index(index: Index, shape: Shape, source: Shape) -> Index:
    """The index into `source` of the element at `index` of the row-major reshape `shape`.

    Runs of axes with the same number of elements are handled apart, so that an axis that both shapes share (the batch)
    keeps its own plain index.
    """
    result: list[Dim] = []
    for targets, sources in runs(shape, source):
        linear: Dim = 0
        for axis in targets:
            linear = linear * shape[axis] + (0 if shape[axis] == 1 else index[axis])
        inner: list[Dim] = []
        stride: Dim = 1
        for position, axis in enumerate(reversed(sources)):
            outermost = position == len(sources) - 1
            part = dims.floor_divide(linear, stride) if stride != 1 else linear
            inner.append(0 if source[axis] == 1 else part if outermost else part % source[axis])
            stride = stride * source[axis]
        result += reversed(inner)
    return tuple(result)


def runs(shape: Shape, source: Shape) -> list[tuple[list[int], list[int]]]:
    """The shortest runs of axes of two shapes that hold equally many elements each."""
    found: list[tuple[list[int], list[int]]] = []
    targets: list[int] = []
    sources: list[int] = []
    i = j = 0
    made: Dim = 1
    had: Dim = 1
    while i < len(shape) or j < len(source):
        behind = bool(targets) and (not sources or (made != had and dims.is_known_multiple(made, had)))
        if j < len(source) and (i == len(shape) or behind):
            had = had * source[j]
            sources.append(j)
            j += 1
        else:
            made = made * shape[i]
            targets.append(i)
            i += 1
        if made == had and targets and sources:
            found.append((targets, sources))
            targets, sources, made, had = [], [], 1, 1
    if targets or sources:  # sizes of 1 at the end
        found.append((targets, sources))
    return found


@operator
class Transpose(Operator):
    """The axes in another order: axis k of the result is axis `axes[k]` of x. Without `axes` the order is reversed."""

    moves = True
    onnx = "Transpose"
    family = "movement"
    attrs = {"axes": Attr("ints", None, "the axes of x in their new order")}
    samples = [
        Sample(((5, 4),)),
        Sample(((5, 4),), {"axes": (1, 0)}),
        Sample(((5, 2, 3),), {"axes": (2, 0, 1)}),
        Sample(((5, 2, 3, 2),), {"axes": (0, -1, 1, 2)}),
        Sample(((),)),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"axes": (0, 0)}, "each axis once"),
        BadSample((TensorType(F32, (2, 3)),), {"axes": (0,)}, "each axis once"),
        BadSample((TensorType(F32, (2, 3)),), {"axes": (0, 2)}, "no axis 2"),
    ]

    def order(self, x: TensorType, axes: tuple[int, ...] | None) -> tuple[int, ...]:
        if not axes:
            return tuple(reversed(range(x.rank)))
        order = tuple(normal_axis(axis, x) for axis in axes)
        if sorted(order) != list(range(x.rank)):
            raise TypeFailure(f"transpose of {x} must name each axis once, not {list(axes)}", inputs=(0,))
        return order

    def infer(self, x: TensorType, axes: tuple[int, ...] | None) -> TensorType:
        return x.with_shape(tuple(x.shape[axis] for axis in self.order(x, axes)))

    def body(self, index: Index, x: Reader, axes: tuple[int, ...] | None) -> Expr:
        order = self.order(x.type, axes)
        return x[tuple(index[order.index(axis)] for axis in range(x.type.rank))]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axes: tuple[int, ...] | None) -> tuple[Value]:
        order = self.order(x.type, axes)
        return (b.transpose(dy, axes=tuple(order.index(axis) for axis in range(x.type.rank))),)

    def reference(self, x: Array, axes: tuple[int, ...] | None) -> Any:
        return np.transpose(x, axes or None)


@operator
class Expand(Operator):
    """x repeated to a shape by NumPy's broadcasting rule: axes of size 1 stretch, missing leading axes are added."""

    moves = True
    onnx = "Expand"
    family = "movement"
    attrs = {"shape": Attr("shape", doc="the shape of the result")}
    samples = [
        Sample(((),), {"shape": (5, 2)}),
        Sample(((5, 1),), {"shape": (5, 4)}),
        Sample(((4,),), {"shape": (5, 4)}),
        Sample(((1, 3, 1),), {"shape": (2, 5, 3, 4)}),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"shape": (2, 4)}, "axis 1 is 3, not 4"),
        BadSample((TensorType(F32, (2, 3)),), {"shape": (3,)}, "cannot expand"),
        BadSample((TensorType(F32, (2,)),), {"shape": (1,)}, "cannot expand"),
    ]

    def infer(self, x: TensorType, shape: Shape) -> TensorType:
        result = x.with_shape(check_shape(shape))
        lead = result.rank - x.rank
        if lead < 0:
            raise TypeFailure(f"cannot expand {x} to {result}: it has more axes", inputs=(0,))
        for axis, size in enumerate(x.shape):
            if size != 1 and size != result.shape[lead + axis]:
                message = f"cannot expand {x} to {result}: axis {axis} is {size}, not {result.shape[lead + axis]}"
                raise TypeFailure(message, inputs=(0,), axes=(axis,))
        return result

    def body(self, index: Index, x: Reader, shape: Shape) -> Expr:
        return read(x, index)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, shape: Shape) -> tuple[Value]:
        return (unbroadcast(b, dy, x.type),)

    def reference(self, x: Array, shape: Shape) -> Any:
        return np.broadcast_to(x, ints(shape)).copy()


@operator
class Concat(Operator):
    """Tensors one after the other along an axis; their other axes and element types are equal."""

    moves = True
    onnx = "Concat"
    family = "movement"
    inputs = ("*xs",)
    attrs = {"axis": Attr("axis", 0, "the axis along which they are joined")}
    samples = [
        Sample(((5, 4), (5, 2)), {"axis": -1}),
        Sample(((5, 2), (3, 2), (1, 2))),
        Sample(((5, 1, 2),), {"axis": 1}),
        Sample((np.array([1, 2], np.int32), np.array([3], np.int32)), gradient=False),
    ]
    errors = [
        BadSample((), {}, "at least one"),
        BadSample((TensorType(F32, (2, 3)), TensorType(F32, (2, 4))), {}, "axis 1 is 3 and 4"),
        BadSample((TensorType(F32, (2, 3)), TensorType(I32, (2, 3))), {}, "element types differ"),
        BadSample((TensorType(F32, (2, 3)), TensorType(F32, (2,))), {}, "2 and 1 axes"),
        BadSample((TensorType(F32, ()), TensorType(F32, ())), {}, "no axis 0"),
    ]

    def infer(self, *xs: TensorType, axis: int) -> TensorType:
        if not xs:
            raise TypeFailure("concat needs at least one tensor")
        same_dtype("concat", *xs)
        along = normal_axis(axis, xs[0])
        total: Dim = 0
        for position, x in enumerate(xs):
            if x.rank != xs[0].rank:
                raise TypeFailure(f"cannot concat {listing(xs)}: {xs[0].rank} and {x.rank} axes", inputs=(0, position))
            for a, (size, other) in enumerate(zip(xs[0].shape, x.shape, strict=True)):
                if a != along and size != other:
                    message = f"cannot concat {listing(xs)}: axis {a} is {size} and {other}"
                    raise TypeFailure(message, inputs=(0, position), axes=(a, a))
            total = total + x.shape[along]
        return xs[0].with_shape((*xs[0].shape[:along], total, *xs[0].shape[along + 1 :]))

    def body(self, index: Index, *xs: Reader, axis: int) -> Expr:
        along = normal_axis(axis, xs[0].type)
        ends: list[Dim] = [0]
        for x in xs:
            ends.append(ends[-1] + x.type.shape[along])
        parts = [x[(*index[:along], index[along] - start, *index[along + 1 :])] for x, start in zip(xs, ends, strict=False)]
        value = parts[-1]
        for part, end in zip(reversed(parts[:-1]), reversed(ends[1:-1]), strict=True):
            value = loops.select(loops.binary("lt", IndexValue(index[along]), IndexValue(end)), part, value)
        return value

    def vjp(self, b: Builder, dy: Value, y: Value, *xs: Value, axis: int) -> tuple[Value, ...]:
        along = normal_axis(axis, xs[0].type)
        result: list[Value] = []
        start: Dim = 0
        for x in xs:
            result.append(cut(b, dy, along, start, start + x.type.shape[along]))
            start = start + x.type.shape[along]
        return tuple(result)

    def reference(self, *xs: Array, axis: int) -> Any:
        return np.concatenate(xs, axis=axis)
