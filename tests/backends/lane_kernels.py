"""Compiles kernel source to object code, loads it and runs it on NumPy arrays; ulp distances."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from dslc.backends.cpu.native import compile_object

ABI = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4)
NAMES = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "uint8": "u8", "bool": "bool"}
WIDTHS = (16, 8, 4)


def name_of(dtype: Any) -> str:
    return NAMES[np.dtype(dtype).name]


def load(source: str, width: int, **options: Any) -> Callable[..., None]:
    """The kernel `kernel` of `source` as a function of (arrays or addresses, thread, threads, batch)."""
    machine_code, symbol, _ = compile_object(source, "kernel", width, **options)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), llvm.Target.from_default_triple().create_target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    function = ABI(engine.get_function_address(symbol))

    def run(arrays: Sequence[Any], thread: int = 0, threads: int = 1, batch: int = 1) -> None:
        words = np.array([a if isinstance(a, int) else a.ctypes.data for a in arrays], np.int64)
        slots = (ctypes.c_void_p * 2)()
        where = ctypes.addressof(slots)
        assert function(where, where, words.ctypes.data, thread, threads, batch) == 0

    run.engine = engine  # type: ignore[attr-defined]  # keeps the code alive
    return run


def evaluate(expression: str, inputs: Sequence[np.ndarray], result: Any, width: int) -> np.ndarray:
    """`expression` of the vectors x0, x1, ... lane by lane; the inputs' common length is padded to whole vectors."""
    size = len(inputs[0])
    padded = [np.concatenate([a, np.ones(-size % 16, a.dtype)]) for a in inputs]
    out = np.empty(len(padded[0]), result)
    lines = ["def kernel(row, thread, threads, batch):"]
    lines += [f"    p{n} = ptr_{name_of(a.dtype)}(arg(row, {n}))" for n, a in enumerate(padded)]
    lines += [f"    q = ptr_{name_of(result)}(arg(row, {len(padded)}))", "    for i in range(0, batch, W):"]
    lines += [f"        x{n} = vload_{name_of(a.dtype)}(p{n}, i)" for n, a in enumerate(padded)]
    lines += [f"        vstore_{name_of(result)}(q, i, {expression})", ""]
    load("\n".join(lines), width)([*padded, out], batch=len(out))
    return out[:size]


def bits(a: np.ndarray) -> np.ndarray:
    return a.view(f"u{a.dtype.itemsize}")


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits, but any NaN equals any NaN."""
    if a.dtype.kind != "f":
        return bool((a == b).all())
    return bool(((bits(a) == bits(b)) | (np.isnan(a) & np.isnan(b))).all())


def at_all_widths(expression: str, inputs: Sequence[np.ndarray], result: Any) -> np.ndarray:
    """`evaluate` at every width, with the check that the bits agree."""
    results = [evaluate(expression, inputs, result, width) for width in WIDTHS]
    for width, other in zip(WIDTHS[1:], results[1:], strict=True):
        assert (bits(results[0]) == bits(other)).all(), f"width {width} differs from width {WIDTHS[0]}"
    return results[0]


def ulps(got: np.ndarray, want: np.ndarray) -> tuple[float, int]:
    """The largest distance from `want` (of higher precision) in units of the last place of `got`, and where.

    Results that should be infinite, NaN or zero must be exactly that, with their sign.
    """
    rounded = want.astype(got.dtype)
    special = ~np.isfinite(rounded) | (rounded == 0)
    wrong = special & (bits(got) != bits(rounded)) & ~(np.isnan(got) & np.isnan(rounded))
    assert not wrong.any(), (np.flatnonzero(wrong)[:5], got[wrong][:5], rounded[wrong][:5])
    spacing = np.spacing(np.abs(np.where(special, 1, rounded)))
    error = np.where(special, 0, np.abs(got.astype(np.longdouble) - want.astype(np.longdouble)) / spacing)
    worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    return float(error[worst]), worst
