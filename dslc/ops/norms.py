"""Softmax and its logarithm: normalisation along one axis. (Batch and layer normalisation are blocks of the .dl library.)"""

from __future__ import annotations

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, normal_axis, require

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
