"""Loops in the table of steps: iterations in order, addresses that move, nesting, any number of threads."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
from kernels import kernel_object
from programs import objects_key

from dslc.diagnostics import DiagnosticError
from dslc.ir import plan as p
from dslc.ir.plan import IMMEDIATE, BufferPlan, ExecutablePlan, KernelPlan, LoopPlan, MovePlan, PortPlan, ProgramPlan, StepPlan
from dslc.ir.plan_rules import validate
from dslc.ir.plan_text import dumps, loads
from dslc.runtime.executable import Executable

KERNELS = ("add_one", "copy", "fail", "nothing")


def made(program: ProgramPlan, threads: int = 2) -> Executable:
    """The program alone, as it comes back from its text form."""
    plan = ExecutablePlan((program,), kernels=tuple(KernelPlan(name, objects_key(name), name) for name in KERNELS))
    plan = loads(dumps(plan))
    assert plan.programs == (program,)
    return Executable(plan, {objects_key(name): kernel_object(name) for name in KERNELS}, threads=threads)


def array(name: str, region: str, *shape: int, dtype: str = "f32", offset: int = 0) -> BufferPlan:
    return BufferPlan(name, dtype, shape, region, offset, p.unit_bytes(dtype, shape))


def ports(*buffers: tuple[BufferPlan, int]) -> tuple[PortPlan, ...]:
    return tuple(PortPlan(b.name, b.dtype, b.shape, n) for b, n in buffers)


def sliced(length: int, reverse: bool = False) -> ProgramPlan:
    """y[t] = x[t] + 1, and i[t] the index as a kernel finds it."""
    x, y = array("x", "input", length, 4), array("y", "output", length, 4)
    seen, i = array("seen", "fixed", dtype="i64"), array("i", "output", length, dtype="i64")
    moved = (MovePlan(0, 0, p.INDEX, 16), MovePlan(1, 0, p.INDEX, 16))
    return ProgramPlan(
        "main",
        (x, y, seen, i),
        (
            StepPlan("add_one", ((0, 0), (1, 0), (IMMEDIATE, 4)), moves=moved, barrier=False),
            StepPlan("copy", ((2, 0), (3, 0), (IMMEDIATE, 2)), serial=True, moves=(MovePlan(1, 0, p.INDEX, 8),)),
        ),
        ports((x, 0)),
        ports((y, 1), (i, 3)),
        fixed_bytes=8,
        batch_bound=1,
        loops=(LoopPlan(0, 2, length, reverse, 2),),
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("reverse", [False, True])
def test_slices_and_index(threads: int, length: int, reverse: bool) -> None:
    executable = made(sliced(length, reverse), threads)
    x = np.arange(length * 4, dtype=np.float32).reshape(length, 4)
    for _ in range(20):
        found = executable.call("main", {"x": x}, batch=1)
        assert np.array_equal(found["y"], x + 1)
        assert found["i"].tolist() == list(range(length))


def halves(length: int) -> ProgramPlan:
    """Two halves in turns: h is x + 1, `length` times over, without a copy; the last iteration writes half 0."""
    x, y, pair = array("x", "input", 16), array("y", "output", 16), array("pair", "fixed", 2, 16)
    turns = (MovePlan(0, 0, p.OLD, 64), MovePlan(1, 0, p.NEW, 64))
    return ProgramPlan(
        "main",
        (x, y, pair),
        (
            StepPlan("copy", ((0, 0), (2, 64 * (length % 2)), (IMMEDIATE, 16)), serial=True),
            StepPlan("add_one", ((2, 0), (2, 0), (IMMEDIATE, 16)), moves=turns),
            StepPlan("copy", ((2, 0), (1, 0), (IMMEDIATE, 16)), serial=True),
        ),
        ports((x, 0)),
        ports((y, 1)),
        fixed_bytes=128,
        batch_bound=1,
        loops=(LoopPlan(1, 2, length),),
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 5, 1000])
def test_halves_in_turns(threads: int, length: int) -> None:
    executable = made(halves(length), threads)
    for _ in range(5):
        assert np.array_equal(executable.call("main", {"x": np.arange(16)}, batch=1)["y"], np.arange(16) + length)


def nested() -> ProgramPlan:
    """For 3 rows, then backwards for 5 columns: y[i, j] = x[i, j] + 1, where h, x[i, ...] + 1, is made once a row."""
    x, y, h = array("x", "input", 3, 5, 4), array("y", "output", 3, 5, 4), array("h", "fixed", 5, 4)
    return ProgramPlan(
        "main",
        (x, y, h),
        (
            StepPlan("add_one", ((0, 0), (2, 0), (IMMEDIATE, 20)), moves=(MovePlan(0, 0, p.INDEX, 80),)),
            StepPlan("copy", ((2, 0), (1, 0), (IMMEDIATE, 4)), True, moves=(MovePlan(0, 1, p.INDEX, 16), MovePlan(1, 0, p.INDEX, 80), MovePlan(1, 1, p.INDEX, 16))),
        ),
        ports((x, 0)),
        ports((y, 1)),
        fixed_bytes=80,
        batch_bound=1,
        loops=(LoopPlan(0, 2, 3), LoopPlan(1, 2, 5, True)),
    )  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_nested(threads: int) -> None:
    executable = made(nested(), threads)
    x = np.arange(60, dtype=np.float32).reshape(3, 5, 4)
    assert executable._programs["main"]._job.published == 3 * (1 + 5)
    for _ in range(20):
        assert np.array_equal(executable.call("main", {"x": x}, batch=1)["y"], x + 1)


def test_distances_that_grow_with_the_batch() -> None:
    """h[t] = x + 1, then h[t] += 1, then y = h[3] + 1, for h of [4, N, 4] in the arena: slots that overlap would be counted up too often."""
    row = (p.batch_times(), 4)
    buffers = (
        BufferPlan("x", "f32", row, "input", 0, 16),
        BufferPlan("h", "f32", (p.batch_times(16),), "batch", 0, 64),
        BufferPlan("y", "f32", row, "output", 0, 16),
    )
    slots = (MovePlan(0, 1, p.INDEX, 0, 16), MovePlan(1, 1, p.INDEX, 0, 16))
    steps = (
        StepPlan("add_one", ((0, 0), (1, 0), (IMMEDIATE, 4)), moves=(MovePlan(1, 0, p.INDEX, 0, 16),)),
        StepPlan("add_one", ((1, 0), (1, 0), (IMMEDIATE, 4)), moves=slots),
        StepPlan("add_one", ((1, 0), (2, 0), (IMMEDIATE, 4)), moves=(MovePlan(0, 2, p.INDEX, 0, 16),)),
    )
    executable = made(
        ProgramPlan(
            "main", buffers, steps, (PortPlan("x", "f32", row, 0),), (PortPlan("y", "f32", row, 2),), batch_bytes=64, batch_bound=50,
            loops=(LoopPlan(0, 1, 4), LoopPlan(1, 2, 4, True), LoopPlan(2, 3, 4)),
        )
    )  # fmt: skip
    for batch in (1, 3, 50, 2):
        x = np.arange(4 * batch, dtype=np.float32).reshape(batch, 4)
        assert np.array_equal(executable.call("main", {"x": x})["y"], x + 3)


def test_error_names_the_step() -> None:
    program = halves(3)
    steps = (*program.steps[:2], StepPlan("fail", (), label="boom", span="net.dl:3:5"), *program.steps[2:])
    executable = made(dataclasses.replace(program, steps=steps, loops=(LoopPlan(1, 3, 3),)))
    with pytest.raises(DiagnosticError, match="boom"):
        executable.call("main", {"x": np.zeros(16)}, batch=1)


def test_profile_sums_the_iterations() -> None:
    executable = made(halves(1000))
    program = executable.program("main")
    profiles = [program.profile({"x": np.zeros(16, np.float32)}, batch=1) for _ in range(5)]
    first, inside, last = (min(times, key=lambda step: step.busy) for times in zip(*profiles, strict=True))  # one may be interrupted
    assert inside.busy > 5 * max(first.busy, last.busy) > 0
    assert inside.busy >= inside.seconds > 0


def refuses(good: ProgramPlan, match: str, **changes: Any) -> None:
    plan = ExecutablePlan((dataclasses.replace(good, **changes),), kernels=tuple(KernelPlan(n, n, n) for n in KERNELS))
    with pytest.raises(p.PlanError, match=match):
        validate(plan)


def test_refused_plans() -> None:
    good = halves(3)
    refused = partial(refuses, good)
    refused("no steps or iterations", loops=(LoopPlan(1, 1, 3),))
    refused("no steps or iterations", loops=(LoopPlan(1, 2, 0),))
    refused("overlaps", loops=(LoopPlan(0, 2, 3), LoopPlan(1, 3, 3)))
    refused("without argument or loop", loops=(LoopPlan(0, 1, 3),))
    refused("index lies", loops=(LoopPlan(1, 2, 3, False, 2),))
    far = dataclasses.replace(good.steps[1], moves=(MovePlan(0, 0, p.INDEX, 64),))
    refused("outside its buffer", steps=(good.steps[0], far, good.steps[2]), loops=(LoopPlan(1, 2, 4),))
    apart = dataclasses.replace(good.steps[0], barrier=False)
    refused("do not meet", steps=(apart, *good.steps[1:]))


def apart(length: int) -> ProgramPlan:
    """h = x + 1, then for `length` iterations h += 1 and h += 1, then y = h + 1, each thread for its own examples of h."""
    row = (p.batch_times(), 4)
    buffers = (
        BufferPlan("x", "f32", row, "input", 0, 16),
        BufferPlan("h", "f32", (p.batch_times(4),), "batch", 0, 16),
        BufferPlan("y", "f32", row, "output", 0, 16),
    )
    count = StepPlan("add_one", ((1, 0), (1, 0), (IMMEDIATE, 4)), examples=(16, 16, 0), label="count")
    steps = (
        StepPlan("add_one", ((0, 0), (1, 0), (IMMEDIATE, 4))),
        count,
        dataclasses.replace(count, serial=True),
        StepPlan("add_one", ((1, 0), (2, 0), (IMMEDIATE, 4))),
    )
    inputs, outputs = (PortPlan("x", "f32", row, 0),), (PortPlan("y", "f32", row, 2),)
    loops = (LoopPlan(1, 3, length, apart=True),)
    return ProgramPlan("main", buffers, steps, inputs, outputs, batch_bytes=16, batch_bound=100, loops=loops)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 7])
def test_threads_run_a_loop_apart(threads: int, length: int) -> None:
    """With eight examples for each of them, in one group; with fewer, they share each. Also on the caller's thread alone."""
    executable = made(apart(length), threads)
    program = executable.program("main")
    for batch in (1, 8 * threads, 8 * threads - 1, 50, 100, 31, 50):
        x = np.arange(4 * batch, dtype=np.float32).reshape(batch, 4)
        for _ in range(20):
            assert np.array_equal(executable.call("main", {"x": x})["y"], x + 2 + 2 * length)
        assert program._job.published == (3 if threads > 1 and batch >= 8 * threads else 2 + 2 * length)
    program._set_alone(True)
    program._choice.left = 1
    program._choice.alone = True
    assert np.array_equal(executable.call("main", {"x": x})["y"], x + 2 + 2 * length)
    times = program.profile({"x": x})
    assert [t.number for t in times] == [0, 1, 2, 3] and all(t.busy > 0 for t in times)


