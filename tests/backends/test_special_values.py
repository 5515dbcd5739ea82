"""NaN, infinities, zeros of both signs, subnormals and the ends of the range in native kernels: every element-wise function.

All functions of one operand make one program, all of two another, so that there is little to compile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.compiler import compile_module
from dslc.ir.builder import Builder
from dslc.ir.module import Module, Port, PortKind, Program
from dslc.ir.operator import OPERATORS, Sample
from dslc.ir.types import DType
from dslc.options import Options
from dslc.runtime.executable import Executable
from tests.ops.test_operators import SPECIAL, ZERO_SIGN_IS_FREE, arrays_of, settings

Array = np.ndarray[Any, Any]
F32, F64 = DType.F32, DType.F64


def functions(arity: int) -> list[tuple[str, Sample]]:
    """Element-wise operators of so many floating operands, with the settings of each of their samples."""
    found = []
    for kind, op in sorted(OPERATORS.items()):
        if not op.elementwise or not op.has("body") or len(op.inputs) != arity:
            continue
        for number, sample in enumerate(op.samples):
            if all(a.dtype.kind == "f" for a in arrays_of(kind, sample)) and (number == 0 or sample.attrs):
                found.append((kind, sample))
    return found


def program_of(kinds: list[tuple[str, Sample]], arrays: list[Array], dtype: DType) -> Program:
    b = Builder()
    inputs = [b.input(dtype, a.size) for a in arrays]
    outputs = [b.apply(kind, *inputs, **sample.attrs) for kind, sample in kinds]
    ports = tuple(Port(PortKind.INPUT, f"x{n}") for n in range(len(inputs)))
    return Program("special", b.graph(*outputs), ports, tuple(Port(PortKind.RESULT, f"y{n}") for n in range(len(outputs))))


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("arity", [1, 2])
def test_special_values_in_kernels(arity: int, dtype: DType) -> None:
    """The reference's values, NaN in the same places, zeros of the same sign, and the same bits at every width."""
    kinds = functions(arity)
    assert len(kinds) > (8 if arity == 2 else 40)
    values = np.array([*SPECIAL[dtype], 0.3, -0.7, 88.0, -100.0, 710.0, 1e-5], dtype.numpy)
    arrays = [np.ascontiguousarray(a.ravel()) for a in np.meshgrid(*[values] * arity, indexing="ij")]
    program = program_of(kinds, arrays, dtype)
    results = []
    for width in (16, 8, 4):
        compiled = compile_module(Module("special", {"special": program}, {}), Options(width=width))
        executable = Executable(compiled.plan, compiled.objects, {}, threads=1)
        results.append(executable.call("special", {f"x{n}": a for n, a in enumerate(arrays)}))
    tiny = float(np.finfo(dtype.numpy).smallest_normal)
    for number, (kind, sample) in enumerate(kinds):
        first, *others = (r[f"y{number}"] for r in results)
        assert all(first.tobytes() == other.tobytes() for other in others), f"{kind}: other bits at another width"
        with np.errstate(all="ignore"):
            want = np.asarray(OPERATORS[kind].reference(*arrays, **settings(kind, sample)))
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(first, want, err_msg=kind)
            continue
        tolerance = 1e-12 if dtype == F64 else 3e-5
        np.testing.assert_allclose(first, want, rtol=tolerance, atol=4 * tiny, err_msg=f"{kind} {sample.attrs}")
        if kind not in ZERO_SIGN_IS_FREE:
            zero = (want == 0) & (first == 0)
            np.testing.assert_array_equal(np.signbit(first[zero]), np.signbit(want[zero]), err_msg=kind)
