"""The JSON form of a plan: canonical, and checked when it is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dslc.ir.plan import (
    FORMAT_VERSION,
    READABLE,
    BufferPlan,
    ConstantPlan,
    ExecutablePlan,
    KernelPlan,
    LoopPlan,
    MovePlan,
    PersistentPlan,
    PlanError,
    PortPlan,
    ProgramPlan,
    Shape,
    StepPlan,
)
from dslc.ir.plan_rules import validate


def to_json(plan: ExecutablePlan) -> dict[str, Any]:
    """Plain data; `from_json(to_json(p)) == p`."""
    return {
        "version": FORMAT_VERSION,
        "target": plan.target,
        "features": list(plan.features),
        "notes": dict(plan.notes),
        "kernels": [[k.name, k.key, k.symbol, list(k.needs)] for k in plan.kernels],
        "persistent": [[p.name, p.dtype, list(p.shape), p.role, p.initial, p.pitch] for p in plan.persistent],
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
        persistent=tuple(map(_persistent, data["persistent"])),
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
        "batch_bound": p.batch_bound,
        "writes": list(p.writes),
        "loops": [[loop.begin, loop.end, loop.length, loop.reverse, loop.index, loop.apart] for loop in p.loops],
    }


def _step_json(s: StepPlan) -> list[Any]:
    moves = [[m.argument, m.loop, m.counts, m.fixed, m.scaled] for m in s.moves]
    return [s.kernel, [list(a) for a in s.args], s.serial, s.barrier, s.label, s.span, moves, list(s.examples)]


def _persistent(data: Any) -> PersistentPlan:
    name, dtype, shape, role, initial, *pitch = data
    return PersistentPlan(name, dtype, tuple(map(_integer, shape)), role, initial, *map(_integer, pitch))


def _step(data: Any) -> StepPlan:
    kernel, args, serial, barrier, label, span, *rest = data
    moves = tuple(MovePlan(_integer(a), _integer(n), str(c), _integer(f), _integer(b)) for a, n, c, f, b in (rest[0] if rest else ()))
    examples = tuple(map(_integer, rest[1])) if len(rest) > 1 else ()
    return StepPlan(kernel, tuple((_integer(a), _integer(b)) for a, b in args), bool(serial), bool(barrier), label, span, moves, examples)


def _loop(data: Any) -> LoopPlan:
    begin, end, length, reverse, index, *apart = data
    known = None if index is None else _integer(index)
    return LoopPlan(_integer(begin), _integer(end), _integer(length), bool(reverse), known, *map(bool, apart))


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
        batch_bound=None if d["batch_bound"] is None else _integer(d["batch_bound"]),
        writes=tuple(d["writes"]),
        loops=tuple(map(_loop, d.get("loops", ()))),
    )
