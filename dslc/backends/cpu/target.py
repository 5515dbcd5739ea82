"""The CPU back end as the compiler sees it: what the machine offers, and kernel sources for lowered steps."""
from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import llvmlite.binding as llvm

from dslc.backends.cpu.build import KernelSource
from dslc.backends.cpu.contraction_source import Choose, contraction_source
from dslc.backends.cpu.emit import emit
from dslc.backends.cpu.free_sums import emit_freely
from dslc.backends.cpu.routines import routine_source
from dslc.ir.loops import LoopProgram
from dslc.ir.routines import Routine
from dslc.lowering.contraction import Contraction
from dslc.lowering.schedules import Schedule
from dslc.lowering.steps import Lowered
from dslc.lowering.tiling import plan
from dslc.options import Options

BACKEND_VERSION = 1  # raised when generated code changes without its source text changing


@dataclass(frozen=True, slots=True)
class Target:
    """A CPU: lanes of a vector, LLVM's name and features of it, and what object code for it depends on."""

    width: int
    cpu: str
    features: tuple[str, ...]
    environment: str
    order: str = "fixed"  # of sums


def host_target(options: Options) -> Target:
    """This machine; the width is the widest that its registers hold, or what the options say."""
    features = llvm.get_host_cpu_features()
    used = tuple(sorted(name for name, present in features.items() if present))
    widest = 16 if features.get("avx512f") else 8 if features.get("avx2") else 4
    width = options.width or widest
    versions = [f"dslc-cpu {BACKEND_VERSION}", *(f"{p} {version(p)}" for p in ("numba", "llvmlite"))]
    environment = "\n".join([*versions, llvm.get_host_cpu_name(), features.flatten()])
    return Target(width, llvm.get_host_cpu_name(), used, environment, options.order)


def kernel_sources(lowered: Lowered, target: Target, choose: Choose | None = None) -> tuple[KernelSource, ...]:
    """The source of every step's kernel; equal loop programs give equal sources. `choose` picks the tiles of contractions."""
    order = target.order

    def planned(contraction: Contraction, width: int) -> Schedule:
        return plan(contraction, width, order)

    printed = emit if order == "fixed" else emit_freely
    sources = []
    for step in lowered.steps:
        if isinstance(step.program, LoopProgram):
            sources.append(KernelSource(printed(step.program, target.width), "kernel", target.width, order))
        elif isinstance(step.program, Routine):
            sources.append(KernelSource(routine_source(step.program, target.width), "kernel", target.width))
        else:
            sources.append(contraction_source(step.program, target.width, order, choose or planned))
    return tuple(sources)
