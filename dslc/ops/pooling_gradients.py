"""Gradients of pooling over windows of an image [N, C, H, W]."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader, binary, cast, reduce
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.pooling import (
    AVG_POOL,
    MAX_POOL,
    AvgPool2d,
    MaxPool2d,
    Windows,
    lowest,
    numpy_type,
    reference_sizes,
    reference_windows,
    window_size,
)
from dslc.ops.shapes import f32
from dslc.ops.windows import Setting, guarded, image, read_padded, several

Array = np.ndarray[Any, Any]
_NEGATIVE_INFINITY = float("-inf")


def _winner(x: Reader, n: Dim, c: Dim, row: Dim, column: Dim, windows: Windows) -> Expr:
    """The place of a window's maximum, as the linear index over the window: the first of equal ones, NaN before all."""
    return reduce(
        "argmax",
        windows.window,
        lambda i, j: read_padded(x, (n, c, *windows.at(row, column, i, j)), windows.reach, lowest(x.type.dtype)),
    )


def _reference_places(shape: tuple[int, ...], windows: Windows) -> Array:
    """For each window element the linear index of its pixel in an image plane, -1 in the padding: [1, 1, rows, columns, KH * KW]."""
    plane = np.arange(shape[2] * shape[3]).reshape(1, 1, *shape[2:])
    return reference_windows(plane, windows, -1)


