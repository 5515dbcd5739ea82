"""Transposed convolution, which is the gradient of a convolution with respect to its input.

Along one spatial axis of dx the elements h with (h + padding) % stride == r are a *phase*: they meet every (stride / g)-th
kernel element, g = gcd(stride, dilation), and among themselves a phase is a convolution of stride 1 with that part of the
kernel. The contraction has one part for each phase that meets any: nothing is multiplied with zeros between elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import gcd
from typing import Any, ClassVar

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import ContractionMap, Expr, IndexValue, Reader, binary, const, reduce, var
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.convolution import CONVOLUTIONS, SETTINGS, Geometry, channel_axes, check_groups, kernel_of, per_group, spatial
from dslc.ops.shapes import f32
from dslc.ops.windows import Ints, Setting, both, guarded, image, inside, several

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Phase:
    """Elements first, first + stride, ... of an axis, `count` of them; number q meets the kernel elements tap + t * step for
    t < taps, with the windows start + q - t * back."""

    first: int
    count: Dim
    tap: int
    step: int
    taps: int
    start: int
    back: int


def phases(size: Dim, kernel: int, stride: int, before: int, dilation: int) -> list[Phase]:
    """The phases of an axis of `size` elements that meet kernel elements."""
    common = gcd(stride, dilation)
    step, found = stride // common, []
    for first in range(stride):
        tap = next((k for k in range(min(step, kernel)) if (first + before - k * dilation) % stride == 0), None)
        count = (size - first + stride - 1) // stride
        if tap is None or (isinstance(count, int) and count < 1):
            continue
        taps = (kernel - tap + step - 1) // step
        found.append(Phase(first, count, tap, step, taps, (first + before - tap * dilation) // stride, dilation // common))
    return found


class _InputGrad(Operator):
    """Shared by the ranks."""

    rank: ClassVar[int]
    family = "convolution"
    internal = True
    inputs = ("dy", "w")
    attrs = {"size": Attr("dims", doc="the spatial sizes of the result"), **SETTINGS}

    def infer(
        self, dy: TensorType, w: TensorType, size: tuple[Dim, ...], stride: Setting, padding: Setting, dilation: Setting, groups: int
    ) -> TensorType:
        what = f"conv{self.rank}d_input_grad"
        image(dy, what, rank=self.rank)
        if dy.dtype != w.dtype or not dy.dtype.floating:
            raise TypeFailure(f"{what} needs floating-point tensors of one type, not {dy} and {w}", inputs=(0, 1))
        check_groups(w, groups, what, self.rank)
        if dy.shape[1] != w.shape[0]:
            raise TypeFailure(f"{what}: {dy} has {dy.shape[1]} channels and {w} makes {w.shape[0]}", inputs=(0, 1), axes=(1, 0))
        dx = TensorType(dy.dtype, (dy.shape[0], w.shape[1] * groups, *size))
        expected = CONVOLUTIONS[self.rank].infer(dx, w, stride, padding, dilation, groups)
        if dy != expected:
            raise TypeFailure(f"{what}: conv{self.rank}d of {dx} and {w} gives {expected}, not {dy}", inputs=(0, 1))
        return dx

    def body(
        self,
        index: tuple[Dim, ...],
        dy: Reader,
        w: Reader,
        size: tuple[Dim, ...],
        stride: Setting,
        padding: Setting,
        dilation: Setting,
        groups: int,
    ) -> Expr:
        n, channel, *place = index
        geometry, kernel = Geometry(self.rank, stride, padding, dilation), kernel_of(w.type)
        per_group_in, per_group_out = w.type.shape[1], w.type.shape[0] // groups

        def term(o: Dim, *k: Dim) -> Expr:
            group = channel // per_group_in
            o = o if groups == 1 else group * per_group_out + o
            c = channel if groups == 1 else channel - group * per_group_in
            condition: Expr = const(True, DType.BOOL)
            at = []
            for axis in range(self.rank):
                before, step, reach = geometry.padding[axis][0], geometry.stride[axis], geometry.dilation[axis] * (kernel[axis] - 1)
                start = place[axis] + before - k[axis] * geometry.dilation[axis]
                if step > 1:
                    condition = both(condition, binary("eq", IndexValue(start % step), const(0, DType.I64)))
                at.append(start // step)
                extent = dy.type.shape[2 + axis]
                above = (size[axis] - 1 + before) // step
                outside = not (isinstance(above, int) and isinstance(extent, int)) or above >= extent
                condition = both(condition, inside(at[-1], extent, below=reach > before, above=outside))
            return binary("mul", guarded(condition, dy[(n, o, *at)], 0), w[(o, c, *k)])

        return reduce("add", (per_group_out, *w.type.shape[2:]), term)

    def contraction(
        self, dy: TensorType, w: TensorType, size: tuple[Dim, ...], stride: Setting, padding: Setting, dilation: Setting, groups: int
    ) -> tuple[ContractionMap, ...]:
        geometry = Geometry(self.rank, stride, padding, dilation)
        per_axis = [
            phases(size[axis], kernel_of(w)[axis], geometry.stride[axis], geometry.padding[axis][0], geometry.dilation[axis])
            for axis in range(self.rank)
        ]
        axes, o, c, x_channel = channel_axes(w, groups)
        group, (o_axis, c_axis) = axes[:-2], axes[-2:]
        outs, taps = spatial("", self.rank), spatial("k", self.rank)
        maps = []
        for chosen in product(*per_axis):
            q, t = tuple(map(var, outs)), tuple(map(var, taps))
            dx = tuple(p.first + i * s for p, i, s in zip(chosen, q, geometry.stride, strict=True))
            windows = tuple(p.start + i - j * p.back for p, i, j in zip(chosen, q, t, strict=True))
            kernel = tuple(p.tap + j * p.step for p, j in zip(chosen, t, strict=True))
            extents = (
                ("n", dy.shape[0]),
                *group,
                c_axis,
                *((name, p.count) for name, p in zip(outs, chosen, strict=True)),
                o_axis,
                *((name, p.taps) for name, p in zip(taps, chosen, strict=True)),
            )
            maps.append(ContractionMap(extents, (var("n"), x_channel, *dx), (var("n"), o, *windows), (o, c, *kernel)))
        return tuple(maps)

    def vjp(self, b: Builder, ddx: Value, dx: Value, dy: Value, w: Value, size: tuple[Dim, ...], **settings: Any) -> tuple[Value, Value]:
        weights = b.apply(f"conv{self.rank}d_weight_grad", ddx, dy, kernel=kernel_of(w.type), **settings)
        return b.apply(f"conv{self.rank}d", ddx, w, **settings), weights

    def reference(
        self, dy: Array, w: Array, size: tuple[int, ...], stride: Setting, padding: Setting, dilation: Setting, groups: int
    ) -> Array:
        g = Geometry(self.rank, stride, padding, dilation)
        n, windows, kernel, letters = len(dy), dy.shape[2:], w.shape[2:], "zyx"[-self.rank :]
        padded = np.zeros((n, w.shape[1] * groups, *(s + a + b for s, (a, b) in zip(size, g.padding, strict=True))), dy.dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            for k in np.ndindex(*kernel):
                parts = [
                    np.einsum(f"no{letters},oc->nc{letters}", part, weights[(slice(None), slice(None), *k)])
                    for part, weights in zip(per_group(dy, groups, 1), per_group(w, groups, 0), strict=True)
                ]
                starts = [i * d for i, d in zip(k, g.dilation, strict=True)]
                where = tuple(slice(i, i + s * (count - 1) + 1, s) for i, s, count in zip(starts, g.stride, windows, strict=True))
                padded[(slice(None), slice(None), *where)] += np.concatenate(parts, 1)
        inner = tuple(slice(a, a + s) for s, (a, _) in zip(size, g.padding, strict=True))
        return padded[(slice(None), slice(None), *inner)]


@operator
class Conv1dInputGrad(_InputGrad):
    """The gradient of conv1d with respect to its input: dy[N, O, YL] and w to dx[N, C, *size]."""

    name = "conv1d_input_grad"
    rank = 1
    samples = [
        Sample(((2, 3, 5), (3, 2, 3)), {"size": (7,)}),
        Sample(((1, 4, 6), (4, 2, 3)), {"size": (11,), "stride": 2, "padding": 1, "groups": 2}),
    ]
    errors = [BadSample((f32(2, 3, 5), f32(3, 2, 3)), {"size": (8,)}, "gives f32[2, 3, 6]")]


@operator
class Conv2dInputGrad(_InputGrad):
    """The gradient of conv2d with respect to its input: dy[N, O, YH, YW] and w to dx[N, C, *size]."""

    name = "conv2d_input_grad"
    rank = 2
    samples = [
        Sample(((2, 3, 4, 5), (3, 2, 3, 3)), {"size": (6, 7)}),
        Sample(((1, 3, 5, 5), (3, 2, 3, 3)), {"size": (5, 5), "padding": 1}),
        Sample(((1, 4, 4, 4), (4, 1, 2, 3)), {"size": (5, 4), "groups": 2, "padding": (0, 1)}),
        Sample(((1, 2, 4, 4), (2, 2, 3, 2)), {"size": (5, 5), "dilation": 2, "padding": ((1, 2), (0, 1))}),
        Sample(((1, 2, 5, 5), (2, 2, 1, 1)), {"size": (3, 3), "padding": 1}),
        Sample(((1, 3, 3, 4), (3, 2, 3, 3)), {"size": (6, 7), "stride": 2, "padding": 1}),
        Sample(((1, 2, 3, 2), (2, 2, 7, 5)), {"size": (6, 5), "stride": (2, 3), "padding": ((3, 2), (2, 1))}),
        Sample(((1, 2, 3, 3), (2, 2, 2, 1)), {"size": (9, 7), "stride": 3}),
        Sample(((1, 2, 2, 3), (2, 2, 3, 3)), {"size": (7, 10), "stride": 2, "dilation": (2, 3), "padding": (0, 1)}),
        Sample(((1, 32, 2, 2), (32, 1, 3, 3)), {"size": (4, 4), "stride": 2, "padding": 1, "groups": 32}),
    ]
    errors = [
        BadSample((f32(2, 3, 5, 5), f32(4, 2, 3, 3)), {"size": (7, 7)}, "has 3 channels"),
        BadSample((f32(3, 5, 5), f32(3, 2, 3, 3)), {"size": (7, 7)}, "needs [N, C, H, W]"),
        BadSample((f32(2, 3, 5, 5), f32(3, 2, 3)), {"size": (7, 7)}, "needs weights"),
        BadSample((f32(2, 3, 5, 5), f32(3, 2, 3, 3)), {"size": (7, 7), "groups": 2}, "do not divide"),
        BadSample((f32(2, 3, 5, 5), f32(3, 2, 3, 3)), {"size": (7, 9)}, "gives f32[2, 3, 5, 7]"),
        BadSample((f32(2, 3, 5, 5), TensorType(DType.F64, (3, 2, 3, 3))), {"size": (7, 7)}, "of one type"),
    ]


@operator
class Conv3dInputGrad(_InputGrad):
    """The gradient of conv3d with respect to its input: dy[N, O, YD, YH, YW] and w to dx[N, C, *size]."""

    name = "conv3d_input_grad"
    rank = 3
    samples = [
        Sample(((2, 3, 2, 3, 2), (3, 2, 2, 2, 2)), {"size": (3, 4, 3)}),
        Sample(((1, 4, 2, 2, 3), (4, 1, 3, 2, 3)), {"size": (4, 4, 5), "stride": 2, "padding": (1, 0, 1), "groups": 2}),
    ]
    errors = [BadSample((f32(1, 1, 2, 2, 2), f32(1, 1, 3, 3, 3)), {"size": (4, 4, 5)}, "gives f32[1, 1, 2, 2, 3]")]


class _ConvTranspose(Operator):
    """Shared by the ranks."""

    rank: ClassVar[int]
    family = "convolution"
    onnx = "ConvTranspose"
    inputs = ("x", "w")
    attrs = {
        "stride": Attr("ints", 1, "distance of neighbouring input elements in the result: an integer or one for each spatial axis"),
        "padding": Attr(
            "ints", 0, "elements cut off around the result: an integer, one for each spatial axis, or (before, after) for each"
        ),
        "output_padding": Attr(
            "ints", 0, "elements added after each spatial axis of the result: an integer or one for each, below the stride"
        ),
        "dilation": SETTINGS["dilation"],
        "groups": SETTINGS["groups"],
    }

    def infer(
        self,
        x: TensorType,
        w: TensorType,
        stride: Setting,
        padding: Setting,
        output_padding: Setting,
        dilation: Setting,
        groups: int,
    ) -> TensorType:
        what = f"conv_transpose{self.rank}d"
        image(x, what, rank=self.rank)
        if w.rank != self.rank + 2:
            raise TypeFailure(f"{what} needs weights [C, O / groups, K...] with {self.rank} sizes K, not {w}", inputs=(1,))
        if not x.dtype.floating or x.dtype != w.dtype:
            raise TypeFailure(f"{what} needs floating-point tensors of one type, not {x} and {w}", inputs=(0, 1))
        if x.shape[1] != w.shape[0]:
            raise TypeFailure(f"{what}: {x} has {x.shape[1]} channels and {w} takes {w.shape[0]}", inputs=(0, 1), axes=(1, 0))
        if groups >= 1 and isinstance(w.shape[0], int) and w.shape[0] % groups:
            raise TypeFailure(f"{what}: {w.shape[0]} input channels do not divide into {groups} groups", inputs=(1,), axes=(0,))
        check_groups(w, groups, what, self.rank)
        return TensorType(x.dtype, (x.shape[0], w.shape[1] * groups, *self._size(x, w, stride, padding, output_padding, dilation)))

    def _size(
        self, x: TensorType, w: TensorType, stride: Setting, padding: Setting, output_padding: Setting, dilation: Setting
    ) -> tuple[Dim, ...]:
        what = f"conv_transpose{self.rank}d"
        g, more, sizes = Geometry(self.rank, stride, padding, dilation), several(output_padding, "output_padding", self.rank, 0), []
        for axis, kernel in enumerate(kernel_of(w)):
            if more[axis] >= g.stride[axis]:
                raise TypeFailure(f"{what}: output_padding {more[axis]} must be below the stride {g.stride[axis]}")
            size = (x.shape[2 + axis] - 1) * g.stride[axis] + g.dilation[axis] * (kernel - 1) + 1 + more[axis] - sum(g.padding[axis])
            if isinstance(size, int) and size < 1:
                raise TypeFailure(f"{what} of {x} and {w}: padding {g.padding[axis]} leaves nothing of the result", inputs=(0,))
            sizes.append(size)
        return tuple(sizes)

    def expand(
        self, b: Builder, x: Value, w: Value, stride: Setting, padding: Setting, output_padding: Setting, dilation: Setting, groups: int
    ) -> Value:
        size = self._size(x.type, w.type, stride, padding, output_padding, dilation)
        value: Value = b.apply(
            f"conv{self.rank}d_input_grad", x, w, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups
        )
        return value

    def reference(
        self, x: Array, w: Array, stride: Setting, padding: Setting, output_padding: Setting, dilation: Setting, groups: int
    ) -> Array:
        # Another way than the gradient's: zeros between the elements, then a convolution of stride 1 with the kernel turned round.
        g, more = Geometry(self.rank, stride, padding, dilation), several(output_padding, "output_padding", self.rank, 0)
        spread = np.zeros((*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], g.stride, strict=True))), x.dtype)
        spread[(slice(None), slice(None), *(slice(None, None, s) for s in g.stride))] = x
        reach = [d * (k - 1) for d, k in zip(g.dilation, w.shape[2:], strict=True)]
        full = np.pad(spread, ((0, 0), (0, 0), *((r, r + m) for r, m in zip(reach, more, strict=True))))
        flipped = w[(slice(None), slice(None), *(slice(None, None, -1),) * self.rank)]
        turned = np.concatenate([part.swapaxes(0, 1) for part in per_group(flipped, groups, 0)], 0)
        whole = CONVOLUTIONS[self.rank].reference(full, turned, 1, 0, dilation, groups)
        cut = tuple(slice(a, n - b) for n, (a, b) in zip(whole.shape[2:], g.padding, strict=True))
        return np.asarray(whole[(slice(None), slice(None), *cut)])


@operator
class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution: x[N, C, L] and w[C, O / groups, KL] to [N, O, YL].

    YL = (L - 1) * stride + dilation * (KL - 1) + 1 + output_padding - padding: the gradient of conv1d with respect to its input.
    """

    name = "conv_transpose1d"
    rank = 1
    samples = [
        Sample(((2, 3, 4), (3, 2, 3))),
        Sample(((1, 4, 5), (4, 3, 4)), {"stride": 2, "padding": 1, "groups": 2}),
    ]
    errors = [
        BadSample((f32(2, 3, 5), f32(4, 2, 3)), {}, "has 3 channels"),
        BadSample((f32(2, 3, 5, 5), f32(3, 2, 3)), {}, "needs [N, C, L]"),
    ]


