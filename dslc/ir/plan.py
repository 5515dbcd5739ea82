"""The plan of an executable: what the compiler hands to the runtime, as plain data with a JSON form.

A `ProgramPlan` is one program: its buffers, its steps (one kernel call each) and its ports. Several programs of one
`ExecutablePlan` share persistent buffers (parameters, states, optimizer states, counters) by name, and one arena.

Sizes are bytes. A shape entry is an integer, or `("N", k)`, the run-time batch times k, which may stand on axis 0 alone.
Where a buffer lies is its region:

| region       | address                                             | `offset`, `nbytes`                                    |
|--------------|-----------------------------------------------------|-------------------------------------------------------|
| `fixed`      | arena + offset                                      | bytes                                                 |
| `batch`      | arena + fixed_bytes + offset * capacity             | bytes an example, the offset a multiple of 64         |
| `thread`     | arena + fixed_bytes + batch part + offset * threads | bytes a thread, both multiples of 64; thread t adds t * nbytes |
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

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Extent = int | tuple[str, int]
Shape = tuple[Extent, ...]

ITEMSIZE = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8, "i8": 1, "u8": 1, "i32": 4, "i64": 8, "bool": 1}
REGIONS = ("fixed", "batch", "thread", "persistent", "constant", "setting", "input", "output")
ROLES = ("parameter", "state", "optimizer", "counter", "ema", "gradient", "metric", "packed")
PASSING = ("gradient", "metric", "packed")
"""Roles of buffers that no checkpoint holds: they are empty between steps and evaluations, or derived."""
ALIGNMENT = 64
FORMAT_VERSION = 2
READABLE = (1, 2)
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
    """

    begin: int
    end: int
    length: int
    reverse: bool = False
    index: int | None = None

    def contains(self, step: int) -> bool:
        return self.begin <= step < self.end


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One kernel call: `kernel` names a `KernelPlan`; an argument is (buffer index, byte offset) or (IMMEDIATE, value).

    `serial`: only thread 0 runs it, the whole of it. `barrier`: all threads meet after it. `label` and `span` (file:line:column) are for profiles.
    `moves`: arguments whose address depends on the iteration of loops around the step.
    """

    kernel: str
    args: tuple[tuple[int, int], ...]
    serial: bool = False
    barrier: bool = True
    label: str = ""
    span: str = ""
    moves: tuple[MovePlan, ...] = ()


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
    thread_bytes: int = 0
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

    def arena_bytes(self, batch: int, threads: int = 1) -> int:
        """The arena that a call with this batch needs, exactly."""
        return self.fixed_bytes + batch * self.batch_bytes + threads * self.thread_bytes


@dataclass(frozen=True, slots=True)
class PersistentPlan:
    """A buffer that outlives calls. `role`: one of ROLES; those of PASSING are never saved.

    `initial` says how it is first filled; the runtime passes it on without reading it (zeros where it is None).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    role: str
    initial: Any = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return unit_bytes(self.dtype, self.shape)


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
    threads: int
    fixed: int
    batch_part: int
    thread_part: int
    arena: int
    persistent: Mapping[str, int]
    constants: int
    inputs: int
    outputs: int
    total: int

    def as_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return {name: (dict(value) if isinstance(value, Mapping) else value) for name in self.__slots__ for value in (getattr(self, name),)}


def memory_report(plan: ExecutablePlan, program: str, batch: int = 1, threads: int = 1) -> MemoryReport:
    """What running `program` at `batch` with `threads` threads takes, the executable's persistent buffers and constants included."""
    it = plan.program(program)
    roles: dict[str, int] = {}
    for buffer in plan.persistent:
        roles[buffer.role] = roles.get(buffer.role, 0) + buffer.nbytes
    constants = sum(c.nbytes for c in plan.constants)
    inputs, outputs = (sum(_port_bytes(p, batch) for p in ports) for ports in (it.inputs, it.outputs))
    arena = it.arena_bytes(batch, threads)
    return MemoryReport(
        program, batch, threads, it.fixed_bytes, batch * it.batch_bytes, threads * it.thread_bytes, arena,
        roles, constants, inputs, outputs, arena + sum(roles.values()) + constants + inputs + outputs,
    )  # fmt: skip


def _port_bytes(port: PortPlan, batch: int) -> int:
    return unit_bytes(port.dtype, port.shape) * (batch if scales(port.shape) else 1)


# ------------------------------------------------------------------------------------------------------ consistency


