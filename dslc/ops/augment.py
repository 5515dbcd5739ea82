"""Random places in images, each by its own draw: crop, rotation, scale.

Augmentations are operators of the program like all others: seeded, the same on every back end, differentiable in the images.
Gradients draw again and move back what was moved: sums in a fixed order, never a scatter. (random_shift and random_flip are in
`random.py`, colours and noise in `colors.py`, holes and mixtures in `mixing.py`.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader, binary, cast, const, reduce, select, unary
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.random import KEY, KEY_TYPES, STREAM, check_key, draw, reference_draw, reference_whole, whole
from dslc.ops.shapes import Array, Index, Shape, check_shape, f32, require, reshaped

F32, F64, I64 = DType.F32, DType.F64, DType.I64


def check_images(what: str, x: TensorType, seed: TensorType, counter: TensorType, floating: bool = True) -> TensorType:
    check_key(seed, counter)
    if x.rank != 4:
        raise TypeFailure(f"{what} needs images [N, C, H, W], not {x}", inputs=(0,))
    if floating:
        require("floating", what, x)
    return x


def _within(at: Expr, size: Dim) -> Expr:
    """0 <= at < size."""
    return binary("and", binary("ge", at, const(0, I64)), binary("lt", at, IndexValue(size)))


class Augmentation(Operator):
    """Base of the operators on images x[N, C, H, W]."""

    family = "augmentation"
    inputs = ("x", "seed", "counter")
    draw = True


# ---- crop ---------------------------------------------------------------------------------------------------------


@operator
class RandomCrop(Augmentation):
    """A part of `size` of each image of x[N, C, H, W], at a place of its own; zeros stand in a border of `padding` pixels."""

    attrs = {
        "size": Attr("dims", doc="(rows, columns) of the part, or one number for both"),
        "padding": Attr("int", 0, "zeros around the image"),
        "stream": STREAM,
    }
    samples = [
        Sample(((5, 2, 4, 6), *KEY), {"size": (3, 4), "stream": 1}),
        Sample(((3, 1, 3, 4), *KEY), {"size": (4,), "padding": 2, "stream": 2}),
        Sample((np.arange(24, dtype=np.uint8).reshape(2, 1, 4, 3), *KEY), {"size": (2,), "stream": 2}, gradient=False),
    ]
    errors = [
        BadSample((f32(3, 4, 4), *KEY_TYPES), {"size": (2,), "stream": 0}, "[N, C, H, W]"),
        BadSample((f32(1, 3, 4, 4), *KEY_TYPES), {"size": (5,), "stream": 0}, "does not hold"),
        BadSample((f32(1, 3, 4, 4), *KEY_TYPES), {"size": (1, 2, 3), "stream": 0}, "(rows, columns)"),
        BadSample((f32(1, 3, 4, 4), *KEY_TYPES), {"size": (2,), "padding": -1, "stream": 0}, "at least 0"),
    ]

    def infer(self, x: TensorType, seed: TensorType, counter: TensorType, size: Shape, padding: int, stream: int) -> TensorType:
        check_images("random_crop", x, seed, counter, floating=False)
        if len(size) not in (1, 2):
            raise TypeFailure(f"random_crop: size is (rows, columns) or one number, not {list(size)}")
        if padding < 0:
            raise TypeFailure(f"random_crop: padding must be at least 0, not {padding}")
        for axis, part in ((2, size[0]), (3, size[-1])):
            room = x.shape[axis] + 2 * padding - check_shape((part,))[0]
            if isinstance(room, int) and room < 0:
                message = f"random_crop: axis {axis} of {x} with padding {padding} does not hold {part}"
                raise TypeFailure(message, inputs=(0,), axes=(axis,))
        return x.with_shape((*x.shape[:2], size[0], size[-1]))

    def expand(self, b: Builder, x: Value, seed: Value, counter: Value, size: Shape, padding: int, stream: int) -> Value:
        for axis, part in ((2, size[0]), (3, size[-1])):
            high = x.type.shape[axis] + padding - part
            x = b.random_move_axis(x, seed, counter, axis=axis, size=part, low=-padding, high=high, stream=stream)
        return x

    def reference(self, x: Array, seed: Array, counter: Array, size: tuple[int, ...], padding: int, stream: int) -> Any:
        rows, columns = size[0], size[-1]
        padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        u = reference_draw(seed, counter, stream, np.arange(2 * len(x)).reshape(-1, 2))
        top = reference_whole(u[:, 0], 0, padded.shape[2] - rows + 1)
        left = reference_whole(u[:, 1], 0, padded.shape[3] - columns + 1)
        parts = [image[:, r : r + rows, c : c + columns] for image, r, c in zip(padded, top, left, strict=True)]
        return np.stack(parts)


@operator
class RandomMoveAxis(Augmentation):
    """Each example read along one of the last two axes from an offset on that is drawn from low to high; zeros outside of it."""

    internal = True
    attrs = {
        "axis": Attr("int", doc="2 or 3"),
        "size": Attr("dim", doc="the size of the result along the axis"),
        "low": Attr("int", doc="the least offset"),
        "high": Attr("dim", doc="the greatest offset"),
        "back": Attr("bool", False, "read from minus the offset on: the gradient"),
        "stream": STREAM,
    }
    samples = [
        Sample(((5, 2, 3, 4), *KEY), {"axis": 2, "size": 2, "low": 0, "high": 1, "stream": 1}),
        Sample(((5, 2, 3, 4), *KEY), {"axis": 3, "size": 6, "low": -2, "high": 0, "back": True, "stream": 1}),
    ]
    errors = [BadSample((f32(3, 4, 4), *KEY_TYPES), {"axis": 2, "size": 2, "low": 0, "high": 1, "stream": 0}, "[N, C, H, W]")]

    def infer(
        self, x: TensorType, seed: TensorType, counter: TensorType, axis: int, size: Dim, low: int, high: Dim, back: bool, stream: int
    ) -> TensorType:
        check_images("random_move_axis", x, seed, counter, floating=False)
        return x.with_shape((*x.shape[:axis], size, *x.shape[axis + 1 :]))

    def body(
        self, index: Index, x: Reader, seed: Reader, counter: Reader, axis: int, size: Dim, low: int, high: Dim, back: bool, stream: int
    ) -> Expr:
        assert isinstance(high, int)
        offset = whole(draw(seed, counter, stream, index[0] * 2 + axis - 2), low, high + 1)
        at = binary("sub" if back else "add", IndexValue(index[axis]), offset)
        return select(_within(at, x.type.shape[axis]), x.at(index, axis, at), const(0, x.type.dtype))

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, seed: Value, counter: Value, axis: int, size: Dim, back: bool, **attrs: Any
    ) -> tuple[Value, None, None]:
        return b.random_move_axis(dy, seed, counter, axis=axis, size=x.type.shape[axis], back=not back, **attrs), None, None

    def reference(self, x: Array, seed: Array, counter: Array, axis: int, size: int, low: int, high: int, back: bool, stream: int) -> Any:
        offsets = reference_whole(reference_draw(seed, counter, stream, np.arange(len(x)) * 2 + axis - 2), low, high + 1)
        y = np.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
        for n, offset in enumerate(-offsets if back else offsets):
            for i in range(max(0, -offset), min(size, x.shape[axis] - offset)):
                y[n].swapaxes(0, axis - 1)[i] = x[n].swapaxes(0, axis - 1)[i + offset]
        return y


# ---- rotation and scale -------------------------------------------------------------------------------------------

_WARP = {
    "degrees": Attr("float", 0.0, "the greatest angle, in both directions"),
    "low": Attr("float", 1.0, "the least scale"),
    "high": Attr("float", 1.0, "the greatest scale"),
    "stream": STREAM,
}
_WARP_ERRORS = [
    BadSample((f32(3, 4, 4), *KEY_TYPES), {"stream": 0}, "[N, C, H, W]"),
    BadSample((TensorType(I64, (1, 3, 4, 4)), *KEY_TYPES), {"stream": 0}, "floating-point"),
    BadSample((f32(1, 3, 4, 4), *KEY_TYPES), {"degrees": -1.0, "stream": 0}, "from 0 to 180"),
    BadSample((f32(1, 3, 4, 4), *KEY_TYPES), {"low": 0.0, "stream": 0}, "scales from"),
    BadSample((f32(1, 3, 4, 4), *KEY_TYPES), {"low": 1.2, "high": 0.9, "stream": 0}, "scales from"),
]


def _check_warp(what: str, x: TensorType, seed: TensorType, counter: TensorType, degrees: float, low: float, high: float) -> TensorType:
    check_images(what, x, seed, counter)
    if not 0 <= degrees <= 180:
        raise TypeFailure(f"{what} turns by an angle from 0 to 180 degrees, not {degrees}")
    if not 0 < low <= high <= 16:
        raise TypeFailure(f"{what}: scales from {low} to {high} are not numbers above 0 and at most 16, in order")
    return x


@operator
class RandomAffine(Augmentation):
    """Each image of x[N, C, H, W] turned and scaled about its centre, by an angle and a scale of its own; zeros where nothing was.

    Pixels between pixels are bilinear.
    """

    attrs = _WARP
    samples = [
        Sample(((5, 2, 4, 5), *KEY), {"degrees": 30.0, "low": 0.8, "high": 1.3, "stream": 1}),
        Sample(((2, 1, 5, 3), *KEY), {"degrees": 180.0, "stream": 2}),
    ]
    errors = _WARP_ERRORS

    def infer(
        self, x: TensorType, seed: TensorType, counter: TensorType, degrees: float, low: float, high: float, stream: int
    ) -> TensorType:
        return _check_warp("random_affine", x, seed, counter, degrees, low, high)

    def expand(self, b: Builder, x: Value, seed: Value, counter: Value, degrees: float, low: float, high: float, stream: int) -> Value:
        n, c, h, w = x.type.shape
        flat = reshaped(b, x, (n, c, h * w))
        y = b.warp(flat, seed, counter, rows=h, columns=w, degrees=degrees, low=low, high=high, stream=stream)
        return reshaped(b, y, x.type.shape)

    def reference(self, x: Array, seed: Array, counter: Array, degrees: float, low: float, high: float, stream: int) -> Any:
        return _reference_warp(x, _reference_maps(x, seed, counter, degrees, low, high, stream))


@operator
class RandomRotate(Augmentation):
    """Each image of x[N, C, H, W] turned about its centre, by an angle of its own up to `degrees`; zeros where nothing was."""

    attrs = {"degrees": Attr("float", doc="the greatest angle, in both directions"), "stream": STREAM}
    samples = [Sample(((5, 1, 4, 5), *KEY), {"degrees": 20.0, "stream": 1})]
    errors = [BadSample((f32(1, 3, 4, 4), *KEY_TYPES), {"degrees": 200.0, "stream": 0}, "from 0 to 180")]

    def infer(self, x: TensorType, seed: TensorType, counter: TensorType, degrees: float, stream: int) -> TensorType:
        return _check_warp("random_rotate", x, seed, counter, degrees, 1.0, 1.0)

    def expand(self, b: Builder, x: Value, seed: Value, counter: Value, degrees: float, stream: int) -> Value:
        value: Value = b.random_affine(x, seed, counter, degrees=degrees, stream=stream)
        return value

    def reference(self, x: Array, seed: Array, counter: Array, degrees: float, stream: int) -> Any:
        return _reference_warp(x, _reference_maps(x, seed, counter, degrees, 1.0, 1.0, stream))


@operator
class RandomScale(Augmentation):
    """Each image of x[N, C, H, W] larger or smaller about its centre, by a factor of its own; its size stays, zeros where nothing was."""

    attrs = {"low": Attr("float", doc="the least scale"), "high": Attr("float", doc="the greatest scale"), "stream": STREAM}
    samples = [Sample(((5, 1, 4, 5), *KEY), {"low": 0.5, "high": 1.5, "stream": 1})]
    errors = [BadSample((f32(1, 3, 4, 4), *KEY_TYPES), {"low": 0.0, "high": 1.0, "stream": 0}, "scales from")]

    def infer(self, x: TensorType, seed: TensorType, counter: TensorType, low: float, high: float, stream: int) -> TensorType:
        return _check_warp("random_scale", x, seed, counter, 0.0, low, high)

    def expand(self, b: Builder, x: Value, seed: Value, counter: Value, low: float, high: float, stream: int) -> Value:
        value: Value = b.random_affine(x, seed, counter, low=low, high=high, stream=stream)
        return value

    def reference(self, x: Array, seed: Array, counter: Array, low: float, high: float, stream: int) -> Any:
        return _reference_warp(x, _reference_maps(x, seed, counter, 0.0, low, high, stream))


class _Warp:
    """The map of one example from pixels of the result to places in the image, as expressions of the images' type."""

    def __init__(
        self, n: Dim, size: Shape, seed: Reader, counter: Reader, degrees: float, low: float, high: float, stream: int, dtype: DType
    ):
        self.dtype, self.size = dtype, size
        u, v = (cast(draw(seed, counter, stream, n * 2 + k), dtype) for k in (0, 1))
        angle = self.times(binary("sub", self.times(u, self.number(2.0)), self.number(1.0)), self.number(math.radians(degrees)))
        self.scale = binary("add", self.times(v, self.number(high - low)), self.number(low))
        self.cos, self.sin = unary("cos", angle), unary("sin", angle)
        self.reach = math.sqrt(2) * high  # results whose places are within 1 of a pixel are within so much of where it goes

    def number(self, value: float) -> Expr:
        return const(value, self.dtype)

    def times(self, x: Expr, y: Expr) -> Expr:
        return binary("mul", x, y)

    def centred(self, axis: int, at: Expr) -> Expr:
        """A row or column counted from the image's centre."""
        half = self.times(cast(IndexValue(self.size[axis] - 1), self.dtype), self.number(0.5))
        return binary("sub", at, half)

    def from_centre(self, axis: int, at: Expr) -> Expr:
        half = self.times(cast(IndexValue(self.size[axis] - 1), self.dtype), self.number(0.5))
        return binary("add", at, half)

    def place(self, row: Expr, column: Expr) -> tuple[Expr, Expr]:
        """Where in the image a pixel of the result comes from."""
        y, x = self.centred(0, row), self.centred(1, column)
        down = binary("div", binary("sub", self.times(self.cos, y), self.times(self.sin, x)), self.scale)
        right = binary("div", binary("add", self.times(self.cos, x), self.times(self.sin, y)), self.scale)
        return self.from_centre(0, down), self.from_centre(1, right)

    def image_of(self, row: Expr, column: Expr) -> tuple[Expr, Expr]:
        """Where in the result a pixel of the image goes."""
        y, x = self.centred(0, row), self.centred(1, column)
        down = self.times(binary("add", self.times(self.cos, y), self.times(self.sin, x)), self.scale)
        right = self.times(binary("sub", self.times(self.cos, x), self.times(self.sin, y)), self.scale)
        return self.from_centre(0, down), self.from_centre(1, right)

    def read(self, x: Reader, index: Index, row: Expr, column: Expr) -> Expr:
        """The pixel at a row and column that are whole numbers; 0 outside of the image."""
        i, j = cast(row, I64), cast(column, I64)
        linear = binary("add", binary("mul", i, IndexValue(self.size[1])), j)
        inside = binary("and", _within(i, self.size[0]), _within(j, self.size[1]))
        return select(inside, x.at((*index[:2], 0), 2, linear), self.number(0.0))


