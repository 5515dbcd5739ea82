"""Lowered steps -> a `ProgramPlan`: offsets of buffers, kernel calls with their arguments, and where threads must meet."""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields, is_dataclass

from dslc.ir import dims
from dslc.ir.dims import Dim, DimExpr
from dslc.ir.graph import Value
from dslc.ir.module import PortKind
from dslc.ir.plan import NEW, OLD, BufferPlan, Extent, LoopPlan, MovePlan, PersistentPlan, PortPlan, ProgramPlan, StepPlan
from dslc.ir.scan import parts
from dslc.ir.types import TensorType
from dslc.lowering.apart import examples_apart
from dslc.lowering.memory import Interval, aligned, assign
from dslc.lowering.operands import BATCH
from dslc.lowering.steps import Loop, Lowered, Place, Step, linear_in_batch, located


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of one region that a step touches."""

    region: str
    name: str
    start: int
    end: int

    def meets(self, other: Range) -> bool:
        return self.region == other.region and self.name == other.name and self.start < other.end and other.start < self.end


def plan_program(lowered: Lowered, kernels: Mapping[int, str]) -> tuple[ProgramPlan, tuple[PersistentPlan, ...]]:
    """The plan of one program and the buffers that its prologue fills; `kernels` names the kernel of each step by position.

    What depends on persistent buffers alone (packed weights, folded scales) is computed in the prologue, when they change.
    """
    early = prologue_steps(lowered)
    places = lowered.places
    kept = {v for n in early for v in lowered.steps[n].writes}
    life = _lives(lowered, kept)
    batch = lowered.source.batch
    sizes = {v: _unit_bytes(v, places[v], batch) for v in life}
    fixed = [Interval(v, *life[v], size) for v, (size, scales) in sizes.items() if not scales]
    scaled = [Interval(v, *life[v], size) for v, (size, scales) in sizes.items() if scales]
    fixed_offsets, fixed_bytes = assign(fixed)
    batch_offsets, batch_bytes = assign(scaled)
    if batch_bytes:
        fixed_bytes = aligned(fixed_bytes)  # the batch part begins behind it
    settings = [p.name for p in lowered.source.inputs if p.kind in (PortKind.SETTING, PortKind.SEED, PortKind.COUNTER)]
    buffers: list[BufferPlan] = []
    packed: list[PersistentPlan] = []
    where: dict[Value, int] = {}

    def buffer(value: Value) -> int:
        if value in where:
            return where[value]
        place = places[value]
        shape = _shape(value.type, batch)
        size, scales = _unit_bytes(value, place, batch)
        if value in kept:
            name = f"{lowered.source.name}/packed/{value.id}"
            packed.append(PersistentPlan(name, value.type.dtype.value, (size // value.type.dtype.size,), "packed"))
            plan = BufferPlan(name, value.type.dtype.value, (size // value.type.dtype.size,), "persistent", 0, size)
        elif place.region == "arena":
            region = "batch" if scales else "fixed"
            offset = (batch_offsets if scales else fixed_offsets)[value]
            count = size // value.type.dtype.size
            flat: tuple[Extent, ...] = (("N", count),) if scales else (count,)
            plan = BufferPlan(f"%{value.id}", value.type.dtype.value, flat, region, offset, size)
        else:
            offset = 8 * settings.index(place.name) if place.region == "setting" else 0
            nbytes = 8 if place.region == "setting" else size
            plan = BufferPlan(place.name, value.type.dtype.value, shape, place.region, offset, nbytes)
        where[value] = len(buffers)
        buffers.append(plan)
        return where[value]

    touched = [_touched(step, lowered, kept, fixed_offsets, batch_offsets, sizes) for step in lowered.steps]

    def made(numbers: list[int], loops: Sequence[LoopPlan] = ()) -> tuple[StepPlan, ...]:
        chosen = [lowered.steps[n] for n in numbers]
        barrier = _barriers([touched[n] for n in numbers], {at for loop in loops for at in (loop.begin, loop.end)})
        return tuple(call(kernels[n], step, barrier[at], n) for at, (n, step) in enumerate(zip(numbers, chosen, strict=True)))

    def call(kernel: str, step: Step, barrier: bool, at: int) -> StepPlan:
        args, moves = [], []
        for number, value in enumerate(step.args):
            part = located(places, value)
            args.append((buffer(part.value), part.offset * value.type.dtype.size))
            for move in part.moves:
                still, grows = linear_in_batch(move.stride, batch)
                itemsize = value.type.dtype.size
                moves.append(MovePlan(number, numbers_of[move.loop], move.counts, still * itemsize, grows * itemsize))
        return StepPlan(kernel, tuple(args), step.serial, barrier, step.label, str(step.span or ""), tuple(moves), examples.get(at, ()))

    rest = [n for n in range(len(lowered.steps)) if n not in early]
    kept_loops, loops = [], []
    examples: dict[int, tuple[int, ...]] = {}
    for loop in lowered.loops:
        begin, end = bisect_left(rest, loop.begin), bisect_left(rest, loop.end)
        if begin < end:
            kept_loops.append(loop)
            read = loop.index is not None and any(located(places, v).value == loop.index for n in rest[begin:end] for v in lowered.steps[n].args)
            numbers = rest[begin:end]
            apart = None if read or _nested(loop, lowered.loops) or _reused(lowered, numbers, touched) else _apart(lowered, loop, numbers)
            examples |= apart or {}
            index = buffer(loop.index) if read and loop.index is not None else None
            loops.append(LoopPlan(begin, end, loop.length, loop.reverse, index, apart is not None))
    numbers_of = {loop.number: n for n, loop in enumerate(kept_loops)}
    prologue = made(early)
    steps = made(rest, loops)
    inputs, ports = [], []
    for value, port in zip(lowered.source.graph.inputs, lowered.source.inputs, strict=True):
        if port.kind == PortKind.INPUT:
            inputs.append(PortPlan(port.name, value.type.dtype.value, _shape(value.type, batch), buffer(value)))
        elif port.kind != PortKind.BUFFER:
            default = port.default if port.default is not None else 0
            ports.append(PortPlan(port.name, value.type.dtype.value, (), buffer(value), default))
    outputs = []
    writes = []
    for value, port in zip(lowered.outputs, lowered.source.outputs, strict=True):
        if port.kind == PortKind.BUFFER:
            writes.append(port.name)
        else:
            outputs.append(PortPlan(port.name, value.type.dtype.value, _shape(value.type, batch), buffer(value)))
    plan = ProgramPlan(
        lowered.source.name, tuple(buffers), steps, tuple(inputs), tuple(outputs), tuple(ports), prologue,
        fixed_bytes, batch_bytes, lowered.bound if batch else None, tuple(dict.fromkeys(writes)), tuple(loops),
    )  # fmt: skip
    return plan, tuple(packed)


def _nested(loop: Loop, loops: Sequence[Loop]) -> bool:
    return any(other is not loop and other.begin < loop.end and loop.begin < other.end for other in loops)


def _reused(lowered: Lowered, numbers: list[int], touched: list[tuple[list[Range], list[Range]]]) -> bool:
    """Whether steps write memory that others know as part of something else: then one example's may be where another's was."""
    read: set[tuple[Value, Range]] = set()
    written: set[tuple[Value, Range]] = set()
    for n in numbers:
        for known, values, ranges in zip((read, written), (lowered.steps[n].reads, lowered.steps[n].writes), touched[n], strict=True):
            known |= {(located(lowered.places, v).value, r) for v, r in zip(values, ranges, strict=True)}
    return any(mine != other and w.meets(r) for mine, w in written for other, r in read | written)


def _apart(lowered: Lowered, loop: Loop, numbers: list[int]) -> dict[int, tuple[int, ...]] | None:
    """For every step of a loop that threads may run apart, bytes from one example to the next."""
    found = examples_apart(lowered, [lowered.steps[n] for n in numbers], loop.number, loop.length)
    return None if found is None else dict(zip(numbers, found, strict=True))


def prologue_steps(lowered: Lowered) -> list[int]:
    """Steps whose results change only when a persistent buffer is changed from outside: none that the program itself writes."""
    updated = {p.name for p in lowered.source.outputs if p.kind == PortKind.BUFFER}
    places = lowered.places
    still: set[Value] = set()
    for value, place in places.items():
        if place.part is None and (place.region == "constant" or (place.region == "persistent" and place.name not in updated)):
            still.add(value)
    written: dict[Value, int] = {}
    for step in lowered.steps:
        for value in step.writes:
            owner = located(places, value).value
            written[owner] = written.get(owner, 0) + 1
    early: list[int] = []
    for number, step in enumerate(lowered.steps):
        whole = all(places[v].region == "arena" and places[v].part is None and isinstance(_size_of(lowered, v), int) for v in step.writes)
        if not step.reads <= still or not whole:
            continue
        if any(written[v] > 1 for v in step.writes):
            continue  # a halo is written apart
        if _mentions(step.program, BATCH):
            continue  # the batch as a number: another one in the next call
        early.append(number)
        still |= step.writes
    return early


def _mentions(node: object, name: str) -> bool:
    """Whether a size or an index anywhere in a step's program has the name."""
    waiting: list[object] = [node]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, DimExpr):
            if name in dims.names(part):
                return True
        elif id(part) in seen:
            continue
        elif isinstance(part, tuple | list | frozenset):
            waiting.extend(part)
        elif isinstance(part, Mapping):
            waiting.extend(part.values())
        elif is_dataclass(part):
            waiting.extend(getattr(part, f.name) for f in fields(part))
        seen.add(id(part))
    return False


