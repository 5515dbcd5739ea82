"""Compiled kernels against the interpreter, one after the other.

Every value has memory of its own here, filled with NaN before the first step, and after each step what it wrote is compared and then
replaced by the interpreter's numbers, so that an error stays where it was made and memory that is shared wrongly cannot hide it.
Then the program runs as it is planned, which checks the plan.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dslc.diagnostics import Diagnostic, DiagnosticError, Note, Span
from dslc.interpret import evaluate
from dslc.ir import dims
from dslc.ir.graph import Value
from dslc.ir.halves import from_memory, to_memory
from dslc.ir.module import Buffer, PortKind, Program
from dslc.ir.plan import ExecutablePlan
from dslc.lowering.steps import Lowered, Place
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


class Reference:
    """The interpreter's values of a program's graph, wide, and what they lose in f32."""

    def __init__(self, program: Program, arrays: Sequence[Array]):
        sizes = sizes_of(program)
        self.wide = evaluate(program.graph, arrays, sizes, wide=True)
        self.single = evaluate(program.graph, arrays, sizes)

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
    reference = Reference(lowered.source, arrays)
    return _wrong_kernel(lowered, kernels, arrays, reference) or _wrong_plan(plan, objects, lowered, arrays, reference)


def _refused(lowered: Lowered, what: str, span: Span | None, notes: Sequence[Note] = ()) -> DiagnosticError:
    return DiagnosticError(Diagnostic("DL0911", f"{what} in program `{lowered.source.name}`", span, tuple(notes), HINT))


# ---- one kernel after the other -----------------------------------------------------------------------------------


class Memory:
    """A program's values, each in a buffer of its own; what is updated in place shares one."""

    def __init__(self, lowered: Lowered, arrays: Sequence[Array]):
        self.places, self.sizes = lowered.places, sizes_of(lowered.source)
        self.buffers: dict[tuple[str, str], Array] = {}
        needed: dict[tuple[str, str], int] = {}
        for value, place in lowered.places.items():
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

    def _key(self, value: Value) -> tuple[str, str]:
        place = self.places[value]
        return (place.region, place.name) if place.name else (place.region, str(value.id))

    def _count(self, place: Place) -> int:
        return dims.evaluate(place.layout.size, self.sizes)

    def _shape(self, shape: tuple[Any, ...]) -> tuple[int, ...]:
        return tuple(dims.evaluate(extent, self.sizes) for extent in shape)

    def address(self, value: Value) -> int:
        return int(self.buffers[self._key(value)].ctypes.data)

    def view(self, value: Value) -> Array:
        """The value's elements where they lie, without halo, as they lie there."""
        layout, dtype = self.places[value].layout, value.type.dtype.memory
        origin = dims.evaluate(layout.address((0,) * value.type.rank), self.sizes) * dtype.itemsize
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
    makers = lowered.source.graph.producers()
    batch = next(iter(memory.sizes.values()), 1)
    for number, (step, kernel) in enumerate(zip(lowered.steps, kernels, strict=True)):
        status = _call(kernel, [memory.address(value) for value in step.args], batch, 1 if step.serial else THREADS)
        if status:
            return _refused(lowered, f"the kernel of step {number}, `{step.label}`, failed with status {status}", step.span)
        for value in sorted(step.writes, key=lambda v: v.id):
            if value not in reference.wide or last[value] != number:
                continue
            wrong = reference.wrong(value, memory.read(value), KERNEL)
            if wrong is not None:
                notes = [Note(f"it computes: {line(makers[value])}")] if value in makers else []
                return _refused(lowered, f"the kernel of step {number}, `{step.label}`, is wrong: {value}, {wrong},", step.span, notes)
            memory.fill(value, reference.wide[value])
    for value, expected, port in zip(lowered.outputs, lowered.source.graph.outputs, lowered.source.outputs, strict=True):
        wrong = reference.wrong(expected, memory.read(value), KERNEL)
        if wrong is not None:
            writer = lowered.steps[last[value]] if value in last else None
            label = f"the kernel of step {last[value]}, `{writer.label}`," if writer else "lowering"
            return _refused(lowered, f"{label} is wrong: the result `{port.name}`, {wrong},", writer.span if writer else None)
    return None


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
