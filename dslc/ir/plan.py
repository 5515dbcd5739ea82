"""The plan of an executable: what the compiler hands to the runtime, as plain data (`plan_rules` says what is consistent, `plan_text` writes JSON).

A `ProgramPlan` is one program: its buffers, its steps (one kernel call each) and its ports. Several programs of one
`ExecutablePlan` share persistent buffers (parameters, states, optimizer states, counters) by name, and one arena.

Sizes are bytes. A shape entry is an integer, or `("N", k)`, the run-time batch times k, which may stand on axis 0 alone.
Where a buffer lies is its region:

| region       | address                                             | `offset`, `nbytes`                                    |
|--------------|-----------------------------------------------------|-------------------------------------------------------|
| `fixed`      | arena + offset                                      | bytes                                                 |
| `batch`      | arena + fixed_bytes + offset * capacity             | bytes an example, the offset a multiple of 64         |
| `persistent` | the persistent buffer of that `name`, + offset      | bytes                                                 |
| `constant`   | the constant of that `name`, + offset               | bytes                                                 |
| `setting`    | the program's setting block, 8 bytes a setting      | bytes                                                 |
| `input`      | the caller's array (only element-aligned), + offset | bytes an example if axis 0 is the batch, else bytes   |
| `output`     | the result's array (only element-aligned), + offset | likewise                                              |

Steps between a loop's `begin` and `end` run `length` times, in order; what a step's argument then adds to its address is a `MovePlan`.

Every part of the arena but the last one in use ends at a multiple of 64, where the next begins.
The arena's content is undefined when a program starts; what must survive from call to call is persistent. Kernels rely on
every offset and size here, so a plan is as trusted as object code: it comes from the compiler, the user's own cache, or a
file that the user trusts explicitly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Extent = int | tuple[str, int]
Shape = tuple[Extent, ...]

ITEMSIZE = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8, "i8": 1, "u8": 1, "i32": 4, "i64": 8, "bool": 1}
REGIONS = ("fixed", "batch", "persistent", "constant", "setting", "input", "output")
ROLES = ("parameter", "state", "optimizer", "counter", "ema", "gradient", "metric", "packed")
PASSING = ("gradient", "metric", "packed")
"""Roles of buffers that no checkpoint holds: they are empty between steps and evaluations, or derived."""
ALIGNMENT = 64
FORMAT_VERSION = 4
READABLE = (1, 2, 3, 4)
"""Formats that are read; the first has no loops."""
IMMEDIATE = -1
"""A step argument `(IMMEDIATE, value)` is the 64-bit integer itself instead of an address."""


class PlanError(ValueError):
    """A plan that contradicts itself; never the user's fault when the plan comes from the compiler."""


def batch_times(k: int = 1) -> Extent:
    """The extent k * N."""
    return ("N", k)


def concrete(shape: Shape, batch: int) -> tuple[int, ...]:
    """The shape with the batch filled in."""
    return tuple(e if isinstance(e, int) else batch * e[1] for e in shape)


def scales(shape: Shape) -> bool:
    """Whether axis 0 is a multiple of the batch."""
    return bool(shape) and not isinstance(shape[0], int)


def unit_bytes(dtype: str, shape: Shape) -> int:
    """Bytes of an array at batch 1: per example where axis 0 scales, else the whole."""
    size = ITEMSIZE[dtype]
    for extent in concrete(shape, 1):
        size *= extent
    return size


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """A piece of memory that steps refer to by its index. See the module's table for `offset` and `nbytes`."""

    name: str
    dtype: str
    shape: Shape
    region: str
    offset: int
    nbytes: int


INDEX, OLD, NEW = "index", "old", "new"
COUNTS = (INDEX, OLD, NEW)