def _size_of(lowered: Lowered, value: Value) -> Dim:
    return lowered.places[value].layout.size


def _lives(lowered: Lowered, kept: Set[Value]) -> dict[Value, tuple[int, int]]:
    """First and last step of every value that has memory of its own in the arena.

    What a loop passes on from iteration to iteration, and what steps outside of it touch as well, lives through all of it.
    """
    places = lowered.places
    touched: dict[Value, list[int]] = {}
    for number, step in enumerate(lowered.steps):
        for value in step.args:
            owner = located(places, value).value
            if places[owner].region == "arena" and owner not in kept:
                touched.setdefault(owner, []).append(number)
    life = {value: (at[0], at[-1]) for value, at in touched.items()}
    for loop in reversed(lowered.loops):
        it = parts(loop.op)
        passed = {located(places, v).value for v in (*loop.op.outputs, *it.carries)} | {loop.index}
        for value, at in touched.items():
            inside = bisect_left(at, loop.end) - bisect_left(at, loop.begin)
            if inside and (inside < len(at) or value in passed):
                first, last = life[value]
                life[value] = (min(first, loop.begin), max(last, loop.end - 1))
    return life


def _unit_bytes(value: Value, place: Place, batch: str | None) -> tuple[int, bool]:
    """Bytes (an example, where the size grows with the batch), and whether it grows."""
    size: Dim = place.layout.size
    if isinstance(size, int):
        return size * value.type.dtype.size, False
    assert batch is not None
    return dims.evaluate(size, {batch: 1}) * value.type.dtype.size, True


