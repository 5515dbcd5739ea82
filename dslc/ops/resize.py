"""Images in another size: nearest, bilinear and bicubic, one axis after the other, with PyTorch's conventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.resampling import Form, Sampling, resample_axes, sampling
from dslc.ops.shapes import Array, Shape, check_shape, f32

F32 = DType.F32
MODES = ("nearest", "bilinear", "bicubic")
SHARPNESS = -0.75  # the free number of the cubic kernel, PyTorch's; R. Keys, "Cubic convolution interpolation ...", 1981
_SETTINGS = {
    "size": Attr("dims", None, "the sizes of the spatial axes of the result; one number is for all of them"),
    "scale": Attr("any", None, "instead of size: how many times larger, a number or one an axis; sizes are rounded down"),
    "mode": Attr("str", "nearest", '"nearest", "bilinear" or "bicubic"'),
    "align_corners": Attr("bool", False, "let the centres of the corner pixels meet, not their corners"),
}
Steps = tuple[tuple[int, int], ...]  # each axis: (inputs, outputs) whose quotient is the step between results


def _plan(x: TensorType, size: Shape | None, scale: Any, mode: str, align_corners: bool) -> tuple[Shape, list[Fraction | None]]:
    """Sizes of the spatial axes of the result, and the scale of each where one is given."""
    if x.rank < 3:
        raise TypeFailure(f"resize needs images [N, C, ...] with spatial axes, not {x}", inputs=(0,))
    if mode not in MODES:
        raise TypeFailure(f'resize: the mode is "nearest", "bilinear" or "bicubic", not "{mode}"')
    if not x.dtype.floating and mode != "nearest":
        raise TypeFailure(f"resize needs a floating-point tensor, not {x}", inputs=(0,), hint="convert it with cast[f32](...)")
    if align_corners and mode == "nearest":
        raise TypeFailure('resize: align_corners has no meaning in mode "nearest"')
    if (size is None) == (scale is None):
        raise TypeFailure("resize needs either size or scale")
    axes = x.rank - 2
    given = size if scale is None else scale if isinstance(scale, tuple) else (scale,)
    assert given is not None
    if len(given) not in (1, axes):
        raise TypeFailure(f"resize of {x} takes {axes} numbers, or one for all axes, not {len(given)}")
    given = tuple(given) * (axes if len(given) == 1 else 1)
    if scale is None:
        for extent in check_shape(given):
            if extent == 0:
                raise TypeFailure("resize: a size is at least 1, not 0")
        return given, [None] * axes
    factors: list[Fraction] = []
    for factor in given:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < float("inf"):
            raise TypeFailure(f"resize: a scale is a number above 0, not {factor}")
        factors.append(Fraction(factor).limit_denominator(10_000))
    sizes = tuple(dims.floor_divide(e * f.numerator, f.denominator) for e, f in zip(x.shape[2:], factors, strict=True))
    if any(isinstance(extent, int) and extent < 1 for extent in sizes):
        raise TypeFailure(f"resize of {x}: nothing is left of an axis at scale {scale}", inputs=(0,))
    return sizes, list(factors)


def _samplings(source: Shape, size: Shape, scales: Sequence[Fraction | None], mode: str, align_corners: bool) -> list[Sampling]:
    made = []
    for extent, target, scale in zip(source, size, scales, strict=True):
        if not isinstance(extent, int) or not isinstance(target, int):
            raise TypeFailure("resize needs fixed sizes along its spatial axes")
        made.append(_sampling(extent, target, scale, mode, align_corners))
    return made


def _sampling(source: int, size: int, scale: Fraction | None, mode: str, align_corners: bool) -> Sampling:
    """Which elements each result reads along one axis."""
    ratio = Fraction(source, size) if scale is None else 1 / scale
    a, c = ratio.numerator, ratio.denominator
    if mode == "nearest":
        form: Form = (a, 0, c)
    elif align_corners:
        form = (source - 1, 0, size - 1) if size > 1 else (0, 0, 1)
    else:
        form = (2 * a, a - c, 2 * c)  # (o + 1/2) * a / c - 1/2
    weigh = _KERNELS[mode]
    terms = []
    for o in range(size):
        at, rest = divmod(form[0] * o + form[1], form[2])
        for offset, weight in weigh(rest / form[2]):
            terms.append((o, min(max(at + offset, 0), source - 1), weight))
    return sampling(source, size, form, terms)


def _cubic(t: float) -> list[tuple[int, float]]:
    a = SHARPNESS

    def near(d: float) -> float:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: float) -> float:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [(-1, far(t + 1)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))]


_KERNELS: dict[str, Callable[[float], list[tuple[int, float]]]] = {
    "nearest": lambda t: [(0, 1.0)],
    "bilinear": lambda t: [(0, 1 - t), (1, t)],
    "bicubic": _cubic,
}


def apply(b: Builder, x: Value, samplings: Sequence[Sampling]) -> Value:
    """x resampled along its spatial axes: those that shrink first, so that the others have less to do."""
    order = sorted(range(len(samplings)), key=lambda axis: samplings[axis].size / max(samplings[axis].source, 1))
    moved = {axis + 2: samplings[axis] for axis in order if not samplings[axis].same}
    return resample_axes(b, x, moved)


@operator
class Resize(Operator):
    """Images x[N, C, ...] in another size. "bilinear" and "bicubic" weigh the 2 or 4 nearest elements along each spatial axis.

    Result o stands at (o + 1/2) * step - 1/2 between the elements, where step is the old size over the new one or 1 / scale;
    with align_corners at o * (size - 1) / (new size - 1). "nearest" takes element floor(o * step). At a border the outermost
    element stands for those beyond it. As in PyTorch, but steps are exact fractions.
    """

    onnx = "Resize"
    family = "image"
    attrs = _SETTINGS
    samples = [
        Sample(((5, 2, 3, 4),), {"scale": 2}),
        Sample(((2, 1, 5, 7),), {"size": (3, 10)}),
        Sample(((5, 2, 3, 4),), {"scale": 2, "mode": "bilinear"}),
        Sample(((2, 2, 5, 3),), {"scale": (3, 2), "mode": "bilinear"}),
        Sample(((2, 1, 6, 7),), {"size": (3, 5), "mode": "bilinear"}),
        Sample(((1, 2, 3, 20),), {"size": (5, 37), "mode": "bilinear"}),
        Sample(((1, 1, 3, 4),), {"size": (6, 7), "mode": "bilinear", "align_corners": True}),
        Sample(((1, 1, 4, 3),), {"size": (1, 1), "mode": "bilinear", "align_corners": True}),
        Sample(((2, 1, 4, 5),), {"scale": 2, "mode": "bicubic"}),
        Sample(((1, 2, 6, 5),), {"size": (4, 9), "mode": "bicubic"}),
        Sample(((1, 1, 4, 3),), {"size": (7, 5), "mode": "bicubic", "align_corners": True}),
        Sample(((2, 1, 5, 5),), {"scale": 1.5, "mode": "bilinear"}),
        Sample(((2, 1, 8, 36),), {"scale": 0.5, "mode": "bilinear"}),
        Sample(((2, 1, 7),), {"size": (11,), "mode": "bilinear"}),
        Sample(((1, 1, 2, 3, 2),), {"scale": 2, "mode": "bilinear"}),
        Sample((np.arange(12, dtype=np.uint8).reshape(1, 1, 3, 4),), {"size": (5,)}, gradient=False),
    ]
    errors = [
        BadSample((f32(2, 3),), {"scale": 2}, "spatial axes"),
        BadSample((f32(1, 1, 3, 3),), {}, "either size or scale"),
        BadSample((f32(1, 1, 3, 3),), {"size": (3,), "scale": 2}, "either size or scale"),
        BadSample((f32(1, 1, 3, 3),), {"size": (3, 3, 3)}, "2 numbers"),
        BadSample((f32(1, 1, 3, 3),), {"scale": -1.0}, "above 0"),
        BadSample((f32(1, 1, 3, 3),), {"scale": 0.2}, "nothing is left"),
        BadSample((f32(1, 1, 3, 3),), {"size": (0,)}, "at least 1"),
        BadSample((f32(1, 1, 3, 3),), {"scale": 2, "mode": "linear"}, "bilinear"),
        BadSample((f32(1, 1, 3, 3),), {"scale": 2, "align_corners": True}, "no meaning"),
        BadSample((TensorType(DType.I32, (1, 1, 3, 3)),), {"scale": 2, "mode": "bilinear"}, "floating-point"),
    ]

    def infer(self, x: TensorType, size: Shape | None, scale: Any, mode: str, align_corners: bool) -> TensorType:
        return x.with_shape((*x.shape[:2], *_plan(x, size, scale, mode, align_corners)[0]))

    def expand(self, b: Builder, x: Value, size: Shape | None, scale: Any, mode: str, align_corners: bool) -> Value:
        sizes, scales = _plan(x.type, size, scale, mode, align_corners)
        return apply(b, x, _samplings(x.type.shape[2:], sizes, scales, mode, align_corners))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, **settings: Any) -> tuple[Value]:
        return (b.resize_grad(dy, source=x.type.shape[2:], **settings),)

    def reference(self, x: Array, size: Any, scale: Any, mode: str, align_corners: bool) -> Any:
        for axis, matrix in enumerate(_matrices(x.shape[2:], size, scale, mode, align_corners), 2):
            if mode == "nearest":
                x = np.take(x, matrix.argmax(1), axis)
            else:
                x = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix.T.astype(x.dtype), -1, axis)
        return x


@operator
class ResizeGrad(Operator):
    """The gradient of resize: each element sums the results that read it, in their order, with their weights."""

    family = "image"
    internal = True
    inputs = ("dy",)
    attrs = {"source": Attr("dims", doc="the spatial sizes of x"), **_SETTINGS}
    samples = [
        Sample(((5, 2, 6, 8),), {"source": (3, 4), "scale": 2}),
        Sample(((2, 1, 3, 10),), {"source": (5, 7), "size": (3, 10)}),
        Sample(((5, 2, 6, 8),), {"source": (3, 4), "scale": 2, "mode": "bilinear"}),
        Sample(((2, 1, 3, 5),), {"source": (6, 7), "size": (3, 5), "mode": "bilinear"}),
        Sample(((1, 1, 6, 7),), {"source": (3, 4), "size": (6, 7), "mode": "bilinear", "align_corners": True}),
        Sample(((2, 1, 8, 10),), {"source": (4, 5), "scale": 2, "mode": "bicubic"}),
        Sample(((2, 1, 4, 18),), {"source": (8, 36), "scale": 0.5, "mode": "bilinear"}),
    ]
    errors = [BadSample((f32(1, 1, 3, 3),), {"source": (2, 2), "scale": 2}, "gives f32[1, 1, 4, 4]")]

    def infer(self, dy: TensorType, source: Shape, size: Shape | None, scale: Any, mode: str, align_corners: bool) -> TensorType:
        x = dy.with_shape((*dy.shape[:2], *source))
        made = x.with_shape((*x.shape[:2], *_plan(x, size, scale, mode, align_corners)[0]))
        if made != dy:
            raise TypeFailure(f"resize_grad: resize of {x} gives {made}, not {dy}", inputs=(0,))
        return x

    def expand(self, b: Builder, dy: Value, source: Shape, size: Shape | None, scale: Any, mode: str, align_corners: bool) -> Value:
        sizes, scales = _plan(dy.type.with_shape((*dy.type.shape[:2], *source)), size, scale, mode, align_corners)
        return apply(b, dy, [how.transposed() for how in _samplings(source, sizes, scales, mode, align_corners)])

    def vjp(self, b: Builder, ddx: Value, dx: Value, dy: Value, source: Shape, **settings: Any) -> tuple[Value]:
        return (b.resize(ddx, **settings),)

    def reference(self, dy: Array, source: Any, size: Any, scale: Any, mode: str, align_corners: bool) -> Any:
        for axis, matrix in enumerate(_matrices(source, size, scale, mode, align_corners), 2):
            dy = np.moveaxis(np.moveaxis(dy, axis, -1) @ matrix.astype(dy.dtype), -1, axis)
        return dy


def _matrices(source: Sequence[int], size: Any, scale: Any, mode: str, align_corners: bool) -> list[Array]:
    """For each spatial axis the matrix [new size, old size] that resize multiplies with, from the kernel as a function of distance."""
    count = len(source)
    scales = None if scale is None else scale if isinstance(scale, tuple) else (scale,) * count
    sizes = [int(n * s + 1e-9) for n, s in zip(source, scales, strict=True)] if scales else (tuple(size) * count)[:count]
    radius = {"nearest": 0, "bilinear": 1, "bicubic": 2}[mode]
    made = []
    for axis, (old, new) in enumerate(zip(source, sizes, strict=True)):
        step = old / new if scales is None else 1 / scales[axis]
        matrix = np.zeros((new, old))
        for o in range(new):
            if mode == "nearest":
                matrix[o, min(int(np.floor(o * step + 1e-9)), old - 1)] = 1
                continue
            at = (o * (old - 1) / (new - 1) if new > 1 else 0.0) if align_corners else (o + 0.5) * step - 0.5
            for i in range(int(np.floor(at)) - radius + 1, int(np.floor(at)) + radius + 1):
                d = abs(at - i)
                if mode == "bilinear":
                    weight = max(0.0, 1 - d)
                else:
                    a = SHARPNESS
                    weight = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
                matrix[o, min(max(i, 0), old - 1)] += weight
        made.append(matrix)
    return made
