"""The SIMD vocabulary against NumPy: memory, arithmetic, comparisons, conversions, reductions; nothing touched outside."""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from lane_kernels import WIDTHS, at_all_widths, bits, check, load, name_of

from dslc.backends.cpu import simd
from dslc.backends.cpu.vocabulary import operation
from dslc.ir.loops import ARITHMETIC, COMPARE, UNARY, Binary, Const, Unary
from dslc.ir.types import DType

DTYPES = [np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_]
NUMBERS = DTYPES[:5]
FLOATS, INTEGERS = NUMBERS[:2], NUMBERS[2:]


def ids(dtype: Any) -> str:
    return name_of(dtype)


def values(dtype: Any, size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(size).astype(dtype)
    if np.dtype(dtype) == np.bool_:
        return rng.integers(0, 2, size).astype(bool)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, size, dtype, endpoint=True)


def edge_pairs(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of special values, then random ones."""
    if np.dtype(dtype).kind == "f":
        tiny = np.finfo(dtype).smallest_subnormal
        special = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, tiny, -tiny, np.finfo(dtype).max, 2.5], dtype)
    else:
        info = np.iinfo(dtype)
        near = [0, 1, 2, 3, info.max, info.max - 1, info.min, info.min + 1] + ([-1, -2, -3] if info.min else [])
        special = np.array(near, dtype)
    x, y = (a.ravel() for a in np.meshgrid(special, special))
    return np.concatenate([x, values(dtype, 500, 1)]), np.concatenate([y, values(dtype, 500, 2)])


@pytest.fixture
def guarded() -> Iterator[Any]:
    """Makes arrays whose last byte is the last of a page; the next page cannot be touched."""
    pages, libc = [], ctypes.CDLL(None)

    def make(data: np.ndarray) -> np.ndarray:
        size = mmap.PAGESIZE * (1 + -(-data.nbytes // mmap.PAGESIZE))
        page = mmap.mmap(-1, size)
        pages.append(page)
        whole = np.frombuffer(page, np.uint8)
        assert libc.mprotect(ctypes.c_void_p(whole.ctypes.data + size - mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
        end = size - mmap.PAGESIZE
        array = whole[end - data.nbytes : end].view(data.dtype)
        array[:] = data
        return array

    yield make


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_partial_loads_and_stores_touch_n_elements(dtype: Any, width: int, guarded: Any) -> None:
    e = name_of(dtype)
    run = load(
        f"""
def kernel(row, thread, threads, batch):
    p = ptr_{e}(arg(row, 0))
    q = ptr_{e}(arg(row, 1))
    whole = ptr_{e}(arg(row, 2))
    vstore_part_{e}(q, 1, vload_part_{e}(p, 0, batch), batch)
    vstore_{e}(whole, 0, vload_part_{e}(p, 0, batch))
""",
        width,
    )
    for n in range(width + 1):
        source = guarded(values(dtype, n)) if n else values(dtype, 1)
        padded = np.ones(1 + width + 3, dtype)
        whole = np.ones(width, dtype)
        run([source, padded, whole], batch=n)
        assert np.array_equal(padded[1 : 1 + n], source[:n]) and (padded[1 + n :] == 1).all() and padded[0] == 1
        assert np.array_equal(whole[:n], source[:n]) and (whole[n:] == 0).all()
        if n:
            target = guarded(np.ones(n + 1, dtype))
            run([source, target, whole], batch=n)
            assert np.array_equal(target[1:], source)


STRIDES = [(dtype, stride, True) for dtype in DTYPES for stride in (2, 3)]
STRIDES += [(np.float32, stride, True) for stride in (1, -1, -2, 0, 5)]
STRIDES += [(dtype, stride, False) for dtype in (np.float32, np.bool_) for stride in (2, 7, -1)]


@pytest.mark.parametrize(("dtype", "stride", "known"), STRIDES, ids=lambda v: ids(v) if isinstance(v, type) else str(v))
def test_strides(dtype: Any, stride: int, known: bool, guarded: Any) -> None:
    e = name_of(dtype)
    for width in WIDTHS:
        reach = abs(stride) * (width - 1)
        first = reach if stride < 0 else 0
        s = str(stride) if known else "thread"
        stores = f"""
    vstore_stride_{e}(ptr_{e}(arg(row, 1)), {first}, {s}, v)
    vstore_stride_part_{e}(ptr_{e}(arg(row, 3)), {first}, {s}, v, batch)
"""
        run = load(
            f"""
def kernel(row, thread, threads, batch):
    p = ptr_{e}(arg(row, 0))
    v = vload_stride_{e}(p, {first}, {s})
    vstore_{e}(ptr_{e}(arg(row, 2)), 0, v)
    vstore_{e}(ptr_{e}(arg(row, 2)), W, vload_stride_part_{e}(p, {first}, {s}, batch))
{stores if stride else ""}
""",
            width,
        )
        source = guarded(values(dtype, reach + 1))
        lanes = first + stride * np.arange(width)
        for n in (0, 1, width - 1, width):
            spread, part = (guarded(np.ones(reach + 1, dtype)) for _ in range(2))
            loaded = np.ones(2 * width, dtype)
            run([source, spread, loaded, part], thread=stride, batch=n)
            assert np.array_equal(loaded[:width], source[lanes])
            assert np.array_equal(loaded[width:], np.where(np.arange(width) < n, source[lanes], np.zeros(1, dtype)))
            if stride:
                want = np.ones(reach + 1, dtype)
                want[lanes[:n]] = source[lanes[:n]]
                assert np.array_equal(part, want)
                want[lanes] = source[lanes]
                assert np.array_equal(spread, want)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_partial_strided_loads_end_at_the_last_element(dtype: Any, guarded: Any) -> None:
    e = name_of(dtype)
    for width in WIDTHS:
        for stride in (2, 3):
            run = load(
                f"""
def kernel(row, thread, threads, batch):
    v = vload_stride_part_{e}(ptr_{e}(arg(row, 0)), 0, {stride}, batch)
    vstore_{e}(ptr_{e}(arg(row, 1)), 0, v)
    vstore_stride_part_{e}(ptr_{e}(arg(row, 2)), 0, {stride}, v, batch)
""",
                width,
            )
            for n in range(1, width + 1):
                source, target = guarded(values(dtype, stride * (n - 1) + 1)), guarded(np.ones(stride * (n - 1) + 1, dtype))
                out = np.empty(width, dtype)
                run([source, out, target], batch=n)
                assert np.array_equal(out[:n], source[::stride]) and np.array_equal(target[::stride], source[::stride])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_gather_broadcast_and_pointers(dtype: Any, width: int, guarded: Any) -> None:
    e = name_of(dtype)
    run = load(
        f"""
def kernel(row, thread, threads, batch):
    p = ptr_{e}(arg(row, 0))
    q = ptr_{e}(arg(row, 1))
    indices = vload_i64(ptr_i64(arg(row, 2)), 0)
    vstore_{e}(q, 0, vgather_{e}(p, indices))
    vstore_{e}(offset(q, W), 0, vgather_part_{e}(p, indices + splat_i64(thread), batch))
    vstore_{e}(q, 2 * W, vbroadcast_{e}(p, 7))
""",
        width,
    )
    source, out = guarded(values(dtype, 40)), np.empty(3 * width, dtype)
    indices = np.random.default_rng(1).integers(0, 40, width)
    indices[:2] = 0, 39
    run([source, out, indices], thread=0, batch=3)
    assert np.array_equal(out[:width], source[indices])
    assert np.array_equal(out[width : width + 3], source[indices[:3]]) and (out[width + 3 : 2 * width] == 0).all()
    assert (out[2 * width :] == source[7]).all()
    run([source, out, indices], thread=10**9, batch=0)  # no lane, no access, whatever the indices say
    assert (out[width : 2 * width] == 0).all()


def test_masks_are_bytes_of_zero_and_one() -> None:
    flags = np.array([0, 1, 2, 255] * 4, np.uint8)
    got = at_all_widths("~x0", [flags.view(bool)], np.bool_)
    assert np.array_equal(got.view(np.uint8), flags == 0)


def test_plain_integers_for_indices() -> None:
    for e, dtype in (("i32", np.int32), ("i64", np.int64), ("u8", np.uint8)):
        source = np.array([3, 200], dtype)
        out = np.zeros(16, np.int64)
        text = f"def kernel(row, thread, threads, batch):\n    vstore_i64(ptr_i64(arg(row, 1)), 0, iota_i64(load_{e}(ptr_{e}(arg(row, 0)), 1)))"
        load(text, 16)([source, out])
        assert np.array_equal(out, 200 + np.arange(16))


# ---------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("dtype", NUMBERS, ids=ids)
def test_arithmetic(dtype: Any) -> None:
    x, y = edge_pairs(dtype)
    with np.errstate(all="ignore"):
        check([x, y], [("x0 + x1", x + y), ("x0 - x1", x - y), ("x0 * x1", x * y), ("-x0", -x), ("vabs(x0)", np.abs(x))])


@pytest.mark.parametrize("dtype", FLOATS, ids=ids)
def test_float_functions(dtype: Any) -> None:
    x, y = edge_pairs(dtype)
    x[-20:] = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 3.5, 1e10, 8388607.5, 4503599627370495.5, -2.5] * 2, dtype)
    with np.errstate(all="ignore"):
        cases = [("x0 / x1", x / y), ("vsqrt(x0)", np.sqrt(x)), ("copysign(x0, x1)", np.copysign(x, y))]
        cases += [(f"v{f.__name__}(x0)", f(x)) for f in (np.floor, np.ceil, np.trunc, np.rint)]
        check([x, y], cases)


def test_fma_rounds_once_and_products_are_never_contracted() -> None:
    rng = np.random.default_rng(4)
    x, y = (rng.standard_normal(1000).astype(np.float32) for _ in range(2))
    z = -(x * y)
    exact = (x.astype(np.float64) * y + z).astype(np.float32)  # the product of two f32 is exact in f64, and so is this sum
    assert (exact != 0).any()
    check([x, y, z], [("fma(x0, x1, x2)", exact), ("x0 * x1 + x2", x * y + z)])


@pytest.mark.parametrize("dtype", INTEGERS, ids=ids)
def test_integer_functions(dtype: Any) -> None:
    x, y = edge_pairs(dtype)
    size = np.dtype(dtype).itemsize * 8
    counts, unsigned = (np.arange(len(x)) % (size + 9)).astype(dtype), f"u{np.dtype(dtype).itemsize}"
    divisors = np.where(np.arange(len(y)) % 2, y, (y % 41 - 20).astype(dtype))  # small ones, too
    with np.errstate(all="ignore"):
        cases = [("ifloordiv(x0, x2)", np.floor_divide(x, divisors)), ("imod(x0, x2)", np.mod(x, divisors))]
        cases += [(f"ifloordiv(x0, splat_{name_of(dtype)}({d}))", x // dtype(d)) for d in (1, 2, 3, 7, 8, 10, 100)]
    cases += [("x0 & x1", x & y), ("x0 | x1", x | y), ("x0 ^ x1", x ^ y), ("~x0", ~x)]
    cases += [("x0 << x3", x << counts), ("x0 >> x3", x >> counts)]
    cases += [("ushr(x0, x3)", (x.view(unsigned) >> counts.view(unsigned)).view(dtype))]
    check([x, y, divisors, counts], cases)


@pytest.mark.parametrize("dtype", NUMBERS, ids=ids)
def test_comparisons_selection_and_extremes(dtype: Any) -> None:
    x, y = edge_pairs(dtype)
    one, nan_x, nan_y = np.ones(len(x), dtype), x != x, y != y
    high, low = np.where((y > x) | nan_y, y, x), np.where((y < x) | nan_y, y, x)
    high[nan_x], low[nan_x] = x[nan_x], x[nan_x]
    floating = np.dtype(dtype).kind == "f"
    assert np.array_equal(high, np.maximum(x, y), equal_nan=floating) and np.array_equal(low, np.minimum(x, y), equal_nan=floating)
    cases = [("x0 == x1", x == y), ("x0 != x1", x != y), ("x0 < x1", x < y), ("x0 <= x1", x <= y), ("x0 > x1", x > y), ("x0 >= x1", x >= y)]
    cases += [("where(x0 < x1, x1, x0)", np.where(x < y, y, x)), ("vmax(x0, x1)", high), ("vmin(x0, x1)", low)]
    # with a known bound LLVM takes a shorter way to the same result
    if floating:
        cases += [(f"vmax(x0, splat_{name_of(dtype)}(nan))", np.full(len(x), np.nan, dtype))]
    cases += [(f"vmax(x0, splat_{name_of(dtype)}(1))", np.where(one > x, one, x))]
    cases += [(f"vmin(splat_{name_of(dtype)}(1), x0)", np.where((x < one) | nan_x, x, one))]
    check([x, y], cases)


def test_masks() -> None:
    x, y = values(np.bool_, 64, 1), values(np.bool_, 64, 2)
    cases = [("x0 & x1", x & y), ("x0 | x1", x | y), ("x0 ^ x1", x ^ y), ("x0 == x1", x == y), ("x0 != x1", x != y), ("x0 < x1", x < y)]
    cases += [("x0 >= x1", x >= y), ("vmax(x0, x1)", x | y), ("vmin(x0, x1)", x & y), ("where(x0, x1, ~x1)", np.where(x, y, ~y))]
    check([x, y], cases)


def test_numbers_beside_vectors() -> None:
    x, k, f = values(np.float32, 64), values(np.int64, 64), np.float32
    cases = [("2.0 * x0 + 1 - x0 / 4", f(2) * x + f(1) - x / f(4)), ("x0 > 0.5", x > f(0.5)), ("x1 + 3 * (x1 & 15)", k + 3 * (k & 15))]
    check([x, k], cases)


# ---------------------------------------------------------------- conversions and constants


def converted(x: np.ndarray, target: Any) -> np.ndarray:
    if np.dtype(target) == np.bool_ or x.dtype.kind != "f" or np.dtype(target).kind == "f":
        with np.errstate(all="ignore"):
            return x.astype(target)
    info = np.iinfo(target)  # floats truncate and saturate, NaN gives 0; i64's limit is not an f64, so compare first
    whole = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=1e300, neginf=-1e300))
    clipped = [info.max if v >= info.max else info.min if v <= info.min else int(v) for v in whole]
    return np.array(clipped, target)


@pytest.mark.parametrize("source", DTYPES, ids=ids)
def test_conversions(source: Any) -> None:
    x = values(np.bool_, 64) if source is np.bool_ else edge_pairs(source)[0]
    if np.dtype(source).kind == "f":
        more = [0.99, -0.99, 254.9, 255.1, 256, -1.5, 2147483520.0, 2147483648.0, -2147483648.0, 9.3e18, -9.3e18, 1e-40, 16777217.0]
        x = np.concatenate([x, np.array(more, source), (values(source, 200) * 1e9).astype(source)])
    check([x], [(f"to_{name_of(target)}(x0)", converted(x, target)) for target in DTYPES])


@pytest.mark.parametrize("width", WIDTHS)
def test_constants(width: int) -> None:
    source = """
def kernel(row, thread, threads, batch):
    vstore_f32(ptr_f32(arg(row, 0)), 0, splat_f32(0.1))
    vstore_f32(ptr_f32(arg(row, 0)), W, splat_f32(batch))
    vstore_f64(ptr_f64(arg(row, 1)), 0, splat_f64(0.1))
    vstore_f64(ptr_f64(arg(row, 1)), W, splat_f64(-inf))
    vstore_i32(ptr_i32(arg(row, 2)), 0, splat_i32(-7))
    vstore_i32(ptr_i32(arg(row, 2)), W, iota_i32(batch))
    vstore_i64(ptr_i64(arg(row, 3)), 0, splat_i64(1 << 40))
    vstore_i64(ptr_i64(arg(row, 3)), W, iota_i64(-batch))
    vstore_bool(ptr_bool(arg(row, 4)), 0, splat_bool(True))
    vstore_bool(ptr_bool(arg(row, 4)), W, first_lanes(batch))
    vstore_u8(ptr_u8(arg(row, 5)), 0, splat_u8(200))
    vstore_u8(ptr_u8(arg(row, 5)), W, splat_u8(batch))
"""
    out = [np.zeros(2 * width, d) for d in (np.float32, np.float64, np.int32, np.int64, np.bool_, np.uint8)]
    load(source, width)(out, batch=3)
    lanes = np.arange(width)
    want = [(np.float32(0.1), 3), (0.1, -np.inf), (-7, 3 + lanes), (1 << 40, lanes - 3), (True, lanes < 3), (200, 3)]
    for got, (first, second) in zip(out, want, strict=True):
        assert (got[:width] == first).all() and (got[width:] == second).all()


# ---------------------------------------------------------------- reductions


def reduced(dtype: Any, operation: str, x: np.ndarray) -> np.ndarray:
    """The kernel's reduction of 16 canonical lanes, at every width; all lanes of the result must agree."""
    e, results = name_of(dtype), []
    for width in WIDTHS:
        loads = ", ".join(f"vload_{e}(ptr_{e}(arg(row, 0)), {at})" for at in range(0, 16, width))
        run = load(f"def kernel(row, thread, threads, batch):\n    vstore_{e}(ptr_{e}(arg(row, 1)), 0, {operation}({loads}))", width)
        out = np.empty(width, dtype)
        run([x, out])
        assert (bits(out) == bits(out)[0]).all()
        results.append(out[0])
    assert len({r.tobytes() for r in results}) == 1
    return results[0]


def tree(x: np.ndarray, combine: Any) -> Any:
    """Lanes 0..7 with 8..15, then 4, 2, 1."""
    while len(x) > 1:
        x = combine(x[: len(x) // 2], x[len(x) // 2 :])
    return x[0]


@pytest.mark.parametrize("dtype", NUMBERS, ids=ids)
def test_reductions_use_one_tree(dtype: Any) -> None:
    for seed in range(4):
        x = values(dtype, 16, seed)
        if np.dtype(dtype).kind == "f":
            x *= np.array(10.0, dtype) ** np.arange(-8, 8).astype(dtype)
        assert reduced(dtype, f"reduce_add_{name_of(dtype)}", x) == tree(x, np.add)
        assert reduced(dtype, f"reduce_max_{name_of(dtype)}", x) == x.max()
        assert reduced(dtype, f"reduce_min_{name_of(dtype)}", x) == x.min()


def test_reductions_carry_nan() -> None:
    for lane in (0, 5, 15):
        x = np.arange(16, dtype=np.float32)
        x[lane] = np.nan
        assert all(np.isnan(reduced(np.float32, f"reduce_{operation}_f32", x)) for operation in ("add", "max", "min"))


def test_reductions_of_masks() -> None:
    for x in (np.zeros(16, bool), np.ones(16, bool), np.arange(16) == 9, np.arange(16) != 9):
        assert reduced(np.bool_, "reduce_any", x) == reduced(np.bool_, "reduce_max_bool", x) == x.any()
        assert reduced(np.bool_, "reduce_all", x) == reduced(np.bool_, "reduce_min_bool", x) == x.all()


# ---------------------------------------------------------------- the namespace


def test_namespace_is_fresh_and_refuses_other_widths() -> None:
    first = simd.namespace(8)
    first["W"] = 0
    assert simd.namespace(8)["W"] == 8
    with pytest.raises(ValueError, match="widths"):
        simd.namespace(12)


@pytest.mark.parametrize("dtype", [DType.F32, DType.I32])
def test_every_operation_of_loop_programs_is_spelt_in_the_vocabulary(dtype: DType) -> None:
    x, y = Const(1, dtype), Const(2, dtype)
    operations = [Unary(op, x, dtype) for op in UNARY] + [Binary(op, x, y, dtype) for op in ARITHMETIC | COMPARE]
    calls = {name for e in operations for name in re.findall(r"(\w+)\(", operation(e, ["x", "y"]))}
    assert len(calls) > 30 and calls <= simd.namespace(8).keys(), calls - simd.namespace(8).keys()


def test_tile_signatures() -> None:
    with pytest.raises(ValueError, match="signature"):
        simd.parse_signature("f32(ptr_f32)", 8)
    assert str(simd.parse_signature("void(ptr_f32, intp, f64)", 8).args) == "(ptr_f32, int64, f64x8)"
