"""Everything that needs `numba.cuda`: kernels from source to PTX and machine code, and their launches. No other module imports it.

Three ways lead here: Numba's CUDA simulator (`NUMBA_ENABLE_CUDASIM=1` before Numba is imported; part of Numba), the compiler of
the extra `dslc[cuda]`, which needs no GPU, and a GPU with its driver.
"""

from __future__ import annotations

import importlib.util
import math
import operator
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import cuda, types
from numba.cuda import libdevice

from dslc.backends.cuda.kernel import CudaKernel, CudaProgram, Figures
from dslc.backends.cuda.target import no_compiler, no_device
from dslc.diagnostics import DiagnosticError
from dslc.ir.plan import BufferPlan, concrete
from dslc.ir.types import DType

CAPABILITIES = ((7, 5), (8, 0), (8, 6), (9, 0))
SCALARS = {"f32": np.float32, "f64": np.float64, "i8": np.int8, "i32": np.int32, "i64": np.int64}
SCALARS |= {"u8": np.uint8, "u32": np.uint32, "u64": np.uint64}
TYPES = {
    DType.F32: types.float32,
    DType.F64: types.float64,
    DType.I32: types.int32,
    DType.I64: types.int64,
    DType.I8: types.int8,
    DType.U8: types.uint8,
    DType.BOOL: types.boolean,
}
LIBRARY = {
    "fma_f32": "fmaf_rn",
    "fma_f64": "fma_rn",
    "mul_f32": "fmul_rn",
    "mul_f64": "dmul_rn",
    "div_f32": "fdiv_rn",
    "div_f64": "ddiv_rn",
    "sqrt_f32": "fsqrt_rn",
    "sqrt_f64": "dsqrt_rn",
    "fabs_f32": "fabsf",
    "fabs_f64": "fabs",
    "floor_f32": "floorf",
    "floor_f64": "floor",
    "ceil_f32": "ceilf",
    "ceil_f64": "ceil",
    "trunc_f32": "truncf",
    "trunc_f64": "trunc",
    "rint_f32": "rintf",
    "rint_f64": "rint",
    "copysign_f32": "copysignf",
    "copysign_f64": "copysign",
    "bits_f32": "float_as_int",
    "bits_f64": "double_as_longlong",
    "f32_of_bits": "int_as_float",
    "f64_of_bits": "longlong_as_double",
}
"""Names of the vocabulary in NVIDIA's device library; every one is correctly rounded, and stays what it is in PTX."""


def simulated() -> bool:
    """Whether `numba.cuda` is the simulator."""
    return ".simulator" in cuda.jit.__module__


def can_compile() -> bool:
    """Whether the compiler of `dslc[cuda]` is there."""
    return not simulated() and importlib.util.find_spec("numba_cuda") is not None and _wheel("nvvm") is not None


def can_run() -> bool:
    """Whether kernels can be launched: on a GPU, or in the simulator."""
    return simulated() or bool(cuda.is_available())


# ---- source to function ---------------------------------------------------------------------------------------------


def exact_fma(x: Any, y: Any, z: Any) -> Any:
    """x * y + z rounded once; the simulator's own rounds twice."""
    kind = type(x)
    numbers = float(x), float(y), float(z)
    if not all(map(math.isfinite, numbers)):
        return z if math.isfinite(numbers[0]) and math.isfinite(numbers[1]) else kind(x * y + z)
    exact = Fraction(numbers[0]) * Fraction(numbers[1]) + Fraction(numbers[2])
    if exact == 0:
        return kind(x * y + z)  # the sign of zero
    if kind is np.float64:
        return np.float64(_nearest_double(exact))
    near = _nearest_double(exact)
    if Fraction(near) != exact:  # rounded to odd, a double makes a second rounding harmless
        bits = np.float64(near).view(np.int64)
        if bits & 1 == 0:
            toward = abs(exact) > abs(Fraction(near))
            near = float((bits + (1 if toward else -1)).view(np.float64))
    return np.float32(near)


def _nearest_double(x: Fraction) -> float:
    try:
        return x.numerator / x.denominator  # Python rounds the quotient of integers correctly
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def _table(words: Sequence[int]) -> np.ndarray[Any, Any]:
    return np.array(words, np.int64)


def _simulated_vocabulary() -> dict[str, Any]:
    def bits(kind: Any) -> Callable[[Any], Any]:
        return lambda x: x.view(kind)

    made: dict[str, Any] = {"device": lambda f: f, "fma_f32": exact_fma, "fma_f64": exact_fma}
    for t in (np.float32, np.float64):
        name = "f32" if t is np.float32 else "f64"
        made |= {f"mul_{name}": operator.mul, f"div_{name}": operator.truediv}
        made |= {f"sqrt_{name}": np.sqrt, f"fabs_{name}": np.abs, f"floor_{name}": np.floor, f"ceil_{name}": np.ceil}
        made |= {f"trunc_{name}": np.trunc, f"rint_{name}": np.rint}
        made[f"copysign_{name}"] = np.copysign
    made |= {"bits_f32": bits(np.int32), "bits_f64": bits(np.int64), "f32_of_bits": bits(np.float32), "f64_of_bits": bits(np.float64)}
    return made


def namespace() -> dict[str, Any]:
    """The globals of generated source; a fresh dict each time."""
    made: dict[str, Any] = {"cuda": cuda, "inf": math.inf, "nan": math.nan, "boolean": np.bool_, "table": _table, **SCALARS}
    if simulated():
        return made | _simulated_vocabulary()
    made |= {name: getattr(libdevice, function) for name, function in LIBRARY.items()}
    # inlined while Numba types the kernel: a device function by itself would be compiled for the GPU at hand, and there may be none
    return made | {"device": cuda.jit(device=True, inline="always")}


