"""What the runtime and the kernels rely on in a plan: offsets within their regions, ports and buffers of one type, loops that nest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dslc.ir.plan import (
    ALIGNMENT,
    COUNTS,
    IMMEDIATE,
    INDEX,
    ITEMSIZE,
    REGIONS,
    ROLES,
    BufferPlan,
    ConstantPlan,
    ExecutablePlan,
    PersistentPlan,
    PlanError,
    ProgramPlan,
    StepPlan,
    scales,
    unit_bytes,
)


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
        padded = len(p.shape) > 1 and _size(p.pitch) and p.pitch >= p.shape[-1]
        _require(p.pitch == 0 or padded, f"persistent buffer {p.name!r}: rows {p.pitch} elements apart")
    for c in plan.constants:
        _require(c.dtype in ITEMSIZE and all(_size(e) for e in c.shape), f"constant {c.name!r}: dtype or shape")
    for program in plan.programs:
        _validate_program(program, persistent, constants, kernels)


def _validate_program(
    program: ProgramPlan, persistent: Mapping[str, PersistentPlan], constants: Mapping[str, ConstantPlan], kernels: set[str]
) -> None:
    where = f"program {program.name!r}"
    _require(_size(program.batch_bytes), f"{where}: an arena part of {program.batch_bytes} bytes")
    _require(
        _size(program.fixed_bytes) and (not program.batch_bytes or program.fixed_bytes % ALIGNMENT == 0),
        f"{where}: an arena part of {program.fixed_bytes} bytes",
    )
    _require(program.batch_bound is None or program.batch_bound >= 1, f"{where}: batch bound {program.batch_bound}")
    limits = {
        "fixed": program.fixed_bytes,
        "batch": program.batch_bytes,
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
        if loop.apart:
            alone = not any(other.begin < loop.end and loop.begin < other.end for other in program.loops if other is not loop)
            _require(alone and loop.index is None, f"{what} runs apart, and holds or is held by another, or shows its index")
            for step in program.steps[loop.begin : loop.end]:
                _require(len(step.examples) == len(step.args), f"{what} runs apart, and {step.label!r} does not say where examples begin")
                for (index, _), step_by in zip(step.args, step.examples, strict=True):
                    grows = index != IMMEDIATE and (program.buffers[index].region == "batch" or scales(program.buffers[index].shape))
                    inside = 0 <= step_by <= (program.buffers[index].nbytes if grows else 0)
                    _require(inside, f"{what}: an example of {step.label!r} lies outside its buffer")
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
    _require(unit_bytes(buffer.dtype, buffer.shape) <= buffer.nbytes, f"{where}: its shape takes more than {buffer.nbytes} bytes")
    _require(buffer.region != "batch" or buffer.offset % ALIGNMENT == 0, f"{where}: not a multiple of {ALIGNMENT} bytes")
    if buffer.region in ("fixed", "persistent", "constant", "setting"):
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
