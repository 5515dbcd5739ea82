"""Contractions of all forms against NumPy in f64; the same bits at every width and thread count; nothing touched outside."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from contractions import Kernel, compiled, load, matmul, reference, view

from dslc.backends.cpu.contract import KernelSource, emit
from dslc.backends.cpu.emit import emit as print_loops
from dslc.ir.dims import name
from dslc.ir.loops import Acc, Binary, Const, Expr, Load, Select, Unary
from dslc.ir.types import DType
from dslc.lowering.contraction import Axis, Contraction, Window, linear
from dslc.lowering.packing import packed
from dslc.lowering.schedules import GridLoop
from dslc.lowering.tiling import plan

F32, I32 = DType.F32, DType.I32
ACC = Acc(F32)


def conv_nhwc(batch: int | None, h: int, w: int, ci: int, co: int, k: int, stride: int = 1, **options: object) -> Contraction:
    """An input [n, h, w, ci] that is already padded, weights [kh, kw, ci, co], output [n, oh, ow, co]."""
    oh, ow = (h - k) // stride + 1, (w - k) // stride + 1
    axes = (
        Axis("n", batch, h * w * ci, 0, oh * ow * co),
        Axis("oh", oh, stride * w * ci, 0, ow * co),
        Axis("ow", ow, stride * ci, 0, co),
        Axis("co", co, 0, 1, 1),
        Axis("ci", ci, 1, co, None),
        Axis("kh", k, w * ci, k * ci * co, None),
        Axis("kw", k, ci, ci * co, None),
    )
    return Contraction(axes, **options)  # type: ignore[arg-type]


def conv_weights_last(h: int, ci: int, co: int, k: int) -> Contraction:
    """As `conv_nhwc`, with weights [co, ci, kh, kw]."""
    strides = {"co": ci * k * k, "ci": k * k, "kh": k, "kw": 1}
    c = conv_nhwc(None, h, h, ci, co, k)
    return replace(c, axes=tuple(replace(a, b=strides.get(a.name, 0)) for a in c.axes))


def conv_nchw(batch: int | None, h: int, w: int, ci: int, co: int, k: int) -> Contraction:
    oh, ow = h - k + 1, w - k + 1
    axes = (
        Axis("n", batch, ci * h * w, 0, co * oh * ow),
        Axis("co", co, 0, ci * k * k, oh * ow),
        Axis("oh", oh, w, 0, ow),
        Axis("ow", ow, 1, 0, 1),
        Axis("ci", ci, h * w, k * k, None),
        Axis("kh", k, w, k, None),
        Axis("kw", k, 1, 1, None),
    )
    return Contraction(axes)


def weight_gradient_nhwc(batch: int | None, h: int, w: int, ci: int, co: int, k: int, **options: object) -> Contraction:
    oh, ow = h - k + 1, w - k + 1
    axes = (
        Axis("n", batch, h * w * ci, oh * ow * co, None),
        Axis("oh", oh, w * ci, ow * co, None),
        Axis("ow", ow, ci, co, None),
        Axis("kh", k, w * ci, 0, k * ci * co),
        Axis("kw", k, ci, 0, ci * co),
        Axis("ci", ci, 1, 0, co),
        Axis("co", co, 0, 1, 1),
    )
    return Contraction(axes, **options)  # type: ignore[arg-type]


def weight_gradient_nchw(batch: int | None, h: int, w: int, ci: int, co: int, k: int) -> Contraction:
    oh, ow = h - k + 1, w - k + 1
    axes = (
        Axis("n", batch, ci * h * w, co * oh * ow, None),
        Axis("oh", oh, w, ow, None),
        Axis("ow", ow, 1, 1, None),
        Axis("co", co, 0, oh * ow, ci * k * k),
        Axis("ci", ci, h * w, 0, k * k),
        Axis("kh", k, w, 0, k),
        Axis("kw", k, 1, 0, 1),
    )
    return Contraction(axes)


def relu(x: Expr) -> Expr:
    return Binary("max", x, Const(0.0, F32), F32)


def add(x: Expr, y: Expr) -> Expr:
    return Binary("add", x, y, F32)


def mul(x: Expr, y: Expr) -> Expr:
    return Binary("mul", x, y, F32)


def number(value: float) -> Const:
    return Const(value, F32)


def input_gradient(batch: int | None, h: int, co: int, ci: int, k: int) -> Contraction:
    """dy [n, h, h, co] in a halo of k - 1 to dx [n, ci, h + k - 1, h + k - 1], weights [ci, kh, kw, co]."""
    pitch, out = h + 2 * (k - 1), h + k - 1
    axes = (
        Axis("n", batch, pitch * pitch * co, 0, ci * out * out),
        Axis("h", out, pitch * co, 0, out),
        Axis("w", out, co, 0, 1),
        Axis("ci", ci, 0, k * k * co, out * out),
        Axis("co", co, 1, 1, None),
        Axis("kh", k, -pitch * co, k * co, None),
        Axis("kw", k, -co, co, None),
    )
    windows = (Window("h", "kh", 0, h), Window("w", "kw", 0, h))
    return Contraction(axes, a0=(k - 1) * (pitch + 1) * co, windows=windows)


def depthwise(batch: int | None, h: int, channels: int, k: int, stride: int = 1, **options: object) -> Contraction:
    """An input [n, h, h, g] that is already padded, weights [kh, kw, g]: lanes along an axis of both operands."""
    out = (h - k) // stride + 1
    axes = (
        Axis("n", batch, h * h * channels, 0, out * out * channels),
        Axis("g", channels, 1, 1, 1),
        Axis("oh", out, stride * h * channels, 0, out * channels),
        Axis("ow", out, stride * channels, 0, channels),
        Axis("kh", k, h * channels, k * channels, None),
        Axis("kw", k, channels, channels, None),
    )
    return Contraction(axes, **options)  # type: ignore[arg-type]


def depthwise_weight_gradient(batch: int | None, h: int, channels: int, k: int, stride: int = 1) -> Contraction:
    """From the input and dy [n, oh, ow, g] to [kh, kw, g]."""
    c = depthwise(batch, h, channels, k, stride)
    out = (h - k) // stride + 1
    dy = {"n": out * out * channels, "oh": out * channels, "ow": channels, "g": 1}
    axes = tuple(replace(a, b=dy.get(a.name, 0), c=None if a.c is not None and a.name != "g" else a.b) for a in c.axes)
    return replace(c, axes=axes)


def depthwise_input_gradient(batch: int | None, h: int, channels: int, k: int) -> Contraction:
    """From dy [n, h, h, g] in a halo of k - 1, the kernel turned round."""
    c = depthwise(batch, h + 2 * (k - 1), channels, k)
    pitch = h + 2 * (k - 1)
    axes = tuple(replace(a, a=-a.a) if a.reduction else a for a in c.axes)
    return replace(c, axes=axes, a0=(k - 1) * (pitch + 1) * channels, windows=(Window("oh", "kh", 0, h), Window("ow", "kw", 0, h)))


M, N = name("m"), name("n")
BIAS = Load(3, N, F32)
GELU = mul(mul(number(0.5), add(ACC, BIAS)), add(number(1.0), Unary("tanh", mul(number(0.7978845608), add(ACC, BIAS)), F32)))


def masked(m: int, n: int) -> Expr:
    """Zero where the forward value of the output's shape was not positive."""
    y = Load(3, M * n + N, F32)
    return Select(Binary("gt", y, number(0.0), DType.BOOL), ACC, number(0.0), F32)