_PLANE = {"rows": Attr("dim", doc="H"), "columns": Attr("dim", doc="W"), **_WARP}


class _Plane(Augmentation):
    """Base of warp and its gradient, which take the pixels of a plane as one axis: x[N, C, H * W]."""

    internal = True
    attrs = _PLANE
    samples = [
        Sample(((5, 2, 20), *KEY), {"rows": 4, "columns": 5, "degrees": 30.0, "low": 0.8, "high": 1.3, "stream": 1}),
        Sample(((2, 1, 15), *KEY), {"rows": 5, "columns": 3, "degrees": 180.0, "stream": 2}),
    ]
    errors = [BadSample((f32(1, 3, 20), *KEY_TYPES), {"rows": 4, "columns": 4, "stream": 0}, "[N, C, 4 * 4]")]

    def infer(
        self,
        x: TensorType,
        seed: TensorType,
        counter: TensorType,
        rows: Dim,
        columns: Dim,
        degrees: float,
        low: float,
        high: float,
        stream: int,
    ) -> TensorType:
        if x.rank != 3 or x.shape[2] != rows * columns:
            raise TypeFailure(f"{self.name} needs [N, C, {rows} * {columns}], not {x}", inputs=(0,))
        _check_warp(self.name, x.with_shape((*x.shape[:2], rows, columns)), seed, counter, degrees, low, high)
        return x

    def maps(
        self, index: Index, x: Reader, seed: Reader, counter: Reader, rows: Dim, columns: Dim, **attrs: Any
    ) -> tuple[_Warp, Expr, Expr]:
        """The example's map, and the row and column of a pixel as numbers."""
        warp = _Warp(index[0], (rows, columns), seed, counter, dtype=x.type.dtype, **attrs)
        at = index[2]
        row, column = at // columns, at % columns
        return warp, cast(IndexValue(row), x.type.dtype), cast(IndexValue(column), x.type.dtype)


