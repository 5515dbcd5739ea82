"""Compiled kernels against the interpreter, one after the other.

Every value has memory of its own here, filled with NaN before the first step, and after each step what it wrote is compared and then
replaced by the interpreter's numbers, so that an error stays where it was made and memory that is shared wrongly cannot hide it.
Then the program runs as it is planned, which checks the plan.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dslc.diagnostics import Diagnostic, DiagnosticError, Note, Span
from dslc.interpret import evaluate
from dslc.ir import dims
from dslc.ir.graph import Op, Value
from dslc.ir.halves import from_memory, to_memory
from dslc.ir.module import Buffer, PortKind, Program
from dslc.ir.plan import INDEX, NEW, OLD, ExecutablePlan
from dslc.ir.scan import parts
from dslc.lowering.steps import Loop, Lowered, Place, located
from dslc.runtime.executable import Executable
from dslc.runtime.loader import load_objects
from dslc.verify.inputs import SEEDS, Array, arrays_of, distance, is_discrete, largest, sizes_of
from dslc.verify.passes import HINT, line

ABI = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4)
THREADS = 2
ALIGNMENT, SLACK = 64, 4096
KERNEL, WHOLE = {2: 8e-3, 4: 3e-5, 8: 1e-10}, {2: 2e-2, 4: 3e-4, 8: 1e-9}
"""Of a tensor's largest element, by the bytes of an element: for one kernel and for a whole program."""
NOISE = 64
"""What the interpreter itself loses in f32, so many times over: sums in which large numbers cancel."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The interpreter's values of a program's graph, wide, and what they lose in f32; inside a loop those of one iteration too."""

    wide: Mapping[Value, Array]
    single: Mapping[Value, Array]

    @staticmethod
    def of(program: Program, arrays: Sequence[Array]) -> Reference:
        sizes = sizes_of(program)
        return Reference(evaluate(program.graph, arrays, sizes, wide=True), evaluate(program.graph, arrays, sizes))

    def iterations(self, loop: Loop, sizes: Mapping[str, int]) -> Iterator[tuple[int, Reference]]:
        """The index and the values of every iteration of a loop, in order."""
        it = parts(loop.op)
        carried = [[of[v] for v in it.initial] for of in (self.wide, self.single)]
        for done in range(loop.length):
            index = loop.length - 1 - done if loop.reverse else done
            made = []
            for wide, (of, carries) in zip((True, False), zip((self.wide, self.single), carried, strict=True), strict=True):
                slices = [np.take(of[v], index, axis) for v, axis in zip(it.sequences, it.elements, strict=True)]
                inner = evaluate(it.body, [np.int64(index), *slices, *carries, *(of[v] for v in it.captures)], sizes, wide=wide)
                carries[:] = [inner[v] for v in it.after]
                made.append({**of, **inner})
            yield index, Reference(*made)

    def wrong(self, value: Value, found: Array, allowed: Mapping[int, float]) -> str | None:
        """What is wrong with `found` as the value, in words."""
        expected, noise = self.wide[value], distance(self.single[value], self.wide[value])
        if is_discrete(value.type.dtype):
            limit = 0.0
        else:
            limit = allowed[value.type.dtype.size] * largest(expected) + NOISE * (noise if np.isfinite(noise) else 0.0) + 1e-30
        apart = distance(found, expected)
        if apart <= limit or (noise > 0 and distance(found, self.single[value]) <= limit):
            return None
        return f"{value.type}, differs by {apart:.3g}, of {largest(expected):.3g}"


def check_kernels(
    plan: ExecutablePlan, objects: Mapping[str, bytes], lowered: Sequence[tuple[Lowered, Sequence[str]]], buffers: Mapping[str, Buffer]
) -> None:
    """`lowered`: each program with the kernel key of every step. DL0911 for the first kernel whose result is wrong."""
    libraries = load_objects({key: objects[key] for key in plan.object_keys}, {k.key: k.needs for k in plan.kernels})
    # `libraries` holds the code that the addresses point to
    addresses = {k.name: libraries[k.key].addresses[k.symbol] for k in plan.kernels}
    for program, keys in lowered:
        wrong = _first_wrong(plan, objects, program, [addresses[key] for key in keys], buffers, SEEDS[0])
        if wrong is not None and _first_wrong(plan, objects, program, [addresses[key] for key in keys], buffers, SEEDS[1]) is not None:
            raise wrong


def _first_wrong(
    plan: ExecutablePlan, objects: Mapping[str, bytes], lowered: Lowered, kernels: Sequence[int], buffers: Mapping[str, Buffer], seed: int
) -> DiagnosticError | None:
    arrays = arrays_of(lowered.source, buffers, seed)
    reference = Reference.of(lowered.source, arrays)
    return _wrong_kernel(lowered, kernels, arrays, reference) or _wrong_plan(plan, objects, lowered, arrays, reference)


