"""Shape rules shared by every family: broadcasting by NumPy's rule, axes, reductions over axes, sizes as numbers.

Sizes may be symbolic: two are equal where their canonical forms are. A size that is not known to be 1 never stretches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import TypeFailure
from dslc.ir.types import DType, TensorType

Array = np.ndarray[Any, Any]
Index = tuple[Dim, ...]
Shape = tuple[Dim, ...]


# ---- broadcasting -------------------------------------------------------------------------------------------------


def broadcast(verb: str, *types: TensorType) -> Shape:
    """The common shape of operands by NumPy's rule. `verb` starts the message: "cannot add f32[3] and f32[4]: ..."."""
    rank = max(t.rank for t in types)
    result: list[Dim] = []
    for axis in range(rank):
        size: Dim = 1
        owner = owner_axis = 0
        for position, t in enumerate(types):
            own_axis = axis - (rank - t.rank)
            if own_axis < 0 or t.shape[own_axis] == 1:
                continue
            if size == 1:
                size, owner, owner_axis = t.shape[own_axis], position, own_axis
            elif t.shape[own_axis] != size:
                raise TypeFailure(
                    f"cannot {verb} {listing(types)}: axis {axis} is {size} and {t.shape[own_axis]}",
                    inputs=(owner, position),
                    axes=(owner_axis, own_axis),
                )
        result.append(size)
    return tuple(result)


def listing(types: Sequence[TensorType]) -> str:
    """`a, b and c`."""
    names = [str(t) for t in types]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def same_dtype(verb: str, *types: TensorType) -> DType:
    """The element type that all operands have."""
    for position, t in enumerate(types):
        if t.dtype != types[0].dtype:
            raise TypeFailure(
                f"cannot {verb} {listing(types)}: the element types differ",
                inputs=(0, position),
                hint=f"convert one with cast[{types[0].dtype.value}](...)",
            )
    return types[0].dtype


def require(kind: str, name: str, *types: TensorType) -> None:
    """Refuse an element type that is not `kind`: "floating", "integer", "bool" or "number" (anything but bool)."""
    for position, t in enumerate(types):
        fits = {
            "floating": t.dtype.floating,
            "integer": t.dtype.integer,
            "bool": t.dtype == DType.BOOL,
            "number": t.dtype != DType.BOOL,
        }[kind]
        if not fits:
            article = {"floating": "a floating-point tensor", "integer": "an integer tensor", "bool": "a bool tensor", "number": "numbers"}
            cast = {
                "floating": "cast[f32](...)",
                "integer": "cast[i64](...)",
                "bool": "a comparison, such as x != 0",
                "number": "cast[f32](...)",
            }
            raise TypeFailure(f"{name} needs {article[kind]}, not {t}", inputs=(position,), hint=f"convert it with {cast[kind]}")


def aligned(index: Index, type: TensorType) -> Index:
    """The index into an operand for an index into the broadcast result: leading axes dropped, 0 on axes of size 1."""
    return tuple(0 if size == 1 else i for i, size in zip(index[len(index) - type.rank :], type.shape, strict=True))


def read(x: Reader, index: Index) -> Expr:
    """The element of a broadcast operand at an index of the result."""
    return x[aligned(index, x.type)]


def broadcast_to(b: Builder, x: Value, shape: Shape) -> Value:
    """`x` repeated to `shape`; `x` itself where it has it already."""
    if x.type.shape == shape:
        return x
    result: Value = b.expand(x, shape=shape)
    return result


def unbroadcast(b: Builder, dy: Value, type: TensorType) -> Value:
    """The cotangent of an operand of `type` that was broadcast to dy's shape: summed over the repeated axes."""
    if dy.type.shape == type.shape:
        return dy
    lead = dy.type.rank - type.rank
    axes = tuple(range(lead)) + tuple(lead + axis for axis, size in enumerate(type.shape) if size == 1 and dy.type.shape[lead + axis] != 1)
    if axes:
        dy = b.sum(dy, axis=axes)
    return reshaped(b, dy, type.shape)


