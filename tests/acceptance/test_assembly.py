"""The machine code of every contraction in a training step: full vectors, no stack and no foreign calls in the inner loops."""

from __future__ import annotations

import re
import struct
import sys
from typing import Any

import llvmlite.binding as llvm
import pytest
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from surroundings import ROOT

from dslc.api.compilation import elaborate, options_of, request_of
from dslc.backends.cpu.build import KernelSource
from dslc.backends.cpu.native import compile_object
from dslc.backends.cpu.target import host_target, kernel_sources
from dslc.compiler import transform
from dslc.ir.loops import LoopProgram
from dslc.lowering.lower import lower

sys.path.insert(0, str(ROOT / "tests" / "backends"))
from assembly import WIDTH, complaints

pytestmark = pytest.mark.skipif("x86" not in llvm.get_default_triple(), reason="reads x86 assembly")


def contractions(name: str) -> dict[str, KernelSource]:
    """The kernels of the training step that contract, by their number and operator."""
    options = options_of(None, None, None, WIDTH, False)
    module = elaborate(request_of(name, None, True, None, options)).module
    lowered = lower(transform(module.programs["train"], {})[0])
    kernels = kernel_sources(lowered, host_target(options))
    steps = zip(lowered.steps, kernels, strict=True)
    return {f"{n} {s.label} {s.span}": kernel for n, (s, kernel) in enumerate(steps) if not isinstance(s.program, LoopProgram)}


def assembly(kernel: KernelSource) -> str:
    return compile_object(kernel.text, kernel.entry, kernel.width, assembly=True)[2]


@pytest.mark.parametrize(("name", "count"), [("mlp", 8), ("lenet", 14)])
def test_inner_loops(name: str, count: int) -> None:
    found = contractions(name)
    assert len(found) == count, f"a layer has a forward and two backward contractions, the first layer one backward: {list(found)}"
    for step, kernel in found.items():
        assert complaints(assembly(kernel)) == [], step


def test_nothing_from_outside_is_called() -> None:
    """Not one kernel of a training step, contraction or not, refers to a symbol that it does not define."""
    options = options_of(None, None, None, WIDTH, False)
    lowered = lower(transform(elaborate(request_of("logistic", None, True, None, options)).module.programs["train"], {})[0])
    for kernel in kernel_sources(lowered, host_target(options)):
        code, symbol, _ = compile_object(kernel.text, kernel.entry, kernel.width)
        assert undefined(code) == [], symbol


def undefined(code: bytes) -> list[str]:
    """Names that an ELF object refers to and does not define."""
    assert code[:6] == b"\x7fELF\x02\x01", "a 64-bit little-endian object"
    (table,) = struct.unpack_from("<Q", code, 0x28)
    size, count = struct.unpack_from("<HH", code, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + size * n) for n in range(count)]
    names = []
    for kind, at, length, link in ((s[1], s[4], s[5], s[6]) for s in sections):
        if kind == 2:  # the symbol table
            for entry in range(at + 24, at + length, 24):  # the first is empty
                name, _, _, section = struct.unpack_from("<IBBH", code, entry)
                if section == 0:
                    start = sections[link][4] + name
                    names.append(code[start : code.index(b"\0", start)].decode())
    return names


@pytest.mark.skipif(WIDTH < 8, reason="the host has no wider vectors")
def test_a_planted_scalar_kernel_is_found() -> None:
    """One contraction of the step whose sums are formed number by number, and one with vectors of four."""
    found = contractions("logistic")
    kernel = next(iter(found.values()))
    assert complaints(assembly(kernel)) == []
    narrow = KernelSource(kernel.text, kernel.entry, 4)
    assert any("full width" in said for said in complaints(assembly(narrow)))
    scalar = re.sub(r"= fma\((\w+), (\w+), (\w+)\)", r"= one_by_one(\1, \2, \3)", kernel.text)
    assert scalar != kernel.text
    planted = compile_object(scalar, kernel.entry, WIDTH, extra={"one_by_one": one_by_one}, assembly=True)[2]
    assert any("full width" in said for said in complaints(planted))


@intrinsic
def one_by_one(typingctx: Any, x: types.Type, y: types.Type, z: types.Type) -> Any:
    """x * y + z, lane for lane, in instructions that take one number."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> Any:
        total = args[2]
        for lane in range(WIDTH):
            numbers = [builder.extract_element(a, ir.IntType(32)(lane)) for a in args]
            total = builder.insert_element(total, builder.fma(*numbers), ir.IntType(32)(lane))
        return total

    return x(x, y, z), codegen


def test_an_undefined_symbol_is_found() -> None:
    module = llvm.parse_assembly(
        "declare float @expf(float)\ndefine float @f(float %x) {\n%y = call float @expf(float %x)\nret float %y\n}\n"
    )
    machine = llvm.Target.from_default_triple().create_target_machine()
    assert undefined(machine.emit_object(module)) == ["expf"]
