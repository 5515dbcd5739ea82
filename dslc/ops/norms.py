"""Softmax and its logarithm; groups, instances and vectors brought to one scale. Learned scales are in blocks of the .dl library, as
are batch and layer normalisation."""

from __future__ import annotations

import numpy as np

from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, count, normal_axes, normal_axis, require, reshaped

_SAMPLES = [
    Sample(((3, 4),)),
    Sample(((2, 3, 4),), {"axis": 1}),
    Sample(((5,),), {"axis": 0}),
    Sample((np.array([[1000.0, 1001.0, -1000.0], [-3.0, -3.0, -3.0]]),), gradient=False),
    Sample((np.array([[-np.inf, 0.0, 1.0], [np.nan, 0.0, 1.0]]),), gradient=False),
]
_ERRORS = [
    BadSample((TensorType(DType.F32, (2, 3)),), {"axis": 2}, "axis 2"),
    BadSample((TensorType(DType.I32, (2, 3)),), {}, "floating-point"),
    BadSample((TensorType(DType.F32, ()),), {}, "axis -1"),
]
_AXIS = {"axis": Attr("axis", -1, "the axis whose elements sum to 1")}


def _shifted(b: Builder, x: Value, axis: int) -> Value:
    """x minus its maximum along the axis, so that exp cannot overflow."""
    value: Value = b.sub(x, b.stop_gradient(b.max(x, axis=axis, keep=True)))
    return value


@operator
class Softmax(Operator):
    """Normalised exponential along one axis: y = exp(x - max x) / sum exp(x - max x)."""

    family = "softmax"
    onnx = "Softmax"
    attrs = _AXIS
    samples = _SAMPLES
    errors = _ERRORS

    def infer(self, x: TensorType, axis: int) -> TensorType:
        require("floating", "softmax", x)
        normal_axis(axis, x)
        return x

    def expand(self, b: Builder, x: Value, axis: int) -> Value:
        e = b.exp(_shifted(b, x, axis))
        value: Value = b.div(e, b.sum(e, axis=axis, keep=True))
        return value

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: int) -> tuple[Value]:
        return (b.mul(y, b.sub(dy, b.sum(b.mul(dy, y), axis=axis, keep=True))),)

    def reference(self, x: Array, axis: int) -> Array:
        with np.errstate(invalid="ignore"):
            e = np.exp(x - x.max(axis, keepdims=True))
        return np.asarray(e / e.sum(axis, keepdims=True))


@operator
class LogSoftmax(Operator):
    """The logarithm of softmax along one axis: y = z - log sum exp z with z = x - max x."""

    family = "softmax"
    onnx = "LogSoftmax"
    attrs = _AXIS
    samples = _SAMPLES
    errors = _ERRORS

    def infer(self, x: TensorType, axis: int) -> TensorType:
        require("floating", "log_softmax", x)
        normal_axis(axis, x)
        return x

    def expand(self, b: Builder, x: Value, axis: int) -> Value:
        z = _shifted(b, x, axis)
        value: Value = b.sub(z, b.log(b.sum(b.exp(z), axis=axis, keep=True)))
        return value

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: int) -> tuple[Value]:
        return (b.sub(dy, b.mul(b.exp(y), b.sum(dy, axis=axis, keep=True))),)

    def reference(self, x: Array, axis: int) -> Array:
        with np.errstate(invalid="ignore"):
            z = x - x.max(axis, keepdims=True)
            return np.asarray(z - np.log(np.exp(z).sum(axis, keepdims=True)))


_EPS = {"eps": Attr("float", 1e-5, "added to the variance")}


def _groups(b: Builder, x: Value, groups: Dim) -> Value:
    """x[N, C, ...] as [N, groups, size]: the batch stays an axis, so that one kernel goes through an example while it is in the cache."""
    size = dims.divide_exactly(x.type.shape[1], groups) * count(x.type, tuple(range(2, x.type.rank)))
    return reshaped(b, x, (x.type.shape[0], groups, size))


def _centred(b: Builder, cut: Value, eps: float) -> tuple[Value, Value]:
    """Deviations from the mean of each group, and 1 / sqrt(variance + eps). The mean of squared deviations does not cancel."""
    d = b.sub(cut, b.mean(cut, axis=2, keep=True))
    variance = b.mean(b.mul(d, d), axis=2, keep=True)
    return d, b.rsqrt(b.add(variance, b.scalar(eps, cut.type.dtype)))


def _standard_groups(b: Builder, x: Value, groups: Dim, eps: float) -> Value:
    d, scale = _centred(b, _groups(b, x, groups), eps)
    return reshaped(b, b.mul(d, scale), x.type.shape)


def _standard_slope(b: Builder, dy: Value, y: Value, x: Value, groups: Dim, eps: float) -> Value:
    """dx = scale * (dy - mean(dy) - y mean(dy y)): what moves the mean or the variance of a group has no effect."""
    _, scale = _centred(b, _groups(b, x, groups), eps)
    dy, y = _groups(b, dy, groups), _groups(b, y, groups)
    centred = b.sub(dy, b.mean(dy, axis=2, keep=True))
    slope = b.mul(scale, b.sub(centred, b.mul(y, b.mean(b.mul(dy, y), axis=2, keep=True))))
    return reshaped(b, slope, x.type.shape)


