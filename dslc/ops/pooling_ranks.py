"""Pooling over one and three spatial axes, written with pooling over two: the maximum and the mean of a window are those of its
rows' maxima and means, and the reshapes between are views of images whose channels stand innermost."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.pooling import AVG_POOL, CEIL, MAX_POOL
from dslc.ops.shapes import f32
from dslc.ops.windows import Setting, Sides, image, several, sides

Array = np.ndarray[Any, Any]

WINDOW = {
    "window": Attr("ints", doc="the window's size: an integer or one for each spatial axis"),
    "stride": Attr("ints", None, "step between windows: an integer or one for each spatial axis; the window's size by default"),
    "padding": Attr("ints", 0, "around the image: an integer, one for each spatial axis, or (before, after) for each"),
}
COUNT = Attr("bool", True, "divide by the whole window, not only by its part in the image")


def _windows(array: Array, rank: int, window: Setting, stride: Setting | None, padding: Setting, ceil: bool, fill: float) -> Array:
    """The windows of an image, flat: [N, C, Y..., K]."""
    sizes = several(window, "window", rank)
    steps = sizes if stride is None else several(stride, "stride", rank)
    around = [(before, after + (step - 1 if ceil else 0)) for (before, after), step in zip(sides(padding, rank), steps, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(
        np.pad(array, ((0, 0), (0, 0), *around), constant_values=fill), sizes, axis=tuple(range(2, 2 + rank))
    )
    view = view[(slice(None), slice(None), *(slice(None, None, step) for step in steps))]
    for axis, (step, (before, _)) in enumerate(zip(steps, around, strict=True), 2):  # a window begins in the image or before it
        view = view.take(range(min(view.shape[axis], (array.shape[axis] + before - 1) // step + 1)), axis)
    return view.reshape(*view.shape[: 2 + rank], -1)


class _Pool(Operator):
    """Shared: `rank` spatial axes, by the operator `plane` over two."""

    rank: ClassVar[int]
    plane: ClassVar[str]
    family = "pooling"

    def infer(self, x: TensorType, **settings: Any) -> TensorType:
        image(x, self.name, rank=self.rank)
        pool = MAX_POOL if self.plane == "max_pool2d" else AVG_POOL
        try:
            lead, *rest = x.shape[2:]
            if self.rank == 1:
                return x.with_shape((*x.shape[:2], pool.infer(x.with_shape((*x.shape[:2], 1, lead)), **self._parts(settings)[0]).shape[3]))
            last, first = self._parts(settings)
            rows, columns = pool.infer(x.with_shape((*x.shape[:2], *rest)), **last).shape[2:]
            depth = pool.infer(x.with_shape((*x.shape[:2], lead, 1)), **first).shape[2]
        except TypeFailure as failure:
            raise TypeFailure(failure.message.replace(self.plane, self.name), inputs=failure.inputs, hint=failure.hint) from failure
        return x.with_shape((*x.shape[:2], depth, rows, columns))

    def _parts(self, settings: dict[str, Any]) -> list[dict[str, Any]]:
        """Settings over two axes: with one axis (1, length); with three those of (rows, columns), and those of (depth, 1)."""
        window = several(settings["window"], "window", self.rank)
        stride = window if settings["stride"] is None else several(settings["stride"], "stride", self.rank)
        around: Sides = sides(settings["padding"], self.rank)
        if self.rank == 1:
            return [settings | {"window": (1, *window), "stride": (1, *stride), "padding": ((0, 0), *around)}]
        return [
            settings | {"window": window[1:], "stride": stride[1:], "padding": around[1:]},
            settings | {"window": (window[0], 1), "stride": (stride[0], 1), "padding": (around[0], (0, 0))},
        ]

    def expand(self, b: Builder, x: Value, **settings: Any) -> Value:
        out, parts = self.infer(x.type, **settings).shape, self._parts(settings)
        n, c, *size = x.type.shape
        if self.rank == 1:
            y = b.apply(self.plane, b.reshape(x, shape=(n, c, 1, size[0])), **parts[0])
        else:
            planes = b.reshape(b.transpose(x, axes=(0, 2, 1, 3, 4)), shape=(n * size[0], c, *size[1:]))
            y = b.apply(self.plane, planes, **parts[0])
            y = b.transpose(b.reshape(y, shape=(n, size[0], c, *out[3:])), axes=(0, 2, 1, 3, 4))
            y = b.apply(self.plane, b.reshape(y, shape=(n, c, size[0], out[3] * out[4])), **parts[1])
        value: Value = b.reshape(y, shape=out)
        return value


class _MaxPool(_Pool):
    """Shared by the ranks."""

    plane = "max_pool2d"
    onnx = "MaxPool"
    attrs = {**WINDOW, "ceil_mode": CEIL}

    def reference(self, x: Array, window: Setting, stride: Setting | None, padding: Setting, ceil_mode: bool) -> Array:
        return np.asarray(_windows(x, self.rank, window, stride, padding, ceil_mode, -np.inf).max(-1))


class _AvgPool(_Pool):
    """Shared by the ranks."""

    plane = "avg_pool2d"
    onnx = "AveragePool"
    attrs = {**WINDOW, "count_include_pad": COUNT}

    def reference(self, x: Array, window: Setting, stride: Setting | None, padding: Setting, count_include_pad: bool) -> Array:
        ones = _windows(np.ones_like(x), self.rank, window, stride, padding, False, 1 if count_include_pad else 0)
        return np.asarray(_windows(x, self.rank, window, stride, padding, False, 0).sum(-1) / ones.sum(-1))


@operator
class MaxPool1d(_MaxPool):
    """The maximum of each window of x[N, C, L]. NaN in a window gives NaN. The gradient goes to the first maximum."""

    name = "max_pool1d"
    rank = 1
    samples = [
        Sample(((2, 3, 8),), {"window": 2}),
        Sample(((1, 2, 9),), {"window": 3, "stride": 2, "padding": 1}),
        Sample(((1, 2, 6),), {"window": 3, "stride": 2, "ceil_mode": True}),
        Sample((np.array([[[1.0, np.nan, 3.0, 2.0]]]),), {"window": 2}, gradient=False),
    ]
    errors = [
        BadSample((f32(1, 3, 5, 5),), {"window": 2}, "needs [N, C, L]"),
        BadSample((f32(1, 3, 5),), {"window": 6}, "max_pool1d of"),
    ]


@operator
class AvgPool1d(_AvgPool):
    """The mean of each window of x[N, C, L]. Padding counts as zeros unless `count_include_pad = false`."""

    name = "avg_pool1d"
    rank = 1
    samples = [
        Sample(((2, 3, 8),), {"window": 2}),
        Sample(((1, 2, 9),), {"window": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ]
    errors = [
        BadSample((f32(1, 3, 5, 5),), {"window": 2}, "needs [N, C, L]"),
        BadSample((TensorType(DType.I32, (1, 3, 5)),), {"window": 2}, "floating-point"),
    ]


@operator
class MaxPool3d(_MaxPool):
    """The maximum of each window of x[N, C, D, H, W]. NaN in a window gives NaN. The gradient goes to the first maximum."""

    name = "max_pool3d"
    rank = 3
    samples = [
        Sample(((2, 3, 4, 4, 2),), {"window": 2}),
        Sample(((1, 2, 5, 4, 5),), {"window": 3, "stride": 2, "padding": 1}),
        Sample(((1, 2, 4, 5, 3),), {"window": (1, 3, 2), "stride": (2, 2, 1), "ceil_mode": True}),
    ]
    errors = [
        BadSample((f32(3, 5, 5, 5),), {"window": 2}, "needs [N, C, D, H, W]"),
        BadSample((f32(1, 3, 5, 5, 5),), {"window": (2, 2)}, "a triple"),
        BadSample((f32(1, 3, 5, 5, 5),), {"window": (6, 2, 2)}, "max_pool3d of"),
    ]


@operator
class AvgPool3d(_AvgPool):
    """The mean of each window of x[N, C, D, H, W]. Padding counts as zeros unless `count_include_pad = false`."""

    name = "avg_pool3d"
    rank = 3
    samples = [
        Sample(((2, 3, 4, 4, 2),), {"window": 2}),
        Sample(((1, 2, 5, 4, 5),), {"window": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
        Sample(((1, 2, 5, 4, 5),), {"window": (3, 2, 2), "stride": 2, "padding": (1, 0, 1)}),
    ]
    errors = [
        BadSample((f32(3, 5, 5, 5),), {"window": 2}, "needs [N, C, D, H, W]"),
        BadSample((TensorType(DType.I32, (1, 3, 5, 5, 5)),), {"window": 2}, "floating-point"),
    ]
