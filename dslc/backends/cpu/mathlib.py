"""exp, log, tanh, sigmoid as LLVM expressions over `Lanes`, for f32 and f64.

Every function is lane-independent and made of correctly rounded operations in a fixed order, so its bits do not depend on
the vector's width. NaN, infinities, signed zeros and subnormals behave as in NumPy. Polynomials marked *minimax* were
computed for this file with the Remez algorithm in 200-bit arithmetic on the stated interval and weight; others name their source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from dslc.backends.cpu.lanes import Lanes


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """What exp and its relatives need to know of a floating-point format."""

    mantissa: int  # explicit bits
    bias: int
    magic: float  # 1.5 * 2**mantissa: adding it rounds to an integer that stands in the sum's low bits
    magic_bits: int
    ln2_high: float  # few enough bits that n * ln2_high is exact
    ln2_low: float
    exp_range: tuple[float, float]  # outside it exp is 0 or infinity
    expm1_limit: float  # expm1 is -1 to the last bit below minus this; tanh is 1 above half of it
    expm1_tail: tuple[float, ...]  # (expm1(r) - r) / r**2 on |r| <= ln(2)/2


F32 = FloatFormat(
    mantissa=23,
    bias=127,
    magic=12582912.0,
    magic_bits=0x4B400000,
    ln2_high=0.693359375,
    ln2_low=-2.12194440e-4,
    exp_range=(-104.0, 89.0),
    expm1_limit=18.5,
    # minimax, weight |r|: relative error of expm1 2**-32
    expm1_tail=(0.00019914168, 0.0013941005, 0.008333273, 0.041666355, 0.16666667, 0.5),
)

F64 = FloatFormat(
    mantissa=52,
    bias=1023,
    magic=6755399441055744.0,
    magic_bits=0x4338000000000000,
    ln2_high=6.93147180369123816490e-01,
    ln2_low=1.90821492927058770002e-10,
    exp_range=(-746.0, 710.0),
    expm1_limit=38.5,
    # minimax, weight |r|: relative error of expm1 2**-61.7
    expm1_tail=(
        2.0924460167727054e-09,
        2.5109042766258347e-08,
        2.755724270067929e-07,
        2.755724418855201e-06,
        2.4801587360629157e-05,
        0.00019841269886151287,
        0.00138888888888668,
        0.008333333333321619,
        0.0416666666666667,
        0.16666666666666677,
        0.5,
    ),
)

LOG2_E = 1.4426950408889634
SQRT_HALF = 0.7071067811865476


def float_format(x: Lanes) -> FloatFormat:
    return F64 if isinstance(x.type.element, ir.DoubleType) else F32


def power_of_two(n: Lanes, f: FloatFormat) -> Lanes:
    """2**n as a float, for integer lanes n within the format's normal exponents."""
    return ((n + f.bias) << f.mantissa).as_float()


def split_exponential(x: Lanes) -> tuple[Lanes, Lanes]:
    """(n, p) with exp(x) = 2**n * (1 + p), n integer lanes and |p| < 0.42; NaN in x stays in p."""
    f = float_format(x)
    shifted = x.fma(LOG2_E, f.magic)  # rounds x / ln 2 to an integer without a conversion, which NaN would make undefined
    n = shifted - f.magic
    r = n.fma(-f.ln2_low, n.fma(-f.ln2_high, x))
    p = (r.polynomial(*f.expm1_tail) * r).fma(r, r)
    return shifted.bits() - f.magic_bits, p


def exp(x: Lanes) -> Lanes:
    f = float_format(x)
    n, p = split_exponential(x.at_least(f.exp_range[0]).at_most(f.exp_range[1]))
    half = n >> 1  # 2**n itself may be subnormal or beyond the largest float: scale in two steps, of which only the last rounds
    return (p + 1.0) * power_of_two(half, f) * power_of_two(n - half, f)


def exp_small(x: Lanes) -> Lanes:
    """expm1(x) for 0 <= x <= expm1_limit: exp(x) - 1 without cancellation."""
    f = float_format(x)
    n, p = split_exponential(x)
    scale = power_of_two(n, f)
    return p.fma(scale, scale - 1.0)


def tanh(x: Lanes) -> Lanes:
    """tanh x = t / (t + 2) with t = expm1(2 x), for |x|; the sign is put back at the end."""
    magnitude = x.abs()
    t = exp_small((magnitude + magnitude).at_most(float_format(x).expm1_limit))
    return (t / (t + 2.0)).copysign(x)


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + exp(-x)), as e / (1 + e) with e = exp(x) where x is negative, so that small results keep their precision."""
    e = exp(-x.abs())
    return (x < 0.0).where(e, 1.0) / (e + 1.0)


def split_logarithm(x: Lanes) -> tuple[Lanes, Lanes]:
    """(k, f) with x = 2**k * (1 + f) and 1 + f in [sqrt(1/2), sqrt(2)), k as floats; for positive finite x, subnormals included."""
    form = float_format(x)
    smallest = 2.0 ** (1 - form.bias)
    subnormal = x < smallest
    scaled = subnormal.where(x * 2.0**form.mantissa, x)
    offset = x.const(SQRT_HALF).bits()
    shifted = scaled.bits() - offset  # the exponent field now counts from sqrt(1/2)
    k = shifted >> form.mantissa
    fraction = ((shifted & ((1 << form.mantissa) - 1)) + offset).as_float() - 1.0
    exponent = k.cast("sitofp", x.type.element)
    return exponent + subnormal.where(x.const(-float(form.mantissa)), 0.0), fraction


def log_special(x: Lanes, result: Lanes) -> Lanes:
    """NumPy's logarithm of what is not a positive finite number: 0 -> -inf, negative -> NaN, inf -> inf, NaN -> NaN."""
    infinity = float("inf")
    result = (x < infinity).where(result, x)  # inf and NaN
    result = x.equals(0.0).where(-infinity, result)
    return (x < 0.0).where(float("nan"), result)


def log(x: Lanes) -> Lanes:
    k, f = split_logarithm(x)
    form = float_format(x)
    if form is F32:
        # minimax of (log1p(f) - f + f*f/2) / f**3 on 1 + f in [sqrt(1/2), sqrt(2)], weight f**3 / log1p(f): relative error of log1p 2**-30
        tail = f.polynomial(0.06746638, -0.116756506, 0.11888163, -0.1240559, 0.14219552, -0.16667996, 0.20002119, -0.2500001, 0.33333313)
        square = f * f
        rest = (square * f).fma(tail, k * form.ln2_low)
        rest = square.fma(-0.5, rest)
        return log_special(x, k.fma(form.ln2_high, rest + f))
    # fdlibm's e_log.c: s = f / (2 + f), log(1 + f) = f - (f*f/2 - s * (f*f/2 + R(s*s)))
    s = f / (f + 2.0)
    z = s * s
    series = z * z.polynomial(
        1.479819860511658591e-01,
        1.531383769920937332e-01,
        1.818357216161805012e-01,
        2.222219843214978396e-01,
        2.857142874366239149e-01,
        3.999999999940941908e-01,
        6.666666666666735130e-01,
    )
    half_square = f * f * 0.5
    inner = s.fma(half_square + series, k * form.ln2_low)
    return log_special(x, k.fma(form.ln2_high, f - (half_square - inner)))


FORMULAS: dict[str, Callable[..., Lanes]] = {"exp": exp, "log": log, "tanh": tanh, "sigmoid": sigmoid}
