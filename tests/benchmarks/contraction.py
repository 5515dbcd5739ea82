"""Speed of contractions as a share of the fma limit, both measured in this run, taking turns.

    python tests/benchmarks/contraction.py [pattern ...] [--threads 2] [--seconds 0.5] [--width 16]

A thread calls its share of a kernel many times and keeps its own time, the slowest thread counts. Each run of a kernel stands
between two of the limit; printed are medians over many such pairs, because the clock of a shared machine drifts. The share counts useful arithmetic only: multiplications with padding or with unused lanes are not in it.
"""

# ruff: noqa: E402 - a script: the paths of the project and its tests come first
from __future__ import annotations

import argparse
import ctypes
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "backends")]

from contractions import Kernel, load, matmul
from test_contraction import buffers, conv_nchw, relu, weight_gradient_nchw, weight_gradient_nhwc

from dslc.backends.cpu.contract import KernelSource, emit
from dslc.ir.dims import name
from dslc.ir.loops import Acc, Binary, Expr, Load
from dslc.ir.types import DType
from dslc.lowering.contraction import Axis, Contraction, Window, useful_share
from dslc.lowering.packing import packed
from dslc.lowering.tiling import plan

F32 = DType.F32
N = name("n")


def repeater() -> tuple[object, ctypes._CFuncPtr]:
    """repeat(kernel, row, thread, threads, batch, times): calls a kernel in a loop."""
    i64, i32, byte = ir.IntType(64), ir.IntType(32), ir.PointerType()
    module = ir.Module("repeat")
    kernel_type = ir.FunctionType(i32, [byte, byte, i64, i64, i64, i64])
    fn = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64] * 6), "repeat")
    entry, loop, done = (fn.append_basic_block(n) for n in ("entry", "loop", "done"))
    kernel, row, thread, threads, batch, times = fn.args
    b = ir.IRBuilder(entry)
    slot = b.alloca(i64, 2)
    b.branch(loop)
    b.position_at_end(loop)
    number = b.phi(i64)
    number.add_incoming(ir.Constant(i64, 0), entry)
    b.call(b.inttoptr(kernel, kernel_type.as_pointer()), [b.bitcast(slot, byte), b.bitcast(slot, byte), row, thread, threads, batch])
    following = b.add(number, ir.Constant(i64, 1))
    number.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, times), loop, done)
    b.position_at_end(done)
    b.ret_void()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), llvm.Target.from_default_triple().create_target_machine())
    engine.finalize_object()
    return engine, ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)(engine.get_function_address("repeat"))


KEEP, REPEAT = repeater()


@dataclass
class Contender:
    """A kernel with its buffers and the useful arithmetic of one call."""

    kernel: Kernel
    words: np.ndarray
    flops: int
    batch: int
    times: int = 1
    best: float = float("inf")

    def run(self, pool: ThreadPoolExecutor, threads: int) -> float:
        def share(thread: int) -> float:
            start = time.perf_counter()
            REPEAT(self.kernel.address, self.words.ctypes.data, thread, threads, self.batch, self.times)
            return time.perf_counter() - start

        seconds = max(pool.map(share, range(threads))) / self.times
        self.best = min(self.best, seconds)
        return seconds

    def calibrate(self, pool: ThreadPoolExecutor, threads: int, seconds: float = 1e-3) -> None:
        for _ in range(3):
            self.best = min(self.run(pool, threads) for _ in range(3))
            self.times = max(1, int(seconds / self.best))


def limit(width: int) -> Contender:
    """Nothing but fma in registers: what the cores can do at most."""
    n = 16
    lines = ["def kernel(row, thread, threads, batch):", "    p = ptr_f32(arg(row, 0))", "    x = vbroadcast_f32(p, 0)"]
    lines += [f"    c{i} = vbroadcast_f32(p, {i})" for i in range(n)]
    lines += ["    for _ in range(1000):"] + [f"        c{i} = fma(x, x, c{i})" for i in range(n)]
    lines += [f"    vstore_f32(p, {16 + i * width} + thread * 1024, c{i})" for i in range(n)]
    data = np.zeros(4096, np.float32)
    kernel = load(KernelSource("\n".join(lines) + "\n", "kernel", (0,), width))
    kernel.keep = data  # type: ignore[attr-defined]
    return Contender(kernel, np.array([data.ctypes.data], np.int64), 2 * 1000 * n * width, 1)