def _refused(lowered: Lowered, what: str, span: Span | None, notes: Sequence[Note] = ()) -> DiagnosticError:
    return DiagnosticError(Diagnostic("DL0911", f"{what} in program `{lowered.source.name}`", span, tuple(notes), HINT))


# ---- one kernel after the other -----------------------------------------------------------------------------------


class Memory:
    """A program's values, each in a buffer of its own; what is updated in place shares one."""

    def __init__(self, lowered: Lowered, arrays: Sequence[Array]):
        self.places, self.sizes = lowered.places, sizes_of(lowered.source)
        self.buffers: dict[tuple[str, str], Array] = {}
        self.counters: dict[tuple[int, str], int] = {}  # what loops count, by number
        needed: dict[tuple[str, str], int] = {}
        for value, place in lowered.places.items():
            if place.part is None:
                key = self._key(value)
                needed[key] = max(needed.get(key, 0), self._count(place) * value.type.dtype.size)
        for key, size in needed.items():
            raw = np.full(size + ALIGNMENT + SLACK, 0xFF, np.uint8)  # NaN in every floating type
            start = -raw.ctypes.data % ALIGNMENT
            self.buffers[key] = raw[start:]
        for value, array in zip(lowered.source.graph.inputs, arrays, strict=True):
            self.fill(value, array)
        for name, op in lowered.constants.items():
            data = op.attr("data")
            value = next(v for v, p in lowered.places.items() if (p.region, p.name) == ("constant", name))
            self.fill(value, np.frombuffer(data.data, data.type.dtype.numpy).reshape(self._shape(data.type.shape)))

    def iterate(self, loop: Loop, index: int, done: int) -> None:
        """An iteration begins."""
        half = (loop.length + done) % 2
        self.counters |= {(loop.number, INDEX): index, (loop.number, OLD): half, (loop.number, NEW): 1 - half}
        if loop.index is not None:
            self.fill(loop.index, np.asarray(index))

    def _key(self, value: Value) -> tuple[str, str]:
        value = located(self.places, value).value
        place = self.places[value]
        return (place.region, place.name) if place.name else (place.region, str(value.id))

    def _count(self, place: Place) -> int:
        return dims.evaluate(place.layout.size, self.sizes)

    def _shape(self, shape: tuple[Any, ...]) -> tuple[int, ...]:
        return tuple(dims.evaluate(extent, self.sizes) for extent in shape)

    def _start(self, value: Value) -> int:
        """Bytes from the beginning of its buffer."""
        part = located(self.places, value)
        moved = sum(self.counters[m.loop, m.counts] * dims.evaluate(m.stride, self.sizes) for m in part.moves)
        return (part.offset + moved) * value.type.dtype.size

    def address(self, value: Value) -> int:
        return int(self.buffers[self._key(value)].ctypes.data) + self._start(value)

    def view(self, value: Value) -> Array:
        """The value's elements where they lie, without halo, as they lie there."""
        layout, dtype = self.places[value].layout, value.type.dtype.memory
        origin = self._start(value) + dims.evaluate(layout.address((0,) * value.type.rank), self.sizes) * dtype.itemsize
        strides = tuple(dims.evaluate(stride, self.sizes) * dtype.itemsize for stride in layout.strides)
        shape = self._shape(value.type.shape)
        return np.ndarray(shape, dtype, self.buffers[self._key(value)], origin, strides)

    def read(self, value: Value) -> Array:
        return from_memory(self.view(value), value.type.dtype)

    def fill(self, value: Value, array: Array) -> None:
        self.view(value)[...] = to_memory(array, value.type.dtype)


def _wrong_kernel(lowered: Lowered, kernels: Sequence[int], arrays: Sequence[Array], reference: Reference) -> DiagnosticError | None:
    memory = Memory(lowered, arrays)
    last = {value: number for number, step in enumerate(lowered.steps) for value in step.writes}
    wrong = _Walk(lowered, kernels, memory, last).wrong(range(len(lowered.steps)), lowered.loops, reference)
    if wrong is not None:
        return wrong
    for value, expected, port in zip(lowered.outputs, lowered.source.graph.outputs, lowered.source.outputs, strict=True):
        what = reference.wrong(expected, memory.read(value), KERNEL)
        if what is not None:
            writer = lowered.steps[last[value]] if value in last else None
            label = f"the kernel of step {last[value]}, `{writer.label}`," if writer else "lowering"
            return _refused(lowered, f"{label} is wrong: the result `{port.name}`, {what},", writer.span if writer else None)
    return None


