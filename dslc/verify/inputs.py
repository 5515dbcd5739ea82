"""Small random arrays for every input of a program, and how far two arrays may differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dslc.ir import dims
from dslc.ir.graph import Value
from dslc.ir.module import Buffer, Port, PortKind, Program, Role
from dslc.ir.types import DType
from dslc.runtime.initial import initial_value

Array = np.ndarray[Any, Any]

SEEDS = (1, 2)
"""What fails with the first is tried with the second: a rounding error may move a comparison or a maximum, but not in both."""
BATCH = 3
CLASSES = 2  # integer inputs are 0 or 1: labels of any classifier, rows of any table
STEPS = 10  # settings without a default of their own that count steps
RATE = 0.01


def sizes_of(program: Program) -> dict[str, int]:
    """The batch of the check."""
    return {program.batch: min(BATCH, program.bound or BATCH)} if program.batch else {}


def arrays_of(program: Program, buffers: Mapping[str, Buffer], seed: int) -> list[Array]:
    """One array for each input of the graph, in the types of the graph."""
    draw = np.random.default_rng(seed)
    sizes = sizes_of(program)
    arrays = []
    for value, port in zip(program.graph.inputs, program.inputs, strict=True):
        shape = tuple(dims.evaluate(extent, sizes) for extent in value.type.shape)
        arrays.append(np.asarray(_array(value, port, shape, buffers, draw, seed), value.type.dtype.numpy))
    return arrays


def _array(value: Value, port: Port, shape: tuple[int, ...], buffers: Mapping[str, Buffer], draw: np.random.Generator, seed: int) -> Any:
    match port.kind:
        case PortKind.BUFFER:
            return _content(buffers[port.name], shape, draw, seed)
        case PortKind.SEED | PortKind.COUNTER:
            return seed + 6
        case PortKind.SETTING:
            if value.type.dtype.integer:
                return max(int(port.default or 0), STEPS)
            return RATE if port.default is None else port.default
        case _ if value.type.dtype.floating:
            return draw.uniform(-1, 1, shape).astype(np.float32)
        case _:
            return draw.integers(0, CLASSES, shape)


def _content(buffer: Buffer, shape: tuple[int, ...], draw: np.random.Generator, seed: int) -> Any:
    """Initial values moved a little, so that no zeros hide a wrong result; what may be a variance stays positive."""
    initial = {"kind": buffer.initial.kind, "settings": dict(buffer.initial.settings), "stream": buffer.initial.stream}
    start = initial_value(initial, buffer.type.dtype.value, shape, seed)
    if buffer.role == Role.COUNTER or (buffer.role == Role.GRADIENT and not buffer.type.dtype.floating):
        return start + 2  # steps, and examples of a step
    if not buffer.type.dtype.floating:
        return start
    moved = draw.uniform(-0.1, 0.1, shape) if buffer.role == Role.PARAMETER else draw.uniform(0.05, 0.15, shape)
    return (start + moved).astype(np.float32)


def distance(found: Array, expected: Array) -> float:
    """The largest difference; infinity where one is NaN or infinite and the other is not the same."""
    if found.shape != expected.shape:
        return float("inf")
    if found.size == 0:
        return 0.0
    a, b = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if not np.all(finite | same):
        return float("inf")
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0))


def largest(array: Array) -> float:
    """The largest finite magnitude."""
    values = np.abs(array.astype(np.float64))
    return float(values[np.isfinite(values)].max(initial=0.0))


def is_discrete(dtype: DType) -> bool:
    return not dtype.floating
