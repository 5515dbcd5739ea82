"""Convolution in one, two and three dimensions, and its gradients: three contractions that are each other's, to any order.

With x[N, C, H], w[O, C / groups, K], y[N, O, Y] along one of the spatial axes, h = y * stride + k * dilation - padding:
    conv              y[n, o, y]   = sum over c, k    of  x[n, c, h] * w[o, c, k]
    conv_input_grad   dx[n, c, h]  = sum over o, k    of  dy[n, o, y] * w[o, c, k]       (`transposed.py`)
    conv_weight_grad  dw[o, c, k]  = sum over n, y    of  x[n, c, h] * dy[n, o, y]
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import ContractionMap, Expr, Reader, binary, reduce, var
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import f32
from dslc.ops.windows import KERNELS, Ints, Setting, Sides, image, read_padded, several, sides, window_extent

Array = np.ndarray[Any, Any]

SETTINGS = {
    "stride": Attr("ints", 1, "step between windows: an integer or one for each spatial axis"),
    "padding": Attr("ints", 0, "zeros around the image: an integer, one for each spatial axis, or (before, after) for each"),
    "dilation": Attr("ints", 1, "distance between the kernel's elements: an integer or one for each spatial axis"),
    "groups": Attr("int", 1, "channels are split into this many groups that do not mix"),
}


def check_groups(w: TensorType, groups: int, what: str, rank: int) -> None:
    """The rules of weights [O, C / groups, K...]."""
    if w.rank != rank + 2:
        raise TypeFailure(f"{what} needs weights [O, C / groups, {KERNELS[rank][1:]}, not {w}", inputs=(1,))
    if groups < 1:
        raise TypeFailure(f"{what}: groups must be at least 1, not {groups}")
    if isinstance(w.shape[0], int) and w.shape[0] % groups:
        raise TypeFailure(f"{what}: {w.shape[0]} output channels do not divide into {groups} groups", inputs=(1,), axes=(0,))
    for extent in w.shape[2:]:
        if not isinstance(extent, int) or extent < 1:
            raise TypeFailure(f"{what}: the kernel's size must be a fixed number of at least 1, not {extent}", inputs=(1,))


def kernel_of(w: TensorType) -> Ints:
    """The fixed sizes of a kernel."""
    return tuple(extent for extent in w.shape[2:] if isinstance(extent, int))


def spatial(prefix: str, rank: int) -> tuple[str, ...]:
    """Names of the spatial axes: (h, w) in two dimensions."""
    return tuple(f"{prefix}{axis}" for axis in "dhw"[3 - rank :])


def channel_axes(w: TensorType, groups: int) -> tuple[tuple[tuple[str, Dim], ...], Dim, Dim, Dim]:
    """Axes of the channels (group where there are groups, output, input), and the index of w's o and c and of x's channel."""
    if groups == 1:
        return (("o", w.shape[0]), ("c", w.shape[1])), var("o"), var("c"), var("c")
    per_group_out, per_group_in = w.shape[0] // groups, w.shape[1]
    axes = (("g", groups), ("o", per_group_out), ("c", per_group_in))
    return axes, var("g") * per_group_out + var("o"), var("c"), var("g") * per_group_in + var("c")


def per_group(array: Array, groups: int, axis: int) -> list[Array]:
    return np.split(array, groups, axis)


def patches(x: Array, kernel: Ints, stride: Ints, padding: Sides, dilation: Ints) -> Array:
    """The windows of an image: [N, C, K..., Y...]."""
    rank = len(kernel)
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    windows = windows[(slice(None), slice(None), *(slice(None, None, s) for s in stride), *(slice(None, None, d) for d in dilation))]
    return windows.transpose(0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))


class Geometry:
    """The settings of a convolution, an entry for each spatial axis."""

    def __init__(self, rank: int, stride: Setting, padding: Setting, dilation: Setting):
        self.stride, self.dilation = several(stride, "stride", rank), several(dilation, "dilation", rank)
        self.padding = sides(padding, rank)

    def at(self, y: tuple[Dim, ...], k: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """The image's element that kernel element k of window y meets."""
        zipped = zip(y, self.stride, k, self.dilation, self.padding, strict=True)
        return tuple(y * stride + k * dilation - before for y, stride, k, dilation, (before, _) in zipped)

    def windows(self, size: tuple[Dim, ...], kernel: Ints, what: str) -> tuple[Dim, ...]:
        """The number of windows along each axis."""
        zipped = zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple(window_extent(size, k, stride, around, dilation, what) for size, k, stride, around, dilation in zipped)


