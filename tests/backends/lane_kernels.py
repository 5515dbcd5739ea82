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


def evaluate(expressions: Sequence[str], inputs: Sequence[np.ndarray], results: Sequence[Any], width: int) -> list[np.ndarray]:
    """Each expression of the vectors x0, x1, ... lane by lane, in one kernel; the inputs' length is padded to whole vectors."""
    size = len(inputs[0])
    padded = [np.concatenate([a, np.ones(-size % 16, a.dtype)]) for a in inputs]
    out = [np.empty(len(padded[0]), dtype) for dtype in results]
    lines = ["def kernel(row, thread, threads, batch):"]
    lines += [f"    p{n} = ptr_{name_of(a.dtype)}(arg(row, {n}))" for n, a in enumerate((*padded, *out))]
    lines += ["    for i in range(0, batch, W):"]
    lines += [f"        x{n} = vload_{name_of(a.dtype)}(p{n}, i)" for n, a in enumerate(padded)]
    stores = zip(expressions, results, range(len(inputs), len(inputs) + len(results)), strict=True)
    lines += [f"        vstore_{name_of(dtype)}(p{n}, i, {expression})" for expression, dtype, n in stores]
    load("\n".join([*lines, ""]), width)([*padded, *out], batch=len(padded[0]))
    return [a[:size] for a in out]


def bits(a: np.ndarray) -> np.ndarray:
    return a.view(f"u{a.dtype.itemsize}")


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits, but any NaN equals any NaN."""
    if a.dtype.kind != "f":
        return bool((a == b).all())
    return bool(((bits(a) == bits(b)) | (np.isnan(a) & np.isnan(b))).all())


def at_all_widths(expression: str, inputs: Sequence[np.ndarray], result: Any) -> np.ndarray:
    """One expression at every width, with the check that the bits agree."""
    return all_at_all_widths([expression], inputs, [result])[0]


def all_at_all_widths(expressions: Sequence[str], inputs: Sequence[np.ndarray], results: Sequence[Any]) -> list[np.ndarray]:
    first, *others = (evaluate(expressions, inputs, results, width) for width in WIDTHS)
    for width, other in zip(WIDTHS[1:], others, strict=True):
        for expression, a, b in zip(expressions, first, other, strict=True):
            assert (bits(a) == bits(b)).all(), f"{expression}: width {width} differs from width {WIDTHS[0]}"
    return first


def check(inputs: Sequence[np.ndarray], cases: Sequence[tuple[str, np.ndarray]]) -> None:
    """Every expression gives the bits of its expected array, at every width."""
    expressions = [expression for expression, _ in cases]
    results = all_at_all_widths(expressions, inputs, [want.dtype for _, want in cases])
    for (expression, want), got in zip(cases, results, strict=True):
        wrong = ~((bits(got) == bits(want)) | ((got != got) & (want != want)))
        assert not wrong.any(), (expression, [a[wrong][:4] for a in inputs], got[wrong][:4], want[wrong][:4])


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