def validate(plan: ExecutablePlan) -> None:
    """Check what the runtime and the kernels rely on; PlanError names the first contradiction."""
    persistent = {p.name: p for p in plan.persistent}
    constants = {c.name: c for c in plan.constants}
    kernels = {k.name for k in plan.kernels}
    _unique("program", [p.name for p in plan.programs])
    _unique("persistent buffer", [p.name for p in plan.persistent])
    _unique("constant", [c.name for c in plan.constants])
    _unique("kernel", [k.name for k in plan.kernels])
    for p in plan.persistent:
        _require(
            p.role in ROLES and p.dtype in ITEMSIZE and all(_size(e) for e in p.shape),
            f"persistent buffer {p.name!r}: role, dtype or shape",
        )
    for c in plan.constants:
        _require(c.dtype in ITEMSIZE and all(_size(e) for e in c.shape), f"constant {c.name!r}: dtype or shape")
    for program in plan.programs:
        _validate_program(program, persistent, constants, kernels)


def _validate_program(
    program: ProgramPlan, persistent: Mapping[str, PersistentPlan], constants: Mapping[str, ConstantPlan], kernels: set[str]
) -> None:
    where = f"program {program.name!r}"
    rest = program.thread_bytes  # of the arena, behind the part
    for size, alignment in ((program.thread_bytes, ALIGNMENT), (program.batch_bytes, ALIGNMENT if rest else 1)):
        _require(_size(size) and size % alignment == 0, f"{where}: an arena part of {size} bytes")
        rest += size
    _require(
        _size(program.fixed_bytes) and (not rest or program.fixed_bytes % ALIGNMENT == 0),
        f"{where}: an arena part of {program.fixed_bytes} bytes",
    )
    _require(program.batch_bound is None or program.batch_bound >= 1, f"{where}: batch bound {program.batch_bound}")
    limits = {
        "fixed": program.fixed_bytes,
        "batch": program.batch_bytes,
        "thread": program.thread_bytes,
        "setting": 8 * len(program.settings),
    }
    for buffer in program.buffers:
        _validate_buffer(buffer, f"{where}, buffer {buffer.name!r}", limits, persistent, constants, program.batch_bound)
    for step in (*program.prologue, *program.steps):
        _require(step.kernel in kernels, f"{where}: step {step.label!r} names the unknown kernel {step.kernel!r}")
        for index, offset in step.args:
            if index != IMMEDIATE:
                _require(0 <= index < len(program.buffers), f"{where}: step {step.label!r} names buffer {index}")
                _require(0 <= offset <= program.buffers[index].nbytes, f"{where}: step {step.label!r} starts outside buffer {index}")
    _validate_loops(program, where)
    for step in program.prologue:
        for index, _ in step.args:
            outside = index != IMMEDIATE and program.buffers[index].region in ("input", "output")
            _require(not outside, f"{where}: prologue step {step.label!r} uses an input or output")
    for port in (*program.inputs, *program.outputs, *program.settings):
        _require(0 <= port.buffer < len(program.buffers), f"{where}: port {port.name!r} names buffer {port.buffer}")
        buffer = program.buffers[port.buffer]
        _require((port.dtype, port.shape) == (buffer.dtype, buffer.shape), f"{where}: port {port.name!r} and its buffer differ in type")
    for ports, region in ((program.inputs, "input"), (program.settings, "setting")):
        _unique(f"{region} of {where}", [p.name for p in ports])
        for port in ports:
            _require(program.buffers[port.buffer].region == region, f"{where}: {region} {port.name!r} lies in another region")
            _require(region == "input" or port.shape == (), f"{where}: setting {port.name!r} is not a scalar")
    _unique(f"output of {where}", [p.name for p in program.outputs])
    served = {p.buffer for p in (*program.inputs, *program.outputs)}
    for index, buffer in enumerate(program.buffers):
        _require(buffer.region not in ("input", "output") or index in served, f"{where}: no port serves buffer {buffer.name!r}")
    for name in program.writes:
        _require(name in persistent, f"{where} writes the unknown persistent buffer {name!r}")