def reshaped(b: Builder, x: Value, shape: Shape) -> Value:
    """`x` in another shape; `x` itself where it has it already."""
    if x.type.shape == shape:
        return x
    result: Value = b.reshape(x, shape=shape)
    return result


def cut(b: Builder, x: Value, axis: int, start: Dim, stop: Dim) -> Value:
    """The part of x with `start <= index < stop` along one axis."""
    rank = x.type.rank
    starts = tuple(start if a == axis else 0 for a in range(rank))
    stops = tuple(stop if a == axis else size for a, size in enumerate(x.type.shape))
    result: Value = b.slice(x, starts=starts, stops=stops, steps=(1,) * rank)
    return result


# ---- axes ---------------------------------------------------------------------------------------------------------


def normal_axis(axis: int, type: TensorType, extra: int = 0) -> int:
    """An axis counted from the front; negative ones count from the back. `extra` axes are about to be added to the type."""
    rank = type.rank + extra
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise TypeFailure(f"an axis is a whole number, not {axis}")
    if not -rank <= axis < rank:
        raise TypeFailure(f"there is no axis {axis}: {type} has {type.rank} axes", inputs=(0,))
    return axis % rank


def normal_axes(axis: int | Sequence[int] | None, type: TensorType) -> tuple[int, ...]:
    """Sorted axes counted from the front: all of them for None."""
    if axis is None:
        return tuple(range(type.rank))
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    # A longer list is wrong within its first rank + 1 places: an axis is named twice there, or there is no such axis.
    axes = tuple(sorted(normal_axis(a, type) for a in given[: type.rank + 1]))
    for first, second in pairwise(axes):
        if first == second:
            raise TypeFailure(f"axis {first} is named twice")
    return axes


def reduced_shape(type: TensorType, axes: tuple[int, ...], keep: bool) -> Shape:
    """The shape after a reduction over `axes`, which stay with size 1 where `keep`."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(type.shape) if keep or axis not in axes)


def kept(b: Builder, y: Value, type: TensorType, axes: tuple[int, ...]) -> Value:
    """A reduction's result with its reduced axes back as size 1, so that it broadcasts against the operand of `type`."""
    return reshaped(b, y, reduced_shape(type, axes, True))


def reduction_index(index: Index, axes: tuple[int, ...], keep: bool, inner: Index, rank: int) -> Index:
    """The operand's index for a result's index and the reduction variables `inner`, in the order of `axes`."""
    outer = list(index)
    if keep:
        outer = [i for axis, i in enumerate(index) if axis not in axes]
    variables = list(inner)
    return tuple(variables.pop(0) if axis in axes else outer.pop(0) for axis in range(rank))


def count(type: TensorType, axes: tuple[int, ...]) -> Dim:
    """The number of elements along `axes`."""
    total: Dim = 1
    for axis in axes:
        total = total * type.shape[axis]
    return total


def f32(*shape: Dim) -> TensorType:
    return TensorType(DType.F32, shape)


# ---- sizes as numbers ---------------------------------------------------------------------------------------------


def extent(b: Builder, size: Dim, dtype: DType) -> Value:
    """A size as a scalar of `dtype`."""
    if isinstance(size, int):
        return b.scalar(float(size) if dtype.floating else size, dtype)
    result: Value = b.extent(size=size, dtype=dtype)
    return result


def number(value: float, x: Expr) -> Expr:
    """A constant of the type of `x`."""
    return loops.const(float(value) if x.dtype.floating else int(value), x.dtype)


def ints(shape: Sequence[Any]) -> tuple[int, ...]:
    """A shape attribute as plain integers, in a reference."""
    return tuple(int(size) for size in shape)


def check_shape(shape: Sequence[Dim]) -> Shape:
    """A shape attribute: sizes of at least 0. Symbolic ones are checked once they are bound."""
    for size in shape:
        if isinstance(size, bool) or (isinstance(size, int) and size < 0):
            raise TypeFailure(f"a size must be at least 0, not {size}")
    return tuple(shape)