@operator
class Warp(_Plane):
    """Each plane of x[N, C, H * W] turned and scaled about its centre, with bilinear pixels."""

    def body(self, index: Index, x: Reader, seed: Reader, counter: Reader, **attrs: Any) -> Expr:
        warp, row, column = self.maps(index, x, seed, counter, **attrs)
        place = warp.place(row, column)
        corner = [unary("floor", p) for p in place]
        rest = [binary("sub", p, c) for p, c in zip(place, corner, strict=True)]
        one = warp.number(1.0)
        total: Expr | None = None
        for i in (0, 1):
            for j in (0, 1):
                weights = [r if k else binary("sub", one, r) for k, r in zip((i, j), rest, strict=True)]
                at = [binary("add", c, one) if k else c for k, c in zip((i, j), corner, strict=True)]
                part = binary("mul", binary("mul", weights[0], weights[1]), warp.read(x, index, at[0], at[1]))
                total = part if total is None else binary("add", total, part)
        assert total is not None
        return total

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, seed: Value, counter: Value, **attrs: Any) -> tuple[Value, None, None]:
        return b.warp_grad(dy, seed, counter, **attrs), None, None

    def reference(self, x: Array, seed: Array, counter: Array, rows: int, columns: int, **attrs: Any) -> Any:
        images = x.reshape(*x.shape[:2], rows, columns)
        return _reference_warp(images, _reference_maps(images, seed, counter, **attrs)).reshape(x.shape)


