"""Activation functions. Each is stable for every finite input and keeps NaN."""

from __future__ import annotations

from typing import Any

import numpy as np

from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import operator
from dslc.ops.elementwise import Unary
from dslc.ops.shapes import Array, Index, number, read


class Activation(Unary):
    """Base of the activation functions."""

    family = "activation"


@operator
class Relu(Activation):
    """max(x, 0). Its gradient at 0 is 0."""

    onnx = "Relu"

    def body(self, index: Index, x: Reader) -> Expr:
        a = read(x, index)
        return loops.select(loops.binary("lt", a, number(0, a)), number(0, a), a)  # not max: NaN stays without a second test

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        zero = b.scalar(0.0, y.type.dtype)
        return (b.where(b.gt(y, zero), dy, zero),)

    def reference(self, x: Array) -> Any:
        return np.where(x < 0, np.zeros_like(x), x)