@operator
class MaxPool2dGrad(Operator):
    """The gradient of max_pool2d: dy[N, C, rows, columns] summed into the places of the windows' maxima, [N, C, H, W]."""

    family = "pooling"
    internal = True
    inputs = ("x", "dy")
    attrs = MaxPool2d.attrs

    def infer(
        self, x: TensorType, dy: TensorType, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool
    ) -> TensorType:
        expected = MAX_POOL.infer(x, window, stride, padding, ceil_mode)
        if dy != expected:
            raise TypeFailure(f"max_pool2d_grad: max_pool2d of {x} gives {expected}, not {dy}", inputs=(1,))
        return x

    def body(
        self, index: tuple[Dim, ...], x: Reader, dy: Reader, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool
    ) -> Expr:
        n, c, h, w = index
        windows = Windows(x.type, window, stride, padding, ceil_mode, "max_pool2d")

        def term(row: Dim, column: Dim, i: Dim, j: Dim) -> Expr:
            here = binary("eq", _winner(x, n, c, row, column, windows), IndexValue(i * windows.window[1] + j))
            return guarded(here, dy[n, c, row, column], 0)

        return windows.sum_over_windows(h, w, term)

    def vjp(self, b: Builder, ddx: Value, dx: Value, x: Value, dy: Value, **settings: Any) -> tuple[None, Value]:
        return None, b.max_pool2d_gather(x, ddx, **settings)

    def reference(self, x: Array, dy: Array, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> Array:
        windows = Windows(numpy_type(x), window, stride, padding, ceil_mode, "max_pool2d")
        places = _reference_winners(x, windows)
        dx = np.zeros((*x.shape[:2], x.shape[2] * x.shape[3] + 1), dy.dtype)  # the last takes what falls into padding
        batch, channel = np.ogrid[: x.shape[0], : x.shape[1]]
        np.add.at(dx, (batch[..., None, None], channel[..., None, None], places), dy)
        return dx[..., :-1].reshape(x.shape)

    samples = [
        Sample(((2, 3, 6, 4), (2, 3, 3, 2)), {"window": 2}),
        Sample(((1, 2, 7, 8), (1, 2, 2, 2)), {"window": 3}),
        Sample(((1, 2, 7, 6), (1, 2, 4, 3)), {"window": 3, "stride": 2, "padding": 1}),
        Sample(((1, 1, 6, 7), (1, 1, 5, 5)), {"window": (2, 3), "stride": 1}),
        Sample(((1, 1, 6, 7), (1, 1, 3, 4)), {"window": (3, 2), "stride": 2, "ceil_mode": True}),
        Sample(((1, 1, 7, 7), (1, 1, 2, 2)), {"window": 2, "stride": 4}),
        Sample((np.array([[[[2.0, 2.0], [1.0, 2.0]], [[1.0, np.nan], [np.nan, 3.0]]]]), (1, 2, 1, 1)), {"window": 2}, gradient=False),
    ]
    errors = [BadSample((f32(1, 1, 4, 4), f32(1, 1, 3, 3)), {"window": 2}, "gives f32[1, 1, 2, 2]")]


@operator
class MaxPool2dGather(Operator):
    """For each window of x[N, C, H, W], the element of v[N, C, H, W] where x has its maximum: [N, C, rows, columns]."""

    family = "pooling"
    internal = True
    inputs = ("x", "v")
    attrs = MaxPool2d.attrs

    def infer(self, x: TensorType, v: TensorType, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> TensorType:
        if x != v:
            raise TypeFailure(f"max_pool2d_gather needs two tensors of one type, not {x} and {v}", inputs=(0, 1))
        return MAX_POOL.infer(x, window, stride, padding, ceil_mode)

    def body(
        self, index: tuple[Dim, ...], x: Reader, v: Reader, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool
    ) -> Expr:
        n, c, row, column = index
        windows = Windows(x.type, window, stride, padding, ceil_mode, "max_pool2d")
        winner = _winner(x, n, c, row, column, windows)

        def term(i: Dim, j: Dim) -> Expr:
            here = binary("eq", winner, IndexValue(i * windows.window[1] + j))
            return guarded(here, read_padded(v, (n, c, *windows.at(row, column, i, j)), windows.reach, 0), 0)

        return reduce("add", windows.window, term)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, v: Value, **settings: Any) -> tuple[None, Value]:
        return None, b.max_pool2d_grad(x, dy, **settings)

    def reference(self, x: Array, v: Array, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> Array:
        windows = Windows(numpy_type(x), window, stride, padding, ceil_mode, "max_pool2d")
        places = _reference_winners(x, windows)
        flat = np.concatenate([v.reshape(*v.shape[:2], -1), np.zeros((*v.shape[:2], 1), v.dtype)], -1)
        return np.take_along_axis(flat, places.reshape(*x.shape[:2], -1), -1).reshape(places.shape)

    samples = [
        Sample(((2, 3, 6, 4), (2, 3, 6, 4)), {"window": 2}),
        Sample(((1, 2, 7, 6), (1, 2, 7, 6)), {"window": 3, "stride": 2, "padding": 1}),
        Sample(((1, 1, 6, 7), (1, 1, 6, 7)), {"window": 3, "stride": 2, "ceil_mode": True}),
    ]
    errors = [BadSample((f32(1, 1, 4, 4), f32(1, 1, 3, 3)), {"window": 2}, "of one type")]


def _reference_winners(x: Array, windows: Windows) -> Array:
    """The plane index of each window's maximum, [N, C, rows, columns]; -1 where it is padding."""
    winners = reference_windows(x, windows, _NEGATIVE_INFINITY).argmax(-1)
    places = np.broadcast_to(_reference_places(x.shape, windows), (*winners.shape, windows.window[0] * windows.window[1]))
    return np.take_along_axis(places, winners[..., None], -1)[..., 0]


def _place_type(window: Setting) -> DType:
    """The smallest type that numbers the elements of a window."""
    rows, columns = several(window, "window")
    return DType.U8 if rows * columns <= 256 else DType.I32


@operator
class MaxPool2dPlaces(Operator):
    """The place of each window's maximum in x[N, C, H, W], numbered row by row over the window: [N, C, rows, columns]."""

    name = "max_pool2d_places"
    family = "pooling"
    internal = True
    differentiable = False
    attrs = MaxPool2d.attrs

    def infer(self, x: TensorType, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> TensorType:
        return TensorType(_place_type(window), MAX_POOL.infer(x, window, stride, padding, ceil_mode).shape)

    def body(self, index: tuple[Dim, ...], x: Reader, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> Expr:
        n, c, row, column = index
        windows = Windows(x.type, window, stride, padding, ceil_mode, "max_pool2d")
        return cast(_winner(x, n, c, row, column, windows), _place_type(window))

    def reference(self, x: Array, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> Array:
        windows = Windows(numpy_type(x), window, stride, padding, ceil_mode, "max_pool2d")
        return np.asarray(reference_windows(x, windows, _NEGATIVE_INFINITY).argmax(-1).astype(_place_type(window).numpy))

    samples = [
        Sample(((1, 2, 7, 6),), {"window": 3, "stride": 2, "padding": 1}, gradient=False),
        Sample(((2, 16, 5, 7),), {"window": (2, 3), "stride": 1}, gradient=False),
        Sample(((1, 1, 18, 17),), {"window": 17, "stride": 1}, gradient=False),
        Sample((np.array([[[[1.0, np.nan, 5.0], [3.0, 3.0, np.nan], [3.0, 1.0, -np.inf]]]]),), {"window": 2, "stride": 1}, gradient=False),
    ]
    errors = [BadSample((f32(3, 5, 5),), {"window": 2}, "needs [N, C, H, W]")]


_PLACES = MaxPool2dPlaces()


def _check_places(places: TensorType, x: TensorType, what: str, settings: tuple[Setting, Setting | None, Setting, bool]) -> None:
    expected = _PLACES.infer(x, *settings)
    if places != expected:
        raise TypeFailure(f"{what}: max_pool2d_places of {x} gives {expected}, not {places}", inputs=(0,))


@operator
class MaxPool2dScatter(Operator):
    """dy[N, C, rows, columns] summed into the places of windows over an image [N, C, *size], in the windows' order.

    `places` is what `max_pool2d_places` gives: with it this is the gradient of max_pool2d.
    """

    name = "max_pool2d_scatter"
    family = "pooling"
    internal = True
    inputs = ("places", "dy")
    attrs = {"size": Attr("dims", doc="(rows, columns) of the image"), **MaxPool2d.attrs}

    def infer(
        self,
        places: TensorType,
        dy: TensorType,
        size: tuple[Dim, Dim],
        window: Setting,
        stride: Setting | None,
        padding: Setting,
        ceil_mode: bool,
    ) -> TensorType:
        dx = image(dy, "max_pool2d_scatter", 1).with_shape((*dy.shape[:2], *size))
        if places.shape != dy.shape:
            raise TypeFailure(f"max_pool2d_scatter needs a place for each element, not {places} for {dy}", inputs=(0, 1))
        _check_places(places, dx, "max_pool2d_scatter", (window, stride, padding, ceil_mode))
        return dx

    def body(
        self,
        index: tuple[Dim, ...],
        places: Reader,
        dy: Reader,
        size: tuple[Dim, Dim],
        window: Setting,
        stride: Setting | None,
        padding: Setting,
        ceil_mode: bool,
    ) -> Expr:
        n, c, h, w = index
        windows = Windows(dy.type.with_shape((*dy.type.shape[:2], *size)), window, stride, padding, ceil_mode, "max_pool2d")

        def term(row: Dim, column: Dim, i: Dim, j: Dim) -> Expr:
            here = IndexValue(i * windows.window[1] + j, places.type.dtype)
            return guarded(binary("eq", places[n, c, row, column], here), dy[n, c, row, column], 0)

        return windows.sum_over_windows(h, w, term)

    def vjp(
        self, b: Builder, ddx: Value, dx: Value, places: Value, dy: Value, size: tuple[Dim, Dim], **settings: Any
    ) -> tuple[None, Value]:
        return None, b.max_pool2d_take(places, ddx, **settings)

    def reference(
        self,
        places: Array,
        dy: Array,
        size: tuple[int, int],
        window: Setting,
        stride: Setting | None,
        padding: Setting,
        ceil_mode: bool,
    ) -> Array:
        shape = (*dy.shape[:2], *size)
        windows = Windows(TensorType(numpy_type(dy).dtype, shape), window, stride, padding, ceil_mode, "max_pool2d")
        pixels = np.broadcast_to(_reference_places(shape, windows), (*dy.shape, windows.window[0] * windows.window[1]))
        chosen = np.take_along_axis(pixels, places.astype(np.int64)[..., None], -1)[..., 0]
        dx = np.zeros((*shape[:2], size[0] * size[1] + 1), dy.dtype)  # the last takes what falls into padding
        batch, channel = np.ogrid[: shape[0], : shape[1]]
        np.add.at(dx, (batch[..., None, None], channel[..., None, None], chosen), dy)
        return dx[..., :-1].reshape(shape)

    samples = [
        Sample((np.array([[[[4, 3], [5, 0]]]], np.uint8), (1, 1, 2, 2)), {"window": 3, "stride": 2, "padding": 1, "size": (4, 3)}),
        Sample((np.array([[[[1, 2, 0], [1, 0, 1], [2, 2, 3]]]], np.uint8), (1, 1, 3, 3)), {"window": 2, "stride": 1, "size": (4, 4)}),
        Sample((np.array([[[[8, 6], [2, 0]]]], np.uint8), (1, 1, 2, 2)), {"window": 3, "stride": 2, "size": (6, 5)}),
    ]
    errors = [
        BadSample((TensorType(DType.U8, (1, 1, 3, 3)), f32(1, 1, 2, 2)), {"window": 2, "stride": 1, "size": (3, 3)}, "a place for each"),
        BadSample((TensorType(DType.I32, (1, 1, 2, 2)), f32(1, 1, 2, 2)), {"window": 2, "stride": 1, "size": (3, 3)}, "gives u8"),
    ]


@operator
class MaxPool2dTake(Operator):
    """For each window over v[N, C, H, W] its element at a place: [N, C, rows, columns]; 0 where that is padding."""

    name = "max_pool2d_take"
    family = "pooling"
    internal = True
    inputs = ("places", "v")
    attrs = MaxPool2d.attrs

    def infer(
        self, places: TensorType, v: TensorType, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool
    ) -> TensorType:
        _check_places(places, v, "max_pool2d_take", (window, stride, padding, ceil_mode))
        return MAX_POOL.infer(v, window, stride, padding, ceil_mode)

    def body(
        self, index: tuple[Dim, ...], places: Reader, v: Reader, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool
    ) -> Expr:
        n, c, row, column = index
        windows = Windows(v.type, window, stride, padding, ceil_mode, "max_pool2d")
        place = places[n, c, row, column]

        def term(i: Dim, j: Dim) -> Expr:
            here = binary("eq", place, IndexValue(i * windows.window[1] + j, place.dtype))
            return guarded(here, read_padded(v, (n, c, *windows.at(row, column, i, j)), windows.reach, 0), 0)

        return reduce("add", windows.window, term)

    def vjp(self, b: Builder, dy: Value, y: Value, places: Value, v: Value, **settings: Any) -> tuple[None, Value]:
        return None, b.max_pool2d_scatter(places, dy, size=v.type.shape[2:], **settings)

    def reference(self, places: Array, v: Array, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> Array:
        windows = Windows(numpy_type(v), window, stride, padding, ceil_mode, "max_pool2d")
        taken = np.take_along_axis(reference_windows(v, windows, 0), places.astype(np.int64)[..., None], -1)
        return np.asarray(taken[..., 0])

    samples = [
        Sample((np.array([[[[4, 3], [5, 0]]]], np.uint8), (1, 1, 4, 3)), {"window": 3, "stride": 2, "padding": 1}),
        Sample((np.array([[[[1, 2, 0], [1, 0, 1], [2, 2, 3]]]], np.uint8), (1, 1, 4, 4)), {"window": 2, "stride": 1}),
    ]
    errors = [BadSample((TensorType(DType.U8, (1, 1, 3, 3)), f32(1, 1, 3, 3)), {"window": 2, "stride": 1}, "gives u8[1, 1, 2, 2]")]


@operator
class AvgPool2dGrad(Operator):
    """The gradient of avg_pool2d: dy[N, C, rows, columns] spread evenly over its windows, [N, C, *size]."""

    family = "pooling"
    internal = True
    inputs = ("dy",)
    attrs = {"size": Attr("dims", doc="(rows, columns) of the image"), **AvgPool2d.attrs}

    def infer(
        self,
        dy: TensorType,
        size: tuple[Dim, Dim],
        window: Setting,
        stride: Setting | None,
        padding: Setting,
        count_include_pad: bool,
    ) -> TensorType:
        image(dy, "avg_pool2d_grad")
        x = dy.with_shape((*dy.shape[:2], *size))
        expected = AVG_POOL.infer(x, window, stride, padding, count_include_pad)
        if dy != expected:
            raise TypeFailure(f"avg_pool2d_grad: avg_pool2d of {x} gives {expected}, not {dy}", inputs=(0,))
        return x

    def body(
        self,
        index: tuple[Dim, ...],
        dy: Reader,
        size: tuple[Dim, Dim],
        window: Setting,
        stride: Setting | None,
        padding: Setting,
        count_include_pad: bool,
    ) -> Expr:
        n, c, h, w = index
        x = dy.type.with_shape((*dy.type.shape[:2], *size))
        windows = Windows(x, window, stride, padding, False, "avg_pool2d")

        def term(row: Dim, column: Dim, i: Dim, j: Dim) -> Expr:
            return binary("div", dy[n, c, row, column], window_size(windows, row, column, count_include_pad, dy.type.dtype))

        return windows.sum_over_windows(h, w, term)

    def vjp(self, b: Builder, ddx: Value, dx: Value, dy: Value, size: tuple[Dim, Dim], **settings: Any) -> tuple[Value]:
        return (b.avg_pool2d(ddx, **settings),)

    def reference(
        self,
        dy: Array,
        size: tuple[int, int],
        window: Setting,
        stride: Setting | None,
        padding: Setting,
        count_include_pad: bool,
    ) -> Array:
        shape = (*dy.shape[:2], *size)
        windows = Windows(TensorType(numpy_type(dy).dtype, shape), window, stride, padding, False, "avg_pool2d")
        share = dy / reference_sizes(windows, count_include_pad).astype(dy.dtype)
        dx = np.zeros((*shape[:2], size[0] * size[1] + 1), dy.dtype)  # the last takes what falls into padding
        places = _reference_places(shape, windows)[0, 0]
        for n, c in np.ndindex(shape[:2]):
            np.add.at(dx[n, c], places, share[n, c, ..., None])
        return dx[..., :-1].reshape(shape)

    samples = [
        Sample(((2, 3, 3, 2),), {"window": 2, "size": (6, 4)}),
        Sample(((1, 2, 2, 2),), {"window": 3, "size": (7, 8)}),
        Sample(((1, 2, 4, 3),), {"window": 3, "stride": 2, "padding": 1, "size": (7, 6)}),
        Sample(((1, 2, 4, 3),), {"window": 3, "stride": 2, "padding": 1, "size": (7, 6), "count_include_pad": False}),
    ]
    errors = [BadSample((f32(1, 1, 3, 3),), {"window": 2, "size": (4, 4)}, "gives f32[1, 1, 2, 2]")]
