"""Steps and places: what lowering makes of a program, before kernels have sources and buffers have offsets."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dslc.diagnostics import Span
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.loops import LoopProgram
from dslc.ir.module import Program
from dslc.ir.routines import Routine
from dslc.lowering.contraction import Contraction
from dslc.lowering.layout import Layout
from dslc.lowering.packing import Pack


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lives. `region` as in `ir/plan.py`; `name` of a persistent buffer, constant or port."""

    region: str
    name: str
    layout: Layout


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
class Lowered:
    """A program as steps over placed values."""

    source: Program
    steps: tuple[Step, ...]
    places: Mapping[Value, Place]
    constants: Mapping[str, Op]
    outputs: tuple[Value, ...]
    bound: int


@dataclass
class Lowering:
    """The state of lowering one program; `lower` is its only user."""

    program: Program
    graph: Graph
    bound: int
    places: dict[Value, Place] = field(default_factory=dict)
    constants: dict[str, Op] = field(default_factory=dict)
    packs: dict[tuple[Value, Pack], Value] = field(default_factory=dict)
    next_id: int = 0

    def new_value(self, like: Value) -> Value:
        self.next_id += 1
        return Value(self.next_id, like.type)
