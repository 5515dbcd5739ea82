"""Integer division and remainder over lanes as in NumPy: rounded towards minus infinity; anything divided by 0 gives 0.

CPUs have no integer vector division. Up to 32 bits the quotient comes from f64 (f32 for u8), which is exact: the true quotient
of two such numbers is never nearer to an integer above it than the format can tell. 64 bits are divided lane by lane.
"""

from __future__ import annotations

from dslc.backends.cpu.lanes import F32, F64, I32, I64, Lanes


def _quotient_by_float(x: Lanes, y: Lanes, signed: bool) -> Lanes:
    real, whole = (F64, I32) if signed else (F32, I32)
    a, b = (v.cast("sitofp" if signed else "uitofp", real) for v in (x, y))
    quotient = (a / b).call("floor").cast("fptosi", whole)
    return quotient if x.type.element == I32 else quotient.cast("trunc", x.type.element)


def _quotient_by_lane(x: Lanes, y: Lanes) -> Lanes:
    q = Lanes(x.b, x.b.sdiv(x.v, y.v))
    inexact = (q * y).differs(x)
    return (inexact & ((x ^ y) < 0)).where(q - 1, q)


def floor_divide(x: Lanes, y: Lanes, signed: bool) -> Lanes:
    """floor(x / y); 0 where y is 0; the most negative integer divided by -1 wraps to itself."""
    zero = y.equals(0)
    if not signed:
        return zero.where(0, _quotient_by_float(x, zero.where(1, y), signed))
    minus_one = y.equals(-1)
    divisor = (zero | minus_one).where(1, y)
    quotient = _quotient_by_lane(x, divisor) if x.type.element == I64 else _quotient_by_float(x, divisor, signed)
    return zero.where(0, minus_one.where(-x, quotient))


def modulo(x: Lanes, y: Lanes, signed: bool) -> Lanes:
    """x - floor(x / y) * y, with y's sign; 0 where y is 0."""
    return y.equals(0).where(0, x - floor_divide(x, y, signed) * y)