class _Conv(Operator):
    """Shared by the ranks: `rank` spatial axes."""

    rank: ClassVar[int]
    family = "convolution"
    widens = True
    onnx = "Conv"
    inputs = ("x", "w")
    attrs = SETTINGS

    def infer(self, x: TensorType, w: TensorType, stride: Setting, padding: Setting, dilation: Setting, groups: int) -> TensorType:
        what = f"conv{self.rank}d"
        image(x, what, rank=self.rank)
        if w.rank != self.rank + 2:
            raise TypeFailure(f"{what} needs weights [O, C / groups, {KERNELS[self.rank][1:]}, not {w}", inputs=(1,))
        if x.dtype == DType.BOOL or x.dtype != w.dtype:
            raise TypeFailure(f"{what} needs numbers of one type, or 8-bit integers, not {x} and {w}", inputs=(0, 1))
        check_groups(w, groups, what, self.rank)
        if x.shape[1] != w.shape[1] * groups:
            per = "" if groups == 1 else f" in {groups} groups"
            raise TypeFailure(f"{what}: {x} has {x.shape[1]} channels and {w} takes {w.shape[1]}{per}", inputs=(0, 1), axes=(1, 1))
        extents = Geometry(self.rank, stride, padding, dilation).windows(x.shape[2:], kernel_of(w), f"{what} of {x} and {w}")
        return TensorType(x.dtype, (x.shape[0], w.shape[0], *extents))

    def body(self, index: tuple[Dim, ...], x: Reader, w: Reader, stride: Setting, padding: Setting, dilation: Setting, groups: int) -> Expr:
        n, o, *y = index
        geometry = Geometry(self.rank, stride, padding, dilation)
        per_group_in, per_group_out = w.type.shape[1], w.type.shape[0] // groups

        def term(c: Dim, *k: Dim) -> Expr:
            channel = c if groups == 1 else (o // per_group_out) * per_group_in + c
            return binary("mul", read_padded(x, (n, channel, *geometry.at(tuple(y), k)), geometry.padding, 0), w[(o, c, *k)])

        return reduce("add", (per_group_in, *w.type.shape[2:]), term)

    def contraction(
        self, x: TensorType, w: TensorType, stride: Setting, padding: Setting, dilation: Setting, groups: int
    ) -> ContractionMap:
        y = self.infer(x, w, stride, padding, dilation, groups)
        axes, o, c, x_channel = channel_axes(w, groups)
        out, taps = spatial("y", self.rank), spatial("k", self.rank)
        windows, kernel = zip(out, y.shape[2:], strict=True), zip(taps, w.shape[2:], strict=True)
        at, tap = tuple(map(var, out)), tuple(map(var, taps))
        places = Geometry(self.rank, stride, padding, dilation).at(at, tap)
        extents = (("n", y.shape[0]), *axes[:-1], *windows, axes[-1], *kernel)
        return ContractionMap(extents, (var("n"), o, *at), (var("n"), x_channel, *places), (o, c, *tap))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, w: Value, **settings: Any) -> tuple[Value, Value]:
        dx = input_gradient(b, self.rank, dy, w, x.type, **settings)
        return dx, b.apply(f"conv{self.rank}d_weight_grad", x, dy, kernel=kernel_of(w.type), **settings)

    def reference(self, x: Array, w: Array, stride: Setting, padding: Setting, dilation: Setting, groups: int) -> Array:
        g = Geometry(self.rank, stride, padding, dilation)
        columns = patches(x, w.shape[2:], g.stride, g.padding, g.dilation)
        inner, outer = "ijk"[: self.rank], "zyx"[-self.rank :]
        with np.errstate(invalid="ignore", over="ignore"):
            parts = [
                np.einsum(f"nc{inner}{outer},oc{inner}->no{outer}", part, weights)
                for part, weights in zip(per_group(columns, groups, 1), per_group(w, groups, 0), strict=True)
            ]
        return np.concatenate(parts, 1)


@operator
class Conv1d(_Conv):
    """One-dimensional convolution (cross-correlation): x[N, C, L] and w[O, C / groups, KL] to [N, O, YL].

    YL = (L + padding - dilation * (KL - 1) - 1) // stride + 1.
    """

    rank = 1
    samples = [
        Sample(((2, 3, 7), (4, 3, 3))),
        Sample(((2, 2, 19), (3, 2, 4)), {"stride": 2, "padding": 1}),
        Sample(((1, 4, 9), (6, 2, 3)), {"groups": 2, "padding": ((2, 0),), "dilation": 2}),
        Sample(((1, 32, 5), (32, 1, 3)), {"groups": 32, "padding": 1}),
        Sample(((5, 2, 6), (2, 2, 1)), {"stride": 3}),
    ]
    errors = [
        BadSample((f32(2, 3, 5), f32(4, 2, 3)), {}, "has 3 channels"),
        BadSample((f32(2, 3, 5, 5), f32(4, 3, 3)), {}, "needs [N, C, L]"),
        BadSample((f32(2, 3, 5), f32(4, 3, 3, 3)), {}, "needs weights [O, C / groups, KL]"),
        BadSample((f32(2, 3, 5), f32(4, 3, 3)), {"stride": (1, 2)}, "a list of one"),
    ]


