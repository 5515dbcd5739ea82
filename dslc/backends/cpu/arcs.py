"""asin, acos, atan and atan2 as LLVM expressions over `Lanes`, for f32 and f64.

Made of correctly rounded operations in a fixed order, as in `mathlib.py`; its polynomials are minimax in the same sense.
Measured errors stand in `tests/backends/test_mathlib.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from dslc.backends.cpu.lanes import F64, Lanes


@dataclass(frozen=True, slots=True)
class Arcs:
    """A format's constants."""

    atan_tail: tuple[float, ...]  # (atan(t) / t - 1) / t**2 in t**2 on |t| <= tan(pi/8)
    asin_tail: tuple[float, ...]  # (asin(s) / s - 1) / s**2 in s**2 on |s| <= 1/2
    half_pi: float
    half_pi_rest: float  # pi/2 = half_pi + half_pi_rest, both numbers of the format
    three_quarters: float  # of pi
    three_quarters_rest: float
    huge: float  # a sum of two numbers below it is finite
    tiny: float  # products of numbers above it keep their precision


SINGLE = Arcs(
    atan_tail=(-0.06077982, 0.105937235, -0.14243522, 0.19998471, -0.33333316),  # relative error of atan 2**-30.5
    asin_tail=(0.04216632, 0.024179509, 0.045470376, 0.074952975, 0.16666752),  # relative error of asin 2**-27.6
    half_pi=1.5707963705062866,
    half_pi_rest=-4.371138828673793e-08,
    three_quarters=2.356194496154785,
    three_quarters_rest=-5.962440319251527e-09,
    huge=2.0**126,
    tiny=2.0**-96,
)

DOUBLE = Arcs(
    # relative error of atan 2**-64.2
    atan_tail=(
        0.015193185649989381,
        -0.033471909050320686,
        0.045034113743313765,
        -0.052183627278211665,
        0.0587701400820178,
        -0.06666225813129457,
        0.07692282683538411,
        -0.0909090814065495,
        0.11111111088053328,
        -0.14285714285385703,
        0.19999999999997647,
        -0.33333333333333326,
    ),
    # relative error of asin 2**-59.9
    asin_tail=(
        0.032628533173808406,
        -0.02099893227370231,
        0.021707368045342044,
        0.0037064344547878643,
        0.010780248289859296,
        0.011398912486185393,
        0.013980820602104394,
        0.017351611999932137,
        0.022372214989031317,
        0.03038194270770803,
        0.04464285717461412,
        0.07499999999970797,
        0.1666666666666676,
    ),
    half_pi=1.5707963267948966,
    half_pi_rest=6.123233995736766e-17,
    three_quarters=2.356194490192345,
    three_quarters_rest=9.184850993605148e-17,
    huge=2.0**1022,
    tiny=2.0**-960,
)

TAN_EIGHTH = 0.4142135623730951  # tan(pi/8)


def arcs(x: Lanes) -> Arcs:
    return DOUBLE if x.type.element == F64 else SINGLE


def quotient_angle(y: Lanes, x: Lanes, reflected: Lanes | None) -> Lanes:
    """atan(y / x) for y >= 0, x >= 0, not both 0 or infinite; pi minus it where `reflected`.

    One division serves all: the angle is atan(y / x) below tan(pi/8), else pi/4 + atan((y - x) / (y + x)), else pi/2 - atan(x / y).
    """
    f = arcs(x)
    low, middle = y <= x * TAN_EIGHTH, y * TAN_EIGHTH < x
    above = low.where(y, middle.where(y - x, -x))
    below = low.where(x, middle.where(y + x, y))
    t = above / below
    # the angle of y = x is half of pi/2, and halving is exact
    base = low.where(0.0, middle.where(x.const(0.5 * f.half_pi), f.half_pi))
    rest = low.where(0.0, middle.where(x.const(0.5 * f.half_pi_rest), f.half_pi_rest))
    if reflected is not None:
        t = reflected.where(-t, t)
        base = reflected.where(low.where(x.const(2 * f.half_pi), middle.where(x.const(f.three_quarters), f.half_pi)), base)
        rest = reflected.where(low.where(x.const(2 * f.half_pi_rest), middle.where(x.const(f.three_quarters_rest), f.half_pi_rest)), rest)
    z = t * t
    return base + (z * t).fma(z.polynomial(*f.atan_tail), rest + t)


def atan(x: Lanes) -> Lanes:
    return quotient_angle(x.abs(), x.const(1.0), None).copysign(x)


def atan2(y: Lanes, x: Lanes) -> Lanes:
    """C's atan2: the angle of the point (x, y), with the signs of zeros counted and infinities taken as directions."""
    f = arcs(x)
    above, across = y.abs(), x.abs()
    infinity = float("inf")
    both_infinite = above.equals(infinity) & across.equals(infinity)
    above, across = both_infinite.where(1.0, above), both_infinite.where(1.0, across)
    across = (above.equals(0.0) & across.equals(0.0)).where(1.0, across)
    small = ((above < f.tiny) & (across < f.tiny)).where(x.const(2.0**60), 1.0)
    scale = ((above > f.huge) | (across > f.huge)).where(0.25, small)
    leftwards = x.const(1.0).copysign(x) < 0.0
    angle = quotient_angle(above * scale, across * scale, leftwards)
    return (x.is_nan() | y.is_nan()).where(x + y, angle.copysign(y))


def half_angle(x: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """(s, tail, rest) with asin(sqrt(z)) = s + tail + rest: z = (1 - |x|) / 2, s = sqrt(z) rounded, rest what rounding lost."""
    f = arcs(x)
    z = (1.0 - x.abs()) * 0.5
    s = z.sqrt()
    rest = z.equals(0.0).where(0.0, (-s).fma(s, z) / (s + s))
    return s, s * (z * z.polynomial(*f.asin_tail)), rest


def asin(x: Lanes) -> Lanes:
    """A polynomial up to 1/2, else pi/2 - 2 asin(sqrt((1 - |x|) / 2)); NaN beyond 1."""
    f = arcs(x)
    magnitude = x.abs()
    z = x * x
    small = (magnitude * z).fma(z.polynomial(*f.asin_tail), magnitude)
    s, tail, rest = half_angle(x)
    large = f.half_pi - (2.0 * s - (f.half_pi_rest - 2.0 * (tail + rest)))
    return (magnitude <= 0.5).where(small, large).copysign(x)


def acos(x: Lanes) -> Lanes:
    """pi/2 - asin(x) up to 1/2, else 2 asin(sqrt((1 - x) / 2)), and pi minus that of -x for negative x; NaN beyond 1."""
    f = arcs(x)
    z = x * x
    small = f.half_pi - (x - (x * z).fma(-z.polynomial(*f.asin_tail), f.half_pi_rest))
    s, tail, rest = half_angle(x)
    angle = 2.0 * (s + (tail + rest))
    large = (x < 0.0).where(2.0 * f.half_pi - (2.0 * s - 2.0 * (f.half_pi_rest - (tail + rest))), angle)
    return (x.abs() <= 0.5).where(small, large)