def _validate_loops(program: ProgramPlan, where: str) -> None:
    for number, loop in enumerate(program.loops):
        what = f"{where}, loop {number}"
        _require(
            0 <= loop.begin < loop.end <= len(program.steps) and _size(loop.length) and loop.length >= 1, f"{what}: no steps or iterations"
        )
        for other in program.loops[:number]:
            inside, apart = other.begin <= loop.begin and loop.end <= other.end, loop.begin >= other.end
            _require(inside or apart, f"{what} overlaps another")
        meets = program.steps[loop.end - 1].barrier and (loop.begin == 0 or program.steps[loop.begin - 1].barrier)
        _require(meets, f"{what}: threads do not meet before and after it")
        if loop.index is not None:
            _require(0 <= loop.index < len(program.buffers), f"{what} names buffer {loop.index}")
            buffer = program.buffers[loop.index]
            _require(buffer.dtype == "i64" and buffer.region == "fixed", f"{what}: its index lies in buffer {buffer.name!r}")
    for step in program.prologue:
        _require(not step.moves, f"{where}: prologue step {step.label!r} moves")
    for number, step in enumerate(program.steps):
        _validate_moves(program, number, step, f"{where}, step {step.label!r}")


def _validate_moves(program: ProgramPlan, number: int, step: StepPlan, where: str) -> None:
    """Every move belongs to a loop around the step, and the address stays inside its buffer."""
    reach: dict[int, tuple[int, int]] = {}
    for move in step.moves:
        known = 0 <= move.argument < len(step.args) and 0 <= move.loop < len(program.loops) and move.counts in COUNTS
        _require(known and program.loops[move.loop].contains(number), f"{where}: a move without argument or loop")
        most = program.loops[move.loop].length - 1 if move.counts == INDEX else 1
        low, high = reach.get(move.argument, (0, 0))
        far = most * (move.fixed + move.scaled)  # for a batch of 1; memory that grows with the batch grows as fast as this or faster
        reach[move.argument] = (low + min(far, 0), high + max(far, 0))
    for argument, (low, high) in reach.items():
        index, offset = step.args[argument]
        inside = index != IMMEDIATE and offset + low >= 0 and offset + high <= program.buffers[index].nbytes
        _require(inside, f"{where}: argument {argument} moves outside its buffer")


def _validate_buffer(
    buffer: BufferPlan, where: str, limits: Mapping[str, int], persistent: Mapping[str, PersistentPlan],
    constants: Mapping[str, ConstantPlan], bound: int | None,
) -> None:  # fmt: skip
    _require(buffer.region in REGIONS, f"{where}: unknown region {buffer.region!r}")
    _require(buffer.dtype in ITEMSIZE, f"{where}: unknown dtype {buffer.dtype!r}")
    for axis, extent in enumerate(buffer.shape):
        if isinstance(extent, int):
            _require(_size(extent), f"{where}: extent {extent}")
        else:
            _require(
                axis == 0 and extent[0] == "N" and extent[1] >= 1 and bound is not None, f"{where}: symbolic extent {extent} on axis {axis}"
            )
    _require(_size(buffer.offset) and _size(buffer.nbytes), f"{where}: offset {buffer.offset}, {buffer.nbytes} bytes")
    _require(
        buffer.region == "thread" or unit_bytes(buffer.dtype, buffer.shape) <= buffer.nbytes,
        f"{where}: its shape takes more than {buffer.nbytes} bytes",
    )
    if buffer.region in ("batch", "thread"):
        whole = buffer.offset % ALIGNMENT == 0 and (buffer.region == "batch" or buffer.nbytes % ALIGNMENT == 0)
        _require(whole, f"{where}: not a multiple of {ALIGNMENT} bytes")
    if buffer.region in ("fixed", "persistent", "constant", "setting", "thread"):
        _require(not scales(buffer.shape), f"{where}: scales with the batch in region {buffer.region}")
    limit = limits.get(buffer.region)
    if buffer.region in ("persistent", "constant"):
        owner = (persistent if buffer.region == "persistent" else constants).get(buffer.name)
        _require(owner is not None, f"{where}: no such {buffer.region}")
        limit = owner.nbytes if owner is not None else 0
    if limit is not None:
        _require(buffer.offset + buffer.nbytes <= limit, f"{where}: ends at {buffer.offset + buffer.nbytes}, its region at {limit}")


def _size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise PlanError(message)


def _unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        _require(name not in seen, f"two of {what}: {name!r}")
        seen.add(name)


# ------------------------------------------------------------------------------------------------------------- JSON


def to_json(plan: ExecutablePlan) -> dict[str, Any]:
    """Plain data; `from_json(to_json(p)) == p`."""
    return {
        "version": FORMAT_VERSION,
        "target": plan.target,
        "features": list(plan.features),
        "notes": dict(plan.notes),
        "kernels": [[k.name, k.key, k.symbol, list(k.needs)] for k in plan.kernels],
        "persistent": [[p.name, p.dtype, list(p.shape), p.role, p.initial] for p in plan.persistent],
        "constants": [[c.name, c.dtype, list(c.shape)] for c in plan.constants],
        "programs": [_program_json(p) for p in plan.programs],
    }