def conv_panels(
    batch: int | None, h: int, ci: int, panels: int, lanes: int, epilogue: Expr = ACC, k: int = 3, stride: int = 1
) -> Contraction:
    """A convolution of k x k with weights [panels, ci, kh, kw, lanes]."""
    at, co = (h - k) // stride + 1, panels * lanes
    axes = (
        Axis("n", batch, h * h * ci, 0, at * at * co),
        Axis("panel", panels, 0, ci * k * k * lanes, lanes),
        Axis("lane", lanes, 0, 1, 1),
        Axis("oh", at, stride * h * ci, 0, at * co),
        Axis("ow", at, stride * ci, 0, co),
        Axis("ci", ci, 1, k * k * lanes, None),
        Axis("kh", k, h * ci, k * lanes, None),
        Axis("kw", k, ci, lanes, None),
    )
    return Contraction(axes, epilogue=epilogue)


CASES = {
    "matmul": matmul(20, 40, 30),
    "matmul, tails everywhere": matmul(37, 83, 129),
    "matmul, one row": matmul(1, 100, 70),
    "matmul, one column": matmul(33, 1, 50),
    "matmul, transposed left": matmul(24, 40, 30, a_columns=False),
    "matmul, transposed right: dot form": matmul(23, 19, 100, b_columns=False),
    "matmul, both transposed": matmul(23, 19, 45, a_columns=False, b_columns=False),
    "matmul, long sum in chunks": matmul(9, 33, 2000),
    "matmul, long dot": matmul(5, 6, 40000, b_columns=False),
    "matmul, f64": matmul(19, 37, 41, dtype=DType.F64, epilogue=Acc(DType.F64)),
    "matmul, accumulating": matmul(19, 37, 41, accumulate=True),
    "matmul, accumulating chunks": matmul(9, 37, 1700, accumulate=True),
    "run-time rows": matmul(None, 40, 30),
    "run-time rows, tails": matmul(None, 19, 33),
    "run-time sum": Contraction((Axis("m", 13, 1, 0, 21), Axis("n", 21, 0, 1, 1), Axis("k", None, 13, 21, None))),
    "run-time sum, chunks": Contraction((Axis("m", 13, 1, 0, 21), Axis("n", 21, 0, 1, 1), Axis("k", None, 13, 21, None, per_batch=300))),
    "bias and relu": matmul(20, 40, 30, epilogue=relu(add(ACC, BIAS))),
    "bias and gelu, tails": matmul(21, 43, 30, epilogue=GELU),
    "remainder of integers": matmul(20, 40, 30, dtype=I32, epilogue=Binary("mod", Acc(I32), Const(7, I32), I32)),
    "bias along the rows": matmul(21, 43, 30, epilogue=add(ACC, Load(3, M, F32))),
    "mask of the output's shape": matmul(21, 43, 30, epilogue=masked(21, 43)),
    "epilogue after chunks": matmul(11, 43, 1600, epilogue=relu(add(ACC, BIAS))),
    "epilogue in dot form": matmul(11, 13, 64, b_columns=False, epilogue=relu(add(ACC, BIAS))),
    "epilogue, run-time rows": matmul(None, 43, 30, epilogue=masked(0, 43)),
    "batched": Contraction(
        (Axis("b", 5, 200, 300, 600), Axis("m", 20, 10, 0, 30), Axis("n", 30, 0, 1, 1), Axis("k", 10, 1, 30, None)),
    ),
    "batched, run-time": Contraction(
        (Axis("b", None, 200, 300, 600), Axis("m", 20, 10, 0, 30), Axis("n", 30, 0, 1, 1), Axis("k", 10, 1, 30, None)),
    ),
    "packed right operand": Contraction(
        (
            Axis("m", 20, 48, 0, 96),
            Axis("panel", 3, 0, 48 * 32, 32),
            Axis("lane", 32, 0, 1, 1),
            Axis("k", 48, 1, 32, None),
        )
    ),
    "outer product": Contraction((Axis("m", 20, 1, 0, 30), Axis("n", 30, 0, 1, 1))),
    "rows' inner products": Contraction((Axis("m", None, 40, 40, 1), Axis("k", 40, 1, 1, None))),
    "everything summed": Contraction((Axis("k", 1000, 1, 1, None),)),
    "strided sum": Contraction((Axis("k", 100, 3, 2, None),)),
    "no unit stride": Contraction((Axis("m", 9, 60, 0, 22), Axis("n", 11, 0, 40, 2), Axis("k", 20, 3, 2, None))),
    "conv": conv_nhwc(2, 9, 11, 8, 32, 3),
    "conv, stride 2": conv_nhwc(None, 11, 13, 3, 20, 5, 2),
    "conv 1x1": conv_nhwc(None, 6, 7, 24, 40, 1),
    "conv, channels first": conv_nchw(None, 16, 24, 1, 6, 5),
    "conv, channels first, more inputs": conv_nchw(2, 14, 20, 6, 8, 3),
    "conv weight gradient": weight_gradient_nhwc(None, 9, 11, 8, 24, 3),
    "conv weight gradient, accumulating": weight_gradient_nhwc(None, 9, 11, 8, 24, 3, accumulate=True),
    "conv weight gradient, channels first": weight_gradient_nchw(None, 16, 24, 1, 6, 5),
    "conv input gradient": input_gradient(None, 10, 16, 6, 5),
    "conv input gradient, more channels": input_gradient(None, 6, 32, 4, 3),
    "conv, large panels": conv_panels(2, 9, 72, 4, 32),
    "conv, large panels, last chunk short, epilogue": conv_panels(1, 6, 100, 3, 32, relu(add(ACC, Load(3, name("lane"), F32)))),
    "conv, rows of tiles that two threads do not share evenly": conv_panels(1, 59, 16, 1, 64),
    "conv, the same, run-time": conv_panels(None, 29, 16, 1, 64),
    "conv 1x1, rows before panels": conv_panels(1, 18, 16, 3, 32, k=1),
    "conv, groups of chunks outside of tiles": conv_panels(1, 9, 1024, 2, 64),
    "matmul, the last group of chunks short": matmul(30, 64, 8600),
    "depthwise": depthwise(2, 9, 32, 3),
    "depthwise, tails": depthwise(None, 8, 43, 3),
    "depthwise, few channels": depthwise(None, 9, 10, 5),
    "depthwise, stride 2, epilogue": depthwise(None, 11, 48, 3, 2, epilogue=relu(add(ACC, Load(3, name("g"), F32)))),
    "depthwise weight gradient": depthwise_weight_gradient(None, 9, 32, 3),
    "depthwise weight gradient, stride 2, tails": depthwise_weight_gradient(None, 11, 43, 3, 2),
    "depthwise input gradient": depthwise_input_gradient(None, 7, 32, 3),
    "a window summed over, for one place": Contraction((Axis("co", 40, 0, 1, 1), Axis("ci", 6, 1, 9 * 40, None), Axis("kh", 3, 96, 120, None), Axis("kw", 3, 6, 40, None))),
}
BATCHES = (1, 2, 7, 33)


