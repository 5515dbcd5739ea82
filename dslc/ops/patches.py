"""Windows of images as columns and back (unfold, fold), and pixels traded for channels (depth_to_space, space_to_depth)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader, binary, const, reduce
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index, f32, ints, require, reshaped
from dslc.ops.windows import Setting, both, guarded, image, inside, read_padded, sides, window_extent

F32 = DType.F32
Sizes = tuple[Dim, Dim]
_SETTINGS = {
    "window": Attr("ints", doc="the window's size: an integer or (rows, columns)"),
    "stride": Attr("ints", 1, "step between windows: an integer or (rows, columns)"),
    "padding": Attr("ints", 0, "zeros around the image: an integer, (rows, columns) or ((top, bottom), (left, right))"),
    "dilation": Attr("ints", 1, "distance between a window's elements: an integer or (rows, columns)"),
}


def _two(value: Setting, what: str) -> tuple[int, int]:
    """An int for both spatial axes, or (rows, columns)."""
    rows, columns = (value, value) if isinstance(value, int) else value if len(value) == 2 else (0, 0)
    if not (isinstance(rows, int) and isinstance(columns, int) and min(rows, columns) >= 1):
        raise TypeFailure(f"{what} is an integer or a pair (rows, columns) of at least 1, not {value}")
    return rows, columns


class _Grid:
    """The settings of unfold, and where its windows' elements stand in an image of `size`."""

    def __init__(self, size: Sizes, window: Setting, stride: Setting, padding: Setting, dilation: Setting, what: str):
        self.size = size
        self.window, self.stride, self.dilation = _two(window, "window"), _two(stride, "stride"), _two(dilation, "dilation")
        self.padding = sides(padding)
        rows, columns = (
            window_extent(size[i], self.window[i], self.stride[i], self.padding[i], self.dilation[i], f"{what} of {size[0]} x {size[1]}")
            for i in (0, 1)
        )
        self.out = (rows, columns)

    def at(self, axis: int, window: Dim, place: Dim) -> Dim:
        """The pixel of a window's element along one axis."""
        return window * self.stride[axis] + place * self.dilation[axis] - self.padding[axis][0]


