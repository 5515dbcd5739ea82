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
    "sigmoid": (sigmoid, 1.3, 2.5),
    "erf": (erf, 1.3, 1.2),
    "sin": (np.sin, 1.6, 2.7),
    "cos": (np.cos, 1.6, 2.7),
    "tan": (np.tan, 3.4, 3.8),
    "exp2": (np.exp2, 1.0, 1.0),
    "log2": (np.log2, 0.9, 0.9),
    "log10": (np.log10, 0.85, 0.9),
    "sinh": (np.sinh, 1.7, 1.7),
    "cosh": (np.cosh, 1.35, 1.35),
    "asinh": (np.arcsinh, 2.0, 2.0),
    "acosh": (np.arccosh, 2.5, 2.5),
    "atanh": (np.arctanh, 1.9, 1.9),
    "asin": (np.arcsin, 1.3, 1.3),
    "acos": (np.arccos, 0.9, 0.9),
    "atan": (np.arctan, 2.2, 2.4),
}
ODD = {"expm1", "log1p", "tanh", "erf", "sin", "tan", "sinh", "asinh", "atanh", "asin", "atan"}


def samples(name: str, dtype: Any) -> np.ndarray:
    rng = np.random.default_rng(7)
    word = np.uint32 if dtype == np.float32 else np.uint64
    any_bits = rng.integers(0, np.iinfo(word).max, 1 << 15, dtype=word).view(dtype)
    parts = [SPECIAL, EDGES, rng.standard_normal(1 << 15) * 20, rng.standard_normal(1 << 15), rng.standard_normal(1 << 13) * 1e-3, any_bits]
    if dtype == np.float64:
        parts.append(DEEP)
    if name.startswith("log") or name == "acosh":
        parts.append(1 + rng.standard_normal(1 << 13) * 1e-2)
    if name in ("log2", "log10"):
        parts += [2.0 ** np.arange(-126, 128), 10.0 ** np.arange(0, 23)]
    if name in ("asin", "acos", "atanh"):
        parts += [rng.uniform(-1, 1, 1 << 15), 1 - np.geomspace(1e-16, 0.1, 1 << 12)]
    if name in ("sinh", "cosh"):
        parts += [rng.uniform(88, 90, 1 << 10), rng.uniform(709, 711, 1 << 10), rng.uniform(-2, 2, 1 << 15)]
    if name == "exp2":
        parts += [np.arange(-1080.0, 1026), np.arange(-150.0, 129, 0.125)]
    if name in ("sin", "cos", "tan"):
        parts += [np.linspace(-1e5, 1e5, 1 << 14), np.arange(1, 1 << 13) * (np.pi / 2)]
    return np.concatenate([p.astype(dtype) for p in parts])


def precise(name: str, x: np.ndarray) -> np.ndarray:
    function = FUNCTIONS[name][0]
    wide = function(x.astype(L))
    # -0 in, -0 out for the odd functions, whatever the reference made of it
    return np.where(x == 0, x, wide) if name in ODD else wide


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
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_hard_and_huge_angles(name: str, dtype: Any) -> None:
    hard = np.array(HARD[dtype], dtype)
    x = np.concatenate([hard, -hard, np.geomspace(1e5, float(np.finfo(dtype).max), 5000).astype(dtype)])
    got = at_all_widths(f"v{name}(x0)", [x], dtype)
    assert name == "tan" or (np.abs(got) <= 1).all()
    error, worst = ulps(got, FUNCTIONS[name][0](x.astype(L)))
    assert error <= (3.8 if name == "tan" else 2.7), (error, x[worst])


POINTS = np.array([0.0, -0.0, 1, -1, 0.3, -2.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-38, 3.4e38, -3.4e38])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_atan2_special_values(dtype: Any) -> None:
    y, x = (a.ravel().astype(dtype) for a in np.meshgrid(np.concatenate([POINTS, DEEP]), np.concatenate([POINTS, DEEP])))
    got, want = at_all_widths("vatan2(x0, x1)", [y, x], dtype), np.arctan2(y, x)
    assert (np.isnan(got) == np.isnan(want)).all()
    assert (np.signbit(got) == np.signbit(want))[~np.isnan(want)].all()
    assert same(got[want == 0], want[want == 0])
    np.testing.assert_allclose(got, want, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).smallest_subnormal)


@pytest.mark.skipif(not EXTENDED, reason="no type wider than f64 to compare with")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_atan2(dtype: Any) -> None:
    rng, n = np.random.default_rng(4), 1 << 15
    bits = rng.integers(0, np.iinfo(np.uint64).max, (2, n), dtype=np.uint64)
    wild = bits.view(np.float64) if dtype == np.float64 else (bits >> np.uint64(32)).astype(np.uint32).view(np.float32)
    angles, radius = rng.uniform(-np.pi, np.pi, n), np.exp(rng.standard_normal(n) * 5)
    y = np.concatenate([np.sin(angles) * radius, rng.standard_normal(n), wild[0]]).astype(dtype)
    x = np.concatenate([np.cos(angles) * radius, rng.standard_normal(n), wild[1]]).astype(dtype)
    got = at_all_widths("vatan2(x0, x1)", [y, x], dtype)
    error, worst = ulps(got, np.arctan2(y.astype(L), x.astype(L)))
    assert error <= 2.4, (error, y[worst], x[worst])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fmod_is_exact(dtype: Any) -> None:
    """Special values in all pairs, any bits, quotients around whole numbers, quotients of up to thousands of bits."""
    rng, n = np.random.default_rng(6), 1 << 14
    word = np.uint32 if dtype == np.float32 else np.uint64
    wild = rng.integers(0, np.iinfo(word).max, (2, n), dtype=word).view(dtype)
    small = (rng.integers(-1000, 1000, n) * 0.1).astype(dtype)
    special = np.meshgrid(*[np.concatenate([POINTS, DEEP]).astype(dtype)] * 2)
    x = np.concatenate([special[0].ravel(), wild[0], small, rng.standard_normal(n).astype(dtype) * 1000])
    y = np.concatenate([special[1].ravel(), wild[1], np.full(n, dtype(0.1)), rng.standard_normal(n).astype(dtype)])
    assert same(at_all_widths("vfmod(x0, x1)", [x, y], dtype), np.fmod(x, y))


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
