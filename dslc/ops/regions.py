"""Features of a region: roi_align."""

from __future__ import annotations

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, extent, f32, reshaped

F32, I64 = DType.F32, DType.I64
_BOXES = np.array([[0.71, 0.43, 4.17, 3.39], [1.27, 2.13, 6.91, 4.67], [-2.23, -1.71, 3.47, 1.83], [2.31, 1.13, 2.97, 1.66]])
_IMAGES = np.array([0, 4, 2, 0])


Setting = int | tuple[int, ...]


def _cells(size: Setting) -> tuple[int, int]:
    """Rows and columns."""
    both = (size, size) if isinstance(size, int) else tuple(size)
    if len(both) != 2 or not all(isinstance(n, int) and n >= 1 for n in both):
        raise TypeFailure(f"size is an integer of at least 1 or two of them (rows, columns), not {size}")
    return both[0], both[1]


@operator
class RoiAlign(Operator):
    """Features of boxes: x[N, C, H, W], boxes[K, 4] as corners and the image[K] that each lies in to [K, C, rows, columns].

    A box is cut into `size` cells; each is the mean of `samples` x `samples` points inside it, read by bilinear interpolation. A point
    more than one pixel outside of the image counts as 0, one nearer takes the value at the border. With `aligned` the centres of pixels
    lie at half numbers; else a box has at least the size of a pixel, as in the paper's first code. He et al., "Mask R-CNN" (ICCV 2017).
    """

    onnx = "RoiAlign"
    family = "detection"
    inputs = ("x", "boxes", "image")
    attrs = {
        "size": Attr("ints", doc="cells: an integer or (rows, columns)"),
        "scale": Attr("float", 1.0, "from the boxes' coordinates to those of x"),
        "samples": Attr("int", 2, "points of a cell along each axis"),
        "aligned": Attr("bool", True, "shift by half a pixel"),
    }
    samples = [
        Sample(((5, 2, 5, 7), _BOXES, _IMAGES), {"size": 2}),
        Sample(((5, 2, 5, 7), _BOXES * 2, _IMAGES), {"size": (3, 2), "scale": 0.5, "samples": 1, "aligned": False}),
        Sample(((2, 17, 6, 5), _BOXES, np.array([1, -3, 9, 0], np.int32)), {"size": 3}, gradient=False),
    ]
    errors = [
        BadSample((f32(3, 5, 5), f32(2, 4), TensorType(I64, (2,))), {"size": 2}, "[N, C, H, W]"),
        BadSample((f32(1, 3, 5, 5), f32(2, 5), TensorType(I64, (2,))), {"size": 2}, "boxes [K, 4]"),
        BadSample((f32(1, 3, 5, 5), f32(2, 4), TensorType(I64, (3,))), {"size": 2}, "integers [2]"),
        BadSample((f32(1, 3, 5, 5), f32(2, 4), TensorType(I64, (2,))), {"size": 0}, "at least 1"),
        BadSample((f32(1, 3, 5, 5), f32(2, 4), TensorType(I64, (2,))), {"size": 2, "samples": 0}, "at least 1"),
    ]

    def infer(
        self, x: TensorType, boxes: TensorType, image: TensorType, size: Setting, scale: float, samples: int, aligned: bool
    ) -> TensorType:
        if x.rank != 4 or not x.dtype.floating or 0 in x.shape:
            raise TypeFailure(f"roi_align needs floating-point [N, C, H, W], not {x}", inputs=(0,))
        if boxes.rank != 2 or boxes.shape[1] != 4 or boxes.dtype != x.dtype:
            raise TypeFailure(f"roi_align of {x} needs boxes [K, 4] of its element type, not {boxes}", inputs=(0, 1))
        if image.shape != boxes.shape[:1] or not image.dtype.integer:
            raise TypeFailure(f"roi_align of {boxes.shape[0]} boxes needs integers [{boxes.shape[0]}], not {image}", inputs=(1, 2))
        if samples < 1:
            raise TypeFailure(f"the number of samples is at least 1, not {samples}")
        return x.with_shape((boxes.shape[0], x.shape[1], *_cells(size)))

    def expand(self, b: Builder, x: Value, boxes: Value, image: Value, size: Setting, scale: float, samples: int, aligned: bool) -> Value:
        n, c, h, w = x.type.shape
        k = boxes.type.shape[0]
        rows, columns = _cells(size)
        down, down_weight = self._points(b, boxes, 1, h, rows, scale, samples, aligned)
        along, along_weight = self._points(b, boxes, 0, w, columns, scale, samples, aligned)
        tall, wide = (k, rows, samples, 2, 1, 1, 1), (k, 1, 1, 1, columns, samples, 2)
        last = extent(b, n - 1, I64)
        which = b.maximum(b.minimum(b.cast(image, dtype=I64), last), b.scalar(0, I64))
        line = b.add(b.mul(reshaped(b, which, (k, 1, 1, 1, 1, 1, 1)), extent(b, h, I64)), reshaped(b, down, tall))
        pixel = b.add(b.mul(line, extent(b, w, I64)), reshaped(b, along, wide))
        weight = b.mul(reshaped(b, down_weight, tall), reshaped(b, along_weight, wide))
        pixels = reshaped(b, b.transpose(x, axes=(0, 2, 3, 1)), (n * h * w, c))
        read = b.mul(b.gather(pixels, pixel), reshaped(b, weight, (*weight.type.shape, 1)))
        mean = b.mul(b.sum(read, axis=(2, 3, 5, 6)), b.scalar(1.0 / samples**2, x.type.dtype))
        result: Value = b.transpose(mean, axes=(0, 3, 1, 2))
        return result

    def _points(
        self, b: Builder, boxes: Value, axis: int, pixels: Dim, cells: int, scale: float, samples: int, aligned: bool
    ) -> tuple[Value, Value]:
        """Along one axis for each box and point the two pixels between which it lies, and their weights: [K, cells * samples, 2]."""
        dtype, k = boxes.type.dtype, boxes.type.shape[0]
        zero, one = b.scalar(0.0, dtype), b.scalar(1.0, dtype)

        def side(number: int) -> Value:
            part = b.slice(boxes, starts=(0, number), stops=(k, number + 1), steps=(1, 1))
            scaled: Value = b.mul(part, b.scalar(scale, dtype))
            if aligned:
                scaled = b.sub(scaled, b.scalar(0.5, dtype))
            return scaled

        start, length = side(axis), b.sub(side(axis + 2), side(axis))
        if not aligned:
            length = b.maximum(length, one)
        inside = b.constant(((np.arange(cells * samples) + 0.5) / (cells * samples))[None], dtype)
        at = b.add(start, b.mul(length, inside))
        most = extent(b, pixels - 1, dtype)
        there = b.apply("and", b.ge(at, b.scalar(-1.0, dtype)), b.le(at, b.add(most, one)))
        at = b.minimum(b.maximum(at, zero), most)
        low = b.cast(at, dtype=I64)
        high = b.minimum(b.add(low, b.scalar(1, I64)), extent(b, pixels - 1, I64))
        share = b.sub(at, b.cast(low, dtype=dtype))
        shape = (k, cells * samples, 1)
        both: Value = b.concat(reshaped(b, low, shape), reshaped(b, high, shape), axis=2)
        before = b.where(there, b.sub(one, share), zero)
        after = b.where(there, share, zero)
        weights: Value = b.concat(reshaped(b, before, shape), reshaped(b, after, shape), axis=2)
        return both, weights

    def reference(self, x: Array, boxes: Array, image: Array, size: Setting, scale: float, samples: int, aligned: bool) -> Array:
        rows, columns = _cells(size)
        n, c, h, w = x.shape
        made = np.zeros((len(boxes), c, rows, columns))
        for k, box in enumerate(boxes.astype(np.float64)):
            low, high = box[:2] * scale - 0.5 * aligned, box[2:] * scale - 0.5 * aligned
            extent_ = high - low if aligned else np.maximum(high - low, 1)
            features = x[min(max(int(image[k]), 0), n - 1)].astype(np.float64)
            for i, j in np.ndindex(rows, columns):
                for s, t in np.ndindex(samples, samples):
                    point_x = low[0] + (j + (t + 0.5) / samples) * extent_[0] / columns
                    point_y = low[1] + (i + (s + 0.5) / samples) * extent_[1] / rows
                    if not (-1 <= point_x <= w and -1 <= point_y <= h):
                        continue
                    point_x, point_y = min(max(point_x, 0), w - 1), min(max(point_y, 0), h - 1)
                    left, top = int(point_x), int(point_y)
                    right, bottom = min(left + 1, w - 1), min(top + 1, h - 1)
                    dx, dy = point_x - left, point_y - top
                    upper = (1 - dx) * features[:, top, left] + dx * features[:, top, right]
                    lower = (1 - dx) * features[:, bottom, left] + dx * features[:, bottom, right]
                    made[k, :, i, j] += ((1 - dy) * upper + dy * lower) / samples**2
        return made.astype(x.dtype)