@operator
class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution: x[N, C, H, W] and w[C, O / groups, KH, KW] to [N, O, YH, YW].

    YH = (H - 1) * stride + dilation * (KH - 1) + 1 + output_padding - padding, and YW likewise: the gradient of conv2d with
    respect to its input. V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016.
    """

    name = "conv_transpose2d"
    rank = 2
    samples = [
        Sample(((2, 3, 3, 4), (3, 2, 3, 3))),
        Sample(((1, 3, 3, 2), (3, 2, 2, 2)), {"stride": 2}),
        Sample(((1, 2, 3, 3), (2, 2, 3, 3)), {"stride": 2, "padding": 1, "output_padding": 1}),
        Sample(((1, 2, 3, 2), (2, 3, 4, 4)), {"stride": (2, 1), "padding": 1, "output_padding": (1, 0)}),
        Sample(((1, 4, 2, 3), (4, 2, 3, 2)), {"groups": 2, "stride": 3, "dilation": 2}),
        Sample(((1, 2, 2, 2), (2, 1, 1, 2)), {"stride": 3, "output_padding": 2}),
        Sample(((1, 16, 3, 3), (16, 16, 4, 4)), {"stride": 2, "padding": ((1, 1), (0, 2))}),
    ]
    errors = [
        BadSample((f32(2, 3, 5, 5), f32(4, 2, 3, 3)), {}, "has 3 channels"),
        BadSample((f32(3, 5, 5), f32(3, 4, 3, 3)), {}, "needs [N, C, H, W]"),
        BadSample((f32(2, 3, 5, 5), f32(3, 2, 3)), {}, "needs weights"),
        BadSample((f32(2, 3, 5, 5), f32(3, 2, 3, 3)), {"output_padding": 1}, "must be below the stride"),
        BadSample((f32(2, 3, 5, 5), f32(3, 2, 3, 3)), {"groups": 2}, "do not divide"),
        BadSample((f32(2, 3, 1, 5), f32(3, 2, 1, 3)), {"padding": 1}, "leaves nothing"),
        BadSample((f32(2, 3, 5, 5), TensorType(DType.F64, (3, 2, 3, 3))), {}, "of one type"),
    ]


@operator
class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution: x[N, C, D, H, W] and w[C, O / groups, KD, KH, KW] to [N, O, YD, YH, YW].

    YD = (D - 1) * stride + dilation * (KD - 1) + 1 + output_padding - padding, and YH and YW likewise: the gradient of conv3d
    with respect to its input.
    """

    name = "conv_transpose3d"
    rank = 3
    samples = [
        Sample(((2, 3, 2, 2, 3), (3, 1, 2, 2, 2)), {"stride": 2}),
        Sample(((1, 2, 2, 3, 2), (2, 3, 3, 3, 3)), {"padding": 1, "stride": (1, 2, 2), "output_padding": (0, 1, 0)}),
    ]
    errors = [BadSample((f32(2, 3, 5, 5, 5), f32(4, 2, 3, 3, 3)), {}, "has 3 channels")]


