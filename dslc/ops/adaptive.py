"""Pooling to a size that is told: bin o of s over n elements holds those from floor(o * n / s) to ceil((o + 1) * n / s) - 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader, binary, const, reduce
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.resampling import Sampling, sampling
from dslc.ops.resize import apply
from dslc.ops.shapes import Array, Index, Shape, check_shape, f32, require
from dslc.ops.windows import both, guarded, image

F32, I64 = DType.F32, DType.I64
SIZE = {"size": Attr("dims", doc="(rows, columns) of the result, or one number for both")}


def _sizes(x: TensorType, size: Shape, what: str) -> Shape:
    """(rows, columns) of the result."""
    image(x, what)
    if len(size) not in (1, 2):
        raise TypeFailure(f"{what}: size is (rows, columns) or one number, not {list(size)}")
    for extent in check_shape(size):
        if extent == 0:
            raise TypeFailure(f"{what}: a size is at least 1, not 0")
    for axis in (2, 3):
        if x.shape[axis] == 0:
            raise TypeFailure(f"{what} of {x}: axis {axis} has no elements", inputs=(0,), axes=(axis,))
    return (size[0], size[-1])


def _pooled(x: TensorType, size: Shape, what: str) -> TensorType:
    return x.with_shape((*x.shape[:2], *_sizes(x, size, what)))


def _equal_windows(x: TensorType, size: Shape) -> tuple[int, int] | None:
    """The bins' size where all are equal."""
    windows = [n // s if isinstance(n, int) and isinstance(s, int) and n % s == 0 else 0 for n, s in zip(x.shape[2:], size, strict=True)]
    return (windows[0], windows[1]) if all(windows) else None


def _bins(n: int, s: int) -> list[range]:
    return [range(o * n // s, -(-(o + 1) * n // s)) for o in range(s)]


@operator
class AdaptiveAvgPool2d(Operator):
    """The means of x[N, C, H, W] over a grid of bins: [N, C, rows, columns]. Bins overlap where sizes do not divide."""

    family = "pooling"
    attrs = SIZE
    samples = [
        Sample(((5, 2, 6, 4),), {"size": (3, 2)}),
        Sample(((5, 2, 5, 7),), {"size": (3, 4)}),
        Sample(((1, 2, 5, 3),), {"size": (1,)}),
        Sample(((1, 1, 3, 20),), {"size": (5, 7)}),
    ]
    errors = [
        BadSample((f32(3, 5, 5),), {"size": (2,)}, "needs [N, C, H, W]"),
        BadSample((f32(1, 3, 5, 5),), {"size": (0,)}, "at least 1"),
        BadSample((f32(1, 3, 5, 5),), {"size": (1, 2, 3)}, "(rows, columns)"),
        BadSample((TensorType(DType.I32, (1, 3, 5, 5)),), {"size": (2,)}, "floating-point"),
    ]

    def infer(self, x: TensorType, size: Shape) -> TensorType:
        require("floating", "adaptive_avg_pool2d", x)
        return _pooled(x, size, "adaptive_avg_pool2d")

    def expand(self, b: Builder, x: Value, size: Shape) -> Value:
        sizes = _sizes(x.type, size, "adaptive_avg_pool2d")
        if sizes == (1, 1):
            value: Value = b.mean(x, axis=(2, 3), keep=True)
            return value
        windows = _equal_windows(x.type, sizes)
        if windows is not None:
            pooled: Value = b.avg_pool2d(x, window=windows)
            return pooled
        return apply(b, x, _means(x.type.shape[2:], sizes))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, size: Shape) -> tuple[Value]:
        return (b.adaptive_avg_pool2d_grad(dy, source=x.type.shape[2:], size=size),)

    def reference(self, x: Array, size: tuple[int, ...]) -> Any:
        return _reference(x, size, np.mean)


def _reference(x: Array, size: tuple[int, ...], fold: Callable[..., Any]) -> Any:
    """What `fold` makes of each bin of a picture."""
    rows, columns = (_bins(n, s) for n, s in zip(x.shape[2:], (size[0], size[-1]), strict=True))
    folded = [[fold(x[:, :, h.start : h.stop, w.start : w.stop], (2, 3)) for w in columns] for h in rows]
    return np.moveaxis(np.array(folded), (0, 1), (2, 3))


def _means(source: Shape, size: Shape) -> list[Sampling]:
    made = []
    for n, s in zip(source, size, strict=True):
        if not isinstance(n, int) or not isinstance(s, int):
            raise TypeFailure("adaptive pooling needs fixed sizes")
        made.append(sampling(n, s, (n, 0, s), ((o, i, 1 / len(bin)) for o, bin in enumerate(_bins(n, s)) for i in bin)))
    return made


@operator
class AdaptiveAvgPool2dGrad(Operator):
    """The gradient of adaptive_avg_pool2d: each pixel sums its share of the bins that hold it."""

    family = "pooling"
    internal = True
    inputs = ("dy",)
    attrs = {"source": Attr("dims", doc="(rows, columns) of the image"), **SIZE}
    samples = [
        Sample(((5, 2, 3, 2),), {"source": (6, 4), "size": (3, 2)}),
        Sample(((5, 2, 4, 3),), {"source": (7, 5), "size": (4, 3)}),
        Sample(((1, 2, 1, 1),), {"source": (5, 3), "size": (1,)}),
    ]
    errors = [BadSample((f32(1, 1, 3, 3),), {"source": (4, 4), "size": (2,)}, "gives f32[1, 1, 2, 2]")]

    def infer(self, dy: TensorType, source: Shape, size: Shape) -> TensorType:
        x = dy.with_shape((*dy.shape[:2], *source))
        made = _pooled(x, size, "adaptive_avg_pool2d")
        if made != dy:
            raise TypeFailure(f"adaptive_avg_pool2d_grad: pooling {x} gives {made}, not {dy}", inputs=(0,))
        return x

    def expand(self, b: Builder, dy: Value, source: Shape, size: Shape) -> Value:
        x = dy.type.with_shape((*dy.type.shape[:2], *source))
        sizes = _sizes(x, size, "adaptive_avg_pool2d")
        windows = _equal_windows(x, sizes)
        if windows is not None:
            spread: Value = b.avg_pool2d_grad(dy, size=source, window=windows)
            return spread
        return apply(b, dy, [how.transposed() for how in _means(source, sizes)])

    def vjp(self, b: Builder, ddx: Value, dx: Value, dy: Value, source: Shape, size: Shape) -> tuple[Value]:
        return (b.adaptive_avg_pool2d(ddx, size=size),)

    def reference(self, dy: Array, source: tuple[int, int], size: tuple[int, ...]) -> Any:
        dx = np.zeros((*dy.shape[:2], *source), dy.dtype)
        for (i, h), (j, w) in _pairs(source, dy.shape[2:]):
            dx[:, :, h.start : h.stop, w.start : w.stop] += dy[:, :, i : i + 1, j : j + 1] / (len(h) * len(w))
        return dx


def _pairs(source: tuple[int, ...], size: tuple[int, ...]) -> list[tuple[tuple[int, range], tuple[int, range]]]:
    """Every bin of a plane: number and extent along both axes."""
    rows, columns = (list(enumerate(_bins(n, s))) for n, s in zip(source, size, strict=True))
    return [(row, column) for row in rows for column in columns]


class _Bins:
    """Where the bins of a plane of fixed size are, in index arithmetic."""

    def __init__(self, x: TensorType, size: Shape):
        self.size = _sizes(x, size, "adaptive_max_pool2d")
        self.source = x.shape[2:]
        windows = []
        for n, s in zip(self.source, self.size, strict=True):
            if not isinstance(n, int) or not isinstance(s, int):
                raise TypeFailure("adaptive pooling needs fixed sizes")
            windows.append(max(map(len, _bins(n, s))))
        self.window = tuple(windows)

    def start(self, axis: int, o: Dim) -> Dim:
        return dims.floor_divide(o * self.source[axis], self.size[axis])

    def stop(self, axis: int, o: Dim) -> Dim:
        return -dims.floor_divide(-(o + 1) * self.source[axis], self.size[axis])

    def element(self, x: Reader, n: Dim, c: Dim, row: Dim, column: Dim, i: Dim, j: Dim, fill: float | int) -> Expr:
        """Place (i, j) of a bin; `fill` where the bin is smaller."""
        at = [self.start(0, row) + i, self.start(1, column) + j]
        condition: Expr = const(True, DType.BOOL)
        for axis, (o, place) in enumerate(((row, at[0]), (column, at[1]))):
            if self.source[axis] % self.size[axis] != 0:
                condition = both(condition, binary("lt", IndexValue(place), IndexValue(self.stop(axis, o))))
        return guarded(condition, x[n, c, at[0], at[1]], fill)

    def winner(self, x: Reader, n: Dim, c: Dim, row: Dim, column: Dim) -> Expr:
        """The place of a bin's maximum as a linear index over the window: the first of equal ones, NaN before all."""
        return reduce("argmax", self.window, lambda i, j: self.element(x, n, c, row, column, i, j, float("-inf")))


@operator
class AdaptiveMaxPool2d(Operator):
    """The maxima of x[N, C, H, W] over a grid of bins: [N, C, rows, columns]. The gradient goes to a bin's first maximum."""

    family = "pooling"
    attrs = SIZE
    samples = [
        Sample(((5, 2, 6, 4),), {"size": (3, 2)}),
        Sample(((5, 2, 5, 7),), {"size": (3, 4)}),
        Sample(((1, 2, 5, 3),), {"size": (1,)}),
        Sample((np.array([[[[1.0, np.nan, 2.0], [3.0, 3.0, -np.inf], [0.0, 1.0, 2.0]]]]),), {"size": (2, 2)}, gradient=False),
    ]
    errors = AdaptiveAvgPool2d.errors

    def infer(self, x: TensorType, size: Shape) -> TensorType:
        require("floating", "adaptive_max_pool2d", x)
        return _pooled(x, size, "adaptive_max_pool2d")

    def expand(self, b: Builder, x: Value, size: Shape) -> Value:
        windows = _equal_windows(x.type, _sizes(x.type, size, "adaptive_max_pool2d"))
        value: Value = b.adaptive_max(x, x, size=size) if windows is None else b.max_pool2d(x, window=windows)
        return value

    def reference(self, x: Array, size: tuple[int, ...]) -> Any:
        return _reference(x, size, np.max)


@operator
class AdaptiveMax(Operator):
    """For each bin of x[N, C, H, W], the element of v[N, C, H, W] where x has its first maximum: [N, C, rows, columns]."""

    family = "pooling"
    internal = True
    inputs = ("x", "v")
    attrs = SIZE
    samples = [
        Sample(((5, 2, 4, 5), (5, 2, 4, 5)), {"size": (3, 2)}),
        Sample(((1, 1, 3, 5), (1, 1, 3, 5)), {"size": (5, 2)}),
    ]
    errors = [BadSample((f32(1, 1, 4, 4), f32(1, 1, 3, 3)), {"size": (2,)}, "of one type")]

    def infer(self, x: TensorType, v: TensorType, size: Shape) -> TensorType:
        if x != v:
            raise TypeFailure(f"adaptive_max needs two tensors of one type, not {x} and {v}", inputs=(0, 1))
        return _pooled(x, size, "adaptive_max_pool2d")

    def body(self, index: Index, x: Reader, v: Reader, size: Shape) -> Expr:
        n, c, row, column = index
        bins = _Bins(x.type, size)
        winner = bins.winner(x, n, c, row, column)

        def term(i: Dim, j: Dim) -> Expr:
            here = binary("eq", winner, IndexValue(i * bins.window[1] + j))
            return guarded(here, bins.element(v, n, c, row, column, i, j, 0), 0)

        return reduce("add", bins.window, term)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, v: Value, size: Shape) -> tuple[Value | None, Value]:
        return None, b.adaptive_max_grad(x, dy, size=size)

    def reference(self, x: Array, v: Array, size: tuple[int, ...]) -> Any:
        y = np.zeros((*x.shape[:2], size[0], size[-1]), v.dtype)
        for (i, h), (j, w) in _pairs(x.shape[2:], (size[0], size[-1])):
            for n, c in np.ndindex(x.shape[:2]):
                y[n, c, i, j] = v[n, c, h.start : h.stop, w.start : w.stop].flat[x[n, c, h.start : h.stop, w.start : w.stop].argmax()]
        return y


@operator
class AdaptiveMaxGrad(Operator):
    """The gradient of adaptive_max by v: each pixel sums the cotangents of the bins of x whose maximum it is."""

    family = "pooling"
    internal = True
    inputs = ("x", "dy")
    attrs = SIZE
    samples = [
        Sample(((5, 2, 4, 5), (5, 2, 3, 2)), {"size": (3, 2)}),
        Sample(((1, 1, 3, 4), (1, 1, 4, 2)), {"size": (4, 2)}),
    ]
    errors = [BadSample((f32(1, 1, 4, 4), f32(1, 1, 2, 3)), {"size": (2,)}, "gives f32[1, 1, 2, 2]")]

    def infer(self, x: TensorType, dy: TensorType, size: Shape) -> TensorType:
        made = _pooled(x, size, "adaptive_max_pool2d")
        if made != dy:
            raise TypeFailure(f"adaptive_max_grad: pooling {x} gives {made}, not {dy}", inputs=(0, 1))
        return x

    def body(self, index: Index, x: Reader, dy: Reader, size: Shape) -> Expr:
        n, c, h, w = index
        bins = _Bins(x.type, size)
        # Bins that hold element h: from floor(h * s / n), and at most so many.
        counts, first = [], []
        for axis, at in enumerate((h, w)):
            source, target = bins.source[axis], bins.size[axis]
            assert isinstance(source, int) and isinstance(target, int)
            counts.append(max(-(-(i + 1) * target // source) - i * target // source for i in range(source)))
            first.append(dims.floor_divide(at * target, source))

        def term(i: Dim, j: Dim) -> Expr:
            row, column = first[0] + i, first[1] + j
            places = (h - bins.start(0, row), w - bins.start(1, column))
            condition: Expr = const(True, DType.BOOL)
            for axis, (o, at, place) in enumerate(((row, h, places[0]), (column, w, places[1]))):
                condition = both(condition, binary("lt", IndexValue(o), IndexValue(bins.size[axis])))
                condition = both(condition, binary("lt", IndexValue(at), IndexValue(bins.stop(axis, o))))
                condition = both(condition, binary("ge", IndexValue(place), const(0, I64)))
            mine = IndexValue(places[0] * bins.window[1] + places[1])
            chosen = guarded(binary("eq", bins.winner(x, n, c, row, column), mine), dy[n, c, row, column], 0)
            return guarded(condition, chosen, 0)

        return reduce("add", tuple(counts), term)

    def vjp(self, b: Builder, ddx: Value, dx: Value, x: Value, dy: Value, size: Shape) -> tuple[Value | None, Value]:
        return None, b.adaptive_max(x, ddx, size=size)

    def reference(self, x: Array, dy: Array, size: tuple[int, ...]) -> Any:
        dx = np.zeros(x.shape, dy.dtype)
        for (i, h), (j, w) in _pairs(x.shape[2:], (size[0], size[-1])):
            for n, c in np.ndindex(x.shape[:2]):
                row, column = divmod(int(x[n, c, h.start : h.stop, w.start : w.stop].argmax()), len(w))
                dx[n, c, h.start + row, w.start + column] += dy[n, c, i, j]
        return dx
