"""The math library. Here log, pow, erf and the inverse hyperbolic functions as LLVM expressions over `Lanes`, for f32 and f64.

Every function is lane-independent and made of correctly rounded operations in a fixed order, so its bits do not depend on
the vector's width. NaN, infinities, signed zeros and subnormals behave as in NumPy. Polynomials marked *minimax* were
computed for this file with the Remez algorithm in 200-bit arithmetic on the stated interval and weight; others name their source.
Measured errors stand in `tests/backends/test_mathlib.py`, which holds every function to its bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dslc.backends.cpu import arcs, exponentials, trigonometry
from dslc.backends.cpu.exponentials import SINGLE, exp, exp_fraction, float_format, power_of_two, split_exponential
from dslc.backends.cpu.lanes import F32, F64, Lanes

SQRT_HALF = 0.7071067811865476
LN2 = 0.6931471805599453


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


# minimax of (log1p(f) - f + f*f/2) / f**3 on 1 + f in [sqrt(1/2), sqrt(2)], weight f**3 / log1p(f): relative error of log1p 2**-30
LOG_TAIL_SINGLE = (0.06746638, -0.116756506, 0.11888163, -0.1240559, 0.14219552, -0.16667996, 0.20002119, -0.2500001, 0.33333313)
# R of fdlibm's e_log.c
LOG_TAIL_DOUBLE = (
    1.479819860511658591e-01,
    1.531383769920937332e-01,
    1.818357216161805012e-01,
    2.222219843214978396e-01,
    2.857142874366239149e-01,
    3.999999999940941908e-01,
    6.666666666666735130e-01,
)


def log(x: Lanes) -> Lanes:
    k, f = split_logarithm(x)
    form = float_format(x)
    if form is SINGLE:
        tail = f.polynomial(*LOG_TAIL_SINGLE)
        square = f * f
        rest = (square * f).fma(tail, k * form.ln2_low)
        rest = square.fma(-0.5, rest)
        return log_special(x, k.fma(form.ln2_high, rest + f))
    # fdlibm's e_log.c: s = f / (2 + f), log(1 + f) = f - (f*f/2 - s * (f*f/2 + R(s*s)))
    s = f / (f + 2.0)
    z = s * s
    series = z * z.polynomial(*LOG_TAIL_DOUBLE)
    half_square = f * f * 0.5
    inner = s.fma(half_square + series, k * form.ln2_low)
    return log_special(x, k.fma(form.ln2_high, f - (half_square - inner)))


def log1p(x: Lanes) -> Lanes:
    """log(1 + x) without cancellation: log(u) for the rounded u = 1 + x, plus what the rounding lost, divided by u."""
    u = x + 1.0
    lost = (x - (u - 1.0)) / u
    usable = (x > -1.0) & (x < float("inf"))
    return (log(u) + usable.where(lost, 0.0)).copysign((x < -1.0).where(u, x))


@dataclass(frozen=True, slots=True)
class Base:
    """A logarithm's base b: 1 / log(b) and log_b(2), each as the sum of two numbers; log_b(2) times an exponent is exact in its first."""

    scale: tuple[float, float]
    two: tuple[float, float]


TWO_SINGLE = Base((1.4426950216293335, 1.925963033500011e-08), (1.0, 0.0))
TWO_DOUBLE = Base((1.4426950408889634, 2.0355273740931033e-17), (1.0, 0.0))
TEN_SINGLE = Base((0.4342944920063019, -1.0103049952192578e-08), (0.301025390625, 4.605039066518657e-06))
TEN_DOUBLE = Base((0.4342944819032518, 1.098319650216765e-17), (0.30102999566361177, 3.694239077158931e-13))


