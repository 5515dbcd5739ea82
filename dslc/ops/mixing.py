"""Random holes in images (cutout) and random mixtures of examples (mixup)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader, binary, cast, const, select, unary
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.random import KEY, KEY_TYPES, STREAM, check_key, draw, reference_draw, reference_whole
from dslc.ops.shapes import Array, Index, check_shape, require

F32, F64, I64 = DType.F32, DType.F64, DType.I64


@operator
class Cutout(Operator):
    """A square of size * size filled with one number in each image of x[N, C, H, W]; its centre is any pixel, drawn for each image.

    T. DeVries, G. W. Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
    """

    family = "augmentation"
    inputs = ("x", "seed", "counter")
    draw = True
    attrs = {
        "size": Attr("int", doc="the side of the square"),
        "value": Attr("float", 0.0, "what fills it"),
        "stream": STREAM,
    }
    samples = [
        Sample(((5, 2, 4, 5), *KEY), {"size": 2, "stream": 1}),
        Sample(((2, 1, 5, 19), *KEY), {"size": 3, "value": -0.5, "stream": 2}, gradient=False),
        Sample((np.full((2, 1, 3, 3), np.nan), *KEY), {"size": 5, "stream": 2}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 4, 4)), *KEY_TYPES), {"size": 1, "stream": 0}, "[N, C, H, W]"),
        BadSample((TensorType(F32, (2, 3, 4, 4)), *KEY_TYPES), {"size": 0, "stream": 0}, "at least 1"),
        BadSample((TensorType(I64, (2, 3, 4, 4)), *KEY_TYPES), {"size": 1, "stream": 0}, "floating-point"),
    ]

    def infer(self, x: TensorType, seed: TensorType, counter: TensorType, size: int, value: float, stream: int) -> TensorType:
        check_key(seed, counter)
        require("floating", "cutout", x)
        if x.rank != 4:
            raise TypeFailure(f"cutout needs images [N, C, H, W], not {x}", inputs=(0,))
        if size < 1:
            raise TypeFailure(f"cutout: size must be at least 1, not {size}")
        return x

    def body(self, index: Index, x: Reader, seed: Reader, counter: Reader, size: int, value: float, stream: int) -> Expr:
        inside: Expr | None = None
        for axis in (0, 1):
            u = draw(seed, counter, stream, index[0] * 2 + axis)
            extent = cast(IndexValue(x.type.shape[2 + axis]), F64)
            centre = cast(binary("mul", cast(u, F64), extent), I64)
            place = binary("sub", IndexValue(index[2 + axis] + size // 2), centre)  # 0 at the first row or column of the square
            here = binary("and", binary("ge", place, const(0, I64)), binary("lt", place, const(size, I64)))
            inside = here if inside is None else binary("and", inside, here)
        assert inside is not None
        return select(inside, const(value, x.type.dtype), x[index])

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, seed: Value, counter: Value, size: int, value: float, stream: int
    ) -> tuple[Value, None, None]:
        return b.cutout(dy, seed, counter, size=size, stream=stream), None, None

    def reference(self, x: Array, seed: Array, counter: Array, size: int, value: float, stream: int) -> Any:
        y = x.copy()
        for n, u in enumerate(reference_draw(seed, counter, stream, np.arange(2 * len(x))).reshape(-1, 2)):
            top, left = (int(reference_whole(u[k], 0, x.shape[2 + k])) - size // 2 for k in (0, 1))
            y[n, :, max(top, 0) : top + size, max(left, 0) : left + size] = value
        return y


@operator
class Mixup(Operator):
    """Examples mixed with others of the batch: (w x + (1 - w) x', w t + (1 - w) t') for tensors x and targets t, one-hot or soft.

    w is drawn for each example from the distribution Beta(alpha, alpha); the other example is the one so many places further
    on, round the end, by a number that is drawn for the batch: `mixed, target = mixup[0.2](image, one_hot[10](label))`.
    H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, "mixup: Beyond empirical risk minimization", 2018.
    """

    family = "augmentation"
    inputs = ("x", "target", "seed", "counter")
    draw = True
    attrs = {"alpha": Attr("float", 0.2, "small: mostly one of both; 1: any weight alike"), "stream": STREAM}
    samples = [
        Sample(((5, 2, 3), (5, 4), *KEY), {"stream": 1}),
        Sample(((3, 17), (3, 2), *KEY), {"alpha": 1.5, "stream": 2}),
        Sample(((1, 2), (1, 3), *KEY), {"stream": 2}),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 2)), TensorType(F32, (2, 2)), *KEY_TYPES), {"stream": 0}, "3 and 2 examples"),
        BadSample((TensorType(F32, (3, 2)), TensorType(I64, (3,)), *KEY_TYPES), {"stream": 0}, "floating-point"),
        BadSample((TensorType(F32, ()), TensorType(F32, ()), *KEY_TYPES), {"stream": 0}, "[N, ...]"),
        BadSample((TensorType(F32, (3, 2)), TensorType(F32, (3, 2)), *KEY_TYPES), {"alpha": 0.0, "stream": 0}, "above 0"),
    ]

    def infer(
        self, x: TensorType, target: TensorType, seed: TensorType, counter: TensorType, alpha: float, stream: int
    ) -> tuple[TensorType, TensorType]:
        check_key(seed, counter)
        _check_alpha(alpha)
        for position, t in enumerate((x, target)):
            if not t.dtype.floating:
                raise TypeFailure(
                    f"mixup needs floating-point tensors, not {t}", inputs=(position,), hint="make labels one-hot: one_hot[K]"
                )
            if t.rank < 1:
                raise TypeFailure(f"mixup needs tensors [N, ...], not {t}", inputs=(position,))
        if x.shape[0] != target.shape[0]:
            raise TypeFailure(f"mixup of {x} and {target}: {x.shape[0]} and {target.shape[0]} examples", inputs=(0, 1), axes=(0, 0))
        return x, target

    def expand(self, b: Builder, x: Value, target: Value, seed: Value, counter: Value, alpha: float, stream: int) -> tuple[Value, Value]:
        def mixed(t: Value) -> Value:
            weights = b.mixup_weights(seed, counter, size=t.type.shape[0], alpha=alpha, dtype=t.type.dtype, stream=stream)
            value: Value = b.mix_examples(t, weights, seed, counter, stream=stream)
            return value

        return mixed(x), mixed(target)

    def reference(self, x: Array, target: Array, seed: Array, counter: Array, alpha: float, stream: int) -> Any:
        weights = MixupWeights().reference(seed, counter, len(x), alpha, F64, stream)
        return tuple(MixExamples().reference(t, weights.astype(t.dtype), seed, counter, False, stream) for t in (x, target))


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < math.inf:
        raise TypeFailure(f"mixup: alpha must be above 0, not {alpha}")


@operator
class MixupWeights(Operator):
    """The weights that mixup draws for its examples, from Beta(alpha, alpha).

    By Bailey's polar method for Student's t, of which the symmetric beta distribution is a function: with u, v uniform,
    p = u ** (1 / alpha) and c = cos(2 pi v) it is (1 + c sqrt(1 - p) / sqrt(p + (1 - p) c c)) / 2. R. W. Bailey, 1994;
    L. Devroye, "Random variate generation in one line of code", 1996. In f64, so that a small alpha does not underflow early.
    """

    family = "augmentation"
    internal = True
    inputs = ("seed", "counter")
    draw = True
    differentiable = False
    attrs = {
        "size": Attr("dim", doc="how many"),
        "alpha": Attr("float", doc="both parameters of the distribution"),
        "dtype": Attr("dtype", F32, "the element type"),
        "stream": STREAM,
    }
    samples = [
        Sample(KEY, {"size": 5, "alpha": 0.2, "stream": 1}, gradient=False),
        Sample(KEY, {"size": 37, "alpha": 2.0, "dtype": F64, "stream": 1}, gradient=False),
        Sample(KEY, {"size": 3, "alpha": 0.001, "dtype": F64, "stream": 2}, gradient=False),
    ]
    errors = [BadSample(KEY_TYPES, {"size": 3, "alpha": -1.0, "stream": 0}, "above 0")]

    def infer(self, seed: TensorType, counter: TensorType, size: Dim, alpha: float, dtype: DType, stream: int) -> TensorType:
        check_key(seed, counter)
        _check_alpha(alpha)
        return TensorType(dtype, check_shape((size,)))

    def body(self, index: Index, seed: Reader, counter: Reader, size: Dim, alpha: float, dtype: DType, stream: int) -> Expr:
        def number(value: float) -> Expr:
            return const(value, F64)

        # Draws 0 and 1 are the batch's.
        u, v = (cast(draw(seed, counter, stream, index[0] * 2 + k), F64) for k in (2, 3))
        p = binary("pow", binary("sub", number(1.0), u), number(1 / alpha))
        q = binary("sub", number(1.0), p)
        c = unary("cos", binary("mul", number(2 * math.pi), v))
        below = unary("sqrt", binary("add", p, binary("mul", q, binary("mul", c, c))))
        quotient = binary("div", binary("mul", c, unary("sqrt", q)), below)
        return cast(binary("mul", number(0.5), binary("add", number(1.0), quotient)), dtype)

    def reference(self, seed: Array, counter: Array, size: int, alpha: float, dtype: DType, stream: int) -> Any:
        u, v = (reference_draw(seed, counter, stream, 2 * np.arange(size) + k).astype(np.float64) for k in (2, 3))
        p, c = (1 - u) ** (1 / alpha), np.cos(2 * np.pi * v)
        return ((1 + c * np.sqrt(1 - p) / np.sqrt(p + (1 - p) * c * c)) / 2).astype(dtype.numpy)


@operator
class MixExamples(Operator):
    """Example n of x[N, ...] times weight n, plus example n + s, round the end, times the rest; s is drawn for the batch.

    The adjoint, `back`: example n times weight n, plus example n - s times the rest of its own weight.
    """

    family = "augmentation"
    internal = True
    inputs = ("x", "weights", "seed", "counter")
    draw = True
    attrs = {"back": Attr("bool", False, "the adjoint"), "stream": STREAM}
    samples = [
        Sample(((5, 2, 3), (5,), *KEY), {"stream": 1}),
        Sample(((4, 3), (4,), *KEY), {"back": True, "stream": 2}),
    ]
    errors = [BadSample((TensorType(F32, (3, 2)), TensorType(F32, (2,)), *KEY_TYPES), {"stream": 0}, "a weight an example")]

    def infer(self, x: TensorType, weights: TensorType, seed: TensorType, counter: TensorType, back: bool, stream: int) -> TensorType:
        check_key(seed, counter)
        require("floating", "mixup", x)
        if x.rank < 1 or weights != x.with_shape(x.shape[:1]):
            raise TypeFailure(f"mix_examples of {x} needs a weight an example, not {weights}", inputs=(0, 1))
        return x

    def body(self, index: Index, x: Reader, weights: Reader, seed: Reader, counter: Reader, back: bool, stream: int) -> Expr:
        n, size, dtype = index[0], x.type.shape[0], x.type.dtype
        u = cast(draw(seed, counter, stream, 0), F64)
        step = binary("add", cast(binary("mul", u, cast(IndexValue(size - 1), F64)), I64), const(1, I64))
        other = binary("mod", binary("sub" if back else "add", IndexValue(n), step), IndexValue(size))
        taken = weights.at((0,), 0, other) if back else weights[n]
        rest = binary("sub", const(1.0, dtype), taken)
        return binary("add", binary("mul", weights[n], x[index]), binary("mul", rest, x.at((0, *index[1:]), 0, other)))

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, weights: Value, seed: Value, counter: Value, back: bool, stream: int
    ) -> tuple[Value, Value, None, None]:
        dx = b.mix_examples(dy, weights, seed, counter, back=not back, stream=stream)
        fixed, moved = (x, dy) if back else (dy, x)
        others = b.mix_examples(moved, b.like(0.0, weights.type), seed, counter, stream=stream)
        product = b.mul(fixed, b.sub(moved, others))
        return dx, (b.sum(product, axis=tuple(range(1, x.type.rank))) if x.type.rank > 1 else product), None, None

    def reference(self, x: Array, weights: Array, seed: Array, counter: Array, back: bool, stream: int) -> Any:
        u = float(reference_draw(seed, counter, stream, np.zeros(1, np.int64))[0])
        step = 1 + int(u * (len(x) - 1))
        y = np.zeros_like(x)
        for n in range(len(x)):
            other = (n + step) % len(x)
            y[n] += weights[n] * x[n]
            y[other if back else n] += (1 - weights[n]) * x[n if back else other]
        return y
