"""Random operators: draws from the counter-based generator of `ir/philox.py`, the same numbers everywhere.

Each draw has its own `stream`, and takes the run's seed and counter as its last inputs. A number depends on these and on the
element's linear index alone. Uniform numbers have 24 bits whatever the element type, so that a run at another precision
draws the same numbers and the same masks. Gradients draw again instead of keeping masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Random, Reader, binary, cast, const, reduce, select, unary
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.philox import philox_bits, uniform
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index, Shape, check_shape, ints, normal_axis, require

F32, F64, I64, BOOL = DType.F32, DType.F64, DType.I64, DType.BOOL
_SHAPE = Attr("shape", (), "the shape; a scalar unless told")
_DTYPE = Attr("dtype", F32, "the element type")
STREAM = Attr("int", doc="the number of this draw, which the compiler gives")
KEY = (np.array(7, np.int64), np.array(3, np.int64))
KEY_TYPES = (TensorType(I64), TensorType(I64))


# ---- uniform numbers ----------------------------------------------------------------------------------------------


def draw(seed: Reader, counter: Reader, stream: int, index: Dim) -> Expr:
    """The uniform number in [0, 1) at a linear index of the stream, as f32."""
    return Random(seed[()], counter[()], stream, index, F32)


def linear(index: Index, shape: Shape) -> Dim:
    """The row-major linear index."""
    total: Dim = 0
    for i, size in zip(index, shape, strict=True):
        total = total * size + i
    return total


def reference_draw(seed: Array, counter: Array, stream: int, index: Array) -> Array:
    return uniform(philox_bits(int(seed), stream, int(counter), index), np.float32)


def positions(shape: Sequence[int]) -> Array:
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def check_key(seed: TensorType, counter: TensorType) -> None:
    for what, t in (("seed", seed), ("counter", counter)):
        if t != TensorType(I64):
            raise TypeFailure(f"the {what} of a draw is i64[], not {t}")


class _Draw(Operator):
    """Base of the draws of a whole tensor, which take no tensor but seed and counter."""

    family = "random"
    inputs = ("seed", "counter")
    draw = True
    differentiable = False


@operator
class RandomUniform(_Draw):
    """Numbers drawn evenly from low to high."""

    onnx = "RandomUniform"
    attrs = {
        "shape": _SHAPE,
        "low": Attr("float", 0.0, "the least number"),
        "high": Attr("float", 1.0, "the bound above, reached by rounding at most"),
        "dtype": _DTYPE,
        "stream": STREAM,
    }
    samples = [
        Sample(KEY, {"shape": (5, 3), "stream": 1}, gradient=False),
        Sample(KEY, {"shape": (4,), "low": -2.0, "high": 3.0, "dtype": F64, "stream": 2}, gradient=False),
        Sample(KEY, {"shape": (), "stream": 2}, gradient=False),
    ]
    errors = [
        BadSample(KEY_TYPES, {"shape": (3,), "low": 2.0, "high": 1.0, "stream": 0}, "low is 2.0 and high 1.0"),
        BadSample(KEY_TYPES, {"shape": (3,), "dtype": I64, "stream": 0}, "floating-point"),
        BadSample((TensorType(F32), TensorType(I64)), {"shape": (3,), "stream": 0}, "the seed of a draw is i64[]"),
    ]

    def infer(self, seed: TensorType, counter: TensorType, shape: Shape, low: float, high: float, dtype: DType, stream: int) -> TensorType:
        check_key(seed, counter)
        _check_floating("random_uniform", dtype)
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise TypeFailure(f"random_uniform needs finite bounds in order: low is {low} and high {high}")
        return TensorType(dtype, check_shape(shape))

    def body(self, index: Index, seed: Reader, counter: Reader, shape: Shape, low: float, high: float, dtype: DType, stream: int) -> Expr:
        u = cast(draw(seed, counter, stream, linear(index, shape)), dtype)
        if (low, high) == (0.0, 1.0):
            return u
        return binary("add", binary("mul", u, const(high - low, dtype)), const(low, dtype))

    def reference(self, seed: Array, counter: Array, shape: Shape, low: float, high: float, dtype: DType, stream: int) -> Array:
        u = reference_draw(seed, counter, stream, positions(ints(shape))).astype(dtype.numpy)
        return np.asarray(u * dtype.numpy.type(high - low) + dtype.numpy.type(low))


def _check_floating(what: str, dtype: DType) -> None:
    if not dtype.floating:
        raise TypeFailure(f"{what} draws floating-point numbers, not {dtype.value}", hint="random_int draws whole numbers")


@operator
class RandomNormal(_Draw):
    """Numbers drawn from the normal distribution, by Box and Muller's transform of the uniform numbers 2i and 2i + 1.

    G. E. P. Box, M. E. Muller, "A note on the generation of random normal deviates", 1958. At most 5.8 deviations from the mean.
    """

    onnx = "RandomNormal"
    attrs = {
        "shape": _SHAPE,
        "mean": Attr("float", 0.0, "the mean"),
        "std": Attr("float", 1.0, "the standard deviation"),
        "dtype": _DTYPE,
        "stream": STREAM,
    }
    samples = [
        Sample(KEY, {"shape": (5, 3), "stream": 1}, gradient=False),
        Sample(KEY, {"shape": (40,), "mean": -2.0, "std": 3.0, "dtype": F64, "stream": 2}, gradient=False),
    ]
    errors = [
        BadSample(KEY_TYPES, {"shape": (3,), "std": -1.0, "stream": 0}, "deviation"),
        BadSample(KEY_TYPES, {"shape": (3,), "dtype": I64, "stream": 0}, "floating-point"),
        BadSample(KEY_TYPES, {"shape": (-3,), "stream": 0}, "at least 0"),
    ]

    def infer(self, seed: TensorType, counter: TensorType, shape: Shape, mean: float, std: float, dtype: DType, stream: int) -> TensorType:
        check_key(seed, counter)
        _check_floating("random_normal", dtype)
        if not (math.isfinite(mean) and math.isfinite(std) and std >= 0):
            raise TypeFailure(f"random_normal needs a finite mean and deviation of at least 0, not {mean} and {std}")
        return TensorType(dtype, check_shape(shape))

    def body(self, index: Index, seed: Reader, counter: Reader, shape: Shape, mean: float, std: float, dtype: DType, stream: int) -> Expr:
        first = linear(index, shape) * 2
        u, v = (cast(draw(seed, counter, stream, first + n), dtype) for n in (0, 1))
        # 1 - u is in (0, 1] and exact, so that the logarithm is finite.
        radius = unary("sqrt", binary("mul", const(-2.0, dtype), unary("log", binary("sub", const(1.0, dtype), u))))
        normal = binary("mul", radius, unary("cos", binary("mul", const(2 * math.pi, dtype), v)))
        if (mean, std) == (0.0, 1.0):
            return normal
        return binary("add", binary("mul", normal, const(std, dtype)), const(mean, dtype))

    def reference(self, seed: Array, counter: Array, shape: Shape, mean: float, std: float, dtype: DType, stream: int) -> Array:
        first = positions(ints(shape)) * 2
        u, v = (reference_draw(seed, counter, stream, first + n).astype(dtype.numpy) for n in (0, 1))
        normal = np.sqrt(-2 * np.log(1 - u)) * np.cos(dtype.numpy.type(2 * math.pi) * v)
        return np.asarray(normal * dtype.numpy.type(std) + dtype.numpy.type(mean))


@operator
class RandomInt(_Draw):
    """Whole numbers drawn evenly from low to high - 1."""

    attrs = {
        "shape": _SHAPE,
        "low": Attr("int", 0, "the least number"),
        "high": Attr("int", doc="one more than the greatest number"),
        "stream": STREAM,
    }
    samples = [
        Sample(KEY, {"shape": (5, 3), "high": 10, "stream": 1}, gradient=False),
        Sample(KEY, {"shape": (50,), "low": -3, "high": 2, "stream": 2}, gradient=False),
    ]
    errors = [
        BadSample(KEY_TYPES, {"shape": (3,), "low": 2, "high": 2, "stream": 0}, "high must be above low"),
        BadSample(KEY_TYPES, {"shape": (3,), "high": 2**24 + 1, "stream": 0}, "16777216"),
    ]

    def infer(self, seed: TensorType, counter: TensorType, shape: Shape, low: int, high: int, stream: int) -> TensorType:
        check_key(seed, counter)
        if high <= low:
            raise TypeFailure(f"random_int: high must be above low, not {high} and {low}")
        if high - low > 2**24:
            raise TypeFailure(f"random_int draws from at most {2**24} numbers, not {high - low}")
        return TensorType(I64, check_shape(shape))

    def body(self, index: Index, seed: Reader, counter: Reader, shape: Shape, low: int, high: int, stream: int) -> Expr:
        return whole(draw(seed, counter, stream, linear(index, shape)), low, high)

    def reference(self, seed: Array, counter: Array, shape: Shape, low: int, high: int, stream: int) -> Array:
        return reference_whole(reference_draw(seed, counter, stream, positions(ints(shape))), low, high)


def whole(u: Expr, low: int, high: int) -> Expr:
    """low + floor(u * (high - low)); in f64, where the product is exact and below high - low."""
    scaled = binary("mul", cast(u, F64), const(float(high - low), F64))
    return binary("add", cast(scaled, I64), const(low, I64))


def reference_whole(u: Array, low: int, high: int) -> Array:
    return np.floor(u.astype(np.float64) * (high - low)).astype(np.int64) + low


@operator
class Bernoulli(_Draw):
    """bool: true with probability p."""

    attrs = {"shape": _SHAPE, "p": Attr("float", 0.5, "the probability of true"), "stream": STREAM}
    samples = [
        Sample(KEY, {"shape": (5, 3), "stream": 1}, gradient=False),
        Sample(KEY, {"shape": (50,), "p": 0.1, "stream": 2}, gradient=False),
        Sample(KEY, {"shape": (9,), "p": 1.0, "stream": 2}, gradient=False),
    ]
    errors = [BadSample(KEY_TYPES, {"shape": (3,), "p": 1.5, "stream": 0}, "from 0 to 1")]

    def infer(self, seed: TensorType, counter: TensorType, shape: Shape, p: float, stream: int) -> TensorType:
        check_key(seed, counter)
        _check_probability("p", p)
        return TensorType(BOOL, check_shape(shape))

    def body(self, index: Index, seed: Reader, counter: Reader, shape: Shape, p: float, stream: int) -> Expr:
        return binary("lt", draw(seed, counter, stream, linear(index, shape)), const(p, F32))

    def reference(self, seed: Array, counter: Array, shape: Shape, p: float, stream: int) -> Array:
        return reference_draw(seed, counter, stream, positions(ints(shape))) < np.float32(p)


def _check_probability(what: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise TypeFailure(f"{what} is a probability from 0 to 1, not {p}")


# ---- draws that work on a tensor ----------------------------------------------------------------------------------


@operator
class Dropout(Operator):
    """Each element of x is 0 with probability `rate`, else x / (1 - rate). Linear in x: its gradient draws the mask again.

    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 2014.
    """

    family = "random"
    onnx = "Dropout"
    inputs = ("x", "seed", "counter")
    draw = True
    attrs = {"rate": Attr("float", 0.5, "the probability of 0"), "stream": STREAM}
    samples = [
        Sample(((5, 4), *KEY), {"stream": 1}),
        Sample(((3, 2, 4), *KEY), {"rate": 0.2, "stream": 2}),
        Sample(((3, 2), *KEY), {"rate": 0.0, "stream": 2}),
        Sample(((3, 2), *KEY), {"rate": 1.0, "stream": 2}),
    ]
    errors = [
        BadSample((TensorType(F32, (3,)), *KEY_TYPES), {"rate": -0.1, "stream": 0}, "from 0 to 1"),
        BadSample((TensorType(I64, (3,)), *KEY_TYPES), {"stream": 0}, "floating-point"),
        BadSample((TensorType(F32, (3,)), TensorType(I64, (1,)), TensorType(I64)), {"stream": 0}, "seed"),
    ]

    def infer(self, x: TensorType, seed: TensorType, counter: TensorType, rate: float, stream: int) -> TensorType:
        check_key(seed, counter)
        require("floating", "dropout", x)
        _check_probability("the rate of dropout", rate)
        return x

    def body(self, index: Index, x: Reader, seed: Reader, counter: Reader, rate: float, stream: int) -> Expr:
        dtype = x.type.dtype
        dropped = binary("lt", draw(seed, counter, stream, linear(index, x.type.shape)), const(rate, F32))
        scale = 1 / (1 - rate) if rate < 1 else 0.0
        return select(dropped, const(0.0, dtype), binary("mul", x[index], const(scale, dtype)))

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, seed: Value, counter: Value, rate: float, stream: int
    ) -> tuple[Value, None, None]:
        return b.dropout(dy, seed, counter, rate=rate, stream=stream), None, None

    def reference(self, x: Array, seed: Array, counter: Array, rate: float, stream: int) -> Array:
        dropped = reference_draw(seed, counter, stream, positions(x.shape)) < np.float32(rate)
        scale = 1 / (1 - rate) if rate < 1 else 0.0
        return np.asarray(np.where(dropped, x.dtype.type(0), x * x.dtype.type(scale)))


@operator
class Categorical(Operator):
    """A class for each row of logits[..., C], drawn with the probabilities softmax(logits): i64[...].

    By the Gumbel-max method: the argmax of logits - log(-log u), where u is at least 2^-25.
    """

    family = "random"
    onnx = "Multinomial"
    inputs = ("logits", "seed", "counter")
    draw = True
    differentiable = False
    attrs = {"stream": STREAM}
    samples = [
        Sample(((5, 4), *KEY), {"stream": 1}, gradient=False),
        Sample(((3, 2, 3), *KEY), {"stream": 2}, gradient=False),
        Sample((np.array([[-np.inf, 0.0, -np.inf], [5.0, -np.inf, 5.0]]), *KEY), {"stream": 3}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32), *KEY_TYPES), {"stream": 0}, "[..., C]"),
        BadSample((TensorType(I64, (3,)), *KEY_TYPES), {"stream": 0}, "floating-point"),
    ]

    def infer(self, logits: TensorType, seed: TensorType, counter: TensorType, stream: int) -> TensorType:
        check_key(seed, counter)
        require("floating", "categorical", logits)
        if logits.rank == 0:
            raise TypeFailure(f"categorical needs logits [..., C], not {logits}", inputs=(0,))
        return TensorType(I64, logits.shape[:-1])

    def body(self, index: Index, logits: Reader, seed: Reader, counter: Reader, stream: int) -> Expr:
        dtype = logits.type.dtype

        def score(c: Dim) -> Expr:
            u = cast(draw(seed, counter, stream, linear((*index, c), logits.type.shape)), dtype)
            u = binary("max", u, const(2.0**-25, dtype))
            return binary("sub", logits[(*index, c)], unary("log", unary("neg", unary("log", u))))

        return reduce("argmax", (logits.type.shape[-1],), score)

    def reference(self, logits: Array, seed: Array, counter: Array, stream: int) -> Array:
        u = reference_draw(seed, counter, stream, positions(logits.shape)).astype(logits.dtype)
        return np.asarray(np.argmax(logits - np.log(-np.log(np.maximum(u, logits.dtype.type(2.0**-25)))), -1))


# ---- augmentation -------------------------------------------------------------------------------------------------


@operator
class RandomShift(Operator):
    """Each image of x[N, C, H, W] moved by up to `pixels` rows and columns, zeros where nothing was."""

    family = "random"
    inputs = ("x", "seed", "counter")
    draw = True
    attrs = {"pixels": Attr("int", doc="the greatest shift, in both directions"), "stream": STREAM}
    samples = [
        Sample(((5, 2, 3, 4), *KEY), {"pixels": 2, "stream": 1}),
        Sample((np.arange(18, dtype=np.uint8).reshape(2, 1, 3, 3), *KEY), {"pixels": 1, "stream": 2}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 4, 4)), *KEY_TYPES), {"pixels": 1, "stream": 0}, "[N, C, H, W]"),
        BadSample((TensorType(F32, (2, 3, 4, 4)), *KEY_TYPES), {"pixels": -1, "stream": 0}, "at least 0"),
    ]

    def infer(self, x: TensorType, seed: TensorType, counter: TensorType, pixels: int, stream: int) -> TensorType:
        check_key(seed, counter)
        if x.rank != 4:
            raise TypeFailure(f"random_shift needs images [N, C, H, W], not {x}", inputs=(0,))
        if pixels < 0:
            raise TypeFailure(f"random_shift: pixels must be at least 0, not {pixels}")
        return x

    def expand(self, b: Builder, x: Value, seed: Value, counter: Value, pixels: int, stream: int) -> Value:
        for axis in (2, 3):
            x = b.random_shift_axis(x, seed, counter, axis=axis, pixels=pixels, stream=stream)
        return x

    def reference(self, x: Array, seed: Array, counter: Array, pixels: int, stream: int) -> Array:
        moved = np.zeros_like(x)
        shifts = reference_whole(reference_draw(seed, counter, stream, positions((len(x), 2))), -pixels, pixels + 1)
        for image, (rows, columns), result in zip(x, shifts, moved, strict=True):
            height, width = image.shape[1:]
            for h in range(max(0, -rows), min(height, height - rows)):
                for w in range(max(0, -columns), min(width, width - columns)):
                    result[:, h, w] = image[:, h + rows, w + columns]
        return moved


@operator
class RandomShiftAxis(Operator):
    """Each example of x[N, ..., H, W] moved along one of the last two axes, by the draw that random_shift makes for it."""

    family = "random"
    internal = True
    inputs = ("x", "seed", "counter")
    draw = True
    attrs = {
        "axis": Attr("int", doc="2 or 3"),
        "pixels": Attr("int", doc="the greatest shift"),
        "back": Attr("bool", False, "moved the other way: the gradient"),
        "stream": STREAM,
    }
    samples = [
        Sample(((5, 2, 3, 4), *KEY), {"axis": 2, "pixels": 2, "stream": 1}),
        Sample(((5, 2, 3, 4), *KEY), {"axis": 3, "pixels": 5, "back": True, "stream": 1}),
    ]
    errors = [BadSample((TensorType(F32, (3, 4, 4)), *KEY_TYPES), {"axis": 2, "pixels": 1, "stream": 0}, "[N, C, H, W]")]

    def infer(self, x: TensorType, seed: TensorType, counter: TensorType, axis: int, pixels: int, back: bool, stream: int) -> TensorType:
        assert axis in (2, 3)
        shift: TensorType = RandomShift().infer(x, seed, counter, pixels, stream)
        return shift

    def body(self, index: Index, x: Reader, seed: Reader, counter: Reader, axis: int, pixels: int, back: bool, stream: int) -> Expr:
        shift = whole(draw(seed, counter, stream, index[0] * 2 + axis - 2), -pixels, pixels + 1)
        at = binary("sub" if back else "add", IndexValue(index[axis]), shift)
        inside = binary("and", binary("ge", at, const(0, I64)), binary("lt", at, IndexValue(x.type.shape[axis])))
        return select(inside, x.at(index, axis, at), const(0, x.type.dtype))

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, seed: Value, counter: Value, back: bool, **attrs: Any
    ) -> tuple[Value, None, None]:
        return b.random_shift_axis(dy, seed, counter, back=not back, **attrs), None, None

    def reference(self, x: Array, seed: Array, counter: Array, axis: int, pixels: int, back: bool, stream: int) -> Array:
        shifts = reference_whole(reference_draw(seed, counter, stream, np.arange(len(x)) * 2 + axis - 2), -pixels, pixels + 1)
        moved = np.zeros_like(x)
        size = x.shape[axis]
        for n, shift in enumerate(-shifts if back else shifts):
            there = np.arange(size) + shift
            here = (there >= 0) & (there < size)
            moved[n] = np.where(here if axis == 3 else here[:, None], np.take(x[n], there.clip(0, size - 1), axis - 1), 0)
        return moved


@operator
class RandomFlip(Operator):
    """Each example of x[N, ...] mirrored along an axis with probability 1/2."""

    family = "random"
    inputs = ("x", "seed", "counter")
    draw = True
    attrs = {"axis": Attr("axis", -1, "the axis to mirror, not the first"), "stream": STREAM}
    samples = [
        Sample(((6, 2, 3, 4), *KEY), {"stream": 1}),
        Sample(((6, 3), *KEY), {"axis": 1, "stream": 2}),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 4, 4)), *KEY_TYPES), {"axis": 0, "stream": 0}, "axis of the examples"),
        BadSample((TensorType(F32, (3,)), *KEY_TYPES), {"stream": 0}, "axis of the examples"),
        BadSample((TensorType(F32, (3, 4)), *KEY_TYPES), {"axis": 2, "stream": 0}, "no axis 2"),
    ]

    def infer(self, x: TensorType, seed: TensorType, counter: TensorType, axis: int, stream: int) -> TensorType:
        check_key(seed, counter)
        if normal_axis(axis, x) == 0:
            raise TypeFailure(f"random_flip cannot mirror axis 0 of {x}: it is the axis of the examples", inputs=(0,))
        return x

    def body(self, index: Index, x: Reader, seed: Reader, counter: Reader, axis: int, stream: int) -> Expr:
        at = normal_axis(axis, x.type)
        mirrored = (*index[:at], x.type.shape[at] - 1 - index[at], *index[at + 1 :])
        return select(binary("lt", draw(seed, counter, stream, index[0]), const(0.5, F32)), x[mirrored], x[index])

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, seed: Value, counter: Value, axis: int, stream: int
    ) -> tuple[Value, None, None]:
        return b.random_flip(dy, seed, counter, axis=axis, stream=stream), None, None

    def reference(self, x: Array, seed: Array, counter: Array, axis: int, stream: int) -> Array:
        flipped = reference_draw(seed, counter, stream, np.arange(len(x))) < 0.5
        return np.where(flipped.reshape(-1, *(1 for _ in x.shape[1:])), np.flip(x, axis), x)