@operator
class Conv2d(_Conv):
    """Two-dimensional convolution (cross-correlation): x[N, C, H, W] and w[O, C / groups, KH, KW] to [N, O, YH, YW].

    YH = (H + padding - dilation * (KH - 1) - 1) // stride + 1, and YW likewise.
    """

    rank = 2
    samples = [
        Sample(((2, 3, 5, 6), (4, 3, 3, 3))),
        Sample(((2, 2, 5, 5), (3, 2, 3, 3)), {"padding": 1}),
        Sample(((1, 2, 6, 7), (3, 2, 3, 2)), {"stride": 2, "padding": (1, 0)}),
        Sample(((2, 4, 5, 5), (6, 2, 3, 3)), {"groups": 2, "padding": 1}),
        Sample(((1, 3, 6, 6), (3, 1, 3, 3)), {"groups": 3, "stride": (2, 1), "padding": ((1, 0), (2, 1))}),
        Sample(((1, 2, 7, 7), (2, 2, 3, 3)), {"dilation": 2, "padding": 2}),
        Sample(((1, 1, 8, 8), (2, 1, 2, 2)), {"stride": 3, "dilation": (1, 2)}),
        Sample(((1, 2, 3, 3), (2, 2, 1, 1)), {"stride": 2}),
        Sample(((1, 20, 3, 4), (20, 1, 3, 3)), {"groups": 20, "padding": 1}),
        Sample(((1, 16, 5, 5), (32, 1, 3, 3)), {"groups": 16, "stride": 2, "padding": 1}),
        Sample(((1, 16, 3, 4), (16, 4, 3, 3)), {"groups": 4, "padding": 1}),
    ]
    errors = [
        BadSample((f32(2, 3, 5, 5), f32(4, 2, 3, 3)), {}, "has 3 channels"),
        BadSample((f32(3, 5, 5), f32(4, 3, 3, 3)), {}, "needs [N, C, H, W]"),
        BadSample((f32(2, 3, 5, 5), f32(4, 3, 3)), {}, "needs weights"),
        BadSample((f32(2, 3, 2, 5), f32(4, 3, 3, 3)), {}, "does not fit"),
        BadSample((f32(2, 3, 5, 5), f32(4, 3, 3, 3)), {"stride": 0}, "stride must be at least 1"),
        BadSample((f32(2, 3, 5, 5), f32(4, 3, 3, 3)), {"padding": (1, 2, 3)}, "padding"),
        BadSample((f32(2, 4, 5, 5), f32(3, 2, 3, 3)), {"groups": 2}, "do not divide"),
        BadSample((f32(2, 4, 5, 5), f32(3, 2, 3, 3)), {"groups": 0}, "groups must be"),
        BadSample((f32(2, 3, 5, 5), TensorType(DType.F64, (4, 3, 3, 3))), {}, "of one type"),
    ]


@operator
class Conv3d(_Conv):
    """Three-dimensional convolution (cross-correlation): x[N, C, D, H, W] and w[O, C / groups, KD, KH, KW] to [N, O, YD, YH, YW].

    YD = (D + padding - dilation * (KD - 1) - 1) // stride + 1, and YH and YW likewise.
    """

    rank = 3
    samples = [
        Sample(((2, 2, 3, 4, 3), (3, 2, 2, 3, 2))),
        Sample(((1, 2, 4, 5, 3), (2, 2, 3, 3, 3)), {"stride": 2, "padding": 1}),
        Sample(((1, 4, 3, 3, 4), (4, 2, 2, 1, 2)), {"groups": 2, "stride": (1, 2, 2), "padding": ((1, 0), (0, 0), (0, 2))}),
        Sample(((1, 8, 4, 3, 3), (8, 1, 2, 2, 2)), {"groups": 8, "dilation": (2, 1, 1)}),
    ]
    errors = [
        BadSample((f32(2, 3, 5, 5, 5), f32(4, 2, 3, 3, 3)), {}, "has 3 channels"),
        BadSample((f32(2, 3, 5, 5), f32(4, 3, 3, 3, 3)), {}, "needs [N, C, D, H, W]"),
        BadSample((f32(2, 3, 5, 5, 5), f32(4, 3, 3, 3)), {}, "needs weights [O, C / groups, KD, KH, KW]"),
        BadSample((f32(2, 3, 5, 5, 5), f32(4, 3, 3, 3, 3)), {"padding": (1, 1)}, "a triple (depth, rows, columns)"),
        BadSample((f32(2, 3, 5, 5, 5), f32(4, 3, 3, 3, 3)), {"padding": ((1, 1), (1, 1))}, "(front, back)"),
    ]