def _shape(t: TensorType, batch: str | None) -> tuple[Extent, ...]:
    shape: list[Extent] = []
    for extent in t.shape:
        if isinstance(extent, int):
            shape.append(extent)
        else:
            assert batch is not None
            shape.append(("N", dims.evaluate(extent, {batch: 1})))
    return tuple(shape)


def _touched(
    step: Step, lowered: Lowered, kept: Set[Value], fixed: Mapping[object, int], scaled: Mapping[object, int], sizes: Mapping[Value, tuple[int, bool]]
) -> tuple[list[Range], list[Range]]:
    def range_of(value: Value) -> Range:
        part = located(lowered.places, value)
        owner = part.value
        place = lowered.places[owner]
        if owner in kept:
            return Range("packed", str(owner.id), 0, 1)
        if place.region != "arena":
            return Range(place.region, place.name, 0, 1)
        size, grows = sizes[owner]
        start = (scaled if grows else fixed)[owner]
        region, end = "batch" if grows else "fixed", start + aligned(size)
        for move in part.moves:
            if move.counts in (OLD, NEW):  # of two halves one, and another step of the same iteration finds the other apart
                middle = start + size // 2
                return Range(region, "", start, middle) if move.counts == OLD else Range(region, "", middle, end)
        return Range(region, "", start, end)

    return [range_of(v) for v in step.reads], [range_of(v) for v in step.writes]


def _barriers(ranges: list[tuple[list[Range], list[Range]]], marks: Set[int] = frozenset()) -> list[bool]:
    """A barrier stands after a step where the next one touches what a step since the last barrier wrote, or writes what it read, and
    where a loop begins or ends (`marks`: before these steps)."""
    flags = [False] * len(ranges)
    read: list[Range] = []
    written: list[Range] = []
    for number, (reads, writes) in enumerate(ranges):
        clash = any(w.meets(r) for w in written for r in [*reads, *writes]) or any(r.meets(w) for r in read for w in writes)
        if number and (clash or number in marks):
            flags[number - 1] = True
            read, written = [], []
        read += reads
        written += writes
    if len(ranges) in marks:
        flags[-1] = True
    return flags