def conv(batch: int | None, h: int, ci: int, co: int, k: int, stride: int = 1) -> Contraction:
    """NHWC, padded input; weights [co, ci, kh, kw]."""
    o = (h - k) // stride + 1
    axes = (
        Axis("n", batch, h * h * ci, 0, o * o * co),
        Axis("oh", o, stride * h * ci, 0, o * co),
        Axis("ow", o, stride * ci, 0, co),
        Axis("co", co, 0, ci * k * k, 1),
        Axis("ci", ci, 1, k * k, None),
        Axis("kh", k, h * ci, k, None),
        Axis("kw", k, ci, 1, None),
    )
    return Contraction(axes)


def conv_input(batch: int | None, h: int, ci: int, co: int, k: int) -> Contraction:
    """The gradient of its input, [n, h, h, ci]: dy [n, h, h, co] with a halo of k // 2 (the size is kept), the same weights."""
    pitch = h + 2 * (k // 2)
    axes = (
        Axis("n", batch, pitch * pitch * co, 0, h * h * ci),
        Axis("h", h, pitch * co, 0, h * ci),
        Axis("w", h, co, 0, ci),
        Axis("ci", ci, 0, k * k, 1),
        Axis("co", co, 1, ci * k * k, None),
        Axis("kh", k, -pitch * co, k, None),
        Axis("kw", k, -co, 1, None),
    )
    return Contraction(axes, a0=(k - 1) * (pitch + 1) * co)


def with_packed(c: Contraction) -> Contraction:
    """B packed, where that pays, as a compiled program would have it."""
    found = packed(c, "b")
    return found.contraction if found else c


def conv2_forward(batch: int | None) -> Contraction:
    """LeNet's second convolution: input [n, 6, 14, 14], weights [6, 5, 5, 16], output [n, 10, 10, 16]."""
    axes = (
        Axis("n", batch, 6 * 196, 0, 1600),
        Axis("oh", 10, 14, 0, 160),
        Axis("ow", 10, 1, 0, 16),
        Axis("co", 16, 0, 1, 1),
        Axis("ci", 6, 196, 400, None),
        Axis("kh", 5, 14, 80, None),
        Axis("kw", 5, 1, 16, None),
    )
    return Contraction(axes)


def conv2_weights(batch: int | None) -> Contraction:
    axes = (
        Axis("n", batch, 6 * 196, 1600, None),
        Axis("oh", 10, 14, 160, None),
        Axis("ow", 10, 1, 16, None),
        Axis("ci", 6, 196, 0, 400),
        Axis("kh", 5, 14, 0, 80),
        Axis("kw", 5, 1, 0, 16),
        Axis("co", 16, 0, 1, 1),
    )
    return Contraction(axes)


def conv2_input(batch: int | None) -> Contraction:
    """The gradient of its input, [n, 6, 14, 14]: from dy [n, 18, 18, 16] with a halo of 4, weights [16, 6, 5, 5]."""
    axes = (
        Axis("n", batch, 18 * 18 * 16, 0, 6 * 196),
        Axis("h", 14, 18 * 16, 0, 14),
        Axis("w", 14, 16, 0, 1),
        Axis("ci", 6, 0, 25, 196),
        Axis("co", 16, 1, 150, None),
        Axis("kh", 5, -18 * 16, 5, None),
        Axis("kw", 5, -16, 1, None),
    )
    return Contraction(axes, a0=(4 * 18 + 4) * 16, windows=(Window("h", "kh", 0, 10), Window("w", "kw", 0, 10)))


def bias_relu() -> Expr:
    return relu(Binary("add", Acc(F32), Load(3, N, F32), F32))


def cases() -> dict[str, tuple[Contraction, int]]:
    made: dict[str, tuple[Contraction, int]] = {}
    for m, n, k in ((128, 768, 768), (1024, 1024, 1024), (32, 1024, 1024)):
        made[f"gemm {m}x{n}x{k}, bias, relu"] = with_packed(matmul(m, n, k, epilogue=bias_relu())), 1
    for h, c in ((56, 64), (28, 128), (14, 256), (7, 512)):
        made[f"conv {c}->{c} {h}x{h}"] = with_packed(conv(1, h + 2, c, c, 3)), 1
        made[f"conv {c}->{c} {h}x{h} dx"] = with_packed(conv_input(1, h, c, c, 3)), 1
        made[f"conv {c}->{c} {h}x{h} dw"] = weight_gradient_nhwc(1, h + 2, h + 2, c, c, 3), 1
    made["conv 3->64 224x224 7x7/2"] = with_packed(conv(1, 230, 3, 64, 7, 2)), 1
    for batch in (1, 32):
        made[f"lenet conv1 b{batch}"] = conv_nchw(None, 32, 32, 1, 6, 5), batch
        made[f"lenet conv1 dw b{batch}"] = weight_gradient_nchw(None, 32, 32, 1, 6, 5), batch
        made[f"lenet conv2 b{batch}"] = conv2_forward(None), batch
        made[f"lenet conv2 dw b{batch}"] = conv2_weights(None), batch
        made[f"lenet conv2 dx b{batch}"] = with_packed(conv2_input(None)), batch
    for n, k in ((120, 400), (84, 120), (10, 84), (512, 784), (512, 512), (10, 512)):
        for batch in (1, 32, 64):
            made[f"dense {k}->{n} b{batch}"] = with_packed(matmul(None, n, k, epilogue=bias_relu())), batch
        gradient = (Axis("m", None, k, n, None), Axis("k", k, 1, 0, n), Axis("n", n, 0, 1, 1))
        made[f"dense {k}->{n} dw b64"] = Contraction(gradient), 64
        back = (Axis("m", None, n, 0, k), Axis("k", k, 0, n, 1), Axis("n", n, 1, 1, None))
        made[f"dense {k}->{n} dx b64"] = Contraction(back), 64
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--show", action="store_true", help="print the kernels")
    options = parser.parse_args()
    with ThreadPoolExecutor(options.threads) as pool:
        top = limit(options.width)
        top.calibrate(pool, options.threads)
        for title, (c, batch) in cases().items():
            if options.patterns and not any(p in title for p in options.patterns):
                continue
            start = time.perf_counter()
            schedule = plan(c, options.width)
            planned = time.perf_counter()
            source = emit(schedule)
            kernel = load(source)
            built = time.perf_counter()
            if options.show:
                print(source.text)
            arrays = buffers(c, batch)
            aligned = {b: align(a) for b, a in arrays.items()}
            words = np.array([aligned[b].ctypes.data for b, _ in c.buffers], np.int64)
            useful = prod(useful_share(c, w) for w in c.windows)
            one = Contender(kernel, words, int(c.flops(batch) * useful), batch)
            one.calibrate(pool, options.threads)
            top.calibrate(pool, options.threads, max(1e-3, one.best * one.times))  # runs of equal length meet equal clocks
            pairs = []
            until = time.perf_counter() + options.seconds
            before = top.run(pool, options.threads)
            while time.perf_counter() < until:
                mine, after = one.run(pool, options.threads), top.run(pool, options.threads)
                pairs.append((one.flops / mine / 1e9, options.threads * top.flops * (1 / before + 1 / after) / 2e9))
                before = after
            share = median(rate / most for rate, most in pairs)
            rate, most = (median(column) for column in zip(*pairs, strict=True))
            tile = "x".join(str(t.size) for t in (*schedule.rows, *schedule.columns, *([schedule.lanes] if schedule.lanes else [])))
            form = "dot " if schedule.dot else ""
            print(
                f"{title:36s} {100 * share:5.1f}%  {rate:6.1f} of {most:6.1f} GFLOP/s  {one.flops / rate / 1e3:8.1f} us"
                f"  tile {form}{tile}  plan {planned - start:.2f} s, compile {built - planned:.2f} s",
                flush=True,
            )


def align(array: np.ndarray) -> np.ndarray:
    """A copy at an address divisible by 64."""
    space = np.empty(array.nbytes + 64, np.uint8)
    start = -space.ctypes.data % 64
    inside = space[start : start + array.nbytes].view(array.dtype)
    inside[:] = array
    return inside


if __name__ == "__main__":
    main()