@operator
class Dilate(Operator):
    """x[N, C, ...] with zeros between its elements along the spatial axes: element h goes to h * stride, up to `size`."""

    family = "convolution"
    internal = True
    attrs = {
        "stride": Attr("ints", doc="for each spatial axis the distance of neighbours in the result"),
        "size": Attr("dims", doc="the spatial sizes of the result, zeros after the last element included"),
    }

    def infer(self, x: TensorType, stride: Ints, size: tuple[Dim, ...]) -> TensorType:
        _spatial_axes(x, stride, size, "dilate")
        for axis in range(len(size)):
            extent, least = x.shape[2 + axis], size[axis]
            if isinstance(extent, int) and isinstance(least, int) and (extent - 1) * stride[axis] >= least:
                raise TypeFailure(
                    f"dilate: {extent} elements at a distance of {stride[axis]} exceed {least}", inputs=(0,), axes=(2 + axis,)
                )
        return x.with_shape((*x.shape[:2], *size))

    def body(self, index: tuple[Dim, ...], x: Reader, stride: Ints, size: tuple[Dim, ...]) -> Expr:
        condition: Expr = const(True, DType.BOOL)
        at = []
        for axis, i in enumerate(index[2:]):
            extent = x.type.shape[2 + axis]
            at.append(i // stride[axis])
            if stride[axis] > 1:
                condition = both(condition, binary("eq", IndexValue(i % stride[axis]), const(0, DType.I64)))
            if (size[axis] - 1) // stride[axis] + 1 != extent:
                condition = both(condition, inside(at[-1], extent, below=False))
        return guarded(condition, x[(*index[:2], *at)], 0)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, stride: Ints, size: tuple[Dim, ...]) -> tuple[Value]:
        return (b.undilate(dy, stride=stride, size=x.type.shape[2:]),)

    def reference(self, x: Array, stride: Ints, size: tuple[int, ...]) -> Array:
        y = np.zeros((*x.shape[:2], *size), x.dtype)
        y[(slice(None), slice(None), *(slice(None, (n - 1) * s + 1, s) for n, s in zip(x.shape[2:], stride, strict=True)))] = x
        return y

    samples = [
        Sample(((2, 1, 3, 2),), {"stride": (2, 3), "size": (5, 4)}),
        Sample(((1, 2, 2, 3),), {"stride": (2, 1), "size": (5, 4)}),
        Sample(((3, 2, 3),), {"stride": (2,), "size": (6,)}),
    ]
    errors = [
        BadSample((f32(2, 1, 3, 2),), {"stride": (2, 2), "size": (4, 4)}, "exceed 4"),
        BadSample((f32(2, 3, 2),), {"stride": (2, 2), "size": (4, 4)}, "2 spatial axes"),
    ]