def buffers(c: Contraction, batch: int, seed: int = 0) -> dict[int, np.ndarray]:
    """Random arrays just large enough for every access."""
    rng = np.random.default_rng(seed)

    def needed(start: int, strides: dict[str, int]) -> int:
        return 1 + start + sum((c.axis(n).size(batch) - 1) * s for n, s in strides.items())

    sizes = {
        0: needed(c.a0, {a.name: a.a for a in c.axes}),
        1: needed(c.b0, {a.name: a.b for a in c.axes}),
        2: needed(c.c0, {a.name: a.c or 0 for a in c.outputs}),
    }
    for buffer, address in c.addresses:
        constant, strides = linear(address)
        sizes[buffer] = max(sizes.get(buffer, 0), needed(constant, dict(strides)))
    for axis in c.axes:
        if axis.a < 0:  # these reach back to the buffer's first element
            sizes[0] += (axis.size(batch) - 1) * -axis.a
    arrays = {b: rng.standard_normal(sizes[b]).astype(d.numpy) for b, d in c.buffers}
    if c.windows:
        clear_halo(c, arrays[0], batch)
    return arrays


def clear_halo(c: Contraction, a: np.ndarray, batch: int) -> None:
    """Zeros wherever a window says that operand A has them."""
    places = np.full(1, c.a0)
    inside = np.ones(1, bool)
    index = np.meshgrid(*(np.arange(x.size(batch)) for x in c.axes), indexing="ij", sparse=True)
    at = {x.name: i for x, i in zip(c.axes, index, strict=True)}
    for axis in c.axes:
        places = places + at[axis.name] * axis.a
    for w in c.windows:
        reached = w.start + at[w.output] - at[w.tap]
        inside = inside & (reached >= 0) & (reached < w.extent)
    a[places[np.broadcast_to(~inside, places.shape)]] = 0


