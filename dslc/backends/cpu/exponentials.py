"""exp and what is made of it: the hyperbolic functions and sigmoid, as LLVM expressions over `Lanes`, for f32 and f64.

The rules of `mathlib.py` hold here too.
"""

from __future__ import annotations

from dataclasses import dataclass

from dslc.backends.cpu.lanes import F64, Lanes


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
    flushed: float  # above it exp is a normal number
    expm1_limit: float  # expm1 is -1 to the last bit below minus this; tanh is 1 above half of it
    expm1_tail: tuple[float, ...]  # (expm1(r) - r) / r**2 on |r| <= ln(2)/2


SINGLE = FloatFormat(
    mantissa=23,
    bias=127,
    magic=12582912.0,
    magic_bits=0x4B400000,
    ln2_high=0.693359375,
    ln2_low=-2.12194440e-4,
    exp_range=(-104.0, 89.0),
    flushed=-87.0,
    expm1_limit=18.5,
    # minimax, weight |r|: relative error of expm1 2**-32
    expm1_tail=(0.00019914168, 0.0013941005, 0.008333273, 0.041666355, 0.16666667, 0.5),
)

DOUBLE = FloatFormat(
    mantissa=52,
    bias=1023,
    magic=6755399441055744.0,
    magic_bits=0x4338000000000000,
    ln2_high=6.93147180369123816490e-01,
    ln2_low=1.90821492927058770002e-10,
    exp_range=(-746.0, 710.0),
    flushed=-708.0,
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


def float_format(x: Lanes) -> FloatFormat:
    return DOUBLE if x.type.element == F64 else SINGLE


def power_of_two(n: Lanes, f: FloatFormat) -> Lanes:
    """2**n as a float, for integer lanes n within the format's normal exponents."""
    return ((n + f.bias) << f.mantissa).as_float()


def split_exponential(x: Lanes) -> tuple[Lanes, Lanes]:
    """(n, r) with x = n log(2) + r, n integer lanes and |r| < 0.35; NaN in x stays in r."""
    f = float_format(x)
    shifted = x.fma(LOG2_E, f.magic)  # rounds x / ln 2 to an integer without a conversion, which NaN would make undefined
    n = shifted - f.magic
    r = n.fma(-f.ln2_low, n.fma(-f.ln2_high, x))
    return shifted.bits() - f.magic_bits, r


def exp_fraction(r: Lanes) -> Lanes:
    """exp(r) for |r| < 0.35."""
    return r.polynomial(*float_format(r).expm1_tail, 1.0, 1.0)


def expm1_fraction(r: Lanes) -> Lanes:
    """exp(r) - 1 for |r| < 0.35."""
    return (r.polynomial(*float_format(r).expm1_tail) * r).fma(r, r)


def exp(x: Lanes) -> Lanes:
    f = float_format(x)
    n, r = split_exponential(x.at_least(f.exp_range[0]).at_most(f.exp_range[1]))
    half = n >> 1  # 2**n itself may be subnormal or beyond the largest float: scale in two steps, of which only the last rounds
    return exp_fraction(r) * power_of_two(half, f) * power_of_two(n - half, f)


def exp_flushed(x: Lanes) -> Lanes:
    """exp(x) for x <= 0, with 0 in place of results below the smallest normal number: what softmax needs, in two thirds of the time."""
    f = float_format(x)
    shifted = x.fma(LOG2_E, f.magic + f.bias)  # the low bits of the sum are the exponent of the power of two, biased
    n = shifted - (f.magic + f.bias)
    r = n.fma(-f.ln2_low, n.fma(-f.ln2_high, x))
    result = exp_fraction(r) * (shifted.bits() << f.mantissa).as_float()
    return (x < f.flushed).where(0.0, result)


def expm1(x: Lanes) -> Lanes:
    """exp(x) - 1 without cancellation."""
    f = float_format(x)
    n, r = split_exponential(x.at_least(-f.expm1_limit).at_most(f.exp_range[1]))
    p = expm1_fraction(r)
    scale = power_of_two(n - 1, f)  # half of 2**n, which may exceed the largest float
    result = n.equals(0).where(p, p.fma(scale, scale - 0.5) * 2.0)
    return result.copysign(x)


# minimax of (2**r - 1) / r on |r| <= 1/2, weight r / 2**r: relative error of exp2 2**-28.9 and 2**-58
EXP2_SINGLE = (0.00015353359, 0.0013398874, 0.009618437, 0.055503324, 0.24022648, 0.6931472)
EXP2_DOUBLE = (
    4.4347723440684987e-10,
    7.07378324108923e-09,
    1.0178199564507185e-07,
    1.321543528236036e-06,
    1.5252733493145988e-05,
    0.00015403530457111958,
    0.00133335581467746,
    0.00961812910759412,
    0.055504108664820084,
    0.2402265069591013,
    0.6931471805599453,
)


def exp2(x: Lanes) -> Lanes:
    """2**x; exact for whole x."""
    f = float_format(x)
    limited = x.at_least(-float(f.bias + f.mantissa + 2)).at_most(float(f.bias + 2))
    shifted = limited + f.magic
    r = limited - (shifted - f.magic)
    n = shifted.bits() - f.magic_bits
    half = n >> 1
    fraction = r.polynomial(*(EXP2_SINGLE if f is SINGLE else EXP2_DOUBLE), 1.0)
    return fraction * power_of_two(half, f) * power_of_two(n - half, f)


def half_exp(x: Lanes) -> Lanes:
    """exp(x) / 2 for x >= 0, which is finite a little beyond the range of exp."""
    f = float_format(x)
    n, r = split_exponential(x.at_most(f.exp_range[1] + 1.0))
    half = n >> 1
    return exp_fraction(r) * power_of_two(half, f) * power_of_two(n - half - 1, f)


# minimax of (sinh(x) / x - 1) / x**2 in x**2 on |x| <= 1: relative error of sinh 2**-34.2 and 2**-63.3
SINH_SINGLE = (2.8169513e-06, 0.0001983616, 0.00833335, 0.16666667)
SINH_DOUBLE = (
    7.758748809592726e-13,
    1.6057259768146477e-10,
    2.505212313673461e-08,
    2.755731915707178e-06,
    0.00019841269841431873,
    0.008333333333333148,
    0.16666666666666669,
)


def sinh(x: Lanes) -> Lanes:
    """A polynomial up to 1, else h - 1 / (4 h) with h = exp(|x|) / 2."""
    magnitude = x.abs()
    z = x * x
    small = (z * magnitude).fma(z.polynomial(*(SINH_SINGLE if float_format(x) is SINGLE else SINH_DOUBLE)), magnitude)
    h = half_exp(magnitude)
    return (magnitude < 1.0).where(small, h - 0.25 / h).copysign(x)


def cosh(x: Lanes) -> Lanes:
    """h + 1 / (4 h) with h = exp(|x|) / 2."""
    h = half_exp(x.abs())
    return h + 0.25 / h


# (1 - T5(2 e - 1) / T5(-3)) / (1 + e) with Chebyshev's T5, the minimax of 1 / (1 + e) on 0 <= e <= 1: relative error 2**-11.7
RECIPROCAL_ABOVE_ONE = (0.152245019, -0.532857568, 0.865893547, -0.984834969, 0.999702646)


def reciprocal_above_one(e: Lanes) -> Lanes:
    """1 / (1 + e) in f32 for 0 <= e <= 1, in a third of a division's time.

    The sum 1 + e is never rounded: 1 - y - y e is what is left of 1. The step behind it leaves the cube of that.
    """
    y = e.polynomial(*RECIPROCAL_ABOVE_ONE)
    left = (-y).fma(e, 1.0 - y)
    return y.fma(left.fma(left, left), y)


# minimax of (tanh(x) / x - 1) / x**2 in x**2 on |x| <= 0.625: relative error of tanh 2**-27.9
TANH_TAIL = (-0.0057170754, 0.02065062, -0.05374351, 0.13331491, -0.33333284)


def tanh(x: Lanes) -> Lanes:
    """In f32 from e = exp(-2 |x|): 1 - 2 e / (1 + e), with a polynomial near 0. In f64 from t = expm1(2 |x|): t / (t + 2)."""
    form = float_format(x)
    magnitude = x.abs()
    twice = (magnitude + magnitude).at_most(form.expm1_limit)
    if form is DOUBLE:
        n, r = split_exponential(twice)
        scale = power_of_two(n, form)
        t = expm1_fraction(r).fma(scale, scale - 1.0)
        return (t / (t + 2.0)).copysign(x)
    n, r = split_exponential(-twice)
    e = exp_fraction(r) * power_of_two(n, form)
    large = (-(e + e)).fma(reciprocal_above_one(e), 1.0)  # a sum: multiplications are what this waits for
    z = x * x
    small = (z.polynomial(*TANH_TAIL) * z).fma(magnitude, magnitude)
    return (magnitude < 0.625).where(small, large).copysign(x)


def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + exp(-x)), as e / (1 + e) with e = exp(x) where x is negative, so that small results keep their precision."""
    form = float_format(x)
    negative = x < 0.0
    if form is DOUBLE:
        e = exp(-x.abs())
        return negative.where(e, 1.0) / (e + 1.0)
    # In f32 with e = (1 + p) 2**n, where the sum is never rounded.
    n, r = split_exponential((-x.abs()).at_least(form.exp_range[0]))
    p = expm1_fraction(r)
    normal = n.at_least(2 - form.bias)  # (1 + p) y is at least a third, so that its exponent has room for this one
    scale = power_of_two(normal, form)
    y = reciprocal_above_one(p.fma(scale, scale))
    beyond = power_of_two(n - normal, form)  # 1 unless the result is subnormal
    scaled = (p.fma(y, y).bits() + (normal << form.mantissa)).as_float()  # by 2**normal, without a multiplication
    return negative.where(scaled * beyond, y.abs())  # abs gives every width's NaN the same sign