def input_gradient(
    b: Builder, rank: int, dy: Value, w: Value, x: TensorType, stride: Setting, padding: Setting, dilation: Setting, groups: int
) -> Value:
    """The gradient of a convolution with respect to its input of type `x`."""
    g = Geometry(rank, stride, padding, dilation)
    kernel = f"conv{rank}d_input_grad"
    if set(kernel_of(w.type)) == {1} and g.padding == sides(0, rank) and set(g.stride) != {1}:
        # Only every stride-th element has a gradient: a small convolution, and zeros that are written by who reads them.
        small = b.apply(kernel, dy, w, size=dy.type.shape[2:], stride=1, padding=0, dilation=1, groups=groups)
        value: Value = b.dilate(small, stride=g.stride, size=x.shape[2:])
    else:
        value = b.apply(kernel, dy, w, size=x.shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups)
    return value


class _ConvWeightGrad(Operator):
    """Shared by the ranks."""

    rank: ClassVar[int]
    family = "convolution"
    internal = True
    inputs = ("x", "dy")
    attrs = {"kernel": Attr("ints", doc="the kernel's size along each spatial axis"), **SETTINGS}

    def infer(
        self, x: TensorType, dy: TensorType, kernel: Ints, stride: Setting, padding: Setting, dilation: Setting, groups: int
    ) -> TensorType:
        what = f"conv{self.rank}d_weight_grad"
        image(x, what, rank=self.rank)
        if isinstance(x.shape[1], int) and x.shape[1] % groups:
            raise TypeFailure(f"{what}: {x.shape[1]} channels do not divide into {groups} groups", inputs=(0,), axes=(1,))
        channels = image(dy, what, 1, self.rank).shape[1]
        dw = TensorType(x.dtype, (channels, x.shape[1] // groups, *several(kernel, "kernel", self.rank)))
        expected = CONVOLUTIONS[self.rank].infer(x, dw, stride, padding, dilation, groups)
        if dy != expected:
            raise TypeFailure(f"{what}: conv{self.rank}d of {x} and {dw} gives {expected}, not {dy}", inputs=(0, 1))
        return dw

    def body(
        self,
        index: tuple[Dim, ...],
        x: Reader,
        dy: Reader,
        kernel: Ints,
        stride: Setting,
        padding: Setting,
        dilation: Setting,
        groups: int,
    ) -> Expr:
        o, c, *k = index
        geometry = Geometry(self.rank, stride, padding, dilation)
        per_group_in, per_group_out = x.type.shape[1] // groups, dy.type.shape[1] // groups
        channel = c if groups == 1 else (o // per_group_out) * per_group_in + c

        def term(n: Dim, *y: Dim) -> Expr:
            return binary("mul", read_padded(x, (n, channel, *geometry.at(y, tuple(k))), geometry.padding, 0), dy[(n, o, *y)])

        return reduce("add", (dy.type.shape[0], *dy.type.shape[2:]), term)

    def contraction(
        self, x: TensorType, dy: TensorType, kernel: Ints, stride: Setting, padding: Setting, dilation: Setting, groups: int
    ) -> ContractionMap:
        dw = self.infer(x, dy, kernel, stride, padding, dilation, groups)
        axes, o, c, x_channel = channel_axes(dw, groups)
        out, taps = spatial("y", self.rank), spatial("k", self.rank)
        at, tap = tuple(map(var, out)), tuple(map(var, taps))
        places = Geometry(self.rank, stride, padding, dilation).at(at, tap)
        extents = (*axes, *zip(taps, dw.shape[2:], strict=True), ("n", dy.shape[0]), *zip(out, dy.shape[2:], strict=True))
        return ContractionMap(extents, (o, c, *tap), (var("n"), x_channel, *places), (var("n"), o, *at))

    def vjp(self, b: Builder, ddw: Value, dw: Value, x: Value, dy: Value, kernel: Ints, **settings: Any) -> tuple[Value, Value]:
        return input_gradient(b, self.rank, dy, ddw, x.type, **settings), b.apply(f"conv{self.rank}d", x, ddw, **settings)

    def reference(self, x: Array, dy: Array, kernel: Ints, stride: Setting, padding: Setting, dilation: Setting, groups: int) -> Array:
        g = Geometry(self.rank, stride, padding, dilation)
        columns = patches(x, several(kernel, "kernel", self.rank), g.stride, g.padding, g.dilation)
        inner, outer = "ijk"[: self.rank], "zyx"[-self.rank :]
        with np.errstate(invalid="ignore", over="ignore"):
            parts = [
                np.einsum(f"nc{inner}{outer},no{outer}->oc{inner}", part, outputs)
                for part, outputs in zip(per_group(columns, groups, 1), per_group(dy, groups, 1), strict=True)
            ]
        return np.concatenate(parts, 0)


@operator
class Conv1dWeightGrad(_ConvWeightGrad):
    """The gradient of conv1d with respect to its weights: x[N, C, L] and dy[N, O, YL] to dw[O, C / groups, KL]."""

    name = "conv1d_weight_grad"
    rank = 1
    samples = [
        Sample(((2, 3, 7), (2, 4, 5)), {"kernel": (3,)}),
        Sample(((1, 4, 9), (1, 6, 5)), {"kernel": (3,), "groups": 2, "stride": 2, "padding": 1}),
    ]
    errors = [BadSample((f32(2, 3, 5), f32(2, 4, 4)), {"kernel": (3,)}, "gives f32[2, 4, 3]")]


@operator
class Conv2dWeightGrad(_ConvWeightGrad):
    """The gradient of conv2d with respect to its weights: x[N, C, H, W] and dy[N, O, YH, YW] to dw[O, C / groups, KH, KW]."""

    name = "conv2d_weight_grad"
    rank = 2
    samples = [
        Sample(((2, 3, 5, 6), (2, 4, 3, 4)), {"kernel": (3, 3)}),
        Sample(((2, 2, 5, 5), (2, 3, 5, 5)), {"kernel": (3, 3), "padding": 1}),
        Sample(((1, 2, 6, 7), (1, 3, 3, 3)), {"kernel": (3, 2), "stride": 2, "padding": (1, 0)}),
        Sample(((1, 4, 4, 4), (1, 6, 2, 2)), {"kernel": (3, 3), "groups": 2}),
        Sample(((1, 2, 7, 7), (1, 2, 7, 7)), {"kernel": (3, 3), "dilation": 2, "padding": 2}),
        Sample(((2, 20, 3, 4), (2, 20, 3, 4)), {"kernel": (3, 3), "groups": 20, "padding": 1}),
        Sample(((1, 16, 5, 5), (1, 32, 3, 3)), {"kernel": (3, 3), "groups": 16, "stride": 2, "padding": 1}),
        Sample(((1, 16, 3, 4), (1, 16, 3, 4)), {"kernel": (3, 3), "groups": 4, "padding": 1}),
    ]
    errors = [
        BadSample((f32(2, 3, 5, 5), f32(2, 4, 4, 3)), {"kernel": (3, 3)}, "gives f32[2, 4, 3, 3]"),
        BadSample((f32(2, 3, 5, 5), f32(2, 4, 3, 3)), {"kernel": (3, 3), "groups": 2}, "do not divide"),
        BadSample((f32(2, 3, 5), f32(2, 4, 3, 3)), {"kernel": (3, 3)}, "needs [N, C, H, W]"),
    ]


@operator
class Conv3dWeightGrad(_ConvWeightGrad):
    """The gradient of conv3d with respect to its weights: x[N, C, D, H, W] and dy[N, O, YD, YH, YW] to dw[O, C / groups, KD, KH, KW]."""

    name = "conv3d_weight_grad"
    rank = 3
    samples = [
        Sample(((2, 2, 3, 4, 3), (2, 3, 2, 2, 2)), {"kernel": (2, 3, 2)}),
        Sample(((1, 4, 4, 5, 3), (1, 4, 2, 3, 2)), {"kernel": (3, 3, 3), "stride": 2, "padding": 1, "groups": 2}),
    ]
    errors = [BadSample((f32(1, 1, 4, 4, 4), f32(1, 1, 4, 2, 2)), {"kernel": (3, 3, 3)}, "gives f32[1, 1, 2, 2, 2]")]


CONVOLUTIONS: dict[int, _Conv] = {1: Conv1d(), 2: Conv2d(), 3: Conv3d()}
