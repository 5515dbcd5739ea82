"""What convolution and pooling share: settings of two spatial axes, the sizes they give, and reads that padding guards."""

from __future__ import annotations

from typing import Any

from dslc.ir.dims import Dim
from dslc.ir.loops import Const, Expr, IndexValue, Reader, binary, const, select
from dslc.ir.operator import TypeFailure
from dslc.ir.types import DType, TensorType

Pair = tuple[int, int]
Sides = tuple[Pair, Pair]
Setting = int | tuple[Any, ...]


def pair(value: Setting, what: str, least: int = 1) -> Pair:
    """An int for both spatial axes, or (rows, columns)."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or not all(isinstance(n, int) for n in both):
        raise TypeFailure(f"{what} is an integer or a pair (rows, columns), not {value}")
    if min(both) < least:
        raise TypeFailure(f"{what} must be at least {least}, not {min(both)}")
    return both[0], both[1]


def sides(value: Setting) -> Sides:
    """Padding as ((top, bottom), (left, right)), from an int, (rows, columns), or the four sides in that form."""
    if isinstance(value, tuple) and any(isinstance(n, tuple) for n in value):
        if len(value) != 2:
            raise TypeFailure(f"padding by sides is ((top, bottom), (left, right)), not {value}")
        rows, columns = value
        return pair(rows, "padding", 0), pair(columns, "padding", 0)
    rows, columns = pair(value, "padding", 0)
    return (rows, rows), (columns, columns)


def image(t: TensorType, what: str, position: int = 0) -> TensorType:
    """Refuses what is not [N, C, H, W]."""
    if t.rank != 4:
        hint = "add an axis with unsqueeze" if t.rank == 3 else None
        raise TypeFailure(f"{what} needs [N, C, H, W], not {t}", inputs=(position,), hint=hint)
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


def read_padded(x: Reader, index: tuple[Dim, Dim, Dim, Dim], padding: Sides, fill: float | int) -> Expr:
    """x at an index that leaves the image only where there is padding; `fill` outside."""
    condition: Expr = const(True, DType.BOOL)
    for axis, (before, after) in zip((2, 3), padding, strict=True):
        condition = both(condition, inside(index[axis], x.type.shape[axis], below=before > 0, above=after > 0))
    return guarded(condition, x[index], fill)
