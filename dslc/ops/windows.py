"""What convolution and pooling share: settings of the spatial axes, the sizes they give, and reads that padding guards."""

from __future__ import annotations

from typing import Any

from dslc.ir.dims import Dim
from dslc.ir.loops import Const, Expr, IndexValue, Reader, binary, const, select
from dslc.ir.operator import TypeFailure
from dslc.ir.types import DType, TensorType

Ints = tuple[int, ...]
Pair = tuple[int, int]
Sides = tuple[Pair, ...]
Setting = int | tuple[Any, ...]

IMAGES = {1: "[N, C, L]", 2: "[N, C, H, W]", 3: "[N, C, D, H, W]"}
KERNELS = {1: "[KL]", 2: "[KH, KW]", 3: "[KD, KH, KW]"}
SEVERAL = {1: "a list of one", 2: "a pair (rows, columns)", 3: "a triple (depth, rows, columns)"}
EACH_SIDE = {
    1: "((left, right),)",
    2: "((top, bottom), (left, right))",
    3: "((front, back), (top, bottom), (left, right))",
}


def several(value: Setting, what: str, rank: int = 2, least: int = 1) -> Ints:
    """An int for every spatial axis, or one for each."""
    each = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(each) != rank or not all(isinstance(n, int) for n in each):
        raise TypeFailure(f"{what} is an integer or {SEVERAL[rank]}, not {value}")
    if min(each) < least:
        raise TypeFailure(f"{what} must be at least {least}, not {min(each)}")
    return each


def sides(value: Setting, rank: int = 2) -> Sides:
    """Padding as (before, after) of every spatial axis, from an int, one for each axis, or both sides of each."""
    if isinstance(value, tuple) and any(isinstance(n, tuple) for n in value):
        if len(value) != rank:
            raise TypeFailure(f"padding by sides is {EACH_SIDE[rank]}, not {value}")
        both = [several(axis, "padding", 2, 0) for axis in value]
        return tuple((before, after) for before, after in both)
    return tuple((n, n) for n in several(value, "padding", rank, 0))


def image(t: TensorType, what: str, position: int = 0, rank: int = 2) -> TensorType:
    """Refuses what has not batch, channels and `rank` spatial axes."""
    if t.rank != rank + 2:
        hint = "add an axis with unsqueeze" if t.rank == rank + 1 else None
        raise TypeFailure(f"{what} needs {IMAGES[rank]}, not {t}", inputs=(position,), hint=hint)
    return t


def window_extent(size: Dim, window: int, stride: int, padding: Pair, dilation: int, what: str) -> Dim:
    """The number of windows along an axis: (size + padding - dilation * (window - 1) - 1) // stride + 1."""
    room = size + padding[0] + padding[1] - dilation * (window - 1)
    if isinstance(room, int) and room < 1:
        covers = dilation * (window - 1) + 1
        raise TypeFailure(
            f"{what}: a window of {covers} does not fit into an axis of {size} with padding {padding[0]} and {padding[1]}", inputs=(0,)
        )
    return (room - 1) // stride + 1


def is_true(condition: Expr) -> bool:
    return isinstance(condition, Const) and condition.value is True


def both(x: Expr, y: Expr) -> Expr:
    """x and y, without the part that is the constant true."""
    if is_true(x):
        return y
    return x if is_true(y) else binary("and", x, y)


def inside(index: Dim, extent: Dim, *, below: bool = True, above: bool = True) -> Expr:
    """0 <= index < extent; `below` and `above` say which side the index can leave at all."""
    zero, true = const(0, DType.I64), const(True, DType.BOOL)
    lower = binary("ge", IndexValue(index), zero) if below else true
    upper = binary("lt", IndexValue(index), IndexValue(extent)) if above else true
    return both(lower, upper)


def guarded(condition: Expr, value: Expr, otherwise: float | int) -> Expr:
    """`value` where the condition holds; a read under it may lie outside its tensor elsewhere."""
    return value if is_true(condition) else select(condition, value, const(otherwise, value.dtype))


def read_padded(x: Reader, index: tuple[Dim, ...], padding: Sides, fill: float | int) -> Expr:
    """x at an index that leaves the image only where there is padding; `fill` outside."""
    condition: Expr = const(True, DType.BOOL)
    for axis, (before, after) in enumerate(padding, 2):
        condition = both(condition, inside(index[axis], x.type.shape[axis], below=before > 0, above=after > 0))
    return guarded(condition, x[index], fill)
