"""Counter-based random numbers: Philox4x32-10 in NumPy, the reference of every backend's generator.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11. A number depends on
(seed, stream, counter, index) alone, so a draw can be repeated anywhere, in any order, by any thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MASK = 0xFFFFFFFF

Words = npt.NDArray[np.uint64]


def philox4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Ten rounds over arrays of 32-bit words, each held in a uint64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    mask, shift = np.uint64(MASK), np.uint64(32)
    for _ in range(ROUNDS):
        p0, p1 = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ np.uint64(k0), p1 & mask, (p0 >> shift) ^ c3 ^ np.uint64(k1), p0 & mask
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def philox_bits(seed: int, stream: int, counter: int, index: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """32 random bits for each index (any shape), as int32.

    The key is the seed's low and high word; the counter words are (index >> 2) low and high, stream, counter; index & 3
    chooses among the four output words.
    """
    position = np.asarray(index, np.int64).astype(np.uint64)
    block, shift = position >> np.uint64(2), np.uint64(32)
    fixed = [np.full(position.shape, word & MASK, np.uint64) for word in (stream, counter)]
    words = philox4x32((block & np.uint64(MASK), block >> shift, fixed[0], fixed[1]), (seed & MASK, (seed >> 32) & MASK))
    chosen = np.choose((position & np.uint64(3)).astype(np.intp), words)
    return chosen.astype(np.uint32).view(np.int32)


def uniform(bits: npt.NDArray[np.int32], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Numbers in [0, 1): 24 bits for float32, all 32 bits for float64; every value is exact."""
    unsigned = bits.view(np.uint32)
    if np.dtype(dtype) == np.float32:
        return (unsigned >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return unsigned.astype(np.float64) * 2.0**-32
