"""Programs of a few operators, built, compiled for the CPU and run: for tests of lowering and kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.backends.cpu.build import Workers
from dslc.compiler import Compiled, compile_module
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.module import Buffer, Initial, Module, Port, PortKind, Program, Role
from dslc.ir.types import DType, TensorType
from dslc.options import Options
from dslc.runtime.executable import Executable

Array = np.ndarray[Any, Any]
BOUND = 8


@dataclass(frozen=True, slots=True)
class Small:
    """A program `p` over inputs x0, x1, ..., with results y0, y1, ...; buffers are inputs and outputs of their own."""

    program: Program
    module: Module

    def compiled(self, workers: Workers, width: int = 16) -> Compiled:
        return compile_module(self.module, Options(width=width), workers=workers)

    def run(
        self, workers: Workers, arrays: Sequence[Array], state: Mapping[str, Array] | None = None, width: int = 16, threads: int = 2
    ) -> dict[str, Array]:
        """Results by name, and the buffers after the call."""
        made = self.compiled(workers, width)
        constants = {c.name: np.frombuffer(made.constants[c.name], DType(c.dtype).numpy).reshape(c.shape) for c in made.plan.constants}
        executable = Executable(made.plan, made.objects, constants, threads=threads)
        for name, array in (state or {}).items():
            executable.set(name, array)
        results = executable.call("p", {f"x{n}": a for n, a in enumerate(arrays)})
        return {**results, **{name: np.array(executable.get(name)) for name in (state or {})}}

    def interpreted(self, arrays: Sequence[Array], state: Mapping[str, Array] | None = None) -> dict[str, Array]:
        given = {f"x{n}": a for n, a in enumerate(arrays)} | dict(state or {})
        sizes = {"N": len(arrays[0])} if self.program.batch else {}
        made = interpret(self.program.graph, [given[p.name] for p in self.program.inputs], sizes)
        return {port.name: array for port, array in zip(self.program.outputs, made, strict=True)}


def small(
    types: Sequence[tuple[DType, tuple[Dim, ...]]],
    make: Callable[..., Any],
    buffers: Mapping[str, tuple[DType, tuple[int, ...]]] | None = None,
    batch: bool = False,
) -> Small:
    """`make(b, *inputs, *buffers)` gives results, then as many new contents as there are buffers."""
    buffers = buffers or {}
    b = Builder()
    inputs = [b.input(dtype, *shape) for dtype, shape in types]
    states = [b.input(dtype, *shape) for dtype, shape in buffers.values()]
    made = make(b, *inputs, *states)
    outputs: tuple[Value, ...] = made if isinstance(made, tuple) else (made,)
    results = len(outputs) - len(buffers)
    ports = [Port(PortKind.INPUT, f"x{n}") for n in range(len(inputs))] + [Port(PortKind.BUFFER, name) for name in buffers]
    ends = [Port(PortKind.RESULT, f"y{n}") for n in range(results)] + [Port(PortKind.BUFFER, name) for name in buffers]
    program = Program("p", b.graph(*outputs), tuple(ports), tuple(ends), *(("N", BOUND) if batch else ()))
    table = {n: Buffer(n, TensorType(d, s), Role.STATE, Initial("constant", (("value", 0.0),))) for n, (d, s) in buffers.items()}
    return Small(program, Module("m", {"p": program}, table))
