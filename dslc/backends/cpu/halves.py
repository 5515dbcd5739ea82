"""f16 and bf16 lanes, given as their bits, to and from f32: exact one way, rounded to nearest even the other.

Integer code, so that every processor gives the same bits, subnormal numbers and NaN included; an f64 is rounded once, through an
f32 whose last bit is odd where it is inexact. F. Giesen, "Half to float done quick", 2012.
"""

from __future__ import annotations

from dslc.backends.cpu.lanes import F32, F64, I16, I32, Lanes

SIGN, INFINITE = 0x8000_0000 - (1 << 32), 0x7F80_0000


def from_bf16(x: Lanes) -> Lanes:
    """The f32 whose upper half is x."""
    return (x.cast("zext", I32) << 16).as_float()


def to_bf16(x: Lanes) -> Lanes:
    """An f32 or f64 rounded to bf16; the upper bits of a NaN stay, and it is quiet."""
    bits = _odd(x)
    rounded = (bits + 0x7FFF + (bits.lshr(16) & 1)).lshr(16)
    return _is_nan(bits).where(bits.lshr(16) | 0x40, rounded).cast("trunc", I16)


def from_f16(x: Lanes) -> Lanes:
    """The f32 that equals x."""
    wide = x.cast("zext", I32)
    magnitude = (wide & 0x7FFF) << 13
    exponent = magnitude & 0x0F80_0000
    normal = magnitude + ((127 - 15) << 23)
    special = normal + ((128 - 16) << 23)
    small = ((normal + (1 << 23)).as_float() - normal.const((127 - 14) << 23).as_float()).bits()
    bits = exponent.equals(0x0F80_0000).where(special, exponent.equals(0).where(small, normal))
    return (bits | ((wide & 0x8000) << 16)).as_float()


def to_f16(x: Lanes) -> Lanes:
    """An f32 or f64 rounded to f16; 65520 and more are infinite, a NaN stays a quiet one."""
    bits = _odd(x)
    sign = bits & SIGN
    magnitude = bits ^ sign
    normal = (magnitude + (((15 - 127) << 23) + 0xFFF) + (magnitude.lshr(13) & 1)).lshr(13)
    shift = magnitude.const(((127 - 15) + (23 - 10) + 1) << 23)  # adding 0.5 leaves the subnormal number in the last bits, rounded
    small = (magnitude.as_float() + shift.as_float()).bits() - shift
    huge = (magnitude > INFINITE).where(magnitude.lshr(13) & 0x3FF | 0x7E00, 0x7C00)
    value = (magnitude < ((127 + 16) << 23)).where((magnitude < (113 << 23)).where(small, normal), huge)
    return (value | sign.lshr(16)).cast("trunc", I16)


WIDEN = {"f16": from_f16, "bf16": from_bf16}
NARROW = {"f16": to_f16, "bf16": to_bf16}


def _is_nan(bits: Lanes) -> Lanes:
    return (bits & 0x7FFF_FFFF) > INFINITE


def _odd(x: Lanes) -> Lanes:
    """The bits of x as f32; an f64 that no f32 equals becomes its neighbour with an odd last bit."""
    if x.type.element == F32:
        return x.bits()
    near = x.cast("fptrunc", F32)
    bits, back = near.bits(), near.cast("fpext", F64)
    inexact = (back < x) | (back > x)  # false for NaN
    away = (back.abs() > x.abs()).where(bits - 1, bits + 1)
    return (inexact & (bits & 1).equals(0)).where(away, bits)