def result(c: Contraction, kernel: Kernel, arrays: dict[int, np.ndarray], batch: int, threads: int) -> np.ndarray:
    """What the kernel leaves in C, from fresh copies of all buffers."""
    fresh = {b: a.copy() for b, a in arrays.items()}
    kernel.run([fresh[b] for b, _ in c.buffers], batch, threads)
    return fresh[2]


def is_runtime(c: Contraction) -> bool:
    return any(a.extent is None for a in c.axes)


@pytest.mark.parametrize("case", CASES)
def test_result_and_bits(case: str) -> None:
    c = CASES[case]
    kernels = {width: compiled(c, width) for width in (16, 8, 4)}
    for batch in BATCHES if is_runtime(c) else (1,):
        arrays = buffers(c, batch)
        got = result(c, kernels[16], arrays, batch, 1)
        want = reference(c, arrays, batch)
        seen = view(got, c.c0, [(a.size(batch), a.c or 0) for a in c.outputs])
        scale = np.abs(want).max() * (1e-13 if c.dtype == DType.F64 else 1e-5)
        np.testing.assert_allclose(seen, want, rtol=0, atol=scale)
        for width, kernel in kernels.items():
            for threads in (1, 2, 3):
                again = result(c, kernel, arrays, batch, threads)
                assert got.tobytes() == again.tobytes(), (width, threads, batch)


