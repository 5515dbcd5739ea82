"""Two-dimensional convolution and its gradients: three contractions that are each other's gradients, to any order.

With x[N, C, H, W], w[O, C / groups, KH, KW], y[N, O, YH, YW] and h = yh * stride + kh * dilation - padding:
    conv2d              y[n, o, yh, yw]  = sum over c, kh, kw    of  x[n, c, h, w] * w[o, c, kh, kw]
    conv2d_input_grad   dx[n, c, h, w]   = sum over o, kh, kw    of  dy[n, o, yh, yw] * w[o, c, kh, kw]     (stride 1)
    conv2d_weight_grad  dw[o, c, kh, kw] = sum over n, yh, yw    of  x[n, c, h, w] * dy[n, o, yh, yw]
The input gradient of a strided convolution is that of stride 1 over dy with zeros between its elements (`dilate`), which
keeps every index affine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import ContractionMap, Expr, IndexValue, Reader, binary, const, reduce, var
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.windows import Pair, Setting, Sides, both, guarded, image, inside, pair, read_padded, sides, window_extent

Array = np.ndarray[Any, Any]


def _f32(*shape: Dim) -> TensorType:
    return TensorType(DType.F32, shape)


def _check(x: TensorType, w: TensorType, groups: int, what: str) -> None:
    """The rules of an input [N, C, H, W] and weights [O, C / groups, KH, KW]."""
    image(x, what)
    if w.rank != 4:
        raise TypeFailure(f"{what} needs weights [O, C / groups, KH, KW], not {w}", inputs=(1,))
    if not x.dtype.floating or x.dtype != w.dtype:
        raise TypeFailure(f"{what} needs floating-point tensors of one type, not {x} and {w}", inputs=(0, 1))
    _check_groups(w, groups, what)
    if x.shape[1] != w.shape[1] * groups:
        per = "" if groups == 1 else f" in {groups} groups"
        raise TypeFailure(f"{what}: {x} has {x.shape[1]} channels and {w} takes {w.shape[1]}{per}", inputs=(0, 1), axes=(1, 1))


def _check_groups(w: TensorType, groups: int, what: str) -> None:
    if groups < 1:
        raise TypeFailure(f"{what}: groups must be at least 1, not {groups}")
    if isinstance(w.shape[0], int) and w.shape[0] % groups:
        raise TypeFailure(f"{what}: {w.shape[0]} output channels do not divide into {groups} groups", inputs=(1,), axes=(0,))
    for extent in w.shape[2:]:
        if not isinstance(extent, int) or extent < 1:
            raise TypeFailure(f"{what}: the kernel's size must be a fixed number of at least 1, not {extent}", inputs=(1,))


def _kernel(w: TensorType) -> Pair:
    rows, columns = w.shape[2:]
    assert isinstance(rows, int) and isinstance(columns, int)
    return rows, columns


SETTINGS = {
    "stride": Attr("ints", 1, "step between windows: an integer or (rows, columns)"),
    "padding": Attr("ints", 0, "zeros around the image: an integer, (rows, columns) or ((top, bottom), (left, right))"),
    "dilation": Attr("ints", 1, "distance between the kernel's elements: an integer or (rows, columns)"),
    "groups": Attr("int", 1, "channels are split into this many groups that do not mix"),
}


@operator
class Conv2d(Operator):
    """Two-dimensional convolution (cross-correlation): x[N, C, H, W] and w[O, C / groups, KH, KW] to [N, O, YH, YW].

    YH = (H + padding - dilation * (KH - 1) - 1) // stride + 1, and YW likewise.
    """

    family = "convolution"
    onnx = "Conv"
    inputs = ("x", "w")
    attrs = SETTINGS

    def infer(self, x: TensorType, w: TensorType, stride: Setting, padding: Setting, dilation: Setting, groups: int) -> TensorType:
        _check(x, w, groups, "conv2d")
        strides, around, dilations = pair(stride, "stride"), sides(padding), pair(dilation, "dilation")
        rows, columns = (
            window_extent(x.shape[2 + i], _kernel(w)[i], strides[i], around[i], dilations[i], f"conv2d of {x} and {w}") for i in (0, 1)
        )
        return TensorType(x.dtype, (x.shape[0], w.shape[0], rows, columns))

    def body(self, index: tuple[Dim, ...], x: Reader, w: Reader, stride: Setting, padding: Setting, dilation: Setting, groups: int) -> Expr:
        n, o, yh, yw = index
        strides, around, dilations = pair(stride, "stride"), sides(padding), pair(dilation, "dilation")
        per_group_in, per_group_out = w.type.shape[1], w.type.shape[0] // groups

        def term(c: Dim, kh: Dim, kw: Dim) -> Expr:
            channel = c if groups == 1 else (o // per_group_out) * per_group_in + c
            h = yh * strides[0] + kh * dilations[0] - around[0][0]
            v = yw * strides[1] + kw * dilations[1] - around[1][0]
            return binary("mul", read_padded(x, (n, channel, h, v), around, 0), w[o, c, kh, kw])

        return reduce("add", (per_group_in, *w.type.shape[2:]), term)

    def contraction(
        self, x: TensorType, w: TensorType, stride: Setting, padding: Setting, dilation: Setting, groups: int
    ) -> ContractionMap:
        y = self.infer(x, w, stride, padding, dilation, groups)
        strides, around, dilations = pair(stride, "stride"), sides(padding), pair(dilation, "dilation")
        axes, o, c, x_channel = _channel_axes(w, groups)
        extents = (("n", y.shape[0]), *axes[:-1], ("yh", y.shape[2]), ("yw", y.shape[3]), axes[-1], ("kh", w.shape[2]), ("kw", w.shape[3]))
        h = var("yh") * strides[0] + var("kh") * dilations[0] - around[0][0]
        v = var("yw") * strides[1] + var("kw") * dilations[1] - around[1][0]
        return ContractionMap(extents, (var("n"), o, var("yh"), var("yw")), (var("n"), x_channel, h, v), (o, c, var("kh"), var("kw")))

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, w: Value, stride: Setting, padding: Setting, dilation: Setting, groups: int
    ) -> tuple[Value, Value]:
        dx = input_gradient(b, dy, w, x.type, pair(stride, "stride"), sides(padding), dilation, groups)
        dw = b.conv2d_weight_grad(x, dy, kernel=_kernel(w.type), stride=stride, padding=padding, dilation=dilation, groups=groups)
        return dx, dw

    def reference(self, x: Array, w: Array, stride: Setting, padding: Setting, dilation: Setting, groups: int) -> Array:
        strides, around, dilations = pair(stride, "stride"), sides(padding), pair(dilation, "dilation")
        columns = _patches(x, _numpy_kernel(w), strides, around, dilations)  # [N, C, KH, KW, YH, YW]
        parts = []
        with np.errstate(invalid="ignore", over="ignore"):
            for part, weights in zip(np.split(columns, groups, 1), np.split(w, groups, 0), strict=True):
                parts.append(np.einsum("ncijyx,ocij->noyx", part, weights))
        return np.concatenate(parts, 1)

    samples = [
        Sample(((2, 3, 5, 6), (4, 3, 3, 3))),
        Sample(((2, 2, 5, 5), (3, 2, 3, 3)), {"padding": 1}),
        Sample(((1, 2, 6, 7), (3, 2, 3, 2)), {"stride": 2, "padding": (1, 0)}),
        Sample(((2, 4, 5, 5), (6, 2, 3, 3)), {"groups": 2, "padding": 1}),
        Sample(((1, 3, 6, 6), (3, 1, 3, 3)), {"groups": 3, "stride": (2, 1), "padding": ((1, 0), (2, 1))}),
        Sample(((1, 2, 7, 7), (2, 2, 3, 3)), {"dilation": 2, "padding": 2}),
        Sample(((1, 1, 8, 8), (2, 1, 2, 2)), {"stride": 3, "dilation": (1, 2)}),
        Sample(((1, 2, 3, 3), (2, 2, 1, 1)), {"stride": 2}),
    ]
    errors = [
        BadSample((_f32(2, 3, 5, 5), _f32(4, 2, 3, 3)), {}, "has 3 channels"),
        BadSample((_f32(3, 5, 5), _f32(4, 3, 3, 3)), {}, "needs [N, C, H, W]"),
        BadSample((_f32(2, 3, 5, 5), _f32(4, 3, 3)), {}, "needs weights"),
        BadSample((_f32(2, 3, 2, 5), _f32(4, 3, 3, 3)), {}, "does not fit"),
        BadSample((_f32(2, 3, 5, 5), _f32(4, 3, 3, 3)), {"stride": 0}, "stride must be at least 1"),
        BadSample((_f32(2, 3, 5, 5), _f32(4, 3, 3, 3)), {"padding": (1, 2, 3)}, "padding"),
        BadSample((_f32(2, 4, 5, 5), _f32(3, 2, 3, 3)), {"groups": 2}, "do not divide"),
        BadSample((_f32(2, 4, 5, 5), _f32(3, 2, 3, 3)), {"groups": 0}, "groups must be"),
        BadSample((_f32(2, 3, 5, 5), TensorType(DType.F64, (4, 3, 3, 3))), {}, "of one type"),
    ]


def _channel_axes(w: TensorType, groups: int) -> tuple[tuple[tuple[str, Dim], ...], Dim, Dim, Dim]:
    """Axes of the channels (group where there are groups, output, input), and the index of w's o and c and of x's channel."""
    if groups == 1:
        return (("o", w.shape[0]), ("c", w.shape[1])), var("o"), var("c"), var("c")
    per_group_out, per_group_in = w.shape[0] // groups, w.shape[1]
    axes = (("g", groups), ("o", per_group_out), ("c", per_group_in))
    return axes, var("g") * per_group_out + var("o"), var("c"), var("g") * per_group_in + var("c")


def input_gradient(b: Builder, dy: Value, w: Value, x: TensorType, stride: Pair, padding: Sides, dilation: Setting, groups: int) -> Value:
    """The gradient of conv2d with respect to its input of type `x`."""
    dilations, kernel = pair(dilation, "dilation"), _kernel(w.type)
    if stride != (1, 1):
        # Zeros after the last element too, so that the stride-1 gradient gives the input's size back.
        rows, columns = (x.shape[2 + i] + sum(padding[i]) - dilations[i] * (kernel[i] - 1) for i in (0, 1))
        dy = b.dilate(dy, stride=stride, size=(rows, columns))
    value: Value = b.conv2d_input_grad(dy, w, padding=padding, dilation=dilation, groups=groups)
    return value


@operator
class Conv2dInputGrad(Operator):
    """The gradient of a stride-1 conv2d with respect to its input: dy[N, O, YH, YW] and w to dx[N, C, H, W]."""

    name = "conv2d_input_grad"
    family = "convolution"
    internal = True
    inputs = ("dy", "w")
    attrs = {name: SETTINGS[name] for name in ("padding", "dilation", "groups")}

    def infer(self, dy: TensorType, w: TensorType, padding: Setting, dilation: Setting, groups: int) -> TensorType:
        image(dy, "conv2d_input_grad")
        if w.rank != 4 or dy.dtype != w.dtype or not dy.dtype.floating:
            raise TypeFailure(f"conv2d_input_grad of {dy} and {w}", inputs=(0, 1))
        _check_groups(w, groups, "conv2d_input_grad")
        if dy.shape[1] != w.shape[0]:
            raise TypeFailure(f"conv2d_input_grad: {dy} has {dy.shape[1]} channels and {w} makes {w.shape[0]}", inputs=(0, 1), axes=(1, 0))
        around, dilations, kernel = sides(padding), pair(dilation, "dilation"), _kernel(w)
        rows, columns = (dy.shape[2 + i] - sum(around[i]) + dilations[i] * (kernel[i] - 1) for i in (0, 1))
        return TensorType(dy.dtype, (dy.shape[0], w.shape[1] * groups, rows, columns))

    def body(self, index: tuple[Dim, ...], dy: Reader, w: Reader, padding: Setting, dilation: Setting, groups: int) -> Expr:
        n, channel, h, v = index
        around, dilations, kernel = sides(padding), pair(dilation, "dilation"), _kernel(w.type)
        per_group_in, per_group_out = w.type.shape[1], w.type.shape[0] // groups
        # An output index runs over (before, after) elements outside dy.
        reach = tuple((dilations[i] * (kernel[i] - 1) - around[i][0], dilations[i] * (kernel[i] - 1) - around[i][1]) for i in (0, 1))

        def term(o: Dim, kh: Dim, kw: Dim) -> Expr:
            group = channel // per_group_in
            o = o if groups == 1 else group * per_group_out + o
            c = channel if groups == 1 else channel - group * per_group_in
            at = (n, o, h + around[0][0] - kh * dilations[0], v + around[1][0] - kw * dilations[1])
            return binary("mul", read_padded(dy, at, (reach[0], reach[1]), 0), w[o, c, kh, kw])

        return reduce("add", (per_group_out, *w.type.shape[2:]), term)

    def contraction(self, dy: TensorType, w: TensorType, padding: Setting, dilation: Setting, groups: int) -> ContractionMap:
        x = self.infer(dy, w, padding, dilation, groups)
        around, dilations = sides(padding), pair(dilation, "dilation")
        axes, o, c, x_channel = _channel_axes(w, groups)
        *group, out, into = axes
        extents = (("n", x.shape[0]), *group, into, ("h", x.shape[2]), ("w", x.shape[3]), out, ("kh", w.shape[2]), ("kw", w.shape[3]))
        yh = var("h") + around[0][0] - var("kh") * dilations[0]
        yw = var("w") + around[1][0] - var("kw") * dilations[1]
        return ContractionMap(extents, (var("n"), x_channel, var("h"), var("w")), (var("n"), o, yh, yw), (o, c, var("kh"), var("kw")))

    def vjp(
        self, b: Builder, dx: Value, x: Value, dy: Value, w: Value, padding: Setting, dilation: Setting, groups: int
    ) -> tuple[Value, Value]:
        d_dy = b.conv2d(dx, w, padding=padding, dilation=dilation, groups=groups)
        dw = b.conv2d_weight_grad(dx, dy, kernel=_kernel(w.type), padding=padding, dilation=dilation, groups=groups)
        return d_dy, dw

    def reference(self, dy: Array, w: Array, padding: Setting, dilation: Setting, groups: int) -> Array:
        around, dilations, kernel = sides(padding), pair(dilation, "dilation"), _numpy_kernel(w)
        n, _, rows, columns = dy.shape
        spread = [rows + dilations[0] * (kernel[0] - 1), columns + dilations[1] * (kernel[1] - 1)]
        padded = np.zeros((n, w.shape[1] * groups, *spread), dy.dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            for i in range(kernel[0]):
                for j in range(kernel[1]):
                    parts = [
                        np.einsum("noyx,oc->ncyx", part, weights[:, :, i, j])
                        for part, weights in zip(np.split(dy, groups, 1), np.split(w, groups, 0), strict=True)
                    ]
                    at_i, at_j = i * dilations[0], j * dilations[1]
                    padded[:, :, at_i : at_i + rows, at_j : at_j + columns] += np.concatenate(parts, 1)
        (top, bottom), (left, right) = around
        return padded[:, :, top : spread[0] - bottom, left : spread[1] - right]

    samples = [
        Sample(((2, 3, 4, 5), (3, 2, 3, 3))),
        Sample(((1, 3, 5, 5), (3, 2, 3, 3)), {"padding": 1}),
        Sample(((1, 4, 4, 4), (4, 1, 2, 3)), {"groups": 2, "padding": (0, 1)}),
        Sample(((1, 2, 4, 4), (2, 2, 3, 2)), {"dilation": 2, "padding": ((1, 2), (0, 1))}),
        Sample(((1, 2, 5, 5), (2, 2, 1, 1)), {"padding": 1}),
    ]
    errors = [
        BadSample((_f32(2, 3, 5, 5), _f32(4, 2, 3, 3)), {}, "has 3 channels"),
        BadSample((_f32(3, 5, 5), _f32(3, 2, 3, 3)), {}, "needs [N, C, H, W]"),
        BadSample((_f32(2, 3, 5, 5), _f32(3, 2, 3)), {}, "conv2d_input_grad of"),
        BadSample((_f32(2, 3, 5, 5), _f32(3, 2, 3, 3)), {"groups": 2}, "do not divide"),
    ]


@operator
class Conv2dWeightGrad(Operator):
    """The gradient of conv2d with respect to its weights: x[N, C, H, W] and dy[N, O, YH, YW] to dw[O, C / groups, KH, KW]."""

    name = "conv2d_weight_grad"
    family = "convolution"
    internal = True
    inputs = ("x", "dy")
    attrs = {"kernel": Attr("ints", doc="(KH, KW)"), **SETTINGS}

    def infer(
        self, x: TensorType, dy: TensorType, kernel: Pair, stride: Setting, padding: Setting, dilation: Setting, groups: int
    ) -> TensorType:
        image(x, "conv2d_weight_grad")
        if isinstance(x.shape[1], int) and x.shape[1] % groups:
            raise TypeFailure(f"conv2d_weight_grad: {x.shape[1]} channels do not divide into {groups} groups", inputs=(0,), axes=(1,))
        dw = TensorType(x.dtype, (image(dy, "conv2d_weight_grad", 1).shape[1], x.shape[1] // groups, *pair(kernel, "kernel")))
        expected = _CONV.infer(x, dw, stride, padding, dilation, groups)
        if dy != expected:
            raise TypeFailure(f"conv2d_weight_grad: conv2d of {x} and {dw} gives {expected}, not {dy}", inputs=(0, 1))
        return dw

    def body(
        self,
        index: tuple[Dim, ...],
        x: Reader,
        dy: Reader,
        kernel: Pair,
        stride: Setting,
        padding: Setting,
        dilation: Setting,
        groups: int,
    ) -> Expr:
        o, c, kh, kw = index
        strides, around, dilations = pair(stride, "stride"), sides(padding), pair(dilation, "dilation")
        per_group_in, per_group_out = x.type.shape[1] // groups, dy.type.shape[1] // groups
        channel = c if groups == 1 else (o // per_group_out) * per_group_in + c

        def term(n: Dim, yh: Dim, yw: Dim) -> Expr:
            h = yh * strides[0] + kh * dilations[0] - around[0][0]
            v = yw * strides[1] + kw * dilations[1] - around[1][0]
            return binary("mul", read_padded(x, (n, channel, h, v), around, 0), dy[n, o, yh, yw])

        return reduce("add", (dy.type.shape[0], dy.type.shape[2], dy.type.shape[3]), term)

    def contraction(
        self, x: TensorType, dy: TensorType, kernel: Pair, stride: Setting, padding: Setting, dilation: Setting, groups: int
    ) -> ContractionMap:
        dw = self.infer(x, dy, kernel, stride, padding, dilation, groups)
        strides, around, dilations = pair(stride, "stride"), sides(padding), pair(dilation, "dilation")
        axes, o, c, x_channel = _channel_axes(dw, groups)
        extents = (*axes, ("kh", dw.shape[2]), ("kw", dw.shape[3]), ("n", dy.shape[0]), ("yh", dy.shape[2]), ("yw", dy.shape[3]))
        h = var("yh") * strides[0] + var("kh") * dilations[0] - around[0][0]
        v = var("yw") * strides[1] + var("kw") * dilations[1] - around[1][0]
        return ContractionMap(extents, (o, c, var("kh"), var("kw")), (var("n"), x_channel, h, v), (var("n"), o, var("yh"), var("yw")))

    def vjp(
        self,
        b: Builder,
        dw: Value,
        w: Value,
        x: Value,
        dy: Value,
        kernel: Pair,
        stride: Setting,
        padding: Setting,
        dilation: Setting,
        groups: int,
    ) -> tuple[Value, Value]:
        dx = input_gradient(b, dy, dw, x.type, pair(stride, "stride"), sides(padding), dilation, groups)
        return dx, b.conv2d(x, dw, stride=stride, padding=padding, dilation=dilation, groups=groups)

    def reference(self, x: Array, dy: Array, kernel: Pair, stride: Setting, padding: Setting, dilation: Setting, groups: int) -> Array:
        strides, around, dilations = pair(stride, "stride"), sides(padding), pair(dilation, "dilation")
        columns = _patches(x, pair(kernel, "kernel"), strides, around, dilations)
        with np.errstate(invalid="ignore", over="ignore"):
            parts = [
                np.einsum("ncijyx,noyx->ocij", part, outputs)
                for part, outputs in zip(np.split(columns, groups, 1), np.split(dy, groups, 1), strict=True)
            ]
        return np.concatenate(parts, 0)

    samples = [
        Sample(((2, 3, 5, 6), (2, 4, 3, 4)), {"kernel": (3, 3)}),
        Sample(((2, 2, 5, 5), (2, 3, 5, 5)), {"kernel": (3, 3), "padding": 1}),
        Sample(((1, 2, 6, 7), (1, 3, 3, 3)), {"kernel": (3, 2), "stride": 2, "padding": (1, 0)}),
        Sample(((1, 4, 4, 4), (1, 6, 2, 2)), {"kernel": (3, 3), "groups": 2}),
        Sample(((1, 2, 7, 7), (1, 2, 7, 7)), {"kernel": (3, 3), "dilation": 2, "padding": 2}),
    ]
    errors = [
        BadSample((_f32(2, 3, 5, 5), _f32(2, 4, 4, 3)), {"kernel": (3, 3)}, "gives f32[2, 4, 3, 3]"),
        BadSample((_f32(2, 3, 5, 5), _f32(2, 4, 3, 3)), {"kernel": (3, 3), "groups": 2}, "do not divide"),
        BadSample((_f32(2, 3, 5), _f32(2, 4, 3, 3)), {"kernel": (3, 3)}, "needs [N, C, H, W]"),
    ]


_CONV = Conv2d()


@operator
class Dilate(Operator):
    """x[N, C, H, W] with zeros between its rows and columns: element (h, w) goes to (h * stride, w * stride), up to `size`."""

    family = "convolution"
    internal = True
    attrs = {
        "stride": Attr("ints", doc="(rows, columns): the distance of neighbours in the result"),
        "size": Attr("dims", doc="(rows, columns) of the result, zeros after the last element included"),
    }

    def infer(self, x: TensorType, stride: Pair, size: tuple[Dim, Dim]) -> TensorType:
        image(x, "dilate")
        pair(stride, "stride")
        for axis in (0, 1):
            extent, least = x.shape[2 + axis], size[axis]
            if isinstance(extent, int) and isinstance(least, int) and (extent - 1) * stride[axis] >= least:
                raise TypeFailure(
                    f"dilate: {extent} elements at a distance of {stride[axis]} exceed {least}", inputs=(0,), axes=(2 + axis,)
                )
        return x.with_shape((*x.shape[:2], *size))

    def body(self, index: tuple[Dim, ...], x: Reader, stride: Pair, size: tuple[Dim, Dim]) -> Expr:
        n, c, h, w = index
        condition: Expr = const(True, DType.BOOL)
        at = []
        for axis, i in ((0, h), (1, w)):
            extent = x.type.shape[2 + axis]
            at.append(i // stride[axis])
            if stride[axis] > 1:
                condition = both(condition, binary("eq", IndexValue(i % stride[axis]), const(0, DType.I64)))
            if (size[axis] - 1) // stride[axis] + 1 != extent:
                condition = both(condition, inside(at[-1], extent, below=False))
        return guarded(condition, x[n, c, at[0], at[1]], 0)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, stride: Pair, size: tuple[Dim, Dim]) -> tuple[Value]:
        return (b.undilate(dy, stride=stride, size=x.type.shape[2:]),)

    def reference(self, x: Array, stride: Pair, size: tuple[int, int]) -> Array:
        y = np.zeros((*x.shape[:2], *size), x.dtype)
        y[:, :, : x.shape[2] * stride[0] : stride[0], : x.shape[3] * stride[1] : stride[1]][:, :, : x.shape[2], : x.shape[3]] = x
        return y

    samples = [
        Sample(((2, 1, 3, 2),), {"stride": (2, 3), "size": (5, 4)}),
        Sample(((1, 2, 2, 3),), {"stride": (2, 1), "size": (5, 4)}),
    ]
    errors = [
        BadSample((_f32(2, 1, 3, 2),), {"stride": (2, 2), "size": (4, 4)}, "exceed 4"),
        BadSample((_f32(2, 3, 2),), {"stride": (2, 2), "size": (4, 4)}, "needs [N, C, H, W]"),
    ]


@operator
class Undilate(Operator):
    """Every stride-th row and column of x[N, C, H, W], `size` of them: the inverse of `dilate`."""

    family = "convolution"
    internal = True
    attrs = {"stride": Attr("ints", doc="(rows, columns)"), "size": Attr("dims", doc="(rows, columns) of the result")}

    def infer(self, x: TensorType, stride: Pair, size: tuple[Dim, Dim]) -> TensorType:
        image(x, "undilate")
        for axis in (0, 1):
            extent, count = x.shape[2 + axis], size[axis]
            if isinstance(extent, int) and isinstance(count, int) and (count - 1) * stride[axis] >= extent:
                raise TypeFailure(
                    f"undilate: {count} elements at a distance of {stride[axis]} exceed {extent}", inputs=(0,), axes=(2 + axis,)
                )
        return x.with_shape((*x.shape[:2], *size))

    def body(self, index: tuple[Dim, ...], x: Reader, stride: Pair, size: tuple[Dim, Dim]) -> Expr:
        n, c, h, w = index
        return x[n, c, h * stride[0], w * stride[1]]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, stride: Pair, size: tuple[Dim, Dim]) -> tuple[Value]:
        return (b.dilate(dy, stride=stride, size=x.type.shape[2:]),)

    def reference(self, x: Array, stride: Pair, size: tuple[int, int]) -> Array:
        return x[:, :, :: stride[0], :: stride[1]][:, :, : size[0], : size[1]]

    samples = [
        Sample(((2, 1, 5, 4),), {"stride": (2, 3), "size": (3, 2)}),
        Sample(((1, 2, 5, 4),), {"stride": (2, 1), "size": (2, 3)}),
    ]
    errors = [BadSample((_f32(2, 1, 4, 4),), {"stride": (2, 2), "size": (3, 2)}, "exceed 4")]


def _numpy_kernel(w: Array) -> Pair:
    return int(w.shape[2]), int(w.shape[3])


def _patches(x: Array, kernel: Pair, stride: Pair, padding: Sides, dilation: Pair) -> Array:
    """The windows of an image: [N, C, KH, KW, YH, YW]."""
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    spans = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    return windows.transpose(0, 1, 4, 5, 2, 3)