@dataclass(frozen=True, slots=True)
class MovePlan:
    """How far argument number `argument` of a step has moved: `fixed + batch * scaled` bytes times what loop number `loop` counts.

    It counts its `index`, or the halves of memory that iterations read and write in turns: 0 and 1, `old` being what the iteration
    before wrote, so that the last one writes half 0.
    """

    argument: int
    loop: int
    counts: str
    fixed: int
    scaled: int = 0


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """The steps from `begin` up to `end` run `length` times, `length` at least 1. Threads meet before, after and between iterations.

    The index counts up from 0, with `reverse` down to 0; buffer number `index`, where there is one, an i64[], holds it.

    `apart`: no iteration touches what the iterations of other examples write, so that threads may run all iterations for some of the examples
    without meeting. Their steps' addresses then begin `StepPlan.examples` bytes further for every example before.
    """

    begin: int
    end: int
    length: int
    reverse: bool = False
    index: int | None = None
    apart: bool = False

    def contains(self, step: int) -> bool:
        return self.begin <= step < self.end


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One kernel call: `kernel` names a `KernelPlan`; an argument is (buffer index, byte offset) or (IMMEDIATE, value).

    `serial`: only thread 0 runs it, the whole of it. `barrier`: all threads meet after it. `label` and `span` (file:line:column) are for profiles.
    `moves`: arguments whose address depends on the iteration of loops around the step. `examples`: bytes from one example to the next, an
    argument each, in loops that may run apart.
    """

    kernel: str
    args: tuple[tuple[int, int], ...]
    serial: bool = False
    barrier: bool = True
    label: str = ""
    span: str = ""
    moves: tuple[MovePlan, ...] = ()
    examples: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PortPlan:
    """An input, output or setting (a scalar that a call may leave out where it has a default) and the buffer that holds it.

    An output's buffer may lie in any region; outside `output` its content is copied out after the last step.
    """

    name: str
    dtype: str
    shape: Shape
    buffer: int
    default: float | int | bool | None = None


@dataclass(frozen=True, slots=True)
class ProgramPlan:
    """One program. `prologue` steps (packing weights, say) run before the first call and again whenever a persistent buffer
    was changed from outside or by a program that `writes` it; what they make must be persistent (role `packed`).

    `loops` are those of `steps`, an outer one before what is inside it.
    `batch_bound`: the largest batch, or None where no size depends on the batch.
    """

    name: str
    buffers: tuple[BufferPlan, ...]
    steps: tuple[StepPlan, ...]
    inputs: tuple[PortPlan, ...] = ()
    outputs: tuple[PortPlan, ...] = ()
    settings: tuple[PortPlan, ...] = ()
    prologue: tuple[StepPlan, ...] = ()
    fixed_bytes: int = 0
    batch_bytes: int = 0
    batch_bound: int | None = None
    writes: tuple[str, ...] = ()
    loops: tuple[LoopPlan, ...] = ()

    def runs(self, step: int) -> int:
        """How many times a call of the program runs a step."""
        return math.prod(loop.length for loop in self.loops if loop.contains(step))

    @property
    def persistent(self) -> tuple[str, ...]:
        """Names of the persistent buffers it touches, in order of first appearance."""
        return tuple(dict.fromkeys(b.name for b in self.buffers if b.region == "persistent"))

    @property
    def constants(self) -> tuple[str, ...]:
        """Names of the constants it reads."""
        return tuple(dict.fromkeys(b.name for b in self.buffers if b.region == "constant"))

    def arena_bytes(self, batch: int) -> int:
        """The arena that a call with this batch needs, exactly."""
        return self.fixed_bytes + batch * self.batch_bytes


@dataclass(frozen=True, slots=True)
class PersistentPlan:
    """A buffer that outlives calls. `role`: one of ROLES; those of PASSING are never saved.

    `initial` says how it is first filled; the runtime passes it on without reading it (zeros where it is None). `pitch`: elements from the
    start of a row, along the last axis, to that of the next; 0 where rows follow each other.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    role: str
    initial: Any = None
    pitch: int = 0

    @property
    def allocated(self) -> tuple[int, ...]:
        """The shape with its rows padded."""
        return (*self.shape[:-1], self.pitch) if self.pitch else self.shape

    @property
    def nbytes(self) -> int:
        """Size in bytes, with what rows are padded by."""
        return unit_bytes(self.dtype, self.allocated)


@dataclass(frozen=True, slots=True)
class ConstantPlan:
    """A read-only array; its bytes travel beside the plan under this name."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return unit_bytes(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """Where a step's kernel is: `symbol` in the object whose cache key is `key`. `needs`: keys of objects that it calls into."""

    name: str
    key: str
    symbol: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutablePlan:
    """All programs of a module with what they share. `features`: the CPU features that the object code uses (LLVM's names)."""

    programs: tuple[ProgramPlan, ...]
    persistent: tuple[PersistentPlan, ...] = ()
    constants: tuple[ConstantPlan, ...] = ()
    kernels: tuple[KernelPlan, ...] = ()
    features: tuple[str, ...] = ()
    target: str = "cpu"
    notes: Mapping[str, Any] = field(default_factory=dict)

    def program(self, name: str) -> ProgramPlan:
        """The program of that name; KeyError otherwise."""
        for program in self.programs:
            if program.name == name:
                return program
        raise KeyError(name)

    @property
    def object_keys(self) -> tuple[str, ...]:
        """Keys of every object to load, each once."""
        return tuple(dict.fromkeys(key for k in self.kernels for key in (*k.needs, k.key)))


# ---------------------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """Exact bytes that a program holds while it runs at one batch. `total` leaves nothing out but code and the interpreter."""

    program: str
    batch: int
    fixed: int
    batch_part: int
    arena: int
    persistent: Mapping[str, int]
    constants: int
    inputs: int
    outputs: int
    total: int

    def as_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return {name: (dict(value) if isinstance(value, Mapping) else value) for name in self.__slots__ for value in (getattr(self, name),)}


def memory_report(plan: ExecutablePlan, program: str, batch: int = 1) -> MemoryReport:
    """What running `program` at `batch` takes, the executable's persistent buffers and constants included."""
    it = plan.program(program)
    roles: dict[str, int] = {}
    for buffer in plan.persistent:
        roles[buffer.role] = roles.get(buffer.role, 0) + buffer.nbytes
    constants = sum(c.nbytes for c in plan.constants)
    inputs, outputs = (sum(_port_bytes(p, batch) for p in ports) for ports in (it.inputs, it.outputs))
    arena = it.arena_bytes(batch)
    return MemoryReport(
        program, batch, it.fixed_bytes, batch * it.batch_bytes, arena,
        roles, constants, inputs, outputs, arena + sum(roles.values()) + constants + inputs + outputs,
    )  # fmt: skip


def _port_bytes(port: PortPlan, batch: int) -> int:
    return unit_bytes(port.dtype, port.shape) * (batch if scales(port.shape) else 1)