def test_blocks_of_two_axes_that_do_not_divide_them() -> None:
    """A place is left out only where it lies outside on either axis."""
    c = conv_panels(1, 17, 8, 1, 64)
    made = plan(c, 16)
    assert [(t.axis.name, len(t.tiles())) for t in made.rows] == [("oh", 3)]
    arrays = buffers(c, 1)
    want = result(c, load(emit(made)), arrays, 1, 1)
    columns, rows = GridLoop("ow", 8), GridLoop("oh", 2)
    blocked = replace(made, grid=(columns, rows, replace(rows, inner=True), replace(columns, inner=True)))
    for threads in (1, 2, 3):
        assert result(c, load(emit(blocked)), arrays, 1, threads).tobytes() == want.tobytes()


@pytest.mark.parametrize(("case", "short"), [("conv, groups of chunks outside of tiles", False), ("matmul, the last group of chunks short", True)])
def test_a_tile_runs_several_chunks_before_the_next_tile(case: str, short: bool) -> None:
    made = plan(CASES[case], 16)
    assert made.chunks_outside and made.chunk_group > 1 and made.reduction.cut is not None
    assert bool((made.reduction.cut.extent or 0) % (made.reduction.block * made.chunk_group)) == short


def random_contraction(rng: np.random.Generator) -> Contraction:
    """Random axes in random memory orders: dense operands whose axes are permuted, some shared, a few run-time sized."""
    kinds = [k for k, n in (("m", 2), ("n", 2), ("both", 1), ("k", 2)) for _ in range(rng.integers(1 if k != "both" else 0, n + 1))]
    runtime = int(rng.integers(0, len(kinds))) if rng.random() < 0.4 else -1
    extents = [int(rng.choice([1, 2, 3, 5, 8, 16, 17, 30])) for _ in kinds]
    member = {"a": [k != "n" for k in kinds], "b": [k != "m" for k in kinds], "c": [k != "k" for k in kinds]}
    strides: dict[str, list[int]] = {}
    for operand, inside in member.items():
        order = list(rng.permutation(len(kinds)))
        if runtime >= 0:
            order.remove(runtime)
            order.insert(0, runtime)
        stride, found = 1, [0] * len(kinds)
        for i in reversed(order):
            if inside[i]:
                found[i], stride = stride, stride * extents[i]
        strides[operand] = found
    axes = tuple(
        Axis(f"x{i}", None if i == runtime else extents[i], strides["a"][i], strides["b"][i], strides["c"][i] if k != "k" else None)
        for i, k in enumerate(kinds)
    )
    return Contraction(axes)


@pytest.mark.parametrize("seed", range(20))
def test_random(seed: int) -> None:
    c = random_contraction(np.random.default_rng(seed))
    batch = 5
    arrays = buffers(c, batch, seed)
    one, other = (result(c, compiled(c, width), arrays, batch, threads) for width, threads in ((16, 1), (8, 2)))
    want = reference(c, arrays, batch)
    seen = view(one, c.c0, [(a.size(batch), a.c or 0) for a in c.outputs])
    np.testing.assert_allclose(seen, want, rtol=0, atol=1e-5 * np.abs(want).max())
    assert one.tobytes() == other.tobytes()


