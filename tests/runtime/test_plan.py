"""The plan is plain data: it survives JSON, its arithmetic is exact, and contradictions are found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dslc.ir import plan as p
from dslc.ir.plan_rules import validate
from dslc.ir.plan_text import dumps, loads


def small_plan() -> p.ExecutablePlan:
    """y[N, 4] = f(x[N, 4], w), with one batch and one fixed buffer and every kind of port."""
    row = (p.batch_times(), 4)
    buffers = (
        p.BufferPlan("x", "f32", row, "input", 0, 16),
        p.BufferPlan("h", "f32", row, "batch", 0, 64),
        p.BufferPlan("t", "f64", (8,), "fixed", 64, 64),
        p.BufferPlan("w", "f32", (4,), "persistent", 0, 16),
        p.BufferPlan("c", "i64", (2,), "constant", 0, 16),
        p.BufferPlan("lr", "f64", (), "setting", 0, 8),
        p.BufferPlan("y", "f32", row, "output", 0, 16),
    )
    return p.ExecutablePlan(
        programs=(
            p.ProgramPlan(
                "main",
                buffers,
                steps=(
                    p.StepPlan("k0", ((0, 0), (3, 0), (1, 0)), label="dense", span="a.dl:3:1"),
                    p.StepPlan("k1", ((1, 0), (6, 0), (p.IMMEDIATE, -7)), serial=True, barrier=False),
                ),
                inputs=(p.PortPlan("x", "f32", row, 0),),
                outputs=(p.PortPlan("y", "f32", row, 6),),
                settings=(p.PortPlan("lr", "f64", (), 5, 0.1),),
                prologue=(p.StepPlan("k1", ()),),
                fixed_bytes=128,
                batch_bytes=64,
                batch_bound=256,
                writes=("w",),
            ),
        ),
        persistent=(p.PersistentPlan("w", "f32", (4,), "parameter", {"kind": "zeros"}),),
        constants=(p.ConstantPlan("c", "i64", (2,)),),
        kernels=(p.KernelPlan("k0", "ab", "f", ("cd",)), p.KernelPlan("k1", "ab", "g")),
        features=("+avx2",),
        notes={"source": "deadbeef"},
    )


def changed(program: dict[str, object] | None = None, buffer: tuple[int, dict[str, object]] | None = None) -> p.ExecutablePlan:
    plan = small_plan()
    it = replace(plan.programs[0], **(program or {}))
    if buffer:
        index, fields = buffer
        it = replace(it, buffers=tuple(replace(b, **fields) if i == index else b for i, b in enumerate(it.buffers)))
    return replace(plan, programs=(it,))


@pytest.mark.parametrize("pitch", [0, 6])
def test_json_round_trip(pitch: int) -> None:
    plan = replace(small_plan(), persistent=(p.PersistentPlan("w", "f32", (4, 4), "parameter", {"kind": "zeros"}, pitch),))
    validate(plan)
    assert loads(dumps(plan)) == plan
    assert dumps(loads(dumps(plan))) == dumps(plan)


def test_shapes_and_names() -> None:
    program = small_plan().program("main")
    assert p.concrete(program.buffers[0].shape, 5) == (5, 4)
    assert p.concrete((p.batch_times(3), 2), 5) == (15, 2)
    assert program.persistent == ("w",)
    assert program.constants == ("c",)
    assert small_plan().object_keys == ("cd", "ab")
    with pytest.raises(KeyError):
        small_plan().program("other")


def test_padded_rows() -> None:
    buffer = p.PersistentPlan("w", "f32", (3, 4), "parameter", pitch=6)
    assert buffer.allocated == (3, 6) and buffer.nbytes == 72
    older = dumps(small_plan()).replace('"parameter",{"kind":"zeros"},0]', '"parameter",{"kind":"zeros"}]')
    assert older != dumps(small_plan()) and loads(older) == small_plan()
    for shape, pitch in (((3, 4), 3), ((4,), 6), ((3, 4), -6)):
        with pytest.raises(p.PlanError, match="elements apart"):
            validate(replace(small_plan(), persistent=(p.PersistentPlan("w", "f32", shape, "parameter", pitch=pitch),)))


def test_memory_report_is_exact() -> None:
    report = p.memory_report(small_plan(), "main", batch=10)
    assert (report.fixed, report.batch_part, report.arena) == (128, 640, 768)
    assert dict(report.persistent) == {"parameter": 16}
    assert (report.constants, report.inputs, report.outputs) == (16, 160, 160)
    assert report.total == 768 + 16 + 16 + 320
    assert json.loads(json.dumps(report.as_json()))["total"] == report.total


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (changed({"fixed_bytes": 100}), "arena part"),
        (changed({"fixed_bytes": 64}), "ends at 128"),
        (changed({"writes": ("v",)}), "unknown persistent"),
        (changed({"batch_bound": 0}), "batch bound"),
        (changed({"steps": (p.StepPlan("k9", ()),)}), "unknown kernel"),
        (changed({"steps": (p.StepPlan("k0", ((8, 0),)),)}), "names buffer 8"),
        (changed({"steps": (p.StepPlan("k0", ((-2, 0),)),)}), "names buffer -2"),
        (changed({"steps": (p.StepPlan("k0", ((3, 17),)),)}), "starts outside"),
        (changed({"inputs": ()}), "no port serves"),
        (changed(buffer=(1, {"nbytes": 128})), "ends at 128"),
        (changed(buffer=(1, {"offset": 8})), "multiple of 64"),
        (changed(buffer=(3, {"name": "v"})), "no such persistent"),
        (changed(buffer=(3, {"offset": 8})), "ends at 24"),
        (changed(buffer=(2, {"region": "heap"})), "unknown region"),
        (changed(buffer=(2, {"shape": (9,)})), "takes more"),
        (changed(buffer=(2, {"shape": (-1,)})), "extent -1"),
        (changed(buffer=(2, {"dtype": "f8"})), "unknown dtype"),
        (changed(buffer=(0, {"dtype": "f16"})), "differ in type"),
    ],
)
def test_contradictions_are_found(broken: p.ExecutablePlan, message: str) -> None:
    with pytest.raises(p.PlanError, match=message):
        validate(broken)
    with pytest.raises(p.PlanError, match=message):
        loads(dumps(broken))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"version": 2}', "[" * 100_000, dumps(small_plan())[:-2], dumps(small_plan()).replace("64", "6.5")],
)
def test_hostile_text_is_refused(text: str) -> None:
    with pytest.raises(p.PlanError):
        loads(text)
