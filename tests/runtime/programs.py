"""A small executable with everything that a plan can say, made of the hand-made kernels."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from kernels import kernel_object

from dslc.diagnostics import DiagnosticError
from dslc.ir.plan import (
    IMMEDIATE,
    BufferPlan,
    ConstantPlan,
    ExecutablePlan,
    KernelPlan,
    PersistentPlan,
    PortPlan,
    ProgramPlan,
    StepPlan,
    batch_times,
)
from dslc.ir.plan_rules import validate
from dslc.runtime.executable import Executable

ROW = (batch_times(), 4)
SPAN = "net.dl:3:5"
W = np.arange(1, 5, dtype=np.float32)


def forward() -> ProgramPlan:
    """y = (x + 1) * w + lr, with w packed by the prologue; `h` is x + 1, copied out of the arena."""
    buffers = (
        BufferPlan("x", "f32", ROW, "input", 0, 16),
        BufferPlan("h", "f32", ROW, "batch", 0, 64),
        BufferPlan("w", "f32", (4,), "persistent", 0, 16),
        BufferPlan("packed", "f32", (4,), "persistent", 0, 16),
        BufferPlan("lr", "f64", (), "setting", 0, 8),
        BufferPlan("y", "f32", ROW, "output", 0, 16),
        BufferPlan("t", "f32", (16,), "fixed", 0, 64),
    )
    return ProgramPlan(
        "forward",
        buffers,
        steps=(
            StepPlan("add_one", ((0, 0), (1, 0), (IMMEDIATE, 4)), label="add", span=SPAN),
            StepPlan("affine", ((1, 0), (3, 0), (5, 0), (4, 0)), label="affine", span=SPAN),
        ),
        inputs=(PortPlan("x", "f32", ROW, 0),),
        outputs=(PortPlan("y", "f32", ROW, 5), PortPlan("h", "f32", ROW, 1)),
        settings=(PortPlan("lr", "f64", (), 4, 0.25),),
        prologue=(StepPlan("copy", ((2, 0), (3, 0), (IMMEDIATE, 4)), serial=True),),
        fixed_bytes=64,
        batch_bytes=64,
        batch_bound=100,
    )


def step() -> ProgramPlan:
    """w = w + 1 in place; gives the new w and the constant c."""
    buffers = (
        BufferPlan("w", "f32", (4,), "persistent", 0, 16),
        BufferPlan("c", "f32", (3,), "constant", 0, 12),
    )
    return ProgramPlan(
        "step",
        buffers,
        steps=(StepPlan("add_one", ((0, 0), (0, 0), (IMMEDIATE, 4)), serial=False),),
        outputs=(PortPlan("w", "f32", (4,), 0), PortPlan("c", "f32", (3,), 1)),
        writes=("w",),
    )


def failing() -> ProgramPlan:
    """A program whose only kernel fails."""
    return ProgramPlan("failing", (), steps=(StepPlan("nothing", ()), StepPlan("fail", (), label="boom", span=SPAN)))


def scalars() -> ProgramPlan:
    """Settings of several types, as outputs; nothing runs."""
    kinds = (("n", "i64", 3), ("flag", "bool", None), ("r", "f32", 0.5))
    buffers = tuple(BufferPlan(name, dtype, (), "setting", 8 * i, 8) for i, (name, dtype, _) in enumerate(kinds))
    ports = tuple(PortPlan(name, dtype, (), i, default) for i, (name, dtype, default) in enumerate(kinds))
    return ProgramPlan("scalars", buffers, (), outputs=tuple(PortPlan(p.name, p.dtype, (), p.buffer) for p in ports), settings=ports)


def identity() -> ProgramPlan:
    """The input is the output; two examples make a batch of one."""
    shape = (batch_times(2), 3)
    return ProgramPlan(
        "identity",
        (BufferPlan("x", "i64", shape, "input", 0, 48),),
        (),
        inputs=(PortPlan("x", "i64", shape, 0),),
        outputs=(PortPlan("x", "i64", shape, 0),),
        batch_bound=8,
    )


KERNELS = ("add_one", "affine", "copy", "nothing", "fail")


def plan(**changes: Any) -> ExecutablePlan:
    """The whole plan."""
    made = ExecutablePlan(
        programs=(forward(), step(), failing(), scalars(), identity()),
        persistent=(PersistentPlan("w", "f32", (4,), "parameter"), PersistentPlan("packed", "f32", (4,), "packed")),
        constants=(ConstantPlan("c", "f32", (3,)),),
        kernels=tuple(KernelPlan(name, objects_key(name), name) for name in KERNELS),
        **changes,
    )
    validate(made)
    return made


def objects_key(name: str) -> str:
    """A cache key for a kernel of the tests."""
    return name.encode().hex().ljust(64, "0")


def objects() -> dict[str, bytes]:
    """Object code by key."""
    return {objects_key(name): kernel_object(name) for name in KERNELS}


def constants() -> dict[str, np.ndarray]:
    """The constant's values."""
    return {"c": np.array([1, 2, 3], np.float32)}


def executable(threads: int = 2, guarded: bool = False) -> Executable:
    """An executable whose w is 1, 2, 3, 4."""
    made = Executable(plan(), objects(), constants(), threads=threads, guarded=guarded)
    made.set("w", np.arange(1, 5, dtype=np.float32))
    return made


def batch_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)


def expected(x: np.ndarray, lr: float = 0.25, w: np.ndarray = W) -> np.ndarray:
    return (x + np.float32(1)) * w + np.float32(lr)


def refused(code: str, part: str = "") -> contextlib.AbstractContextManager[object]:
    return pytest.raises(DiagnosticError, match=rf"(?s)\[{code}\].*{part}")
