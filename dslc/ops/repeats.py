"""Operators that repeat or reorder whole slices: tile, repeat, flip, roll, stack, interleave. All but flip are composites."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index, Shape, check_shape, cut, ints, listing, normal_axes, normal_axis, reshaped, same_dtype

F32, I32, I64 = DType.F32, DType.I32, DType.I64
Axes = int | tuple[int, ...] | None


def replaced(shape: Shape, axis: int, *sizes: Dim) -> Shape:
    """A shape with other sizes in the place of one axis."""
    return (*shape[:axis], *sizes, *shape[axis + 1 :])


@operator
class Tile(Operator):
    """x laid side by side, so many times along each axis. A list shorter than the rank is for the last axes, a longer one adds axes."""

    onnx = "Tile"
    family = "movement"
    attrs = {"times": Attr("dims", doc="how often along each axis")}
    samples = [
        Sample(((5, 2),), {"times": (1, 3)}),
        Sample(((2, 3),), {"times": (2, 2)}),
        Sample(((5, 2),), {"times": (2,)}),
        Sample(((3,),), {"times": (2, 2)}),
        Sample((np.array([1, 2], np.int32),), {"times": (2,)}, gradient=False),
    ]
    errors = [BadSample((TensorType(F32, (2,)),), {"times": (-1,)}, "at least 0")]

    def counts(self, x: TensorType, times: Shape) -> tuple[Shape, Shape]:
        """How often along each axis of the result, and the shape of x with as many axes."""
        check_shape(times)
        rank = max(x.rank, len(times))
        return (1,) * (rank - len(times)) + times, (1,) * (rank - x.rank) + x.shape

    def infer(self, x: TensorType, times: Shape) -> TensorType:
        return x.with_shape(tuple(n * size for n, size in zip(*self.counts(x, times), strict=True)))

    def expand(self, b: Builder, x: Value, times: Shape) -> Value:
        counts, shape = self.counts(x.type, times)
        split = tuple(size for n, extent in zip(counts, shape, strict=True) for size in ((1, extent) if n != 1 else (extent,)))
        wide = tuple(size for n, extent in zip(counts, shape, strict=True) for size in ((n, extent) if n != 1 else (extent,)))
        spread = reshaped(b, x, split)
        if wide != split:
            spread = b.expand(spread, shape=wide)
        return reshaped(b, spread, self.infer(x.type, times).shape)

    def reference(self, x: Array, times: Shape) -> Any:
        return np.tile(x, ints(times))


@operator
class Repeat(Operator):
    """Each slice of x along an axis so many times in a row: repeat[2]([a, b]) is [a, a, b, b]."""

    family = "movement"
    attrs = {"times": Attr("dim", doc="how often"), "axis": Attr("axis", 0, "the axis of the slices")}
    samples = [
        Sample(((5, 3),), {"times": 2, "axis": 1}),
        Sample(((3, 2),), {"times": 3}),
        Sample(((2, 4),), {"times": 1, "axis": -1}),
    ]
    errors = [
        BadSample((TensorType(F32, (2,)),), {"times": -1}, "at least 0"),
        BadSample((TensorType(F32, (2,)),), {"times": 2, "axis": 1}, "no axis 1"),
    ]

    def infer(self, x: TensorType, times: Dim, axis: int) -> TensorType:
        at = normal_axis(axis, x)
        return x.with_shape(replaced(x.shape, at, x.shape[at] * check_shape((times,))[0]))

    def expand(self, b: Builder, x: Value, times: Dim, axis: int) -> Value:
        at, shape = normal_axis(axis, x.type), x.type.shape
        spread = b.expand(reshaped(b, x, replaced(shape, at, shape[at], 1)), shape=replaced(shape, at, shape[at], times))
        return reshaped(b, spread, self.infer(x.type, times, axis).shape)

    def reference(self, x: Array, times: int, axis: int) -> Any:
        return np.repeat(x, times, axis)


@operator
class Flip(Operator):
    """x mirrored along axes: its elements in the opposite order."""

    family = "movement"
    attrs = {"axis": Attr("axes", None, "the axes to mirror; all of them unless told")}
    samples = [
        Sample(((5, 4),), {"axis": 1}),
        Sample(((5, 2, 3),), {"axis": (0, -1)}),
        Sample(((3, 17),)),
        Sample((np.array([1, 2, 3], np.int32),), gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"axis": 2}, "no axis 2"),
        BadSample((TensorType(F32, (2, 3)),), {"axis": (0, -2)}, "named twice"),
    ]

    def infer(self, x: TensorType, axis: Axes) -> TensorType:
        normal_axes(axis, x)
        return x

    def body(self, index: Index, x: Reader, axis: Axes) -> Expr:
        axes = normal_axes(axis, x.type)
        return x[tuple(size - 1 - i if a in axes else i for a, (i, size) in enumerate(zip(index, x.type.shape, strict=True)))]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: Axes) -> tuple[Value]:
        return (b.flip(dy, axis=axis),)

    def reference(self, x: Array, axis: Axes) -> Any:
        return np.flip(x, axis).copy()


@operator
class Roll(Operator):
    """x moved along axes by `shift` places; what leaves one end enters the other. A negative shift moves to the front."""

    family = "movement"
    attrs = {"shift": Attr("ints", doc="places, one number an axis"), "axis": Attr("axes", 0, "the axes to move along")}
    samples = [
        Sample(((5, 4),), {"shift": 1, "axis": 1}),
        Sample(((4, 19),), {"shift": (1, -3), "axis": (0, 1)}),
        Sample(((5, 2),), {"shift": -2}),
        Sample(((3,),), {"shift": 7}),
        Sample(((5, 3),), {"shift": 0, "axis": -1}),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"shift": 1, "axis": 2}, "no axis 2"),
        BadSample((TensorType(F32, (2, 3)),), {"shift": (1, 2), "axis": 0}, "one shift an axis"),
        BadSample((TensorType(F32, (2, 3)),), {"shift": 1.5, "axis": 0}, "whole number"),
    ]

    def shifts(self, x: TensorType, shift: int | tuple[int, ...], axis: int | tuple[int, ...]) -> list[tuple[int, int]]:
        """Axis and shift, in the order in which they were given."""
        axes = axis if isinstance(axis, tuple) else (axis,)
        given = shift if isinstance(shift, tuple) else (shift,)
        if len(axes) != len(given):
            raise TypeFailure(f"roll needs one shift an axis, not {len(given)} for {len(axes)}")
        for n in given:
            if not isinstance(n, int):
                raise TypeFailure(f"roll: a shift is a whole number, not {n}")
        return [(normal_axis(a, x), n) for a, n in zip(axes, given, strict=True)]

    def infer(self, x: TensorType, shift: int | tuple[int, ...], axis: int | tuple[int, ...]) -> TensorType:
        self.shifts(x, shift, axis)
        return x

    def expand(self, b: Builder, x: Value, shift: int | tuple[int, ...], axis: int | tuple[int, ...]) -> Value:
        for at, places in self.shifts(x.type, shift, axis):
            size = x.type.shape[at]
            if not isinstance(size, int):  # the batch: only the run knows where its end is
                here = b.sub(b.iota(size=size, dtype=I64), b.scalar(places, I64))
                x = b.gather(x, b.mod(here, b.extent(size=size, dtype=I64)), axis=at)
                continue
            places = places % size if size else 0
            if places:
                x = b.concat(cut(b, x, at, size - places, size), cut(b, x, at, 0, size - places), axis=at)
        return x

    def reference(self, x: Array, shift: int | tuple[int, ...], axis: int | tuple[int, ...]) -> Any:
        return np.roll(x, shift, axis)


@operator
class Stack(Operator):
    """Tensors of one type side by side along a new axis."""

    family = "movement"
    inputs = ("*xs",)
    attrs = {"axis": Attr("axis", 0, "where the new axis stands in the result")}
    samples = [
        Sample(((5, 4), (5, 4), (5, 4)), {"axis": -1}),
        Sample(((3, 2), (3, 2))),
        Sample(((), ()), {"axis": 0}),
    ]
    errors = [
        BadSample((), {}, "at least one"),
        BadSample((TensorType(F32, (2,)), TensorType(F32, (3,))), {}, "of one shape"),
        BadSample((TensorType(F32, (2,)), TensorType(I32, (2,))), {}, "element types differ"),
        BadSample((TensorType(F32, (2,)),), {"axis": 2}, "no axis 2"),
    ]

    def infer(self, *xs: TensorType, axis: int) -> TensorType:
        _check_equal("stack", xs)
        at = normal_axis(axis, xs[0], extra=1)
        return xs[0].with_shape((*xs[0].shape[:at], len(xs), *xs[0].shape[at:]))

    def expand(self, b: Builder, *xs: Value, axis: int) -> Value:
        at = normal_axis(axis, xs[0].type, extra=1)
        shape = xs[0].type.shape
        rows = [reshaped(b, x, (*shape[:at], 1, *shape[at:])) for x in xs]
        result: Value = b.concat(*rows, axis=at)
        return result

    def reference(self, *xs: Array, axis: int) -> Any:
        return np.stack(xs, axis)


@operator
class Interleave(Operator):
    """Tensors of one type shuffled together along an axis: the first slice of each, then the second of each, and so on."""

    family = "movement"
    inputs = ("*xs",)
    attrs = {"axis": Attr("axis", 0, "the axis along which they alternate")}
    samples = [
        Sample(((5, 4), (5, 4)), {"axis": -1}),
        Sample(((3, 2), (3, 2), (3, 2))),
    ]
    errors = [
        BadSample((), {}, "at least one"),
        BadSample((TensorType(F32, (2,)), TensorType(F32, (3,))), {}, "of one shape"),
        BadSample((TensorType(F32, ()),), {}, "no axis 0"),
    ]

    def infer(self, *xs: TensorType, axis: int) -> TensorType:
        _check_equal("interleave", xs)
        at = normal_axis(axis, xs[0])
        return xs[0].with_shape(replaced(xs[0].shape, at, xs[0].shape[at] * len(xs)))

    def expand(self, b: Builder, *xs: Value, axis: int) -> Value:
        at = normal_axis(axis, xs[0].type)
        return reshaped(b, b.stack(*xs, axis=at + 1), self.infer(*(x.type for x in xs), axis=axis).shape)

    def reference(self, *xs: Array, axis: int) -> Any:
        at = axis % xs[0].ndim
        shape = list(xs[0].shape)
        shape[at] *= len(xs)
        result = np.zeros(shape, xs[0].dtype)
        for n, x in enumerate(xs):
            result[(slice(None),) * at + (slice(n, None, len(xs)),)] = x
        return result


def _check_equal(verb: str, xs: tuple[TensorType, ...]) -> None:
    if not xs:
        raise TypeFailure(f"{verb} needs at least one tensor")
    same_dtype(verb, *xs)
    for position, x in enumerate(xs):
        if x.shape != xs[0].shape:
            raise TypeFailure(f"cannot {verb} {listing(xs)}: they must be of one shape", inputs=(0, position))