# ---- guard pages ----------------------------------------------------------------------------------------------------

PAGE = mmap.PAGESIZE


@pytest.fixture
def guarded() -> Iterator[object]:
    """A function that moves an array right before an inaccessible page (and right behind one for `front`)."""
    import ctypes

    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    kept: list[tuple[mmap.mmap, int, int]] = []

    def place(array: np.ndarray, front: bool) -> np.ndarray:
        pages = -(-array.nbytes // PAGE)
        block = mmap.mmap(-1, (pages + 2) * PAGE)
        base = np.frombuffer(block, np.uint8).ctypes.data
        for guard in (base, base + (pages + 1) * PAGE):
            assert mprotect(ctypes.c_void_p(guard), PAGE, 0) == 0
        kept.append((block, base, pages))
        start = PAGE if front else (pages + 1) * PAGE - array.nbytes
        inside = np.frombuffer(block, array.dtype, array.size, start)
        inside[:] = array.reshape(-1)
        return inside

    yield place
    for _, base, pages in kept:
        for guard in (base, base + (pages + 1) * PAGE):
            mprotect(ctypes.c_void_p(guard), PAGE, 3)


@pytest.mark.parametrize("front", [False, True], ids=["end", "start"])
@pytest.mark.parametrize("case", CASES)
def test_guard_pages(case: str, front: bool, guarded: object) -> None:
    """Every buffer ends (starts) at an inaccessible page: touching a byte outside kills the test."""
    c = CASES[case]
    for width in (16, 4):
        kernel = compiled(c, width)
        for batch in BATCHES if is_runtime(c) else (1,):
            arrays = {b: guarded(a, front) for b, a in buffers(c, batch).items()}  # type: ignore[operator]
            kernel.run([arrays[b] for b, _ in c.buffers], batch, 2)


def test_form_does_not_depend_on_width() -> None:
    for c in CASES.values():
        schedules = [plan(c, width) for width in (16, 8, 4)]
        assert len({(s.dot, s.reduction, s.vector) for s in schedules}) == 1


# ---- packing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["matmul", "wide", "wide, transposed", "conv, channels first", "epilogue"])
def test_packed(case: str) -> None:
    """A packed operand gives the same result; its copy covers the operand exactly once."""
    c = {
        "matmul": matmul(20, 40, 300, b_columns=False),
        "wide": matmul(64, 1024, 300),
        "wide, transposed": matmul(64, 512, 300, b_columns=False),
        "conv, channels first": conv_weights_last(9, 16, 192, 3),
        "epilogue": matmul(64, 512, 512, epilogue=relu(add(ACC, BIAS))),
    }[case]
    found = packed(c, "b")
    if found is None:
        pytest.fail("nothing gained")
    arrays = buffers(c, 3)
    copy = np.full(found.pack.size, np.nan, np.float32)
    extents = [e for e, _, _ in found.pack.axes]
    source = view(arrays[1], found.pack.start, [(e, s) for e, s, _ in found.pack.axes])
    np.lib.stride_tricks.as_strided(copy, extents, [4 * t for _, _, t in found.pack.axes])[...] = source
    assert not np.isnan(copy).any()
    want = reference(c, arrays, 3)
    got = result(found.contraction, compiled(found.contraction, 16), arrays | {1: copy}, 3, 2)
    seen = view(got, c.c0, [(a.size(3), a.c or 0) for a in c.outputs])
    np.testing.assert_allclose(seen, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_pack_program() -> None:
    """The copy's loop program, printed and run, moves every element to its place."""
    found = packed(matmul(64, 512, 300, b_columns=False), "b")
    assert found is not None
    text = print_loops(found.pack.program(), 16)
    kernel = load(KernelSource(text, "kernel", (0, 1), 16))
    source, target = np.arange(300 * 512, dtype=np.float32), np.zeros(found.pack.size, np.float32)
    kernel.run([source, target], 1, 2)
    want = view(source, found.pack.start, [(e, s) for e, s, _ in found.pack.axes])
    np.testing.assert_array_equal(view(target, 0, [(e, t) for e, _, t in found.pack.axes]), want)
