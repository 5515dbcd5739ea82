"""A Module: named programs over one table of persistent buffers (parameters, states, optimizer states, step counters)."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dslc.diagnostics import Span
from dslc.ir.graph import Graph
from dslc.ir.types import TensorType


class Role(StrEnum):
    """What a persistent buffer is for."""

    PARAMETER = "parameter"
    STATE = "state"
    OPTIMIZER = "optimizer"
    COUNTER = "counter"
    EMA = "ema"  # a moving average of a parameter
    GRADIENT = "gradient"  # what the batches of a step add up to; empty between steps
    METRIC = "metric"  # what a metric counts over an evaluation
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Initial:
    """How a buffer starts: `kind` names an initialiser (constant, normal, uniform, xavier_uniform, ...), `settings` its numbers.

    `stream` numbers the draw, so that initial values depend on the seed and the buffer's own stream only.
    """

    kind: str
    settings: tuple[tuple[str, Any], ...] = ()
    stream: int = 0


@dataclass(frozen=True, slots=True)
class Buffer:
    """A persistent tensor, by path (`LeNet.head.w`); kept in natural row-major layout."""

    path: str
    type: TensorType
    role: Role
    initial: Initial
    span: Span | None = None


class PortKind(StrEnum):
    """What a graph input or output is bound to."""

    INPUT = "input"  # a tensor the caller gives
    BUFFER = "buffer"  # a persistent buffer: read as an input, updated as an output
    SETTING = "setting"  # a 0-d run-time number: learning rate, total steps
    SEED = "seed"  # i64[]: the seed of random operators
    COUNTER = "counter"  # i64[]: the program step of random operators (a run-time number)
    RESULT = "result"  # a tensor the caller gets
    METRIC = "metric"  # a 0-d result averaged over examples by the fit loop


@dataclass(frozen=True, slots=True)
class Port:
    kind: PortKind
    name: str
    default: float | int | None = None  # of a setting


@dataclass(frozen=True, slots=True)
class Program:
    """A graph with its bindings: one port for each graph input and output, in order."""

    name: str
    graph: Graph
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batch: str | None = None  # the dimension name that stays symbolic, with `bound` its largest value
    bound: int | None = None


@dataclass(frozen=True, slots=True)
class Module:
    """Programs over shared buffers. `sources` maps file names to texts, for diagnostics; `digest` identifies them."""

    name: str
    programs: Mapping[str, Program]
    buffers: Mapping[str, Buffer]
    sources: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
