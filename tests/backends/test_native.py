"""Kernel source to object file: self-contained, deterministic, and the private parts of Numba and llvmlite behave as relied on."""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import sys

import llvmlite.binding as llvm
import numpy as np
import pytest
from lane_kernels import load

from dslc.backends.cpu.mathlib import FORMULAS, TWO_ARGUMENTS
from dslc.backends.cpu.native import compile_object

SCALE = """
def kernel(row, thread, threads, batch):
    p = ptr_f32(arg(row, 0))
    for i in range(thread * batch // threads, (thread + 1) * batch // threads):
        vstore_f32(p, i * W, vload_f32(p, i * W) * splat_f32(2.0))
"""

TILE = """
@tile("void(ptr_f32, intp, ptr_f32, intp, f32)")
def add_row(x, i, y, j, bias):
    vstore_f32(y, j, vload_f32(x, i) + bias)


def kernel(row, thread, threads, batch):
    x = ptr_f32(arg(row, 0))
    y = ptr_f32(arg(row, 1))
    for i in range(0, batch, W):
        add_row(x, i, y, i, splat_f32(0.5))
"""

FUNCTIONS = (*(name for name in FORMULAS if name not in TWO_ARGUMENTS), "floor", "ceil", "trunc", "rint", "sqrt")
ALL_MATH = "\n".join(
    [
        "def kernel(row, thread, threads, batch):",
        "    p = ptr_f32(arg(row, 0))",
        "    q = ptr_f64(arg(row, 1))",
        "    r = ptr_i64(arg(row, 2))",
        "    x = vload_f32(p, 0)",
        "    y = vload_f64(q, 0)",
        "    z = vload_i64(r, 0)",
        *(f"    x = v{name}(x)\n    y = v{name}(y)" for name in FUNCTIONS),
        "    vstore_f32(p, 0, vpow(x, to_f32(y)))",
        "    vstore_f64(q, 0, vpow(vfmod(vatan2(y, to_f64(vatan2(x, x))), to_f64(vfmod(x, x))), to_f64(x)))",
        "    vstore_i64(r, 0, imod(z, to_i64(to_u8(z))) + ifloordiv(z, to_i64(to_i32(x))) + to_i64(philox_bits(1, 2, 3, z)))",
        "    vstore_stride_part_f32(p, 0, 3, vgather_part_f32(p, z, batch), batch)",
        "",
    ]
)