@dataclass(frozen=True, slots=True)
class _Walk:
    """Runs steps one by one, those of a loop for every iteration."""

    lowered: Lowered
    kernels: Sequence[int]
    memory: Memory
    last: Mapping[Value, int]  # the step that writes a value last

    def wrong(self, steps: range, loops: Sequence[Loop], reference: Reference) -> DiagnosticError | None:
        """The first kernel that is wrong among `steps`, which are in no loop but for `loops`."""
        number = steps.start
        while number < steps.stop:
            found = next((loop for loop in loops if loop.begin == number), None)
            wrong = self._step(number, reference) if found is None else self._loop(found, loops, reference)
            if wrong is not None:
                return wrong
            number = number + 1 if found is None else found.end
        return None

    def _loop(self, loop: Loop, loops: Sequence[Loop], reference: Reference) -> DiagnosticError | None:
        inside = loops[loops.index(loop) + 1 :]
        for done, (index, iteration) in enumerate(reference.iterations(loop, self.memory.sizes)):
            self.memory.iterate(loop, index, done)
            wrong = self.wrong(range(loop.begin, loop.end), inside, iteration)
            if wrong is not None:
                return wrong
        for value in parts(loop.op).stacked:
            what = reference.wrong(value, self.memory.read(value), KERNEL)
            if what is not None:
                return _refused(self.lowered, f"the loop from step {loop.begin} on is wrong: {value}, {what},", loop.op.span)
            self.memory.fill(value, reference.wide[value])
        return None

    def _step(self, number: int, reference: Reference) -> DiagnosticError | None:
        lowered, memory, step = self.lowered, self.memory, self.lowered.steps[number]
        batch = next(iter(memory.sizes.values()), 1)
        status = _call(self.kernels[number], [memory.address(value) for value in step.args], batch, 1 if step.serial else THREADS)
        if status:
            return _refused(lowered, f"the kernel of step {number}, `{step.label}`, failed with status {status}", step.span)
        for value in sorted(step.writes, key=lambda v: v.id):
            if value not in reference.wide or self.last[value] != number:
                continue
            wrong = reference.wrong(value, memory.read(value), KERNEL)
            if wrong is not None:
                maker = _maker(lowered, value)
                notes = [Note(f"it computes: {line(maker)}")] if maker is not None else []
                return _refused(lowered, f"the kernel of step {number}, `{step.label}`, is wrong: {value}, {wrong},", step.span, notes)
            memory.fill(value, reference.wide[value])
        return None


def _maker(lowered: Lowered, value: Value) -> Op | None:
    graphs = (lowered.source.graph, *(parts(loop.op).body for loop in lowered.loops))
    return next((made[value] for made in (graph.producers() for graph in graphs) if value in made), None)


def _call(kernel: int, addresses: Sequence[int], batch: int, threads: int) -> int:
    """All shares of a kernel, one after the other; the first status that is not 0."""
    row = (ctypes.c_int64 * max(1, len(addresses)))(*addresses)
    slots = (ctypes.c_int64 * 4)()
    for thread in range(threads):
        status = ABI(kernel)(ctypes.addressof(slots), ctypes.addressof(slots) + 16, ctypes.addressof(row), thread, threads, batch)
        if status:
            return int(status)
    return 0


# ---- the whole program --------------------------------------------------------------------------------------------


def _wrong_plan(
    plan: ExecutablePlan, objects: Mapping[str, bytes], lowered: Lowered, arrays: Sequence[Array], reference: Reference
) -> DiagnosticError | None:
    """The program as it is planned: with shared memory, threads and a prologue."""
    program = lowered.source
    single = replace(plan, programs=tuple(p for p in plan.programs if p.name == program.name))
    constants = {name: op.attr("data") for name, op in lowered.constants.items()}
    single = replace(single, constants=tuple(c for c in single.constants if c.name in constants))
    named = {c.name: np.frombuffer(constants[c.name].data, constants[c.name].type.dtype.numpy).reshape(c.shape) for c in single.constants}
    executable = Executable(single, objects, named, threads=THREADS)
    inputs: dict[str, Array] = {}
    settings: dict[str, Any] = {}
    for port, array in zip(program.inputs, arrays, strict=True):
        if port.kind == PortKind.BUFFER:
            executable.set(port.name, array)
        elif port.kind == PortKind.INPUT:
            inputs[port.name] = array
        else:
            settings[port.name] = array.item()
    results = executable.call(program.name, inputs, settings, batch=0 if inputs else next(iter(sizes_of(program).values()), 0))
    for value, port in zip(program.graph.outputs, program.outputs, strict=True):
        found = executable.get(port.name) if port.kind == PortKind.BUFFER else results[port.name]
        wrong = reference.wrong(value, found, WHOLE)
        if wrong is not None:
            return _refused(lowered, f"every kernel is right and the memory plan is wrong: the result `{port.name}`, {wrong},", None)
    return None