@operator
class Unfold(Operator):
    """The windows of x[N, C, H, W] as columns, im2col: [N, C * KH * KW, YH * YW], as in PyTorch.

    Windows stand in row-major order; a column holds its window's elements by channel, row and column.
    """

    family = "movement"
    attrs = _SETTINGS
    samples = [
        Sample(((2, 3, 5, 6),), {"window": 3}),
        Sample(((5, 2, 4, 5),), {"window": (2, 3), "padding": 1}),
        Sample(((2, 1, 7, 6),), {"window": 2, "stride": (2, 1), "dilation": 2, "padding": ((0, 1), (2, 0))}),
        Sample(((1, 2, 4, 4),), {"window": 2, "stride": 2}),
    ]
    errors = [
        BadSample((f32(3, 4, 4),), {"window": 2}, "needs [N, C, H, W]"),
        BadSample((f32(1, 3, 4, 4),), {"window": 5}, "does not fit"),
        BadSample((f32(1, 3, 4, 4),), {"window": 0}, "at least 1"),
        BadSample((f32(1, 3, 4, 4),), {"window": 2, "stride": (1, 2, 3)}, "a pair"),
    ]

    def infer(self, x: TensorType, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> TensorType:
        rows, columns = _grid(x, window, stride, padding, dilation).out
        kernel = _two(window, "window")
        return x.with_shape((x.shape[0], x.shape[1] * (kernel[0] * kernel[1]), rows * columns))

    def expand(self, b: Builder, x: Value, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> Value:
        patches = b.patches(x, window=window, stride=stride, padding=padding, dilation=dilation)
        return reshaped(b, patches, self.infer(x.type, window, stride, padding, dilation).shape)

    def reference(self, x: Array, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> Any:
        return _numpy_patches(x, window, stride, padding, dilation).reshape(self._shape(x, window, stride, padding, dilation))

    def _shape(self, x: Array, *settings: Any) -> tuple[int, ...]:
        return ints(self.infer(f32(*x.shape), *settings).shape)


def _grid(x: TensorType, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> _Grid:
    image(x, "unfold")
    return _Grid((x.shape[2], x.shape[3]), window, stride, padding, dilation, "unfold")


def _numpy_patches(x: Array, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> Array:
    """[N, C, KH, KW, YH, YW], by slices of the padded image."""
    (kh, kw), (sh, sw), (dh, dw) = _two(window, ""), _two(stride, ""), _two(dilation, "")
    padded = np.pad(x, ((0, 0), (0, 0), *sides(padding)))
    height, width = padded.shape[2:]
    rows, columns = (height - dh * (kh - 1) - 1) // sh + 1, (width - dw * (kw - 1) - 1) // sw + 1
    patches = np.zeros((*x.shape[:2], kh, kw, rows, columns), x.dtype)
    for i in range(kh):
        for j in range(kw):
            patches[:, :, i, j] = padded[:, :, i * dh :, j * dw :][:, :, ::sh, ::sw][:, :, :rows, :columns]
    return patches


@operator
class Patches(Operator):
    """The windows of x[N, C, H, W] with an axis for everything: [N, C, KH, KW, YH, YW]."""

    family = "movement"
    internal = True
    attrs = _SETTINGS
    samples = Unfold.samples
    errors = Unfold.errors

    def infer(self, x: TensorType, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> TensorType:
        return x.with_shape((*x.shape[:2], *_two(window, "window"), *_grid(x, window, stride, padding, dilation).out))

    def body(self, index: Index, x: Reader, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> Expr:
        n, c, i, j, row, column = index
        grid = _grid(x.type, window, stride, padding, dilation)
        return read_padded(x, (n, c, grid.at(0, row, i), grid.at(1, column, j)), grid.padding, 0)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, **settings: Any) -> tuple[Value]:
        return (b.overlap_patches(dy, size=x.type.shape[2:], **settings),)

    def reference(self, x: Array, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> Any:
        return _numpy_patches(x, window, stride, padding, dilation)


@operator
class OverlapPatches(Operator):
    """Windows [N, C, KH, KW, YH, YW] added up where they overlap: [N, C, H, W], the adjoint of patches.

    Each pixel sums the window elements that stand on it in their row-major order, so the result does not depend on threads.
    """

    family = "movement"
    internal = True
    attrs = {"size": Attr("dims", doc="(rows, columns) of the image"), **_SETTINGS}
    samples = [
        Sample(((2, 3, 3, 3, 3, 4),), {"size": (5, 6), "window": 3}),
        Sample(((5, 2, 2, 3, 5, 5),), {"size": (4, 5), "window": (2, 3), "padding": 1}),
        Sample(((2, 1, 2, 2, 3, 6),), {"size": (7, 6), "window": 2, "stride": (2, 1), "dilation": 2, "padding": ((0, 1), (2, 0))}),
        Sample(((1, 2, 2, 2, 2, 2),), {"size": (4, 4), "window": 2, "stride": 2}),
        Sample(((1, 1, 5, 5, 4, 4),), {"size": (8, 8), "window": 5, "padding": 2, "stride": 2}),
    ]
    errors = [
        BadSample((f32(2, 3, 3, 3, 3, 4),), {"size": (6, 6), "window": 3}, "4 x 4 windows"),
        BadSample((f32(2, 3, 3),), {"size": (6, 6), "window": 3}, "[N, C, KH, KW, YH, YW]"),
    ]

    def grid(self, p: TensorType, size: Sizes, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> _Grid:
        grid = _Grid(size, window, stride, padding, dilation, "fold")
        if p.rank != 6 or p.shape[2:4] != grid.window:
            raise TypeFailure(f"overlap_patches needs [N, C, KH, KW, YH, YW] of windows {grid.window}, not {p}", inputs=(0,))
        if p.shape[4:] != grid.out:
            raise TypeFailure(f"fold: an image of {size[0]} x {size[1]} has {grid.out[0]} x {grid.out[1]} windows, not {p}", inputs=(0,))
        return grid

    def infer(self, p: TensorType, size: Sizes, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> TensorType:
        require("number", "fold", p)
        self.grid(p, size, window, stride, padding, dilation)
        return p.with_shape((*p.shape[:2], *size))

    def body(self, index: Index, p: Reader, size: Sizes, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> Expr:
        n, c, h, w = index
        grid = self.grid(p.type, size, window, stride, padding, dilation)

        def term(i: Dim, j: Dim) -> Expr:
            condition: Expr = const(True, DType.BOOL)
            at: list[Dim] = []
            for axis, (pixel, place) in enumerate(((h, i), (w, j))):
                start = pixel + grid.padding[axis][0] - place * grid.dilation[axis]
                step = grid.stride[axis]
                at.append(dims.floor_divide(start, step))
                if step > 1:
                    condition = both(condition, binary("eq", IndexValue(start % step), const(0, DType.I64)))
                condition = both(condition, inside(at[-1], grid.out[axis]))
            return guarded(condition, p[n, c, i, j, at[0], at[1]], 0)

        return reduce("add", grid.window, term)

    def vjp(self, b: Builder, dy: Value, y: Value, p: Value, size: Sizes, **settings: Any) -> tuple[Value]:
        return (b.patches(dy, **settings),)

    def reference(self, p: Array, size: tuple[int, int], window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> Any:
        (sh, sw), (dh, dw), ((top, bottom), (left, right)) = _two(stride, ""), _two(dilation, ""), sides(padding)
        rows, columns = p.shape[4:]
        padded = np.zeros((*p.shape[:2], size[0] + top + bottom, size[1] + left + right), p.dtype)
        for i, j, row, column in np.ndindex(*p.shape[2:4], rows, columns):
            padded[:, :, row * sh + i * dh, column * sw + j * dw] += p[:, :, i, j, row, column]
        return padded[:, :, top : top + size[0], left : left + size[1]].copy()


@operator
class Fold(Operator):
    """Columns x[N, C * KH * KW, YH * YW] added up where their windows overlap, col2im: [N, C, H, W]. The adjoint of unfold."""

    onnx = "Col2Im"
    family = "movement"
    attrs = {"size": Attr("dims", doc="(rows, columns) of the image"), **_SETTINGS}
    samples = [
        Sample(((2, 27, 12),), {"size": (5, 6), "window": 3}),
        Sample(((5, 12, 25),), {"size": (4, 5), "window": (2, 3), "padding": 1}),
        Sample(((1, 8, 4),), {"size": (4, 4), "window": 2, "stride": 2}),
    ]
    errors = [
        BadSample((f32(2, 3, 3, 3),), {"size": (6, 6), "window": 3}, "[N, C * KH * KW, YH * YW]"),
        BadSample((f32(2, 5, 16),), {"size": (6, 6), "window": 3}, "multiple of 9"),
        BadSample((f32(2, 9, 15),), {"size": (6, 6), "window": 3}, "16 windows"),
        BadSample((f32(2, 9, 16),), {"size": (6,), "window": 3}, "(rows, columns)"),
    ]

    def parts(self, x: TensorType, size: Sizes, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> TensorType:
        """The type of x with an axis for everything."""
        if x.rank != 3:
            raise TypeFailure(f"fold needs [N, C * KH * KW, YH * YW], not {x}", inputs=(0,))
        if len(size) != 2:
            raise TypeFailure(f"fold: size is (rows, columns), not {size}")
        grid = _Grid(size, window, stride, padding, dilation, "fold")
        taps = grid.window[0] * grid.window[1]
        if not dims.is_known_multiple(x.shape[1], taps):
            raise TypeFailure(f"fold of {x}: axis 1 must be a multiple of {taps}", inputs=(0,), axes=(1,))
        if x.shape[2] != grid.out[0] * grid.out[1]:
            message = f"fold of {x}: an image of {size[0]} x {size[1]} has {grid.out[0] * grid.out[1]} windows"
            raise TypeFailure(message, inputs=(0,), axes=(2,))
        return x.with_shape((x.shape[0], dims.floor_divide(x.shape[1], taps), *grid.window, *grid.out))

    def infer(self, x: TensorType, size: Sizes, window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> TensorType:
        return x.with_shape((*self.parts(x, size, window, stride, padding, dilation).shape[:2], *size))

    def expand(self, b: Builder, x: Value, size: Sizes, **settings: Any) -> Value:
        parts = reshaped(b, x, self.parts(x.type, size, **settings).shape)
        result: Value = b.overlap_patches(parts, size=size, **settings)
        return result

    def reference(self, x: Array, size: tuple[int, int], window: Setting, stride: Setting, padding: Setting, dilation: Setting) -> Any:
        parts = self.parts(f32(*x.shape), size, window, stride, padding, dilation).shape
        return OverlapPatches().reference(x.reshape(ints(parts)), size, window, stride, padding, dilation)


@operator
class DepthToSpace(Operator):
    """Channels become pixels: x[N, C * b * b, H, W] to [N, C, H * b, W * b], also called pixel shuffle.

    In the order "crd" a channel's number is (c, row, column), as in PyTorch; in the order "dcr" it is (row, column, c).
    """

    onnx = "DepthToSpace"
    family = "movement"
    attrs = {"block": Attr("int", doc="b, the size of a block of pixels"), "order": Attr("str", "crd", '"crd" or "dcr"')}
    samples = [
        Sample(((5, 8, 2, 3),), {"block": 2}),
        Sample(((2, 9, 2, 18),), {"block": 3}),
        Sample(((1, 8, 2, 3),), {"block": 2, "order": "dcr"}),
    ]
    errors = [
        BadSample((f32(8, 2, 3),), {"block": 2}, "needs [N, C, H, W]"),
        BadSample((f32(1, 6, 2, 3),), {"block": 2}, "6 channels"),
        BadSample((f32(1, 8, 2, 3),), {"block": 0}, "at least 1"),
        BadSample((f32(1, 8, 2, 3),), {"block": 2, "order": "abc"}, "crd"),
    ]

    def infer(self, x: TensorType, block: int, order: str) -> TensorType:
        _check_block(x, block, order, "depth_to_space")
        n, c, h, w = x.shape
        if not dims.is_known_multiple(c, block * block):
            message = f"depth_to_space of {x}: {c} channels do not divide into {block} * {block}"
            raise TypeFailure(message, inputs=(0,), axes=(1,))
        return x.with_shape((n, dims.floor_divide(c, block * block), h * block, w * block))

    def expand(self, b: Builder, x: Value, block: int, order: str) -> Value:
        n, c, h, w = self.infer(x.type, block, order).shape
        h, w = x.type.shape[2:]
        split = (n, c, block, block, h, w) if order == "crd" else (n, block, block, c, h, w)
        axes = (0, 1, 4, 2, 5, 3) if order == "crd" else (0, 3, 4, 1, 5, 2)
        return reshaped(b, b.transpose(reshaped(b, x, split), axes=axes), self.infer(x.type, block, order).shape)

    def reference(self, x: Array, block: int, order: str) -> Any:
        n, channels, h, w = x.shape
        c = channels // block**2
        result = np.zeros((n, c, h * block, w * block), x.dtype)
        for k, i, j in np.ndindex(c, block, block):
            result[:, k, i::block, j::block] = x[:, (k * block + i) * block + j if order == "crd" else (i * block + j) * c + k]
        return result


@operator
class SpaceToDepth(Operator):
    """Pixels become channels: x[N, C, H * b, W * b] to [N, C * b * b, H, W]; depth_to_space undoes it."""

    onnx = "SpaceToDepth"
    family = "movement"
    attrs = DepthToSpace.attrs
    samples = [
        Sample(((5, 2, 4, 6),), {"block": 2}),
        Sample(((2, 1, 6, 51),), {"block": 3}),
        Sample(((1, 2, 4, 6),), {"block": 2, "order": "dcr"}),
    ]
    errors = [
        BadSample((f32(8, 2, 3),), {"block": 2}, "needs [N, C, H, W]"),
        BadSample((f32(1, 6, 2, 3),), {"block": 2}, "blocks of 2"),
        BadSample((f32(1, 8, 2, 4),), {"block": 0}, "at least 1"),
    ]

    def infer(self, x: TensorType, block: int, order: str) -> TensorType:
        _check_block(x, block, order, "space_to_depth")
        n, c, *sizes = x.shape
        for axis, size in enumerate(sizes, 2):
            if not dims.is_known_multiple(size, block):
                raise TypeFailure(f"space_to_depth of {x}: axis {axis} does not divide into blocks of {block}", inputs=(0,), axes=(axis,))
        return x.with_shape((n, c * (block * block), *(dims.floor_divide(size, block) for size in sizes)))

    def expand(self, b: Builder, x: Value, block: int, order: str) -> Value:
        result = self.infer(x.type, block, order).shape
        n, c = x.type.shape[:2]
        h, w = result[2:]
        axes = (0, 1, 3, 5, 2, 4) if order == "crd" else (0, 3, 5, 1, 2, 4)
        return reshaped(b, b.transpose(reshaped(b, x, (n, c, h, block, w, block)), axes=axes), result)

    def reference(self, x: Array, block: int, order: str) -> Any:
        n, c, h, w = x.shape
        result = np.zeros((n, c * block**2, h // block, w // block), x.dtype)
        for k, i, j in np.ndindex(c, block, block):
            result[:, (k * block + i) * block + j if order == "crd" else (i * block + j) * c + k] = x[:, k, i::block, j::block]
        return result


def _check_block(x: TensorType, block: int, order: str, what: str) -> None:
    image(x, what)
    if block < 1:
        raise TypeFailure(f"{what}: block must be at least 1, not {block}")
    if order not in ("crd", "dcr"):
        raise TypeFailure(f'{what}: order is "crd" or "dcr", not "{order}"')
