"""Pooling over windows of an image [N, C, H, W]."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader, binary, cast, const, reduce
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import f32
from dslc.ops.windows import Setting, Sides, both, guarded, image, inside, read_padded, several, sides, window_extent

Array = np.ndarray[Any, Any]
_NEGATIVE_INFINITY = float("-inf")


WINDOW = {
    "window": Attr("ints", doc="the window's size: an integer or (rows, columns)"),
    "stride": Attr("ints", None, "step between windows: an integer or (rows, columns); the window's size by default"),
    "padding": Attr("ints", 0, "around the image: an integer, (rows, columns) or ((top, bottom), (left, right))"),
}
CEIL = Attr("bool", False, "a last window that is only partly inside counts too")


class Windows:
    """The settings of a pooling, checked against the image's type."""

    def __init__(self, x: TensorType, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool, what: str):
        self.window = several(window, "window")
        self.stride = self.window if stride is None else several(stride, "stride")
        self.padding = sides(padding)
        self.size = (x.shape[2], x.shape[3])
        for axis in (0, 1):
            if max(self.padding[axis]) * 2 > self.window[axis]:
                raise TypeFailure(f"{what}: padding {max(self.padding[axis])} is more than half of the window {self.window[axis]}")
        rows, columns = (self._extent(axis, ceil_mode, f"{what} of {x}") for axis in (0, 1))
        self.out = (rows, columns)
        # Around the image, rows and columns that windows read: ceil mode goes beyond the padding.
        self.reach: Sides = ((self.padding[0][0], self._after(0, ceil_mode)), (self.padding[1][0], self._after(1, ceil_mode)))

    def _extent(self, axis: int, ceil: bool, what: str) -> Dim:
        size, k, s, (before, after) = self.size[axis], self.window[axis], self.stride[axis], self.padding[axis]
        count = window_extent(size, k, s, (before, after + (s - 1 if ceil else 0)), 1, what)
        if not ceil or s == 1:
            return count
        if isinstance(size, int) and isinstance(count, int):  # a window must start inside the image or the padding before it
            return count - 1 if (count - 1) * s >= size + before else count
        if before + after + s - 1 > k + before - 1:
            raise TypeFailure(f"{what}: ceil_mode needs a size that is fixed, not {size}", inputs=(0,), axes=(2 + axis,))
        return count

    def _after(self, axis: int, ceil: bool) -> int:
        return self.padding[axis][1] + (self.stride[axis] - 1 if ceil else 0)

    @property
    def tiles(self) -> bool:
        """Whether every element of the image is in at most one window, at a place that needs no padding."""
        return self.stride == self.window and self.reach == ((0, 0), (0, 0))

    def at(self, rows: Dim, columns: Dim, i: Dim, j: Dim) -> tuple[Dim, Dim]:
        """The image's row and column at place (i, j) of a window."""
        return rows * self.stride[0] + i - self.padding[0][0], columns * self.stride[1] + j - self.padding[1][0]

    def sum_over_windows(self, h: Dim, w: Dim, term: Any) -> Expr:
        """Sum of `term(row, column, i, j)` over the windows that hold (h, w), at whose place (i, j) it stands."""
        if self.tiles:
            row, column = h // self.window[0], w // self.window[1]
            condition = const(True, DType.BOOL)
            parts: list[Expr] = [condition]
            for axis, index in ((0, row), (1, column)):
                if self.out[axis] * self.window[axis] != self.size[axis]:
                    parts.append(inside(index, self.out[axis], below=False))
            value = term(row, column, h % self.window[0], w % self.window[1])
            joined: Expr = condition
            for part in parts:
                joined = both(joined, part)
            return guarded(joined, value, 0)
        # The windows that can hold h are the last one that starts at or before it and those before that.
        counts = tuple(-(-self.window[axis] // self.stride[axis]) for axis in (0, 1))

        def over(t: Dim, u: Dim) -> Expr:
            condition: Expr = const(True, DType.BOOL)
            window, place = [], []
            for axis, (index, step) in enumerate(((h, t), (w, u))):
                padded = index + self.padding[axis][0]
                start = padded // self.stride[axis] - (counts[axis] - 1) + step
                offset = padded - start * self.stride[axis]
                condition = both(condition, inside(start, self.out[axis]))
                if self.window[axis] % self.stride[axis]:
                    condition = both(condition, binary("lt", IndexValue(offset), const(self.window[axis], DType.I64)))
                window.append(start)
                place.append(offset)
            return guarded(condition, term(*window, *place), 0)

        return reduce("add", counts, over)


def lowest(dtype: DType) -> float | int:
    return _NEGATIVE_INFINITY if dtype.floating else int(np.iinfo(_DTYPES[dtype.value]).min)


def reference_windows(x: Array, windows: Windows, fill: float | int) -> Array:
    """[N, C, rows, columns, KH * KW]"""
    padded = np.pad(x, ((0, 0), (0, 0), *windows.reach), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, windows.window, axis=(2, 3))
    view = view[:, :, :: windows.stride[0], :: windows.stride[1]][:, :, : windows.out[0], : windows.out[1]]
    return np.asarray(view.reshape(*view.shape[:4], -1))


@operator
class MaxPool2d(Operator):
    """The maximum of each window of x[N, C, H, W]. NaN in a window gives NaN. The gradient goes to the first maximum."""

    family = "pooling"
    onnx = "MaxPool"
    attrs = {**WINDOW, "ceil_mode": CEIL}

    def infer(self, x: TensorType, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> TensorType:
        image(x, "max_pool2d")
        if x.dtype == DType.BOOL:
            raise TypeFailure(f"max_pool2d needs numbers, not {x}", inputs=(0,))
        return x.with_shape((*x.shape[:2], *Windows(x, window, stride, padding, ceil_mode, "max_pool2d").out))

    def body(self, index: tuple[Dim, ...], x: Reader, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> Expr:
        n, c, row, column = index
        windows = Windows(x.type, window, stride, padding, ceil_mode, "max_pool2d")
        return reduce(
            "max",
            windows.window,
            lambda i, j: read_padded(x, (n, c, *windows.at(row, column, i, j)), windows.reach, lowest(x.type.dtype)),
        )

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, **settings: Any) -> tuple[Value]:
        if Windows(x.type, **settings, what="max_pool2d").tiles:
            return (b.max_pool2d_grad(x, dy, **settings),)
        # Each element is in several windows: where their maxima stand is found once a window.
        places = b.max_pool2d_places(x, **settings)
        return (b.max_pool2d_scatter(places, dy, size=x.type.shape[2:], **settings),)

    def reference(self, x: Array, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> Array:
        dtype = DType({v: k for k, v in _DTYPES.items()}[x.dtype.name])
        windows = Windows(TensorType(dtype, x.shape), window, stride, padding, ceil_mode, "max_pool2d")
        return np.asarray(reference_windows(x, windows, lowest(dtype)).max(-1))

    samples = [
        Sample(((2, 3, 6, 4),), {"window": 2}),
        Sample(((1, 2, 7, 8),), {"window": 3}),
        Sample(((1, 2, 7, 6),), {"window": 3, "stride": 2, "padding": 1}),
        Sample(((1, 1, 6, 7),), {"window": (2, 3), "stride": 1}),
        Sample(((1, 1, 6, 7),), {"window": 3, "stride": 2, "ceil_mode": True}),
        Sample(((1, 1, 5, 5),), {"window": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
        Sample((np.array([[[[1.0, np.nan], [3.0, 2.0]], [[-np.inf, -np.inf], [-np.inf, -5.0]]]]),), {"window": 2}, gradient=False),
        Sample((np.array([[[[1, 4], [4, -2]]]], np.int32),), {"window": 2}, gradient=False),
    ]
    errors = [
        BadSample((f32(3, 5, 5),), {"window": 2}, "needs [N, C, H, W]"),
        BadSample((f32(1, 3, 5, 5),), {"window": 6}, "does not fit"),
        BadSample((f32(1, 3, 5, 5),), {"window": 0}, "window must be at least 1"),
        BadSample((f32(1, 3, 5, 5),), {"window": 2, "stride": 0}, "stride must be at least 1"),
        BadSample((f32(1, 3, 5, 5),), {"window": 2, "padding": 2}, "more than half"),
        BadSample((TensorType(DType.BOOL, (1, 3, 5, 5)),), {"window": 2}, "needs numbers"),
    ]


_DTYPES = {"i8": "int8", "f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64", "u8": "uint8"}


MAX_POOL = MaxPool2d()


def numpy_type(x: Array) -> TensorType:
    dtype = DType({v: k for k, v in _DTYPES.items()}[x.dtype.name])
    return TensorType(dtype, x.shape)


@operator
class AvgPool2d(Operator):
    """The mean of each window of x[N, C, H, W]. Padding counts as zeros unless `count_include_pad = false`."""

    family = "pooling"
    onnx = "AveragePool"
    attrs = {**WINDOW, "count_include_pad": Attr("bool", True, "divide by the whole window, not only by its part in the image")}

    def infer(self, x: TensorType, window: Setting, stride: Setting | None, padding: Setting, count_include_pad: bool) -> TensorType:
        image(x, "avg_pool2d")
        if not x.dtype.floating:
            raise TypeFailure(f"avg_pool2d needs a floating-point tensor, not {x}", inputs=(0,), hint="convert it with cast[f32](...)")
        return x.with_shape((*x.shape[:2], *Windows(x, window, stride, padding, False, "avg_pool2d").out))

    def body(
        self, index: tuple[Dim, ...], x: Reader, window: Setting, stride: Setting | None, padding: Setting, count_include_pad: bool
    ) -> Expr:
        n, c, row, column = index
        windows = Windows(x.type, window, stride, padding, False, "avg_pool2d")
        total = reduce("add", windows.window, lambda i, j: read_padded(x, (n, c, *windows.at(row, column, i, j)), windows.reach, 0))
        return binary("div", total, window_size(windows, row, column, count_include_pad, x.type.dtype))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, **settings: Any) -> tuple[Value]:
        return (b.avg_pool2d_grad(dy, size=x.type.shape[2:], **settings),)

    def reference(self, x: Array, window: Setting, stride: Setting | None, padding: Setting, count_include_pad: bool) -> Array:
        windows = Windows(numpy_type(x), window, stride, padding, False, "avg_pool2d")
        with np.errstate(invalid="ignore", over="ignore"):
            total = reference_windows(x, windows, 0).sum(-1)
        return np.asarray(total / reference_sizes(windows, count_include_pad).astype(x.dtype))

    samples = [
        Sample(((2, 3, 6, 4),), {"window": 2}),
        Sample(((1, 2, 7, 8),), {"window": 3}),
        Sample(((1, 2, 7, 6),), {"window": 3, "stride": 2, "padding": 1}),
        Sample(((1, 2, 7, 6),), {"window": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
        Sample(((1, 1, 6, 7),), {"window": (2, 3), "stride": 1}),
    ]
    errors = [
        BadSample((f32(3, 5, 5),), {"window": 2}, "needs [N, C, H, W]"),
        BadSample((f32(1, 3, 5, 5),), {"window": 6}, "does not fit"),
        BadSample((TensorType(DType.I32, (1, 3, 5, 5)),), {"window": 2}, "floating-point"),
    ]


AVG_POOL = AvgPool2d()


def window_size(windows: Windows, row: Dim, column: Dim, include_padding: bool, dtype: DType) -> Expr:
    """The divisor of a window's mean."""
    if include_padding or windows.padding == ((0, 0), (0, 0)):
        return const(float(windows.window[0] * windows.window[1]), dtype)
    one, zero = const(1, DType.I64), const(0, DType.I64)

    def here(i: Dim, j: Dim) -> Expr:
        condition: Expr = const(True, DType.BOOL)
        for axis, at in enumerate(windows.at(row, column, i, j)):
            before, after = windows.reach[axis]
            condition = both(condition, inside(at, windows.size[axis], below=before > 0, above=after > 0))
        return guarded(condition, one, int(zero.value))

    return cast(reduce("add", windows.window, here), dtype)


def reference_sizes(windows: Windows, include_padding: bool) -> Array:
    """Divisors, [rows, columns]."""
    rows, columns = windows.size
    assert isinstance(rows, int) and isinstance(columns, int)
    ones = reference_windows(np.ones((1, 1, rows, columns)), windows, 1 if include_padding else 0)
    return np.asarray(ones.sum(-1)[0, 0])


@operator
class GlobalAvgPool(Operator):
    """The mean over all spatial axes of x[N, C, ...]: [N, C]."""

    family = "pooling"
    onnx = "GlobalAveragePool"

    def infer(self, x: TensorType) -> TensorType:
        if x.rank < 3 or not x.dtype.floating:
            raise TypeFailure(f"global_avg_pool needs floating-point [N, C, ...] with spatial axes, not {x}", inputs=(0,))
        return x.with_shape(x.shape[:2])

    def expand(self, b: Builder, x: Value) -> Value:
        value: Value = b.mean(x, axis=tuple(range(2, x.type.rank)))
        return value

    def reference(self, x: Array) -> Array:
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(x.mean(tuple(range(2, x.ndim))))

    samples = [Sample(((2, 3, 4, 5),)), Sample(((2, 3, 4),))]
    errors = [BadSample((f32(2, 3),), {}, "spatial axes")]