def test_elements_of_sequences_in_loops_that_run_apart() -> None:
    """y[t, n] = x[t, n] + 1: what the index moves by grows with the whole batch, and a thread's examples begin inside each element."""
    row = (p.batch_times(12),)
    buffers = (BufferPlan("x", "f32", row, "input", 0, 48), BufferPlan("y", "f32", row, "output", 0, 48))
    moves = (MovePlan(0, 0, p.INDEX, 0, 16), MovePlan(1, 0, p.INDEX, 0, 16))
    step = StepPlan("add_one", ((0, 0), (1, 0), (IMMEDIATE, 4)), moves=moves, examples=(16, 16, 0))
    ports = (PortPlan("x", "f32", row, 0),), (PortPlan("y", "f32", row, 1),)
    executable = made(ProgramPlan("main", buffers, (step,), *ports, batch_bound=40, loops=(LoopPlan(0, 1, 3, apart=True),)))
    for batch in (16, 40, 17, 2, 16):
        x = np.random.default_rng(batch).standard_normal(12 * batch).astype(np.float32)
        for _ in range(5):
            assert np.array_equal(executable.call("main", {"x": x})["y"], x + 1)


def test_error_in_a_loop_that_runs_apart_names_the_step() -> None:
    program = apart(3)
    steps = (*program.steps[:2], StepPlan("fail", (), label="boom", span="net.dl:3:5"), program.steps[3])
    executable = made(dataclasses.replace(program, steps=steps))
    for batch in (1, 50):
        with pytest.raises(DiagnosticError, match="boom"):
            executable.call("main", {"x": np.zeros((batch, 4))})


def test_refused_plans_of_loops_that_run_apart() -> None:
    good = apart(3)
    refused = partial(refuses, good)
    refused("holds or is held", loops=(LoopPlan(1, 3, 3, apart=True), LoopPlan(1, 2, 2)))
    for examples, match in (((16, 16), "where examples begin"), ((16, 32, 0), "outside its buffer"), ((16, -16, 0), "outside its buffer")):
        step = dataclasses.replace(good.steps[1], examples=examples)
        refused(match, steps=(good.steps[0], step, *good.steps[2:]))
