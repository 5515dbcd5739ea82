"""sin, cos and tan as LLVM expressions over `Lanes`, for f32 and f64, accurate for every finite argument.

x is reduced to r = x - n pi/2, |r| <= pi/4: with pi/2 in three parts (Cody and Waite) for ordinary arguments, and with the bits of
2/pi that matter (Payne and Hanek) where some lane is large. The second way stands behind a branch that is hardly ever taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from dslc.backends.cpu.lanes import F32, F64, I32, I64, Lanes


@dataclass(frozen=True, slots=True)
class Reduction:
    """How a format's arguments are reduced, and the polynomials on |r| <= pi/4."""

    magic: float  # 1.5 * 2**mantissa, as in `mathlib.FloatFormat`
    mantissa: int
    bias: int
    parts: tuple[float, float, float]  # pi/2 as a sum
    limit: float  # up to here n times the first part is subtracted exactly
    window: int  # 32-bit words of 2/pi that a product needs
    sin_tail: tuple[float, ...]  # (sin(r) / r - 1) / r**2 in r**2
    cos_tail: tuple[float, ...]  # (cos(r) - 1 + r**2 / 2) / r**4 in r**2


SINGLE = Reduction(
    magic=12582912.0,
    mantissa=23,
    bias=127,
    parts=(1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
    limit=131072.0,
    window=3,
    # minimax: relative errors of sin and cos 2**-37.6 and 2**-33.3
    sin_tail=(2.7183041e-06, -0.00019839335, 0.008333329, -0.16666667),
    cos_tail=(2.4438381e-05, -0.0013887367, 0.041666646),
)

DOUBLE = Reduction(
    magic=6755399441055744.0,
    mantissa=52,
    bias=1023,
    parts=(1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
    limit=1073741824.0,
    window=6,
    # minimax: relative errors of sin and cos 2**-58 and 2**-64.2
    sin_tail=(
        1.5896796103049239e-10,
        -2.5050758124194802e-08,
        2.7557313691985703e-06,
        -0.00019841269829808052,
        0.008333333333322415,
        -0.16666666666666632,
    ),
    cos_tail=(
        -1.1359648494099235e-11,
        2.0875723289620876e-09,
        -2.755731435248203e-07,
        2.480158728948283e-05,
        -0.0013888888888874125,
        0.0416666666666666,
    ),
)

TWO_OVER_PI = 0.6366197723675814
HALF_PI = 1.5707963267948966
# the bits of 2/pi behind the binary point, in words of 32, after two words of zeros
TWO_OVER_PI_WORDS = (
    0, 0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB, 0xDEBBC561, 0xB7246E3A, 0x424DD2E0,
    0x06492EEA, 0x09D1921C, 0xFE1DEB1C, 0xB129A73E, 0xE88235F5, 0x2EBB4484, 0xE99C7026, 0xB45F7E41, 0x3991D639, 0x835339F4,
    0x9C845F8B, 0xBDF9283B, 0x1FF897FF, 0xDE05980F, 0xEF2F118B, 0x5A0A6D1F, 0x6D367ECF, 0x27CB09B7, 0x4F463F66, 0x9E5FEA2D,
    0x7527BAC7, 0xEBE5F17B, 0x3D0739F7, 0x8A5292EA, 0x6BFB5FB1, 0x1F8D5D08, 0x56033046, 0xFC7B6BAB, 0xF0CFBC20, 0x9AF4361D,
)  # fmt: skip
LOW_WORD = 0xFFFFFFFF


def multiply_words(factor: list[Lanes], window: list[Lanes]) -> list[Lanes]:
    """The product of two numbers in 32-bit words (lowest first), modulo the length of the second."""
    count = len(window)
    columns: list[list[Lanes]] = [[] for _ in range(count + 1)]
    for i, a in enumerate(factor):
        for j, w in enumerate(window[: count - i]):
            product = a * w
            columns[i + j].append(product & LOW_WORD)
            columns[i + j + 1].append(product.lshr(32))
    words: list[Lanes] = []
    carry = window[0].const(0)
    for column in columns[:count]:
        total = carry
        for part in column:
            total = total + part
        words.append(total & LOW_WORD)
        carry = total.lshr(32)
    return words


def reduce_large(x: Lanes, f: Reduction) -> tuple[Lanes, Lanes]:
    """(n modulo 4 as i64 lanes, r) by Payne and Hanek's method: only the bits of 2/pi that move n modulo 4 and r are multiplied."""
    single = f is SINGLE
    bits = x.abs().bits()
    wide = bits.cast("zext", I64) if single else bits
    mantissa = (wide & ((1 << f.mantissa) - 1)) | (1 << f.mantissa)
    exponent = wide.lshr(f.mantissa) - (f.bias + f.mantissa)  # x = mantissa * 2**exponent
    # the window starts where a bit of 2/pi times 2**exponent weighs 2; the table has 64 bits before the binary point
    start = exponent + 62
    inside = start.ult(32 * (len(TWO_OVER_PI_WORDS) - f.window - 1))  # else this lane is small, infinite or NaN: its result is not used
    start = inside.where(start, 0)
    shift = start & 31
    first = start.lshr(5)
    raw = [(first + i).lookup(TWO_OVER_PI_WORDS, "two_over_pi") for i in range(f.window + 1)]
    window = [((((high << 32) | low) << shift).lshr(32)) for high, low in pairwise(raw)]
    factor = [mantissa] if single else [mantissa & LOW_WORD, mantissa.lshr(32)]
    words = multiply_words(factor, window[::-1])[::-1]
    turns = (words[0] << 32) | words[1]  # x * 2/pi modulo 4, in units of 2**-62
    n = (turns + (1 << 61)).lshr(62)
    rest = turns - (n << 62)
    r = rest.cast("sitofp", F64)
    if not single:
        r = r + ((words[2] << 32) | words[3]).lshr(1).cast("sitofp", F64) * 2.0**-63
    r = r * (HALF_PI * 2.0**-62)
    negative = x < 0.0
    n, r = negative.where(-n, n), r.cast("fptrunc", F32) if single else r
    return n, negative.where(-r, r)


def reduce(x: Lanes) -> tuple[Lanes, Lanes, Reduction]:
    """(n, r) with x = n pi/2 + r; of n, integer lanes as wide as x's, only the low two bits count."""
    f = DOUBLE if x.type.element == F64 else SINGLE
    shifted = x.fma(TWO_OVER_PI, f.magic)
    count = shifted - f.magic
    r = x
    for part in f.parts:
        r = count.fma(-part, r)
    n = shifted.bits()
    large = x.abs() > f.limit

    def slow() -> tuple[Lanes, Lanes]:
        n_large, r_large = reduce_large(x, f)
        return n_large if f is DOUBLE else n_large.cast("trunc", I32), (x.abs() < float("inf")).where(r_large, float("nan"))

    n, r = large.where_rarely(slow, (n, r))
    return n, r, f


def sine(n: Lanes, r: Lanes, f: Reduction) -> Lanes:
    """sin(n pi/2 + r)."""
    z = r * r
    sin_r = (z * r).fma(z.polynomial(*f.sin_tail), r)
    cos_r = (z * z).fma(z.polynomial(*f.cos_tail), z.fma(-0.5, 1.0))
    value = (n & 1).differs(0).where(cos_r, sin_r)
    return (n & 2).differs(0).where(-value, value)


def sin(x: Lanes) -> Lanes:
    n, r, f = reduce(x)
    return x.equals(0.0).where(x, sine(n, r, f))  # keeps the sign of zero


def cos(x: Lanes) -> Lanes:
    n, r, f = reduce(x)
    return sine(n + 1, r, f)


def tan(x: Lanes) -> Lanes:
    """sin / cos of the reduced angle, or -cos / sin in the odd quarters."""
    n, r, f = reduce(x)
    z = r * r
    sin_r = (z * r).fma(z.polynomial(*f.sin_tail), r)
    cos_r = (z * z).fma(z.polynomial(*f.cos_tail), z.fma(-0.5, 1.0))
    odd = (n & 1).differs(0)
    value = odd.where(-cos_r, sin_r) / odd.where(sin_r, cos_r)
    return x.equals(0.0).where(x, value)