def function(kernel: CudaKernel) -> Any:
    """The kernel's Python function."""
    scope = namespace()
    exec(compile(kernel.text, f"<cuda kernel {kernel.key[:8]}>", "exec"), scope)
    return scope["kernel"]


def _signature(kernel: CudaKernel) -> Any:
    return types.void(*(types.Array(TYPES[d], 1, "C") for d in kernel.buffers), types.int64)


# ---- PTX and machine code -------------------------------------------------------------------------------------------


def ptx(kernel: CudaKernel, capability: tuple[int, int]) -> str:
    """PTX of a kernel for a compute capability. Raises DiagnosticError (DL0812) without the compiler."""
    if not can_compile():
        raise DiagnosticError(no_compiler())
    compiler: Any = cuda  # Numba's annotations do not export it
    text, _ = compiler.compile(function(kernel), _signature(kernel), device=False, abi="numba", cc=capability, output="ptx")
    return str(text)


@cache
def _wheel(part: str) -> Path | None:
    """A file of NVIDIA's wheels: the assembler, or the compiler's library."""
    patterns = {"ptxas": ["*/bin/ptxas*"], "nvvm": ["*/lib/*nvvm*", "*/nvvm/*/*nvvm*", "*/bin/*nvvm*"]}[part]
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec is not None and spec.submodule_search_locations else []
    found = [path for folder in folders for pattern in patterns for path in Path(folder).glob(pattern)]
    return found[0] if found else None


def can_assemble() -> bool:
    """Whether NVIDIA's assembler is there (the wheel nvidia-cuda-nvcc)."""
    return _wheel("ptxas") is not None


def assemble(text: str, capability: tuple[int, int]) -> Figures:
    """Machine code from PTX, for its figures; raises ValueError where the assembler refuses."""
    assembler = _wheel("ptxas")
    assert assembler is not None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(text)
        command = [str(assembler), "-v", f"-arch=sm_{capability[0]}{capability[1]}", "-o", str(source.with_suffix(".cubin")), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)

    def figure(pattern: str) -> int:
        found = re.search(pattern, done.stderr)
        return int(found[1]) if found else 0

    return Figures(
        figure(r"Used (\d+) registers"),
        figure(r"(\d+) bytes smem"),
        figure(r"(\d+) bytes stack frame"),
        figure(r"(\d+) bytes spill stores"),
    )


# ---- launches -------------------------------------------------------------------------------------------------------


class Runner:
    """A program on the device: persistent buffers and constants stay there from call to call.

    Only for a device that is there (`can_run`); in the simulator every thread is a Python thread.
    """

    def __init__(self, program: CudaProgram, persistent: Mapping[str, np.ndarray[Any, Any]], constants: Mapping[str, bytes]):
        if not can_run():
            raise DiagnosticError(no_device())
        self.program = program
        self.kernels = {key: cuda.jit(function(k)) for key, k in program.kernels.items()}
        self.persistent = {name: cuda.to_device(np.ascontiguousarray(a).reshape(-1)) for name, a in persistent.items()}
        for b in program.packed:
            self.persistent[b.name] = cuda.to_device(np.zeros(math.prod(b.shape), DType(b.dtype).numpy))
        self.constants = {name: cuda.to_device(np.frombuffer(data, np.uint8).copy()) for name, data in constants.items()}
        self.prepared = False  # whether the prologue has run

    def __call__(self, inputs: Mapping[str, np.ndarray[Any, Any]], settings: Mapping[str, float | int], batch: int = 1) -> dict[str, Any]:
        """The outputs by name."""
        plan = self.program.plan
        arena = cuda.to_device(np.zeros(max(1, plan.arena_bytes(batch)), np.uint8))
        arrays = [self._array(b, arena, inputs, settings, batch) for b in plan.buffers]
        for step in (*(() if self.prepared else plan.prologue), *plan.steps):
            kernel = self.program.kernels[step.kernel]
            grid, block = kernel.launch.at(batch)
            self.kernels[step.kernel][grid, block](*(arrays[n] for n, _ in step.args), batch)
        self.prepared = True
        outputs = {}
        for port in plan.outputs:
            shape = concrete(port.shape, batch)
            flat = arrays[port.buffer].copy_to_host()
            outputs[port.name] = flat[: math.prod(shape)].reshape(shape)
        return outputs

    def state(self) -> dict[str, np.ndarray[Any, Any]]:
        """Persistent buffers, flat."""
        return {name: a.copy_to_host() for name, a in self.persistent.items()}

    def _array(
        self, b: BufferPlan, arena: Any, inputs: Mapping[str, np.ndarray[Any, Any]], settings: Mapping[str, float | int], batch: int
    ) -> Any:
        dtype = DType(b.dtype).numpy
        match b.region:
            case "persistent":
                return self.persistent[b.name]
            case "constant":
                return self.constants[b.name].view(dtype)
            case "input":
                return cuda.to_device(np.ascontiguousarray(inputs[b.name], dtype).reshape(-1))
            case "setting":
                return cuda.to_device(np.array([settings[b.name]], dtype))
            case "output":
                return cuda.to_device(np.zeros(max(1, math.prod(concrete(b.shape, batch))), dtype))
            case "fixed":
                return arena[b.offset : b.offset + b.nbytes].view(dtype)
            case _:
                start = self.program.plan.fixed_bytes + b.offset * batch
                return arena[start : start + b.nbytes * batch].view(dtype)