def _standard_reference(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    deviation = x - x.mean(axes, keepdims=True)
    return np.asarray(deviation / np.sqrt(x.var(axes, keepdims=True) + x.dtype.type(eps)))


@operator
class GroupNorm(Operator):
    """Each group of channels of x[N, C, ...] minus its mean, over its deviation sqrt(variance + eps), in each example by itself.

    Y. Wu, K. He, "Group normalization", 2018. The block GroupNorm adds a scale and a bias for each channel.
    """

    family = "norm"
    onnx = "GroupNormalization"
    attrs = {"groups": Attr("int", doc="how many groups of C / groups channels in a row"), **_EPS}
    samples = [
        Sample(((5, 4, 3, 2),), {"groups": 2}),
        Sample(((5, 4),), {"groups": 1}),
        Sample(((2, 6, 3),), {"groups": 3, "eps": 0.1}),
        Sample((np.full((2, 4, 3), 1e4),), {"groups": 2}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(DType.F32, (2, 3, 4)),), {"groups": 2}, "2 groups"),
        BadSample((TensorType(DType.F32, (2, 3, 4)),), {"groups": 0}, "at least one group"),
        BadSample((TensorType(DType.F32, (3,)),), {"groups": 1}, "[N, C, ...]"),
        BadSample((TensorType(DType.I32, (2, 4)),), {"groups": 2}, "floating-point"),
    ]

    def infer(self, x: TensorType, groups: int, eps: float) -> TensorType:
        require("floating", "group_norm", x)
        if x.rank < 2:
            raise TypeFailure(f"group_norm needs a tensor [N, C, ...], not {x}", inputs=(0,))
        if groups < 1:
            raise TypeFailure(f"group_norm needs at least one group, not {groups}")
        if not dims.is_known_multiple(x.shape[1], groups):
            raise TypeFailure(f"cannot cut the channels of {x} into {groups} groups: axis 1 is {x.shape[1]}", inputs=(0,), axes=(1,))
        return x

    def expand(self, b: Builder, x: Value, groups: int, eps: float) -> Value:
        return _standard_groups(b, x, groups, eps)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, groups: int, eps: float) -> tuple[Value]:
        return (_standard_slope(b, dy, y, x, groups, eps),)

    def reference(self, x: Array, groups: int, eps: float) -> Array:
        parts = np.split(x, groups, axis=1)
        return np.concatenate([_standard_reference(p, tuple(range(1, x.ndim)), eps) for p in parts], axis=1)


@operator
class InstanceNorm(Operator):
    """Each channel of each example of x[N, C, ...] minus its mean, over its deviation sqrt(variance + eps).

    D. Ulyanov et al., "Instance normalization", 2016. The block InstanceNorm can add a scale and a bias for each channel.
    """

    family = "norm"
    onnx = "InstanceNormalization"
    attrs = _EPS
    samples = [Sample(((5, 2, 3, 2),)), Sample(((2, 3, 4),), {"eps": 0.1}), Sample((np.full((2, 3, 4), 1e4),), gradient=False)]
    errors = [
        BadSample((TensorType(DType.F32, (2, 3)),), {}, "[N, C, ...]"),
        BadSample((TensorType(DType.I32, (2, 4, 3)),), {}, "floating-point"),
    ]

    def infer(self, x: TensorType, eps: float) -> TensorType:
        require("floating", "instance_norm", x)
        if x.rank < 3:
            raise TypeFailure(f"instance_norm needs a tensor [N, C, ...] with spatial axes, not {x}", inputs=(0,))
        return x

    def expand(self, b: Builder, x: Value, eps: float) -> Value:
        return _standard_groups(b, x, x.type.shape[1], eps)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, eps: float) -> tuple[Value]:
        return (_standard_slope(b, dy, y, x, x.type.shape[1], eps),)

    def reference(self, x: Array, eps: float) -> Array:
        return _standard_reference(x, tuple(range(2, x.ndim)), eps)


@operator
class RmsNorm(Operator):
    """x over its root mean square sqrt(mean(x * x) + eps) along axes. B. Zhang, R. Sennrich, 2019. The block RMSNorm adds a scale."""

    family = "norm"
    onnx = "RMSNormalization"
    attrs = {"axis": Attr("axes", -1, "the axes of each vector"), "eps": Attr("float", 1e-6, "added to the mean square")}
    samples = [Sample(((5, 4),)), Sample(((5, 3, 2),), {"axis": (1, 2)}), Sample((np.zeros((2, 3)),), {"eps": 1e-2}, gradient=False)]
    errors = [
        BadSample((TensorType(DType.F32, (2, 3)),), {"axis": 2}, "no axis 2"),
        BadSample((TensorType(DType.I32, (2, 3)),), {}, "floating-point"),
    ]

    def infer(self, x: TensorType, axis: int | tuple[int, ...] | None, eps: float) -> TensorType:
        require("floating", "rms_norm", x)
        normal_axes(axis, x)
        return x

    def expand(self, b: Builder, x: Value, axis: int | tuple[int, ...] | None, eps: float) -> Value:
        value: Value = b.mul(x, self._scale(b, x, axis, eps))
        return value

    @staticmethod
    def _scale(b: Builder, x: Value, axis: int | tuple[int, ...] | None, eps: float) -> Value:
        """1 / sqrt(mean(x * x) + eps)."""
        square = b.mean(b.mul(x, x), axis=normal_axes(axis, x.type), keep=True)
        value: Value = b.rsqrt(b.add(square, b.scalar(eps, x.type.dtype)))
        return value

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: int | tuple[int, ...] | None, eps: float) -> tuple[Value]:
        along = b.mul(y, b.mean(b.mul(dy, y), axis=normal_axes(axis, x.type), keep=True))
        return (b.mul(self._scale(b, x, axis, eps), b.sub(dy, along)),)

    def reference(self, x: Array, axis: int | tuple[int, ...] | None, eps: float) -> Array:
        return np.asarray(x / np.sqrt(np.mean(np.square(x), axis=axis, keepdims=True) + x.dtype.type(eps)))
