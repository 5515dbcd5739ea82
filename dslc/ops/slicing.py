"""Parts of a tensor: slice, its gradient, pad and split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dslc.ir import dims, loops
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index, Shape, check_shape, cut, ints, normal_axis, number

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
Bounds = tuple[Dim | None, ...]


def slice_bounds(size: Dim, start: Dim | None, stop: Dim | None, step: int) -> tuple[Dim, Dim]:
    """The first index and the number of elements of `[start:stop:step]` on an axis.

    Negative integers count from the end and None is the end that the direction implies, as in Python; unlike there, a bound
    outside the axis is refused. Symbolic bounds are checked once they are bound.
    """
    if step == 0:
        raise TypeFailure("the step of a slice must not be 0")
    first = _from_front(size, start, 0 if step > 0 else size - 1)
    if step > 0:
        last = _from_front(size, stop, size)
        _check_bound(first, size, "starts", size)
        _check_bound(last, size, "stops", size)
        length = last - first
    else:
        last = _from_front(size, stop, -1)
        _check_bound(first, size - 1, "starts", size)
        length = first - last
    if isinstance(length, int) and length < 0:
        raise TypeFailure(f"the slice starts at {first} and stops at {last}")
    return first, (length + abs(step) - 1) // abs(step)


def _from_front(size: Dim, bound: Dim | None, default: Dim) -> Dim:
    if bound is None:
        return default
    return bound + size if isinstance(bound, int) and bound < 0 else bound


def _check_bound(bound: Dim, most: Dim, what: str, size: Dim) -> None:
    if isinstance(bound, int) and (bound < 0 or (isinstance(most, int) and bound > most)):
        raise TypeFailure(f"the slice {what} at {bound}, outside an axis of size {size}")


def _strided(first: Dim, step: int, count: Dim) -> tuple[Dim, Dim | None, int]:
    """`start, stop, step` of the slice with these elements."""
    if step > 0:
        return first, first + (count - 1) * step + 1 if count != 0 else first, step
    stop = first + (count - 1) * step - 1 if count != 0 else first
    return first, None if stop == -1 else stop, step


@operator
class Slice(Operator):
    """x[start:stop:step] on every axis, by Python's rules; written with brackets on the tensor: x[..., 1:9:2].

    None leaves a bound open and negative bounds count from the end. A bound outside its axis is refused. A negative step
    walks backwards.
    """

    moves = True
    onnx = "Slice"
    family = "movement"
    attrs = {
        "starts": Attr("any", doc="first indices, one an axis, or none"),
        "stops": Attr("any", doc="indices to stop before, one an axis, or none"),
        "steps": Attr("ints", doc="steps, one an axis"),
    }
    samples = [
        Sample(((5, 4),), {"starts": (0, 1), "stops": (5, 3), "steps": (1, 1)}),
        Sample(((5, 7),), {"starts": (None, 1), "stops": (None, None), "steps": (1, 2)}),
        Sample(((5, 7),), {"starts": (None, None), "stops": (None, None), "steps": (1, -1)}),
        Sample(((3, 8),), {"starts": (-2, 6), "stops": (None, 0), "steps": (1, -3)}),
        Sample(((5, 4),), {"starts": (0, 2), "stops": (5, 2), "steps": (1, 1)}, gradient=False),
        Sample(((),), {"starts": (), "stops": (), "steps": ()}),
    ]
    errors = [
        BadSample((TensorType(F32, (4,)),), {"starts": (0,), "stops": (5,), "steps": (1,)}, "stops at 5"),
        BadSample((TensorType(F32, (4,)),), {"starts": (-5,), "stops": (4,), "steps": (1,)}, "starts at -1"),
        BadSample((TensorType(F32, (4,)),), {"starts": (0,), "stops": (4,), "steps": (0,)}, "not be 0"),
        BadSample((TensorType(F32, (4,)),), {"starts": (3,), "stops": (1,), "steps": (1,)}, "starts at 3 and stops at 1"),
        BadSample((TensorType(F32, (4, 2)),), {"starts": (0,), "stops": (4,), "steps": (1,)}, "2 axes"),
    ]

    def bounds(self, x: TensorType, starts: Bounds, stops: Bounds, steps: Sequence[int]) -> list[tuple[Dim, Dim]]:
        """First index and number of elements on each axis."""
        found: list[tuple[Dim, Dim]] = []
        for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
            try:
                found.append(slice_bounds(x.shape[axis], start, stop, step))
            except TypeFailure as failure:
                raise TypeFailure(f"cannot slice {x} on axis {axis}: {failure.message}", inputs=(0,), axes=(axis,)) from failure
        return found

    def infer(self, x: TensorType, starts: Bounds, stops: Bounds, steps: tuple[int, ...]) -> TensorType:
        if not len(starts) == len(stops) == len(steps) == x.rank:
            raise TypeFailure(f"slice of {x} needs bounds and steps for its {x.rank} axes", inputs=(0,))
        return x.with_shape(tuple(count for _, count in self.bounds(x, starts, stops, steps)))

    def body(self, index: Index, x: Reader, starts: Bounds, stops: Bounds, steps: tuple[int, ...]) -> Expr:
        firsts = self.bounds(x.type, starts, stops, steps)
        return x[tuple(first + i * step for i, (first, _), step in zip(index, firsts, steps, strict=True))]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, starts: Bounds, stops: Bounds, steps: tuple[int, ...]) -> tuple[Value]:
        firsts = tuple(first for first, _ in self.bounds(x.type, starts, stops, steps))
        return (b.unslice(dy, shape=x.type.shape, starts=firsts, steps=steps),)

    def reference(self, x: Array, starts: Bounds, stops: Bounds, steps: tuple[int, ...]) -> Any:
        return x[tuple(slice(*bounds) for bounds in zip(starts, stops, steps, strict=True))]


@operator
class Unslice(Operator):
    """A tensor of zeros but for x at every `step`-th index from `start` on each axis: the gradient of slice."""

    family = "movement"
    internal = True
    attrs = {
        "shape": Attr("shape", doc="the shape of the result"),
        "starts": Attr("dims", doc="where the first element goes, one index an axis"),
        "steps": Attr("ints", doc="steps, one an axis"),
    }
    samples = [
        Sample(((5, 2),), {"shape": (5, 4), "starts": (0, 1), "steps": (1, 1)}),
        Sample(((5, 3),), {"shape": (5, 7), "starts": (0, 1), "steps": (1, 2)}),
        Sample(((5, 3),), {"shape": (5, 7), "starts": (0, 6), "steps": (1, -2)}),
        Sample(((),), {"shape": (), "starts": (), "steps": ()}),
    ]
    errors = [
        BadSample((TensorType(F32, (4,)),), {"shape": (4,), "starts": (1,), "steps": (1,)}, "does not fit"),
        BadSample((TensorType(F32, (4,)),), {"shape": (4, 4), "starts": (1,), "steps": (1,)}, "1 axes"),
    ]

    def infer(self, x: TensorType, shape: Shape, starts: Shape, steps: tuple[int, ...]) -> TensorType:
        if not len(shape) == len(starts) == len(steps) == x.rank:
            raise TypeFailure(f"unslice of {x} needs sizes, starts and steps for its {x.rank} axes", inputs=(0,))
        for size, start, step, count in zip(shape, starts, steps, x.shape, strict=True):
            last = start + (count - 1) * step
            for edge in (start, last) if count != 0 else ():
                room = size - edge
                if (isinstance(edge, int) and edge < 0) or (isinstance(room, int) and room < 1):
                    raise TypeFailure(f"{x} does not fit into [{', '.join(map(str, shape))}]", inputs=(0,))
        return x.with_shape(check_shape(shape))

    def body(self, index: Index, x: Reader, shape: Shape, starts: Shape, steps: tuple[int, ...]) -> Expr:
        conditions: list[Expr] = []
        source: list[Dim] = []
        zero = loops.const(0, I64)
        for i, size, start, step, count in zip(index, shape, starts, steps, x.type.shape, strict=True):
            offset = i - start if step > 0 else start - i
            at = dims.floor_divide(offset, abs(step))
            source.append(at)
            if abs(step) != 1:
                conditions.append(loops.binary("eq", IndexValue(offset % abs(step)), zero))
            if (start if step > 0 else size - 1 - start) != 0:
                conditions.append(loops.binary("ge", IndexValue(at), zero))
            if step != 1 or start + count != size:
                conditions.append(loops.binary("lt", IndexValue(at), IndexValue(count)))
        element = x[tuple(source)]
        return _where(conditions, element, number(0, element))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, shape: Shape, starts: Shape, steps: tuple[int, ...]) -> tuple[Value]:
        bounds = [_strided(*axis) for axis in zip(starts, steps, x.type.shape, strict=True)]
        return (b.slice(dy, starts=tuple(s for s, _, _ in bounds), stops=tuple(s for _, s, _ in bounds), steps=steps),)

    def reference(self, x: Array, shape: Shape, starts: tuple[int, ...], steps: tuple[int, ...]) -> Any:
        result = np.zeros(ints(shape), x.dtype)
        where = [start + np.arange(n) * step for start, step, n in zip(starts, steps, x.shape, strict=True)]
        result[np.ix_(*where)] = x
        return result


def _where(conditions: list[Expr], inside: Expr, outside: Expr) -> Expr:
    """`inside` where all the conditions hold."""
    if not conditions:
        return inside
    every = conditions[0]
    for condition in conditions[1:]:
        every = loops.binary("and", every, condition)
    return loops.select(every, inside, outside)


@operator
class Pad(Operator):
    """x with a border. Lists shorter than the rank are for the last axes.

    The border is one number in the mode "constant"; "edge" repeats the outermost elements, "reflect" mirrors x without
    them, "wrap" continues from the other end.
    """

    onnx = "Pad"
    family = "movement"
    attrs = {
        "low": Attr("dims", doc="elements added before, one number an axis"),
        "high": Attr("dims", doc="elements added after, one number an axis"),
        "value": Attr("float", 0.0, "the number that fills the border"),
        "mode": Attr("str", "constant", '"constant", "edge", "reflect" or "wrap"'),
    }
    samples = [
        Sample(((5, 4),), {"low": (0, 1), "high": (0, 2)}),
        Sample(((2, 3, 3),), {"low": (1, 1), "high": (1, 0), "value": -1.5}),
        Sample(((3,),), {"low": (2,), "high": (0,), "value": float("-inf")}, gradient=False),
        Sample(((3,),), {"low": (0,), "high": (0,)}),
        Sample((np.array([1, 2], np.int32),), {"low": (1,), "high": (1,), "value": 7}, gradient=False),
        Sample(((5, 4, 3),), {"low": (2, 1), "high": (1, 2), "mode": "reflect"}),
        Sample(((5, 4, 3),), {"low": (2, 3), "high": (5, 0), "mode": "edge"}),
        Sample(((5, 4, 3),), {"low": (2, 3), "high": (4, 1), "mode": "wrap"}),
        Sample(((3, 37),), {"low": (2, 8), "high": (0, 9), "mode": "reflect"}),
        Sample(((1, 19),), {"low": (17,), "high": (18,), "mode": "wrap"}),
    ]
    errors = [
        BadSample((TensorType(F32, (4,)),), {"low": (-1,), "high": (0,)}, "at least 0"),
        BadSample((TensorType(F32, (4,)),), {"low": (1, 1), "high": (0, 0)}, "1 axes"),
        BadSample((TensorType(F32, (4,)),), {"low": (1,), "high": ()}, "as many"),
        BadSample((TensorType(F32, (4,)),), {"low": (1,), "high": (0,), "mode": "mirror"}, '"reflect"'),
        BadSample((TensorType(F32, (4,)),), {"low": (4,), "high": (0,), "mode": "reflect"}, "at most 3"),
        BadSample((TensorType(F32, (4,)),), {"low": (0,), "high": (5,), "mode": "wrap"}, "at most 4"),
        BadSample((TensorType(F32, (0,)),), {"low": (0,), "high": (1,), "mode": "edge"}, "no elements"),
    ]

    def sides(self, x: TensorType, low: Shape, high: Shape, mode: str = "constant") -> tuple[Shape, Shape]:
        """The border on every axis of x."""
        if len(low) != len(high):
            raise TypeFailure(f"pad needs as many sizes before as after, not {len(low)} and {len(high)}")
        if len(low) > x.rank:
            raise TypeFailure(f"pad of {x}: {len(low)} sizes for {x.rank} axes", inputs=(0,))
        check_shape((*low, *high))
        rest = (0,) * (x.rank - len(low))
        if mode not in ("constant", "edge", "reflect", "wrap"):
            raise TypeFailure(f'pad: the mode is "constant", "edge", "reflect" or "wrap", not "{mode}"')
        for axis, (p, size, q) in enumerate(zip((*rest, *low), x.shape, (*rest, *high), strict=True)):
            if mode != "constant":
                _check_border(x, axis, size, p, q, mode)
        return (*rest, *low), (*rest, *high)

    def infer(self, x: TensorType, low: Shape, high: Shape, value: float, mode: str) -> TensorType:
        before, after = self.sides(x, low, high, mode)
        return x.with_shape(tuple(p + size + q for p, size, q in zip(before, x.shape, after, strict=True)))

    def body(self, index: Index, x: Reader, low: Shape, high: Shape, value: float, mode: str) -> Expr:
        before, after = self.sides(x.type, low, high, mode)
        if mode != "constant":
            return _mirrored(x, index, (), before, after, mode)
        conditions: list[Expr] = []
        for i, p, size, q in zip(index, before, x.type.shape, after, strict=True):
            if p != 0:
                conditions.append(loops.binary("ge", IndexValue(i), IndexValue(p)))
            if q != 0:
                conditions.append(loops.binary("lt", IndexValue(i), IndexValue(p + size)))
        element = x[tuple(i - p for i, p in zip(index, before, strict=True))]
        return _where(conditions, element, loops.const(bool(value), BOOL) if x.type.dtype == BOOL else number(value, element))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, low: Shape, high: Shape, value: float, mode: str) -> tuple[Value]:
        before, after = self.sides(x.type, low, high, mode)
        if mode != "constant":
            for axis, (p, size, q) in enumerate(zip(before, x.type.shape, after, strict=True)):
                if p != 0 or q != 0:
                    dy = _fold_border(b, dy, axis, p, size, q, mode)
            return (dy,)
        stops = tuple(p + size for p, size in zip(before, x.type.shape, strict=True))
        return (b.slice(dy, starts=before, stops=stops, steps=(1,) * x.type.rank),)

    def reference(self, x: Array, low: Shape, high: Shape, value: float, mode: str) -> Any:
        border = [*([(0, 0)] * (x.ndim - len(low))), *zip(ints(low), ints(high), strict=True)]
        if mode != "constant":
            return np.pad(x, border, mode=mode)  # type: ignore[call-overload]
        return np.pad(x, border, constant_values=x.dtype.type(value))


def _check_border(x: TensorType, axis: int, size: Dim, p: Dim, q: Dim, mode: str) -> None:
    """What a border of copies needs: "reflect" and "wrap" read x at most once over."""
    if not isinstance(size, int) or (p == 0 and q == 0):
        return
    if size == 0:
        raise TypeFailure(f"pad of {x}: axis {axis} has no elements to copy", inputs=(0,), axes=(axis,))
    most = size - 1 if mode == "reflect" else size
    for side in (p, q) if mode != "edge" else ():
        if isinstance(side, int) and side > most:
            raise TypeFailure(f'pad of {x}: axis {axis} has a border of at most {most} in mode "{mode}"', inputs=(0,), axes=(axis,))


def _mirrored(x: Reader, index: Index, done: Index, before: Shape, after: Shape, mode: str) -> Expr:
    """The element of x that a border of copies has at an index; `done` are the places along the first axes."""
    axis = len(done)
    if axis == len(index):
        return x[done]
    size, i = x.type.shape[axis], index[axis] - before[axis]
    below: Dim = {"edge": 0, "reflect": -i, "wrap": i + size}[mode]
    above: Dim = {"edge": size - 1, "reflect": 2 * (size - 1) - i, "wrap": i - size}[mode]
    element = _mirrored(x, index, (*done, i), before, after, mode)
    if after[axis] != 0:
        outside = _mirrored(x, index, (*done, above), before, after, mode)
        element = loops.select(loops.binary("lt", IndexValue(i), IndexValue(size)), element, outside)
    if before[axis] != 0:
        outside = _mirrored(x, index, (*done, below), before, after, mode)
        element = loops.select(loops.binary("ge", IndexValue(i), loops.const(0, I64)), element, outside)
    return element


def _fold_border(b: Builder, dy: Value, axis: int, p: Dim, size: Dim, q: Dim, mode: str) -> Value:
    """The gradient of a border of copies along one axis: the middle of dy, with the border added where it was copied from."""
    total = cut(b, dy, axis, p, p + size)
    starts = {"edge": (0, size - 1), "reflect": (1, size - 1 - q), "wrap": (size - p, 0)}[mode]
    for width, first, start in ((p, 0, starts[0]), (q, p + size, starts[1])):
        if width == 0:
            continue
        part = cut(b, dy, axis, first, first + width)
        if mode == "edge":
            part = b.sum(part, axis=axis, keep=True)
        elif mode == "reflect":
            part = b.flip(part, axis=axis)
        where = tuple(start if a == axis else 0 for a in range(total.type.rank))
        total = b.add(total, b.unslice(part, shape=total.type.shape, starts=where, steps=(1,) * total.type.rank))
    return total


@operator
class Split(Operator):
    """Cut x along an axis into equal parts, or into parts of the sizes in a list; one result a part."""

    moves = True
    onnx = "Split"
    family = "movement"
    attrs = {
        "parts": Attr("any", doc="how many equal parts, or the list of their sizes"),
        "axis": Attr("axis", 0, "the axis to cut"),
    }
    samples = [
        Sample(((5, 6),), {"parts": 3, "axis": -1}),
        Sample(((5, 4),), {"parts": (1, 3), "axis": 1}),
        Sample(((4, 2),), {"parts": 2}),
    ]
    errors = [
        BadSample((TensorType(F32, (4, 6)),), {"parts": 4, "axis": 1}, "4 equal parts"),
        BadSample((TensorType(F32, (4, 6)),), {"parts": (1, 2), "axis": 1}, "add up to 3"),
        BadSample((TensorType(F32, (4, 6)),), {"parts": 0, "axis": 1}, "at least one part"),
        BadSample((TensorType(F32, (4, 6)),), {"parts": 2, "axis": 2}, "no axis 2"),
    ]

    def sizes(self, x: TensorType, parts: Any, axis: int) -> Shape:
        size = x.shape[axis]
        if isinstance(parts, tuple):
            total: Dim = sum(check_shape(parts), 0)
            if not parts or total != size:
                raise TypeFailure(f"cannot split {x}: the parts add up to {total}, axis {axis} is {size}", inputs=(0,), axes=(axis,))
            return parts
        if not isinstance(parts, int) or parts < 1:
            raise TypeFailure(f"split needs at least one part, not {parts}")
        if not dims.is_known_multiple(size, parts):
            raise TypeFailure(f"cannot split {x} into {parts} equal parts: axis {axis} is {size}", inputs=(0,), axes=(axis,))
        return (size // parts,) * parts

    def infer(self, x: TensorType, parts: Any, axis: int) -> tuple[TensorType, ...]:
        along = normal_axis(axis, x)
        sizes = self.sizes(x, parts, along)
        return tuple(x.with_shape((*x.shape[:along], size, *x.shape[along + 1 :])) for size in sizes)

    def expand(self, b: Builder, x: Value, parts: Any, axis: int) -> tuple[Value, ...]:
        along = normal_axis(axis, x.type)
        start: Dim = 0
        result: list[Value] = []
        for size in self.sizes(x.type, parts, along):
            result.append(cut(b, x, along, start, start + size))
            start = start + size
        return tuple(result)

    def vjp(self, b: Builder, dy: tuple[Value | None, ...], y: tuple[Value, ...], x: Value, parts: Any, axis: int) -> tuple[Value]:
        pieces = [b.like(0.0, part.type) if d is None else d for d, part in zip(dy, y, strict=True)]
        return (b.concat(*pieces, axis=axis),)

    def reference(self, x: Array, parts: Any, axis: int) -> Any:
        where: Any = parts if isinstance(parts, int) else np.cumsum(ints(parts))[:-1]
        return tuple(np.split(x, where, axis=axis))
