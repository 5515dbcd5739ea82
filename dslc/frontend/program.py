"""One program under construction: its graph, its ports, and the buffers that it reads and updates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from dslc.diagnostics import Span
from dslc.frontend.values import Origin, Tensor, Value
from dslc.ir.builder import Builder
from dslc.ir.graph import Value as GraphValue
from dslc.ir.module import Buffer, Initial, Port, PortKind, Program, Role
from dslc.ir.types import DType, TensorType


@dataclass(slots=True)
class ProgramBuilder:
    """Grows a graph; inputs appear when they are first read."""

    name: str
    builder: Builder = field(default_factory=Builder)
    ports: list[Port] = field(default_factory=list)
    origins: dict[int, Origin] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    loaded: dict[str, Tensor] = field(default_factory=dict)  # the value of a buffer when the program starts
    current: dict[str, Tensor] = field(default_factory=dict)  # the latest value of a state
    outputs: list[tuple[Port, GraphValue]] = field(default_factory=list)
    scalars: dict[tuple[str, DType], Tensor] = field(default_factory=dict)
    shared: dict[tuple[object, ...], Value] | None = None  # operations on scalars, while those of many parameters are shared
    draws: int = 0
    random: tuple[Tensor, Tensor] | None = None
    averaging: bool = False  # the recipe keeps averages of its parameters
    rates: dict[tuple[int, int], Value] = field(default_factory=dict)  # learning rates by schedule and step
    constants: dict[tuple[str, str], Value] = field(default_factory=dict)  # tensors of `const` items, by file and name

    def input(
        self, kind: PortKind, name: str, type_: TensorType, origin: Origin | None = None, default: float | int | None = None
    ) -> Tensor:
        """A new graph input with its port. NumPy has no bf16: callers hand in f32, which the program rounds."""
        rounded = kind == PortKind.INPUT and type_.dtype == DType.BF16
        value = self.builder.input(DType.F32 if rounded else type_.dtype, *type_.shape)
        self.ports.append(Port(kind, name, default))
        if rounded:
            value = self.builder.apply("cast", value, dtype=type_.dtype)
        if origin is not None:
            self.origins[value.id] = origin
        return Tensor(value)

    def buffer(self, path: str, type_: TensorType, role: Role, initial: Initial, span: Span | None) -> Tensor:
        """The value of a persistent buffer, created when first asked for; the caller has checked that the type agrees."""
        if path not in self.loaded:
            self.buffers[path] = Buffer(path, type_, role, initial, span)
            self.loaded[path] = self.input(PortKind.BUFFER, path, type_, Origin(f"the {role.value} {path}", span))
        return self.loaded[path]

    def draw(self) -> tuple[Tensor, Tensor, int]:
        """Seed, counter and the number of the next stream of random numbers."""
        if self.random is None:
            scalar = TensorType(DType.I64)
            self.random = self.input(PortKind.SEED, "seed", scalar), self.input(PortKind.COUNTER, "counter", scalar)
        self.draws += 1
        return *self.random, self.draws - 1

    def output(self, kind: PortKind, name: str, tensor: Tensor) -> None:
        """A result with its port. Callers are given bf16 as f32, and metrics, which are added up, in no less."""
        value = tensor.value
        if (value.type.dtype == DType.BF16 and kind == PortKind.RESULT) or (value.type.dtype.half and kind == PortKind.METRIC):
            value = self.builder.apply("cast", value, dtype=DType.F32)
        self.outputs.append((Port(kind, name), value))

    def finish(self, batch: str | None, bound: int | None) -> Program:
        graph = self.builder.graph(*(value for _, value in self.outputs))
        return Program(self.name, graph, tuple(self.ports), tuple(port for port, _ in self.outputs), batch, bound)


def stream_of(path: str) -> int:
    """The stream of a buffer's initial values: a hash of its path, so that other parameters do not change it."""
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=4).digest(), "little") >> 1


def reaches(builder: Builder, result: GraphValue) -> set[int]:
    """The ids of the values that `result` depends on."""
    producer = {output.id: op for op in builder.ops for output in op.outputs}
    found: set[int] = set()
    waiting = [result.id]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        if current in producer:
            waiting += [v.id for v in producer[current].inputs if v.id not in found]
    return found
