"""What the machine code of contractions looks like: full vectors, no stack and no foreign calls in the inner loops."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import pytest
from assembly import WIDTH, complaints
from contractions import matmul
from numba import types
from numba.extending import intrinsic
from test_contraction import CASES, conv_nhwc, conv_panels, depthwise, depthwise_weight_gradient, weight_gradient_nhwc

from dslc.backends.cpu.contract import emit
from dslc.backends.cpu.native import compile_object
from dslc.lowering.contraction import Contraction
from dslc.lowering.tiling import plan

pytestmark = pytest.mark.skipif("x86" not in llvm.get_default_triple(), reason="reads x86 assembly")

SHAPES: dict[str, Contraction] = {
    "gemm": matmul(128, 768, 768),
    "gemm, run-time rows": matmul(None, 512, 784),
    "gemm, tails": matmul(None, 84, 120),
    "dot form": matmul(None, 96, 512, b_columns=False),
    "conv": conv_nhwc(None, 58, 58, 64, 64, 3),
    "conv, few channels": CASES["conv, channels first"],
    "conv, rows that share what they read": conv_panels(None, 15, 256, 8, 32),
    "conv, the same with stride 2": conv_panels(None, 57, 128, 1, 128, stride=2),
    "conv, the same where lines of the next panel are asked for": conv_panels(None, 57, 64, 2, 64, stride=2),
    "conv, no register left": conv_panels(None, 14, 96, 9, 64, k=1),
    "weight gradient": weight_gradient_nhwc(None, 16, 16, 64, 64, 3),
    "weight gradient, few channels": CASES["conv weight gradient, channels first"],
    "depthwise": depthwise(None, 60, 96, 5),
    "depthwise, stride 2": depthwise(None, 58, 144, 3, 2),
    "depthwise weight gradient": depthwise_weight_gradient(None, 58, 96, 3),
    "epilogue": CASES["bias and gelu, tails"],
    "chunks": CASES["epilogue after chunks"],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_inner_loops(shape: str) -> None:
    source = emit(plan(SHAPES[shape], WIDTH))
    assert complaints(compile_object(source.text, source.entry, WIDTH, assembly=True)[2]) == []


def test_a_tile_does_not_carry_its_results_from_chunk_to_chunk() -> None:
    source = emit(plan(conv_panels(None, 16, 256, 8, 32), WIDTH))
    assert "tile_14x32" in source.text and "range(0, 256, 16)" in source.text  # 28 sums, and chunks inside of the loop over tiles
    assembly = compile_object(source.text, source.entry, WIDTH, assembly=True)[2]
    assert [line for line in assembly.splitlines() if "zmm" in line and "rsp" in line] == []


# ---- the test itself is tested: each planted fault is found ---------------------------------------------------------


@intrinsic
def scalar_load(typingctx: Any, p: types.Type, i: types.Type) -> Any:
    """Element i of a float pointer as a plain number."""

    def codegen(context: Any, builder: Any, sig: Any, args: list[Any]) -> Any:
        memory = sig.args[0].element.memory
        return builder.load(builder.gep(args[0], [args[1]], source_etype=memory), typ=memory, align=4)

    return types.float32(p, types.intp), codegen


SCALAR = """
def kernel(row, thread, threads, batch):
    a = ptr_f32(arg(row, 0))
    total = scalar_load(a, 0)
    for k in range(batch):
        total = scalar_load(a, k) * scalar_load(a, k + 7) + total
    vstore_f32(a, 0, fma(splat_f32(total), vload_f32(a, 0), vload_f32(a, 16)))
    c = vload_f32(a, 0)
    for k in range(batch):
        c = fma(c, c, c) * splat_f32(scalar_load(a, k) + scalar_load(a, k + 1) + scalar_load(a, k + 2))
    vstore_f32(a, 0, c)
"""


def spilling() -> str:
    """More accumulators than there are registers."""
    lines = ["def kernel(row, thread, threads, batch):", "    a = ptr_f32(arg(row, 0))"]
    lines += [f"    c{i} = vload_f32(a, {64 * i})" for i in range(48)]
    lines += ["    for k in range(batch):", "        x = vload_f32(a, k)"]
    lines += [f"        c{i} = fma(x, x, c{i})" for i in range(48)]
    lines += [f"    vstore_f32(a, {64 * i}, c{i})" for i in range(48)]
    return "\n".join(lines) + "\n"


def test_scalar_arithmetic_is_found() -> None:
    assembly = compile_object(SCALAR, "kernel", WIDTH, extra={"scalar_load": scalar_load}, assembly=True)[2]
    assert any("full width" in text for text in complaints(assembly))


def test_narrow_vectors_are_found() -> None:
    source = emit(plan(SHAPES["gemm"], 4))
    assert any("full width" in text for text in complaints(compile_object(source.text, source.entry, 4, assembly=True)[2]))


def test_spills_are_found() -> None:
    assert any("stack" in text for text in complaints(compile_object(spilling(), "kernel", WIDTH, assembly=True)[2]))


def test_foreign_calls_are_found() -> None:
    assert complaints(".LBB0_1:\n\tvfmadd231ps\t%zmm0, %zmm1, %zmm2\n\tcallq\texpf@PLT\n\tjne\t.LBB0_1\n")[-1] == "calls expf@PLT"
