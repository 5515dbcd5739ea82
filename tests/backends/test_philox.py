"""Philox4x32-10: the published test vectors, the kernel against its NumPy twin, and the range of uniform numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lane_kernels import at_all_widths

from dslc.ir import philox

# Random123's kat_vectors for philox4x32 with 10 rounds: counter, key, result
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
INDICES = np.concatenate([np.arange(100), [2**31 - 1, 2**34 - 1, 2**34, 2**34 + 1, 2**40 + 3, 2**62]]).astype(np.int64)


@pytest.mark.parametrize(("counter", "key", "result"), VECTORS)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, int], result: tuple[int, ...]) -> None:
    words = tuple(np.array([w], np.uint64) for w in counter)
    assert tuple(int(w[0]) for w in philox.philox4x32(words, key)) == result  # type: ignore[arg-type]


def test_published_vector_through_the_index() -> None:
    # counter (index >> 2) = 0x85A308D3243F6A88 does not fit an int64 index times 4; a low half of zeros does
    bits = philox.philox_bits(0, 0, 0, np.arange(4))
    assert tuple(int(b) for b in bits.view(np.uint32)) == VECTORS[0][2]
    assert not np.array_equal(philox.philox_bits(0, 0, 0, np.arange(4, 8)), bits)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**40 + 17, -(2**63)])
def test_kernel_equals_twin(seed: int) -> None:
    for stream, counter in ((0, 0), (7, 2**32 + 5), (2**31, -1)):
        got = at_all_widths(f"philox_bits({seed}, {stream}, {counter}, x0)", [INDICES], np.int32)
        assert np.array_equal(got, philox.philox_bits(seed, stream, counter, INDICES))


def test_kernel_takes_seed_and_counter_as_lanes() -> None:
    seeds, counters = np.full(len(INDICES), 123456789123, np.int64), np.full(len(INDICES), 42, np.int64)
    got = at_all_widths("philox_bits(x0, 3, x1, x2)", [seeds, counters, INDICES], np.int32)
    assert np.array_equal(got, philox.philox_bits(123456789123, 3, 42, INDICES))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform(dtype: Any) -> None:
    extreme = np.array([0, 1, 255, 256, 2**31 - 1, -(2**31), -1], np.int32)
    bits = np.concatenate([extreme, philox.philox_bits(5, 1, 0, np.arange(1 << 14))])
    name = "f32" if dtype == np.float32 else "f64"
    got = at_all_widths(f"uniform_{name}(x0)", [bits], dtype)
    assert np.array_equal(got, philox.uniform(bits, dtype))
    assert got.min() >= 0 and got.max() < 1
    assert abs(got[len(extreme) :].mean() - 0.5) < 0.01 and abs(got[len(extreme) :].var() - 1 / 12) < 0.005


def test_streams_seeds_and_counters_differ() -> None:
    index = np.arange(1000)
    draws = [philox.philox_bits(*key, index) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32, 0, 0))]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert (a == b).mean() < 0.01