def _spatial_axes(x: TensorType, stride: Ints, size: tuple[Dim, ...], what: str) -> None:
    if x.rank != len(size) + 2 or len(stride) != len(size):
        raise TypeFailure(f"{what} needs {len(size)} spatial axes and strides, not {x} and {stride}", inputs=(0,))


@operator
class Undilate(Operator):
    """Every stride-th element of x[N, C, ...] along each spatial axis, `size` of them: the inverse of `dilate`."""

    family = "convolution"
    internal = True
    attrs = {
        "stride": Attr("ints", doc="for each spatial axis the distance of the elements"),
        "size": Attr("dims", doc="the spatial sizes of the result"),
    }

    def infer(self, x: TensorType, stride: Ints, size: tuple[Dim, ...]) -> TensorType:
        _spatial_axes(x, stride, size, "undilate")
        for axis in range(len(size)):
            extent, count = x.shape[2 + axis], size[axis]
            if isinstance(extent, int) and isinstance(count, int) and (count - 1) * stride[axis] >= extent:
                raise TypeFailure(
                    f"undilate: {count} elements at a distance of {stride[axis]} exceed {extent}", inputs=(0,), axes=(2 + axis,)
                )
        return x.with_shape((*x.shape[:2], *size))

    def body(self, index: tuple[Dim, ...], x: Reader, stride: Ints, size: tuple[Dim, ...]) -> Expr:
        return x[(*index[:2], *(i * s for i, s in zip(index[2:], stride, strict=True)))]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, stride: Ints, size: tuple[Dim, ...]) -> tuple[Value]:
        return (b.dilate(dy, stride=stride, size=x.type.shape[2:]),)

    def reference(self, x: Array, stride: Ints, size: tuple[int, ...]) -> Array:
        return x[(slice(None), slice(None), *(slice(None, (n - 1) * s + 1, s) for n, s in zip(size, stride, strict=True)))]

    samples = [
        Sample(((2, 1, 5, 4),), {"stride": (2, 3), "size": (3, 2)}),
        Sample(((1, 2, 5, 4),), {"stride": (2, 1), "size": (2, 3)}),
    ]
    errors = [
        BadSample((f32(2, 1, 4, 4),), {"stride": (2, 2), "size": (3, 2)}, "exceed 4"),
        BadSample((f32(2, 1, 4),), {"stride": (2, 2), "size": (3, 2)}, "2 spatial axes"),
    ]
