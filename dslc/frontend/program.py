"""One program under construction: its graph, its ports, and the buffers that it reads and updates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from dslc.diagnostics import Span
from dslc.frontend.values import Origin, Tensor, Value
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value as GraphValue
from dslc.ir.module import Buffer, Initial, Port, PortKind, Program, Role
from dslc.ir.types import DType, TensorType


@dataclass(slots=True)
class Scope:
    """A graph under construction: that of the program, or the body of a loop in the scope around it. What it remembers are values of that graph."""

    builder: Builder = field(default_factory=Builder)
    current: dict[str, Tensor] = field(default_factory=dict)  # the latest value of a state
    scalars: dict[tuple[str, DType], Tensor] = field(default_factory=dict)
    shared: dict[tuple[object, ...], Value] | None = None  # operations on scalars, while those of many parameters are shared
    rates: dict[tuple[int, int], Value] = field(default_factory=dict)  # learning rates by schedule and step
    length: Dim = 1  # of a loop: how often it runs,
    index: Tensor | None = None  # the number of the iteration,
    counter: Tensor | None = None  # what random numbers are keyed by in it,
    states: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # states that it reads: before an iteration, before the loop


@dataclass(slots=True)
class ProgramBuilder:
    """Grows a graph; inputs appear when they are first read."""

    name: str
    scopes: list[Scope] = field(default_factory=lambda: [Scope()])  # the program, then the loops that are open
    ports: list[Port] = field(default_factory=list)
    origins: dict[int, Origin] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    loaded: dict[str, Tensor] = field(default_factory=dict)  # the value of a buffer when the program starts
    outputs: list[tuple[Port, GraphValue]] = field(default_factory=list)
    draws: int = 0
    random: tuple[Tensor, Tensor] | None = None
    made: dict[str, tuple[Tensor, Tensor]] | None = None  # mean square and share of zeros of what blocks make, where statistics are wanted
    averaging: bool = False  # the recipe keeps averages of its parameters
    constants: dict[tuple[str, str], Value] = field(default_factory=dict)  # tensors of `const` items, by file and name

    @property
    def builder(self) -> Builder:
        """The graph that grows now: the innermost open loop's."""
        return self.scopes[-1].builder

    @property
    def current(self) -> dict[str, Tensor]:
        return self.scopes[-1].current

    @property
    def scalars(self) -> dict[tuple[str, DType], Tensor]:
        return self.scopes[-1].scalars

    @property
    def rates(self) -> dict[tuple[int, int], Value]:
        return self.scopes[-1].rates

    @property
    def shared(self) -> dict[tuple[object, ...], Value] | None:
        return self.scopes[-1].shared

    @shared.setter
    def shared(self, value: dict[tuple[object, ...], Value] | None) -> None:
        self.scopes[-1].shared = value

    @contextmanager
    def loop(self, length: Dim) -> Iterator[Scope]:
        """Meanwhile, operations go into the body of a loop."""
        around = self.scopes[-1]
        body = around.builder.inner()
        scope = Scope(body, shared=None if around.shared is None else {}, length=length, index=Tensor(body.input(DType.I64)))
        self.scopes.append(scope)
        try:
            yield scope
        finally:
            self.scopes.pop()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Meanwhile, operations go into the program's graph, outside of every loop."""
        open_loops, self.scopes = self.scopes, self.scopes[:1]
        try:
            yield
        finally:
            self.scopes = open_loops

    def input(
        self, kind: PortKind, name: str, type_: TensorType, origin: Origin | None = None, default: float | int | None = None
    ) -> Tensor:
        """A new graph input with its port. NumPy has no bf16: callers hand in f32, which the program rounds."""
        rounded = kind == PortKind.INPUT and type_.dtype == DType.BF16
        builder = self.scopes[0].builder
        value = builder.input(DType.F32 if rounded else type_.dtype, *type_.shape)
        self.ports.append(Port(kind, name, default))
        if rounded:
            value = builder.apply("cast", value, dtype=type_.dtype)
        if origin is not None:
            self.origins[value.id] = origin
        return Tensor(value)

    def buffer(self, path: str, type_: TensorType, role: Role, initial: Initial, span: Span | None) -> Tensor:
        """The value of a persistent buffer, created when first asked for; the caller has checked that the type agrees."""
        if path not in self.loaded:
            self.buffers[path] = Buffer(path, type_, role, initial, span)
            self.loaded[path] = self.input(PortKind.BUFFER, path, type_, Origin(f"the {role.value} {path}", span))
        return self.loaded[path]

    def state(self, path: str) -> Tensor:
        """The latest value of a state. What a loop reads first is the state before each of its iterations."""
        return self._state(path, len(self.scopes) - 1)

    def _state(self, path: str, depth: int) -> Tensor:
        scope = self.scopes[depth]
        if path in scope.current or depth == 0:
            return scope.current.get(path, self.loaded[path])
        before = self._state(path, depth - 1)
        inside = Tensor(scope.builder.value(before.type))
        if before.value.id in self.origins:
            self.origins[inside.value.id] = self.origins[before.value.id]
        scope.states[path] = inside, before
        scope.current[path] = inside
        return inside

    def draw(self) -> tuple[Tensor, Tensor, int]:
        """Seed, counter and the number of the next stream of random numbers."""
        if self.random is None:
            scalar = TensorType(DType.I64)
            self.random = self.input(PortKind.SEED, "seed", scalar), self.input(PortKind.COUNTER, "counter", scalar)
        self.draws += 1
        return self.random[0], self._counter(len(self.scopes) - 1), self.draws - 1

    def _counter(self, depth: int) -> Tensor:
        """What differs from run to run, and in a loop from iteration to iteration: `counter * length + index`."""
        assert self.random is not None
        scope = self.scopes[depth]
        if depth == 0:
            return self.random[1]
        if scope.counter is None:
            assert scope.index is not None
            before, builder = self._counter(depth - 1), scope.builder
            if isinstance(scope.length, int):
                length = builder.scalar(scope.length, DType.I64)
            else:
                length = builder.apply("extent", size=scope.length, dtype=DType.I64)
            scope.counter = Tensor(builder.add(builder.mul(before.value, length), scope.index.value))
        return scope.counter

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
