"""Loops that threads may run apart, each for its share of the examples: no step touches what another example's steps write.

Where that is so, nobody has to wait for the others between steps or iterations. It is found in addresses: of every buffer that the loop
writes, a step's share of one example lies within one stride, and the next example's lies that stride further.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import ClampedLoad, Expr, For, IndexValue, Load, LoadAt, LoopProgram, Random, Reduce, Stmt, Store
from dslc.lowering.contraction import Contraction, linear
from dslc.lowering.indices import bounds, coefficient, walk
from dslc.lowering.operands import BATCH
from dslc.lowering.steps import Lowered, Step, linear_in_batch, located

SHARED_BYTES = 3 << 19  # what all examples read: every thread goes through all of it in every iteration, which its own cache must hold


@dataclass(frozen=True, slots=True)
class Access:
    """What one example touches of an argument, in elements: from `low` to `high`, and `stride` further for the next example."""

    stride: int
    low: int
    high: int


def examples_apart(lowered: Lowered, steps: Sequence[Step], number: int, length: int) -> list[tuple[int, ...]] | None:
    """Bytes from one example to the next, for every argument of every step of loop `number`; None where threads have to meet in it."""
    batch = lowered.source.batch
    if batch is None:
        return None
    written = {located(lowered.places, v).value for step in steps for v in step.writes}
    owners: dict[Value, int] = {}
    shared = 0
    found = []
    for step in steps:
        accesses = _accesses(step)
        if accesses is None:
            return None
        for value, access in zip(step.args, accesses, strict=True):
            part = located(lowered.places, value)
            if part.value in written:
                low, high = access.low + part.offset, access.high + part.offset
                for move in part.moves:
                    still, grows = linear_in_batch(move.stride, batch)
                    if move.loop != number or (grows and (still or not access.stride or grows % access.stride)):
                        return None
                    low, high = min(low, low + still * (length - 1)), max(high, high + still * (length - 1))
                if access.stride <= 0 or low < 0 or high > access.stride or owners.setdefault(part.value, access.stride) != access.stride:
                    return None
            elif any(move.loop != number for move in part.moves):
                return None
            elif access.stride == 0 and isinstance(step.program, Contraction):
                shared += (access.high - access.low) * value.type.dtype.size
        found.append(tuple(a.stride * v.type.dtype.size for a, v in zip(accesses, step.args, strict=True)))
    return found if shared <= SHARED_BYTES else None


def _accesses(step: Step) -> list[Access] | None:
    """One for every argument, or None where a step's examples depend on each other, or on where they stand."""
    if isinstance(step.program, Contraction):
        return _of_contraction(step.program)
    return _of_loops(step.program, len(step.args)) if isinstance(step.program, LoopProgram) else None


def _of_contraction(c: Contraction) -> list[Access] | None:
    growing = [axis for axis in c.axes if axis.extent is None]
    if len(growing) != 1 or growing[0].reduction:
        return None
    [axis] = growing
    touched: dict[int, list[Access]] = {}

    def add(buffer: int, origin: int, strides: Mapping[str, int]) -> None:
        reach = [s * (a.extent - 1) for a in c.axes if a.extent is not None and (s := strides.get(a.name, 0))]
        own = strides.get(axis.name, 0)
        inside = own * (axis.per_batch - 1)
        low, high = origin + sum(min(0, r) for r in (*reach, inside)), origin + sum(max(0, r) for r in (*reach, inside)) + 1
        touched.setdefault(buffer, []).append(Access(own * axis.per_batch, low, high))

    add(0, c.a0, {a.name: a.a for a in c.axes})
    add(1, c.b0, {a.name: a.b for a in c.axes})
    add(2, c.c0, {a.name: a.c or 0 for a in c.axes})
    for buffer, address in c.addresses:
        add(buffer, *linear(address))
    return [_together(touched[buffer]) for buffer, _ in c.buffers] if _agree(touched) else None


def _of_loops(program: LoopProgram, arguments: int) -> list[Access] | None:
    touched: dict[int, list[Access]] = {}
    for outer in program.body:
        if not isinstance(outer, For) or outer.extent != dims.name(BATCH):
            return None
        ranges: dict[str, tuple[int, int]] = {}
        for buffer, address in _addresses(outer.body, outer.variable, ranges):
            stride = None if address is None else coefficient(address, outer.variable)
            if address is None or not isinstance(stride, int) or BATCH in dims.names(address):
                return None
            rest = bounds(address - stride * dims.name(outer.variable), ranges)
            if rest is None:
                return None
            touched.setdefault(buffer, []).append(Access(stride, rest[0], rest[1] + 1))
    if touched.keys() != set(range(arguments)) or not _agree(touched):
        return None
    return [_together(touched[n]) for n in range(arguments)]


def _addresses(body: Sequence[Stmt], variable: str, ranges: dict[str, tuple[int, int]]) -> Iterator[tuple[int, Dim | None]]:
    """(buffer, address) of all that statements read and write, None as the address where no address says it all; `variable`: the example's."""
    for stmt in body:
        if isinstance(stmt, For):
            if isinstance(stmt.extent, int):
                ranges[stmt.variable] = (0, stmt.extent - 1)
            yield from _addresses(stmt.body, variable, ranges)
        elif isinstance(stmt, Store):
            yield stmt.buffer, stmt.address
            yield from _loads(stmt.value, variable, ranges)
        else:
            yield 0, None


def _loads(value: Expr, variable: str, ranges: dict[str, tuple[int, int]]) -> Iterator[tuple[int, Dim | None]]:
    nodes = list(walk(value))
    for e in nodes:
        if isinstance(e, Reduce):
            ranges.update({name: (0, extent - 1) for name, extent in e.variables if isinstance(extent, int)})
    for e in nodes:
        if isinstance(e, Load):
            yield e.buffer, e.address
        elif isinstance(e, ClampedLoad):
            last: Dim | None = e.address
            for index, extent, stride in e.clamped:
                last = None if last is None or dims.names(index) & {variable, BATCH} else last + (extent - 1) * stride
            yield e.buffer, e.address
            yield e.buffer, last
        elif isinstance(e, LoadAt | Random) or (isinstance(e, IndexValue) and dims.names(e.index) & {variable, BATCH}):
            yield 0, None


def _agree(touched: Mapping[int, Sequence[Access]]) -> bool:
    return all(len({a.stride for a in accesses}) == 1 for accesses in touched.values())


def _together(accesses: Sequence[Access]) -> Access:
    return Access(accesses[0].stride, min(a.low for a in accesses), max(a.high for a in accesses))
