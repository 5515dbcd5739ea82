"""The math library: error in units of the last place, special values as in NumPy, the same bits at every width."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lane_kernels import at_all_widths, same, ulps

L = np.longdouble
EXTENDED = np.finfo(L).nmant >= 63  # a reference for f64 needs more than f64

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-45, -1e-45, 1e-38, -1e-38, 0.5, 2.0, 0.625, 0.92, 4.0, 5.9, 18.4])
# where exp overflows, becomes subnormal, becomes 0, in f32 and f64; the limit of the quick reduction of angles
EDGES = np.array([88.7, 88.8, -87.3, -87.4, -103.9, -104.5, 709.7, 709.8, -708.3, -708.4, -745.1, -745.2, 131072.0, 131073.0, 3.4e38])
DEEP = np.array([5e-324, -5e-324, 1e-308, 2.2e-308, 1.7e308, -1.7e308, 2.0**30, 2.0**30 + 1])


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        yield


def erf(x: np.ndarray) -> np.ndarray:
    """Reference by the series of positive terms erf(x) = 2/sqrt(pi) exp(-x*x) sum of 2**n x**(2n+1) / (1 3 5 ... (2n+1))."""
    limited = np.clip(x, -7, 7).astype(L)
    term = limited.copy()
    total = term.copy()
    for n in range(1, 200):
        term = term * (2 * limited * limited) / (2 * n + 1)
        total += term
    value = 2 / np.sqrt(4 * np.arctan(L(1))) * np.exp(-limited * limited) * total
    return np.where(np.abs(x) >= 7, np.sign(x), np.where(x == 0, x, value))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# name: reference, bound in f32, bound in f64
FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, float]] = {
    "exp": (np.exp, 0.9, 0.9),
    "expm1": (np.expm1, 1.5, 2.0),
    "log": (np.log, 0.85, 0.9),
    "log1p": (np.log1p, 1.5, 1.5),
    "tanh": (np.tanh, 1.4, 2.7),
    "sigmoid": (sigmoid, 1.05, 2.5),
    "erf": (erf, 1.3, 1.2),
    "sin": (np.sin, 1.6, 2.7),
    "cos": (np.cos, 1.6, 2.7),
}


def samples(name: str, dtype: Any) -> np.ndarray:
    rng = np.random.default_rng(7)
    word = np.uint32 if dtype == np.float32 else np.uint64
    any_bits = rng.integers(0, np.iinfo(word).max, 1 << 15, dtype=word).view(dtype)
    parts = [SPECIAL, EDGES, rng.standard_normal(1 << 15) * 20, rng.standard_normal(1 << 15), rng.standard_normal(1 << 13) * 1e-3, any_bits]
    if dtype == np.float64:
        parts.append(DEEP)
    if name in ("log", "log1p"):
        parts.append(1 + rng.standard_normal(1 << 13) * 1e-2)
    if name in ("sin", "cos"):
        parts += [np.linspace(-1e5, 1e5, 1 << 14), np.arange(1, 1 << 13) * (np.pi / 2)]
    return np.concatenate([p.astype(dtype) for p in parts])


def precise(name: str, x: np.ndarray) -> np.ndarray:
    function = FUNCTIONS[name][0]
    wide = function(x.astype(L))
    # -0 in, -0 out for the odd functions, whatever the reference made of it
    return np.where(x == 0, x, wide) if name in ("expm1", "log1p", "tanh", "erf", "sin") else wide


@pytest.mark.parametrize("name", FUNCTIONS)
def test_f32(name: str) -> None:
    x = samples(name, np.float32)
    got = at_all_widths(f"v{name}(x0)", [x], np.float32)
    error, worst = ulps(got, precise(name, x))
    assert error <= FUNCTIONS[name][1], (error, x[worst], got[worst])


@pytest.mark.skipif(not EXTENDED, reason="no type wider than f64 to compare with")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_f64(name: str) -> None:
    x = samples(name, np.float64)
    got = at_all_widths(f"v{name}(x0)", [x], np.float64)
    error, worst = ulps(got, precise(name, x))
    assert error <= FUNCTIONS[name][2], (error, x[worst], got[worst])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values_are_numpys(name: str, dtype: Any) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1.0, -2.0, 1.0], dtype)
    got = at_all_widths(f"v{name}(x0)", [x], dtype)
    want = FUNCTIONS[name][0](x)
    exact = ~np.isfinite(want) | (want == 0)
    assert same(got[exact], want.astype(dtype)[exact])


# 355/113 and the f32 and f64 numbers known to lie nearest to a multiple of pi/2 in their formats
# (J.-M. Muller, Elementary Functions; the f64 one is 6381956970095103 * 2**797)
HARD = {np.float32: [16367173.0 * 2.0**72, 355.0, 1e10, 3.0e38], np.float64: [6381956970095103.0 * 2.0**797, 1e22, 355.0, 2.0**1000]}


@pytest.mark.skipif(not EXTENDED, reason="no type wider than f64 to compare with")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_hard_and_huge_angles(name: str, dtype: Any) -> None:
    hard = np.array(HARD[dtype], dtype)
    x = np.concatenate([hard, -hard, np.geomspace(1e5, float(np.finfo(dtype).max), 5000).astype(dtype)])
    got = at_all_widths(f"v{name}(x0)", [x], dtype)
    assert (np.abs(got) <= 1).all()
    error, worst = ulps(got, FUNCTIONS[name][0](x.astype(L)))
    assert error <= 2.7, (error, x[worst])


BASES = np.array([0.0, -0.0, 1, -1, 2, -2, 0.5, -0.5, np.inf, -np.inf, np.nan, 3, -3, 1e-40, 1e30, -1e30, 1.0000001, 0.9999999])
EXPONENTS = np.array(
    [0.0, -0.0, 1, -1, 2, -2, 3, -3, 0.5, -0.5, 2.5, np.inf, -np.inf, np.nan, 1e10, -1e10, 16777215, 1e300, 9007199254740993]
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pow_special_values(dtype: Any) -> None:
    x, y = (a.ravel().astype(dtype) for a in np.meshgrid(BASES, EXPONENTS))
    got, want = at_all_widths("vpow(x0, x1)", [x, y], dtype), np.power(x, y)
    assert (np.isnan(got) == np.isnan(want)).all()
    exact = ~np.isfinite(want) | (want == 0) | (np.abs(want) == 1)
    assert same(got[exact], want[exact])
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()


@pytest.mark.skipif(not EXTENDED, reason="no type wider than f64 to compare with")
@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 0.51), (np.float64, 1.6)])
def test_pow(dtype: Any, bound: float) -> None:
    rng, n = np.random.default_rng(3), 1 << 14
    x = np.concatenate([np.exp(rng.standard_normal(n) * 5), 1 + rng.standard_normal(n) * 1e-3, rng.standard_normal(n)]).astype(dtype)
    y = np.concatenate([rng.standard_normal(n) * 10, rng.standard_normal(n) * 3e4, rng.integers(-30, 30, n)]).astype(dtype)
    got = at_all_widths("vpow(x0, x1)", [x, y], dtype)
    error, worst = ulps(got, np.power(x.astype(L), y.astype(L)))
    assert error <= bound, (error, x[worst], y[worst])


def test_rsqrt_is_two_rounded_steps() -> None:
    x = np.concatenate([samples("log", np.float32), [4.0]]).astype(np.float32)
    assert same(at_all_widths("vrsqrt(x0)", [x], np.float32), np.float32(1) / np.sqrt(x))