@operator
class WarpGrad(_Plane):
    """The gradient of warp: each pixel sums the results near where it goes, with the weights with which they read it."""

    inputs = ("dy", "seed", "counter")

    def body(self, index: Index, dy: Reader, seed: Reader, counter: Reader, **attrs: Any) -> Expr:
        warp, row, column = self.maps(index, dy, seed, counter, **attrs)
        reach = warp.number(warp.reach)
        first = [unary("ceil", binary("sub", p, reach)) for p in warp.image_of(row, column)]
        count = int(2 * warp.reach) + 2
        zero, one = warp.number(0.0), warp.number(1.0)

        def term(i: Dim, j: Dim) -> Expr:
            at = [binary("add", f, cast(IndexValue(k), warp.dtype)) for f, k in zip(first, (i, j), strict=True)]
            place = warp.place(at[0], at[1])
            away = [unary("abs", binary("sub", p, q)) for p, q in zip(place, (row, column), strict=True)]
            weights = [binary("max", zero, binary("sub", one, d)) for d in away]
            return binary("mul", binary("mul", weights[0], weights[1]), warp.read(dy, index, at[0], at[1]))

        return reduce("add", (count, count), term)

    def vjp(self, b: Builder, ddx: Value, dx: Value, dy: Value, seed: Value, counter: Value, **attrs: Any) -> tuple[Value, None, None]:
        return b.warp(ddx, seed, counter, **attrs), None, None

    def reference(self, dy: Array, seed: Array, counter: Array, rows: int, columns: int, **attrs: Any) -> Any:
        images = dy.reshape(*dy.shape[:2], rows, columns)
        maps = _reference_maps(images, seed, counter, **attrs)
        return np.einsum("nop,nco->ncp", maps, dy).astype(dy.dtype)


def _reference_maps(x: Array, seed: Array, counter: Array, degrees: float, low: float, high: float, stream: int) -> Array:
    """For each example the matrix [H * W, H * W] that a plane is multiplied with."""
    n, _, rows, columns = x.shape
    maps = np.zeros((n, rows * columns, rows * columns))
    u = reference_draw(seed, counter, stream, np.arange(2 * n)).astype(np.float64).reshape(n, 2)
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2).astype(np.float64)
    centre = np.array([(rows - 1) / 2, (columns - 1) / 2])
    for k in range(n):
        a, s = np.radians(degrees) * (2 * u[k, 0] - 1), low + (high - low) * u[k, 1]
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        places = (grid - centre) @ turn.T / s + centre
        distance = np.abs(places[:, None] - grid[None])
        maps[k] = np.prod(np.maximum(0, 1 - distance), -1)
    return maps


def _reference_warp(x: Array, maps: Array) -> Array:
    planes = x.reshape(*x.shape[:2], -1)
    mixed = np.einsum("nop,ncp->nco", maps, planes)
    return np.asarray(mixed.reshape(x.shape), x.dtype)
