"""Philox4x32-10 over lanes; `dslc.ir.philox` is the same in NumPy and names the source."""

from __future__ import annotations

from dslc.backends.cpu.lanes import F32, F64, I32, I64, Lanes
from dslc.ir.philox import MASK, MULTIPLIERS, ROUNDS, WEYL


def philox_bits(seed: Lanes, stream: Lanes, counter: Lanes, index: Lanes) -> Lanes:
    """32 random bits for each index; all arguments are i64 lanes, the result i32 lanes."""
    block = index.lshr(2)
    c0, c1, c2, c3 = block & MASK, block.lshr(32), stream & MASK, counter & MASK  # each word in the low half of 64 bits
    k0, k1 = seed & MASK, seed.lshr(32)
    for _ in range(ROUNDS):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = p1.lshr(32) ^ c1 ^ k0, p1 & MASK, p0.lshr(32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    word = index & 3
    chosen = word.equals(0).where(c0, word.equals(1).where(c1, word.equals(2).where(c2, c3)))
    return chosen.cast("trunc", I32)


def uniform_f32(bits: Lanes) -> Lanes:
    """[0, 1) from the upper 24 bits."""
    return bits.lshr(8).cast("sitofp", F32) * 2.0**-24


def uniform_f64(bits: Lanes) -> Lanes:
    """[0, 1) from all 32 bits."""
    return bits.cast("zext", I64).cast("sitofp", F64) * 2.0**-32
