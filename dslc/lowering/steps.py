"""Steps and places: what lowering makes of a program, before kernels have sources and buffers have offsets."""
from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from dslc.diagnostics import Span
from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.loops import LoopProgram
from dslc.ir.module import Program
from dslc.ir.plan import NEW, OLD
from dslc.ir.routines import Routine
from dslc.lowering.contraction import Contraction
from dslc.lowering.layout import Layout
from dslc.lowering.packing import Pack


@dataclass(frozen=True, slots=True)
class Move:
    """An address that depends on the iteration of a loop: `stride` elements times what the loop `counts` (as in `ir/plan.py`)."""

    loop: int
    counts: str
    stride: Dim


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the memory of another value, which may be a part itself: it starts `offset` elements behind and moves."""

    value: Value
    offset: int = 0
    moves: tuple[Move, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lives. `region` as in `ir/plan.py`; `name` of a persistent buffer, constant or port.

    Where it lives inside another value's memory, `part` says where, and region and name are that one's.
    """

    region: str
    name: str
    layout: Layout
    part: Part | None = None

    @property
    def moving(self) -> bool:
        return self.part is not None and bool(self.part.moves)


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel call before memory is planned: arguments are values."""

    program: LoopProgram | Contraction | Routine
    args: tuple[Value, ...]
    reads: frozenset[Value]
    writes: frozenset[Value]
    serial: bool
    label: str
    span: Span | None


@dataclass(frozen=True, slots=True)
class Loop:
    """The steps from `begin` up to `end` are the body of the scan `op`; loop numbers in `Move`s are `number`s.

    `index`: the value that holds the index, where a step reads it.
    """

    number: int
    begin: int
    end: int
    length: int
    reverse: bool
    index: Value | None
    op: Op


@dataclass(frozen=True, slots=True)
class Lowered:
    """A program as steps over placed values. `loops` are in the order in which they begin, an outer one before what is inside it."""

    source: Program
    steps: tuple[Step, ...]
    places: Mapping[Value, Place]
    constants: Mapping[str, Op]
    outputs: tuple[Value, ...]
    bound: int
    loops: tuple[Loop, ...] = ()


def linear_in_batch(d: Dim, batch: str | None) -> tuple[int, int]:
    """A size or distance as a number and a multiple of the batch."""
    if isinstance(d, int):
        return d, 0
    assert batch is not None
    at = [dims.evaluate(d, {batch: n}) for n in (0, 1, 2)]
    assert at[2] - at[1] == at[1] - at[0], f"{d} does not grow in proportion"
    return at[0], at[1] - at[0]


def located(places: Mapping[Value, Place], value: Value) -> Part:
    """In whose memory a value lies, of those that are no part of another, and where."""
    offset: int = 0
    moves: tuple[Move, ...] = ()
    while (part := places[value].part) is not None:
        value, offset, moves = part.value, offset + part.offset, (*part.moves, *moves)
    return Part(value, offset, moves)


def spot(places: Mapping[Value, Place], value: Value) -> tuple[Hashable, Part]:
    """What tells a piece of memory from others: the buffer, and where in it."""
    part = located(places, value)
    place = places[part.value]
    return ((place.region, place.name) if place.name else part.value), replace(part, value=value)


def same_spot(places: Mapping[Value, Place], one: Value, other: Value) -> bool:
    """Whether two values lie at the same address in every iteration."""
    (a, here), (b, there) = spot(places, one), spot(places, other)
    return (a, here.offset, here.moves) == (b, there.offset, there.moves)


def may_overlap(places: Mapping[Value, Place], one: Value, other: Value) -> bool:
    """Whether two values may share memory, but for memory that the plan shares between values that are not alive together.

    The halves that iterations read and write in turns are apart.
    """
    (a, here), (b, there) = spot(places, one), spot(places, other)
    if a != b:
        return False
    first, second = ({(m.loop, m.counts) for m in part.moves} for part in (here, there))
    return not any((counts == OLD and (loop, NEW) in second) or (counts == NEW and (loop, OLD) in second) for loop, counts in first)


@dataclass
class Lowering:
    """The state of lowering one graph: a program's, or the body of a loop, which shares what is mutable with the graph around it.

    `over`: the value whose memory a value is written over. `depth`: how many loops are around the graph that makes a value.
    `hoisted`: for each depth, steps to run before the loop that is being lowered there.
    """

    program: Program
    graph: Graph
    bound: int
    places: dict[Value, Place] = field(default_factory=dict)
    constants: dict[str, Op] = field(default_factory=dict)
    packs: dict[tuple[Value, Pack], Value] = field(default_factory=dict)
    over: dict[Value, Value] = field(default_factory=dict)
    depth: dict[Value, int] = field(default_factory=dict)
    hoisted: dict[int, list[Step]] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=count)
    loop_numbers: Iterator[int] = field(default_factory=count)
    around: tuple[int, ...] = ()  # numbers of the loops around this graph
    runs: int = 1  # how often a run of the program runs it

    def new_value(self, like: Value) -> Value:
        return Value(next(self.ids), like.type)
