"""Add an operator: a class says everything about it, and it can be used in `.dl` at once, compiled to SIMD and differentiable.

python examples/add_operator.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

import dslc
from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import Operator, Sample, operator
from dslc.ir.types import TensorType


@operator
class Lisht(Operator):
    """x tanh(x), an activation. S. K. Roy et al., "LiSHT: non-parametric linearly scaled hyperbolic tangent activation function", 2019."""

    family = "activation"
    elementwise = True
    samples = [Sample(((3, 5),)), Sample((np.array([-30.0, -1.0, 0.0, 1.0, 30.0]),))]

    def infer(self, x: TensorType) -> TensorType:
        return x

    def expand(self, b: Builder, x: Value) -> Value:
        """Written with other operators: the compiler fuses them into one kernel and knows the gradient."""
        result: Value = b.mul(x, b.tanh(x))
        return result

    def reference(self, x: np.ndarray) -> np.ndarray:
        """What tests compare with."""
        result: np.ndarray = x * np.tanh(x)
        return result


@operator
class CutSquare(Operator):
    """x^2 / 2 where |x| < 1, else 1/2: what is far off counts no more."""

    family = "loss"
    elementwise = True
    samples = [Sample(((4, 6),))]

    def infer(self, x: TensorType) -> TensorType:
        return x

    def body(self, index: tuple[Any, ...], x: Reader) -> Expr:
        """A primitive: one element of the result, which the compiler turns into vector code."""
        a = x[index]
        size = loops.unary("abs", a)
        half = loops.const(0.5, a.dtype)
        inside = loops.binary("mul", half, loops.binary("mul", a, a))
        return loops.select(loops.binary("lt", size, loops.const(1.0, a.dtype)), inside, half)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value) -> tuple[Value]:
        """The gradient, in operators too, so that it can be differentiated again: x within -1 and 1, else 0."""
        near = b.lt(b.abs(x), b.scalar(1.0, x.type.dtype))
        return (b.mul(dy, b.where(near, x, b.scalar(0.0, x.type.dtype))),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return np.where(np.abs(x) < 1, x * x / 2, 0.5)


TEXT = """
dim N <= 64
model Both(x: f32[N, 8]) -> (smooth: f32[N, 8], slope: f32[N, 8]) {
  return lisht(x), grad[x](sum(cut_square(x)))
}
"""


def main() -> None:
    net = dslc.compile(TEXT)
    x = np.linspace(-3, 3, 32, dtype=np.float32).reshape(4, 8)
    results = net(x=x)
    print("lisht, largest error:", np.abs(results["smooth"] - Lisht().reference(x.astype(np.float64))).max())
    print("gradient of cut_square, largest error:", np.abs(results["slope"] - np.where(np.abs(x) < 1, x, 0)).max())
    print(net.show("clusters"))


if __name__ == "__main__":
    main()