def dumps(plan: ExecutablePlan) -> str:
    """Canonical JSON text: equal plans give equal text."""
    return json.dumps(to_json(plan), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def loads(text: str) -> ExecutablePlan:
    """Read and validate what `dumps` wrote; PlanError for anything else."""
    try:
        plan = from_json(json.loads(text))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise PlanError(f"not a plan: {error}") from error
    validate(plan)
    return plan


def from_json(data: Mapping[str, Any]) -> ExecutablePlan:
    """The inverse of `to_json`; call `validate` on what comes from a file."""
    if data["version"] not in READABLE:
        raise PlanError(f"plan format {data['version']}, this version reads {READABLE[-1]}")
    return ExecutablePlan(
        programs=tuple(_program(p) for p in data["programs"]),
        persistent=tuple(PersistentPlan(n, d, tuple(map(_integer, s)), r, i) for n, d, s, r, i in data["persistent"]),
        constants=tuple(ConstantPlan(n, d, tuple(map(_integer, s))) for n, d, s in data["constants"]),
        kernels=tuple(KernelPlan(n, k, s, tuple(needs)) for n, k, s, needs in data["kernels"]),
        features=tuple(data["features"]),
        target=data["target"],
        notes=dict(data["notes"]),
    )


def _shape_json(shape: Shape) -> list[Any]:
    return [e if isinstance(e, int) else list(e) for e in shape]


def _shape(data: Iterable[Any]) -> Shape:
    return tuple(_integer(e) if not isinstance(e, list) else (str(e[0]), _integer(e[1])) for e in data)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise PlanError(f"{value!r} is not an integer")
    return value


def _program_json(p: ProgramPlan) -> dict[str, Any]:
    return {
        "name": p.name,
        "buffers": [[b.name, b.dtype, _shape_json(b.shape), b.region, b.offset, b.nbytes] for b in p.buffers],
        "steps": [_step_json(s) for s in p.steps],
        "prologue": [_step_json(s) for s in p.prologue],
        **{
            key: [[q.name, q.dtype, _shape_json(q.shape), q.buffer, q.default] for q in getattr(p, key)]
            for key in ("inputs", "outputs", "settings")
        },
        "fixed_bytes": p.fixed_bytes,
        "batch_bytes": p.batch_bytes,
        "thread_bytes": p.thread_bytes,
        "batch_bound": p.batch_bound,
        "writes": list(p.writes),
        "loops": [[loop.begin, loop.end, loop.length, loop.reverse, loop.index] for loop in p.loops],
    }


def _step_json(s: StepPlan) -> list[Any]:
    moves = [[m.argument, m.loop, m.counts, m.fixed, m.scaled] for m in s.moves]
    return [s.kernel, [list(a) for a in s.args], s.serial, s.barrier, s.label, s.span, moves]


def _step(data: Any) -> StepPlan:
    kernel, args, serial, barrier, label, span, *rest = data
    moves = tuple(MovePlan(_integer(a), _integer(n), str(c), _integer(f), _integer(b)) for a, n, c, f, b in (rest[0] if rest else ()))
    return StepPlan(kernel, tuple((_integer(a), _integer(b)) for a, b in args), bool(serial), bool(barrier), label, span, moves)


def _loop(data: Any) -> LoopPlan:
    begin, end, length, reverse, index = data
    return LoopPlan(_integer(begin), _integer(end), _integer(length), bool(reverse), None if index is None else _integer(index))


def _program(d: Mapping[str, Any]) -> ProgramPlan:
    def ports(key: str) -> tuple[PortPlan, ...]:
        return tuple(PortPlan(name, dtype, _shape(shape), _integer(buffer), default) for name, dtype, shape, buffer, default in d[key])

    return ProgramPlan(
        name=d["name"],
        buffers=tuple(BufferPlan(n, t, _shape(s), r, _integer(o), _integer(b)) for n, t, s, r, o, b in d["buffers"]),
        steps=tuple(map(_step, d["steps"])),
        inputs=ports("inputs"),
        outputs=ports("outputs"),
        settings=ports("settings"),
        prologue=tuple(map(_step, d["prologue"])),
        fixed_bytes=_integer(d["fixed_bytes"]),
        batch_bytes=_integer(d["batch_bytes"]),
        thread_bytes=_integer(d["thread_bytes"]),
        batch_bound=None if d["batch_bound"] is None else _integer(d["batch_bound"]),
        writes=tuple(d["writes"]),
        loops=tuple(map(_loop, d.get("loops", ()))),
    )