def undefined_symbols(elf: bytes) -> set[str]:
    """Names of symbols that an ELF64 object expects from elsewhere; every relocation names a symbol of the same table."""
    assert elf[:5] == b"\x7fELF\x02"
    (start,) = struct.unpack_from("<Q", elf, 0x28)
    size, count = struct.unpack_from("<HH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, start + n * size) for n in range(count)]
    (table,) = (s for s in sections if s[1] == 2)
    strings = sections[table[6]]
    names = set()
    for at in range(table[4], table[4] + table[5], 24):
        name, _, _, section = struct.unpack_from("<IBBH", elf, at)
        if section == 0 and name:
            begin = strings[4] + name
            names.add(elf[begin : elf.index(b"\0", begin)].decode())
    return names


on_elf = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads ELF")
on_x86 = pytest.mark.skipif("x86_64" not in llvm.get_process_triple(), reason="names x86 features")


def test_a_kernel_runs_its_share() -> None:
    run = load(SCALE, 8)
    x = np.arange(80, dtype=np.float32)
    run([x], thread=1, threads=2, batch=10)
    assert np.array_equal(x, np.arange(80) * np.where(np.arange(80) < 40, 1, 2))


@pytest.mark.parametrize("width", [16, 8, 4])
def test_a_tile_is_called_with_pointers_indices_and_lanes(width: int) -> None:
    x, y = np.arange(48, dtype=np.float32), np.zeros(48, np.float32)
    load(TILE, width)([x, y], batch=48)
    assert np.array_equal(y, x + np.float32(0.5))


@on_elf
@pytest.mark.parametrize("width", [16, 8, 4])
@pytest.mark.parametrize("source", [SCALE, TILE, ALL_MATH], ids=["scale", "tile", "all math"])
def test_objects_refer_to_nothing_outside(source: str, width: int) -> None:
    code, _, assembly = compile_object(source, "kernel", width, assembly=True)
    assert undefined_symbols(code) == set()
    called = set(re.findall(r"\b(?:call|jmp)q?\s+\*?((?!\.L)[\w$.]+)", assembly))
    assert called <= set(re.findall(r"^([\w$.]+):", assembly, re.M)), "a call of something else than the source's own tiles"


@on_elf
@on_x86
@pytest.mark.parametrize(
    ("features", "width", "absent"), [("+avx2,+fma", 8, "zmm"), ("+avx2,+fma", 16, "zmm"), ("+sse4.2,+fma,+avx", 4, "zmm")]
)
def test_other_cpus_than_this_one(features: str, width: int, absent: str) -> None:
    code, _, assembly = compile_object(ALL_MATH, "kernel", width, cpu_name="x86-64", features=features, assembly=True)
    assert undefined_symbols(code) == set()
    assert absent not in assembly


@on_elf
@pytest.mark.parametrize("value", ["splat_f32(0.0)", "vload_f32(x, i)"])
def test_fill_and_copy_loops_stay_loops(value: str) -> None:
    source = f"""
def kernel(row, thread, threads, batch):
    x = ptr_f32(arg(row, 0))
    y = ptr_f32(arg(row, 1))
    for i in range(0, batch, W):
        vstore_f32(y, i, {value})
"""
    assert undefined_symbols(compile_object(source, "kernel", 8)[0]) == set()


def test_symbol_names_the_source_and_the_width() -> None:
    _, symbol, _ = compile_object(SCALE, "kernel", 8)
    assert re.fullmatch(r"kernel_[0-9a-f]{16}", symbol)
    others = {compile_object(SCALE, "kernel", 16)[1], compile_object(SCALE + "#", "kernel", 8)[1]}
    assert len(others | {symbol}) == 3


def test_same_bytes_again_and_in_another_process() -> None:
    program = f"""
import hashlib
from dslc.backends.cpu.native import compile_object
compile_object({SCALE!r}, "kernel", 16)  # whatever came before must not matter
print(hashlib.sha256(compile_object({TILE!r}, "kernel", 8)[0]).hexdigest())
"""
    first, second = (hashlib.sha256(compile_object(TILE, "kernel", 8)[0]).hexdigest() for _ in range(2))
    environment = {"PYTHONHASHSEED": "12345", "PATH": ""}
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment).stdout.strip()
    assert first == second == other


def test_extra_names_reach_the_source() -> None:
    source = SCALE.replace("2.0", "FACTOR")
    code, _, _ = compile_object(source, "kernel", 8, extra={"FACTOR": 3.0})
    assert code != compile_object(source, "kernel", 8, extra={"FACTOR": 4.0})[0]


def test_compiling_starts_neither_numbas_runtime_nor_its_arrays() -> None:
    program = f"""
import sys
from dslc.backends.cpu.native import compile_object
compile_object({TILE!r}, "kernel", 8)
from numba.core.runtime import rtsys
assert not rtsys._init
assert not [m for m in sys.modules if m.startswith(("numba.np.arraymath", "numba.cpython.unicode"))]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "statement",
    ["vload_f32(p, 0) + vload_f64(q, 0)", "vexp(vload_i32(r, 0))", "vload_f32(q, 0)", "fma(vload_f32(p, 0), 2.0, 1.0)", "vmax(1, 2)"],
)
def test_a_kernel_of_wrong_types_does_not_compile(statement: str) -> None:
    from numba.core.errors import TypingError

    lines = ["def kernel(row, thread, threads, batch):", "    p = ptr_f32(arg(row, 0))", "    q = ptr_f64(arg(row, 0))"]
    lines += ["    r = ptr_i32(arg(row, 0))", f"    {statement}", ""]
    with pytest.raises(TypingError):
        compile_object("\n".join(lines), "kernel", 8)


def test_the_assembly_has_the_hosts_vectors() -> None:
    _, symbol, assembly = compile_object(SCALE, "kernel", 16, assembly=True)
    assert symbol in assembly
    if "avx512f" in llvm.get_host_cpu_features().flatten().replace("-avx512f", ""):
        assert "zmm" in assembly
