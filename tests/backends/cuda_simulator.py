"""Kernels in Numba's CUDA simulator: run in a process of its own, with NUMBA_ENABLE_CUDASIM=1 set before Numba is imported.

    python -m tests.backends.cuda_simulator mlp
    python -m tests.backends.cuda_simulator operators add softmax ...

Every result is compared with the CPU kernels to the bit; the network also with the interpreter, to rounding.
"""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from dslc import compiler
from dslc.backends.cpu.build import Workers
from dslc.backends.cuda import device
from dslc.backends.cuda.kernel import CudaProgram
from dslc.backends.cuda.target import emit_program
from dslc.frontend import elaborate
from dslc.interpret import interpret
from dslc.ir.module import Module, PortKind, Program
from dslc.ir.types import DType
from dslc.lowering.lower import lower
from dslc.options import Options, resource
from dslc.runtime.executable import Executable

Array = np.ndarray[Any, Any]
BATCH = 5


def narrow_mlp() -> Module:
    """models/mlp.dl with 12-8-8-3 features."""
    text = (resource("models") / "mlp.dl").read_text(encoding="utf-8")
    for wide, small in (("512", "8"), ("1, 28, 28", "1, 3, 4"), ("Dense[10]", "Dense[3]"), ("f32[N, 10]", "f32[N, 3]")):
        assert wide in text
        text = text.replace(wide, small)
    return elaborate(text, "mlp.dl", recipe="mlp").module


def executable_of(module: Module, workers: Workers) -> tuple[Executable, compiler.Compiled]:
    compiled = compiler.compile_module(module, Options(threads=1), workers=workers)
    constants = {c.name: np.frombuffer(compiled.constants[c.name], DType(c.dtype).numpy).reshape(c.shape) for c in compiled.plan.constants}
    return Executable(compiled.plan, compiled.objects, constants, threads=1), compiled


def settings_of(program: Program) -> dict[str, float | int]:
    found: dict[str, float | int] = {}
    for port in program.inputs:
        if port.kind in (PortKind.SETTING, PortKind.SEED, PortKind.COUNTER):
            found[port.name] = port.default if port.default is not None else 3
    return found


def interpreted(program: Program, state: dict[str, Array], inputs: dict[str, Array], settings: dict[str, float | int]) -> dict[str, Array]:
    """Results and updated buffers by name."""
    arrays = [(inputs | state | settings)[port.name] for port in program.inputs]
    shaped = [np.asarray(a, v.type.dtype.numpy) for a, v in zip(arrays, program.graph.inputs, strict=True)]
    results = interpret(program.graph, shaped, {program.batch: BATCH} if program.batch else {})
    return {port.name: r for port, r in zip(program.outputs, results, strict=True)}


def same_bits(got: Array, want: Array, name: str) -> None:
    assert got.dtype == want.dtype and got.size == want.size, name
    nan = np.isnan(want.reshape(-1)) if want.dtype.kind == "f" else np.zeros(want.size, bool)  # a NaN's payload is the machine's choice
    bits = {1: np.uint8, 4: np.uint32, 8: np.uint64}[want.dtype.itemsize]
    same = got.reshape(-1).view(bits) == want.reshape(-1).view(bits)
    if want.dtype.kind == "f":
        same |= nan & np.isnan(got.reshape(-1))
    assert same.all(), (
        f"{name}: {np.count_nonzero(~same)} of {same.size} elements differ: {got.reshape(-1)[~same][:4]}, {want.reshape(-1)[~same][:4]}"
    )


def in_one_block(program: CudaProgram) -> CudaProgram:
    """The program with a single block for every kernel."""
    kernels = {key: replace(kernel, launch=replace(kernel.launch, grid=(1, 1))) for key, kernel in program.kernels.items()}
    return replace(program, kernels=kernels)


def mlp() -> None:
    """Three training steps, the last with one block a kernel, and an evaluation."""
    module = narrow_mlp()
    rng = np.random.default_rng(5)
    state: dict[str, Array] = {}
    for path, buffer in module.buffers.items():
        shape = tuple(int(n) for n in buffer.type.shape)  # type: ignore[arg-type]
        real = rng.normal(0, 0.3, shape).astype(buffer.type.dtype.numpy) if buffer.role == "parameter" else np.zeros(shape)
        state[path] = np.array(real, buffer.type.dtype.numpy)
    with Workers(1) as workers:
        executable, compiled = executable_of(module, workers)
    for path, value in state.items():
        executable.set(path, value)
    for name, times in (("train", 3), ("evaluate", 1)):
        done = compiled.programs[name]
        runner = device.Runner(emit_program(done.lowered), state, compiled.constants)
        settings = settings_of(done.program)
        for step in range(times):
            inputs = {
                "image": rng.normal(0, 1, (BATCH, 1, 3, 4)).astype(np.float32),
                "label": rng.integers(0, 3, BATCH),
            }
            original = module.programs[name]
            if step == 2:
                runner.program = in_one_block(runner.program)
            want = interpreted(done.program, state, inputs, settings)
            got = runner(inputs, settings, BATCH)
            cpu = executable.call(name, inputs, settings)
            updated = runner.state()
            for port in original.outputs:
                if port.kind == PortKind.BUFFER:
                    flat = updated[port.name]
                    np.testing.assert_allclose(flat, want[port.name].reshape(-1), rtol=2e-5, atol=1e-7, err_msg=port.name)
                    same_bits(flat, executable.get(port.name), port.name)
                    state[port.name] = flat.reshape(state[port.name].shape)
                else:
                    np.testing.assert_allclose(got[port.name], want[port.name], rtol=1e-5, atol=1e-7, err_msg=port.name)
                    same_bits(got[port.name], cpu[port.name], port.name)
            print(f"{name} step {step}: {len(original.outputs)} results agree")


def operators(kinds: list[str]) -> None:
    """The samples of operators, as programs of one operator each."""
    from tests.backends.test_kernels import cases

    with Workers(1) as workers:
        for kind in kinds:
            programs = {program.name: program for program, _, _ in cases(kind, every=False)}
            executable, compiled = executable_of(Module(kind, programs, {}), workers)
            for program, arrays, _ in cases(kind, every=False):
                inputs = {f"x{n}": a for n, a in enumerate(arrays)}
                done = compiled.programs[program.name]
                plain = compiler.without_routines(done.program)
                if plain is not done.program:  # written out with other operators: their own roundings
                    if max(a.size for a in arrays) < 500:
                        runner = device.Runner(emit_program(lower(plain)), {}, compiled.constants)
                        got, want = runner(inputs, {}), executable.call(program.name, inputs)
                        for name, value in want.items():
                            np.testing.assert_allclose(got[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{program.name} {name}")
                    continue
                runner = device.Runner(emit_program(done.lowered), {}, compiled.constants)
                got, want = runner(inputs, {}), executable.call(program.name, inputs)
                for name, value in want.items():
                    same_bits(got[name], value, f"{program.name} {name}")
            print(f"{kind}: {len(programs)} programs agree")


if __name__ == "__main__":
    assert device.can_run(), "set NUMBA_ENABLE_CUDASIM=1, or run where a GPU is"
    warnings.simplefilter("ignore")  # integers that wrap, and division by zero
    np.seterr(all="ignore")
    began = time.perf_counter()
    if sys.argv[1] == "mlp":
        mlp()
    else:
        operators(sys.argv[2:])
    print(f"{time.perf_counter() - began:.1f} s")
