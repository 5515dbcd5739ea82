"""Compiles contractions and runs them on NumPy arrays through the kernel ABI; the reference in f64 that they are compared with."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm
import numpy as np

from dslc.backends.cpu.contract import KernelSource, emit
from dslc.backends.cpu.native import compile_object
from dslc.ir.dims import evaluate
from dslc.ir.loops import Acc, Binary, Cast, Const, Expr, Load, Select, Unary
from dslc.lowering.contraction import Axis, Contraction
from dslc.lowering.tiling import plan

ABI = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4)


@dataclass
class Kernel:
    """A loaded kernel. `run` plays the threads one after the other."""

    source: KernelSource
    engine: object
    address: int

    def run(self, arrays: list[np.ndarray], batch: int = 1, threads: int = 1) -> None:
        assert len(arrays) == len(self.source.arguments)
        words = np.array([a.ctypes.data for a in arrays], np.int64)
        slot = ctypes.c_void_p()
        call = ABI(self.address)
        for thread in range(threads):
            call(ctypes.addressof(slot), ctypes.addressof(slot), words.ctypes.data, thread, threads, batch)


def load(source: KernelSource) -> Kernel:
    machine_code, symbol, _ = compile_object(source.text, source.entry, source.width)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), llvm.Target.from_default_triple().create_target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    return Kernel(source, engine, engine.get_function_address(symbol))


@cache
def compiled(c: Contraction, width: int) -> Kernel:
    return load(emit(plan(c, width)))


# ---- reference ------------------------------------------------------------------------------------------------------


def view(array: np.ndarray, start: int, axes: list[tuple[int, int]]) -> np.ndarray:
    """The array's elements at start + sum of index * stride, as a tensor with one dimension an axis."""
    flat = array.reshape(-1)
    shape, strides = [e for e, _ in axes], [s for _, s in axes]
    reach = start + sum((e - 1) * s for e, s in axes)
    assert 0 <= start <= reach < flat.size or any(s < 0 for s in strides), (start, reach, flat.size)
    return np.lib.stride_tricks.as_strided(flat[start:], shape, [s * flat.itemsize for s in strides])


def reference(c: Contraction, arrays: dict[int, np.ndarray], batch: int = 1) -> np.ndarray:
    """The result over the output axes in f64 (in the order of `c.outputs`)."""
    outer, inner = c.outputs, c.reductions
    operands = [
        view(arrays[0].astype(np.float64), c.a0, [(a.size(batch), a.a) for a in (*outer, *inner)]),
        view(arrays[1].astype(np.float64), c.b0, [(a.size(batch), a.b) for a in (*outer, *inner)]),
    ]
    labels = list(range(len(c.axes)))
    total = np.einsum(operands[0], labels, operands[1], labels, labels[: len(outer)], optimize=False)
    if c.accumulate:
        total = total + view(arrays[2].astype(np.float64), c.c0, [(a.size(batch), a.c or 0) for a in outer])
    index = np.meshgrid(*(np.arange(a.size(batch)) for a in outer), indexing="ij")
    names = {a.name: i for a, i in zip(outer, index, strict=True)}
    return np.broadcast_to(evaluate_expr(c.epilogue, total, arrays, names), total.shape)


def evaluate_expr(e: Expr, total: np.ndarray, arrays: dict[int, np.ndarray], names: dict[str, np.ndarray]) -> np.ndarray:
    def value(x: Expr) -> np.ndarray:
        return evaluate_expr(x, total, arrays, names)

    match e:
        case Acc():
            return total
        case Const():
            return np.array(e.value)
        case Load():
            at = evaluate(e.address, names) if not isinstance(e.address, int) else e.address  # type: ignore[arg-type]
            return arrays[e.buffer].reshape(-1)[at].astype(np.float64)
        case Unary():
            x = value(e.x)
            return {"neg": lambda: -x, "exp": lambda: np.exp(x), "tanh": lambda: np.tanh(x), "sigmoid": lambda: 1 / (1 + np.exp(-x))}[
                e.op
            ]()
        case Binary():
            x, y = value(e.x), value(e.y)
            table = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum, "gt": np.greater, "mod": np.mod}
            return table[e.op](x, y)
        case Select():
            return np.where(value(e.condition), value(e.x), value(e.y))
        case Cast():
            return value(e.x)
    raise TypeError(e)


def matmul(m: int | None, n: int, k: int | None, *, a_columns: bool = True, b_columns: bool = True, **options: object) -> Contraction:
    """C[m, n] = A[m, k] @ B[k, n], row-major; with `a_columns` False A is stored [k, m], with `b_columns` False B is stored [n, k]."""
    rows, depth = m or 0, k or 0
    axes = (
        Axis("m", m, depth if a_columns else 1, 0, n),
        Axis("n", n, 0, 1 if b_columns else depth, 1),
        Axis("k", k, 1 if a_columns else rows, n if b_columns else 1, None),
    )
    return Contraction(axes, **options)  # type: ignore[arg-type]