def log_of_base(x: Lanes, base: Base) -> Lanes:
    """k log_b(2) + log(1 + f) / log(b), the logarithm as f + rest, in which f is exact."""
    k, f = split_logarithm(x)
    square = f * f
    if float_format(x) is SINGLE:
        rest = square.fma(-0.5, square * f * f.polynomial(*LOG_TAIL_SINGLE))
    else:
        s = f / (f + 2.0)
        z = s * s
        half_square = square * 0.5
        rest = s * (half_square + z * z.polynomial(*LOG_TAIL_DOUBLE)) - half_square
    high = f * base.scale[0]
    high_rest = f.fma(base.scale[0], -high)
    low = rest.fma(base.scale[0], f.fma(base.scale[1], high_rest))
    total, total_rest = two_sum(k * base.two[0], high)
    return log_special(x, total + (total_rest + k.fma(base.two[1], low)))


def log2(x: Lanes) -> Lanes:
    return log_of_base(x, TWO_SINGLE if float_format(x) is SINGLE else TWO_DOUBLE)


def log10(x: Lanes) -> Lanes:
    return log_of_base(x, TEN_SINGLE if float_format(x) is SINGLE else TEN_DOUBLE)


def square_limit(x: Lanes) -> float:
    """Below this, the square is finite; above it, log(1 + x) is log(x) to the last bit."""
    return 2.0 ** (float_format(x).bias // 2 - 1)


def asinh(x: Lanes) -> Lanes:
    """log(|x| + sqrt(x**2 + 1)) as log1p(|x| + x**2 / (1 + sqrt(x**2 + 1))), and log(2 |x|) where x is large."""
    magnitude = x.abs()
    large = magnitude > square_limit(x)
    rest = magnitude * magnitude / (magnitude.fma(magnitude, 1.0).sqrt() + 1.0)
    value = log1p(large.where(magnitude, magnitude + rest))
    return (value + large.where(x.const(LN2), 0.0)).copysign(x)


def acosh(x: Lanes) -> Lanes:
    """log(x + sqrt(x**2 - 1)) as log1p(t + sqrt(t (t + 2))) with t = x - 1, and log(2 x) where x is large; NaN below 1."""
    large = x > square_limit(x)
    t = x - 1.0
    value = log1p(large.where(x, t + t.fma(t, t + t).sqrt()))
    return (x < 1.0).where(float("nan"), value + large.where(x.const(LN2), 0.0))


def atanh(x: Lanes) -> Lanes:
    """log1p(2 |x| / (1 - |x|)) / 2, with the quotient as 2 |x| + 2 x**2 / (1 - |x|) below 1/2; NaN beyond 1."""
    magnitude = x.abs()
    twice = magnitude + magnitude
    small = magnitude < 0.5
    quotient = small.where(twice * magnitude, twice) / (1.0 - magnitude)
    return (log1p(small.where(twice + quotient, quotient)) * 0.5).copysign(x)


# minimax of erf(x) / x - 1 in x**2; erf(x) = x + x * P(x**2): relative error 2**-25.8 on [0, 0.93], 2**-62.8 on [0, 1]
ERF_SMALL_SINGLE = (-0.00059768965, 0.0049909805, -0.026765566, 0.112818025, -0.37612495, 0.12837915)
ERF_SMALL_DOUBLE = (
    5.960684792692577e-11,
    -1.1374954664835815e-09,
    1.4660328227506626e-08,
    -1.6350396112649666e-07,
    1.6461008463502946e-06,
    -1.4925595771013368e-05,
    0.00012055331132894142,
    -0.000854832698142344,
    0.0052239776248283855,
    -0.026866170645077868,
    0.11283791670954885,
    -0.3761263890318375,
    0.1283791670955126,
)
# minimax of -log(erfc(x)), weight erfc(x): absolute error of erfc 2**-29.3 on [0.92, 4], 2**-59.4 on [0.99, 6]
ERF_LARGE_SINGLE = (-0.00019494379, 0.0030336655, -0.022189679, 0.10385618, 0.6372659, 1.1276273, 0.00020703238)
ERF_LARGE_DOUBLE = (
    -1.068787737389364e-12,
    4.876906049779739e-11,
    -1.0415910385470087e-09,
    1.3819901938643035e-08,
    -1.2733365708447499e-07,
    8.606839494348293e-07,
    -4.374927397783099e-06,
    1.6690906102151306e-05,
    -4.5554664916541224e-05,
    7.15715446748941e-05,
    4.2580673132993995e-05,
    -0.0006378487555703375,
    0.0017651017732000602,
    -0.0002769193692264543,
    -0.01908065007001982,
    0.10274853664586531,
    0.6366280300870873,
    1.1283774307596492,
    1.6915436374508393e-07,
)


def erf(x: Lanes) -> Lanes:
    """x + x P(x**2) near 0, else 1 - exp(-Q(|x|)); beyond the range of Q the result is 1 to the last bit."""
    single = float_format(x) is SINGLE
    magnitude = x.abs()
    small = (x * x).polynomial(*(ERF_SMALL_SINGLE if single else ERF_SMALL_DOUBLE)).fma(magnitude, magnitude)
    limited = magnitude.at_most(4.0 if single else 6.0)
    n, r = split_exponential(-limited.polynomial(*(ERF_LARGE_SINGLE if single else ERF_LARGE_DOUBLE)))
    large = (-exp_fraction(r)).fma(power_of_two(n, float_format(x)), 1.0)
    return (magnitude < (0.92 if single else 1.0)).where(small, large).copysign(x)


# log(2) as the sum of two doubles, 85 bits together; k * LN2_HIGH is exact
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
# the series of 2 atanh(s) from 2/5 s**5 on; |s| < 0.172 makes the rest smaller than 2**-65
ATANH_TAIL = tuple(2.0 / (2 * k + 1) for k in range(12, 1, -1))


def two_sum(x: Lanes, y: Lanes) -> tuple[Lanes, Lanes]:
    """(s, e) with s + e = x + y exactly, for |x| >= |y| or x = 0 (Dekker)."""
    s = x + y
    return s, y - (s - x)


def two_product(x: Lanes, y: Lanes) -> tuple[Lanes, Lanes]:
    """(p, e) with p + e = x * y exactly."""
    p = x * y
    return p, x.fma(y, -p)


def log_pair(x: Lanes) -> tuple[Lanes, Lanes]:
    """log(x) as a sum of two doubles, about 70 bits together, for positive finite x: 2 atanh(s) with s = f / (2 + f)."""
    k, f = split_logarithm(x)
    below, below_rest = two_sum(f.const(2.0), f)
    s = f / below
    s_rest = ((-s).fma(below, f) - s * below_rest) / below
    z, z_rest = two_product(s, s)
    z_rest = s.fma(s_rest + s_rest, z_rest)
    # u = 2/3 + z * (2/5 + ...), the first coefficient as a pair
    u, u_rest = two_sum(f.const(2.0 / 3.0), z * z.polynomial(*ATANH_TAIL))
    u_rest = u_rest + 3.700743415417188e-17
    cube, cube_rest = two_product(z, s)
    cube_rest = z.fma(s_rest, z_rest.fma(s, cube_rest))
    tail, tail_rest = two_product(cube, u)
    tail_rest = cube.fma(u_rest, cube_rest.fma(u, tail_rest))
    series, series_rest = two_sum(s + s, tail)
    high, high_rest = two_sum(k * LN2_HIGH, series)
    low = k.fma(LN2_LOW, high_rest)
    low_rest = k.fma(LN2_LOW, high_rest - low)  # what rounding `low` lost
    return two_sum(high, low + (low_rest + (series_rest + (s_rest + s_rest + tail_rest))))


def power_special(x: Lanes, y: Lanes, result: Lanes) -> Lanes:
    """C's pow (Annex F) around `result` = |x| ** y: signs, and the cases that are 1 whatever the other argument is."""
    infinity = float("inf")
    integer = y.rint().equals(y)
    half = y * 0.5
    odd = integer & half.rint().differs(half)
    result = odd.where(result.copysign(x), result)
    negative = (x < 0.0) & (x > -infinity) & (y.abs() < infinity)
    result = (negative & ~integer).where(float("nan"), result)
    one = y.equals(0.0) | x.equals(1.0) | (x.equals(-1.0) & y.abs().equals(infinity))
    return one.where(1.0, result)


def pow(x: Lanes, y: Lanes) -> Lanes:
    """x ** y as exp(y log |x|): in f64 for f32; for f64 with the logarithm as a pair of doubles."""
    if float_format(x) is SINGLE:
        exponent = y.cast("fpext", F64) * log(x.abs().cast("fpext", F64))
        return power_special(x, y, exp(exponent).cast("fptrunc", F32))
    infinity = float("inf")
    magnitude = x.abs()
    high, low = log_pair(magnitude)
    ordinary = (magnitude > 0.0) & (magnitude < infinity)
    high = ordinary.where(high, log_special(magnitude, high))
    exponent, rest = two_product(y, high)
    rest = y.fma(ordinary.where(low, 0.0), rest)
    rest = (exponent.abs() < 1000.0).where(rest, 0.0)  # beyond, exp is 0 or infinity already, and rest may be NaN
    result = exp(exponent)
    finite = (result < infinity) & (rest.abs() < 1.0)
    return power_special(x, y, finite.where(result.fma(rest, result), result))


STEP = 52  # bits of a quotient that one step of a remainder finds


def remainder_step(rest: Lanes, divisor: Lanes) -> Lanes:
    """The remainder of rest / divisor, exact for quotients up to 2**52: a quotient rounded to the next whole number is undone."""
    quotient = (rest / divisor).call("trunc")
    left = (-quotient).fma(divisor, rest)
    left = (left < 0.0).where(left + divisor, left)
    return (divisor < float("inf")).where(left, rest)


def fmod(x: Lanes, y: Lanes) -> Lanes:
    """C's fmod, exact: x minus y times the quotient without its fraction. Long quotients are found 52 bits at a time, in f64."""
    single = float_format(x) is SINGLE
    divisor = (y.cast("fpext", F64) if single else y).abs()
    rest = (x.cast("fpext", F64) if single else x).abs()
    multiples = [divisor]
    for _ in range((277 if single else 2098) // STEP):  # the quotient of the largest number and the smallest has so many bits
        multiples.append(multiples[-1] * 2.0**STEP)

    def slow() -> tuple[Lanes, ...]:
        left = rest
        for multiple in multiples[:0:-1]:
            left = remainder_step(left, multiple)
        return (left,)

    (rest,) = (rest > multiples[1]).where_rarely(slow, (rest,))
    rest = divisor.equals(0.0).where(float("nan"), remainder_step(rest, divisor))
    return ((x - x).equals(0.0) & y.equals(y)).where(rest.cast("fptrunc", F32) if single else rest, float("nan")).copysign(x)


FORMULAS: dict[str, Callable[..., Lanes]] = {
    "exp": exp,
    "exp2": exponentials.exp2,
    "expm1": exponentials.expm1,
    "log": log,
    "log1p": log1p,
    "log2": log2,
    "log10": log10,
    "sinh": exponentials.sinh,
    "cosh": exponentials.cosh,
    "tanh": exponentials.tanh,
    "asinh": asinh,
    "acosh": acosh,
    "atanh": atanh,
    "sigmoid": exponentials.sigmoid,
    "erf": erf,
    "sin": trigonometry.sin,
    "cos": trigonometry.cos,
    "tan": trigonometry.tan,
    "asin": arcs.asin,
    "acos": arcs.acos,
    "atan": arcs.atan,
    "atan2": arcs.atan2,
    "pow": pow,
    "fmod": fmod,
}
TWO_ARGUMENTS = frozenset({"atan2", "pow", "fmod"})
