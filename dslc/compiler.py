"""The compiler on one page: the order of the stages, and why it is that order. No other module knows it.

    Module --bind--> sizes --upsampling, autodiff--> gradients --expand--> primitives --simplify, cse, dead code--> small graph
           --lower--> loop programs --emit--> kernel sources --build--> object code, and the plan that the runtime runs
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import dslc.ops  # noqa: F401  (registers the operators)
from dslc.backends.cpu.build import Built, KernelSource, Workers
from dslc.backends.cpu.target import Target, host_target, kernel_sources
from dslc.backends.cpu.tuning import Tiles, Tuned
from dslc.backends.cuda.kernel import CudaProgram
from dslc.backends.cuda.target import emit_program
from dslc.ir.graph import Graph
from dslc.ir.module import Buffer, Module, Program, Role
from dslc.ir.plan import ConstantPlan, ExecutablePlan, KernelPlan, PersistentPlan, ProgramPlan
from dslc.lowering.layout import Layout
from dslc.lowering.lower import lower
from dslc.lowering.pitch import padded_parameters
from dslc.lowering.plan import plan_program
from dslc.lowering.steps import Lowered
from dslc.options import Options
from dslc.runtime.pool import thread_count
from dslc.transforms.autodiff import differentiate
from dslc.transforms.bind import bind
from dslc.transforms.constant_folding import constant_folding
from dslc.transforms.cse import cse
from dslc.transforms.dead_code import dead_code
from dslc.transforms.expand import expand_composites
from dslc.transforms.loops import out_of_loops
from dslc.transforms.simplify import simplify
from dslc.transforms.split_sums import split_sums
from dslc.transforms.upsampling import fold_upsampling
from dslc.verify import check_kernels, check_pass

Pass = Callable[[Graph], Graph]

PASSES: tuple[tuple[str, Pass], ...] = (
    ("upsampling", fold_upsampling),  # before autodiff, which leaves no trace of who asks, and before expansion, which cuts resize up
    ("autodiff", differentiate),  # before expansion: a composite with a gradient of its own (softmax) has a better one
    ("expand", expand_composites),
    ("simplify", simplify),  # after autodiff: it drops stop_gradient
    ("loops", out_of_loops),  # after expansion, which shows the products, and before sums are cut
    ("split sums", split_sums),  # after expansion, which makes most of them
    ("constant folding", constant_folding),
    ("cse", cse),
    ("dead code", dead_code),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """A program's graph after one pass, for `dslc show` and `--verify`."""

    name: str
    graph: Graph


@dataclass(frozen=True, slots=True)
class CompiledProgram:
    """One program at every stage."""

    program: Program
    stages: tuple[Stage, ...]
    lowered: Lowered
    kernels: tuple[KernelSource, ...]  # of each step
    plan: ProgramPlan


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compilation gives: the plan, the object code by key, the constants, and every stage for inspection."""

    module: Module
    plan: ExecutablePlan
    objects: Mapping[str, bytes]
    constants: Mapping[str, bytes]
    programs: Mapping[str, CompiledProgram]
    built: Mapping[str, Built]  # kernels that were compiled now, not taken from the cache
    tuned: tuple[Tuned, ...] = ()  # contractions whose tiles were to be measured
    measured: bool = False  # whether some tile was chosen by measuring, now or before, and not by rule


def transform(
    program: Program, sizes: Mapping[str, int], checked: Mapping[str, Buffer] | None = None
) -> tuple[Program, tuple[Stage, ...]]:
    """The graph passes, in order; the batch stays symbolic. With the buffers of the module, every pass is checked."""
    graph = bind(program.graph, sizes) if sizes else program.graph
    stages = [Stage("graph", graph)]
    for name, change in PASSES:
        before, graph = graph, change(graph)
        stages.append(Stage(name, graph))
        if checked is not None:
            check_pass(program, checked, [stage.name for stage in stages], before, graph, change)
    return replace(program, graph=graph), tuple(stages)


def compile_module(
    module: Module,
    options: Options,
    *,
    sizes: Mapping[str, int] | None = None,
    cache: Any = None,
    workers: Workers | None = None,
    done: Callable[[str, Built], None] | None = None,
    tuned: Callable[[Tuned], None] | None = None,
) -> Compiled:
    """Compile every program of a module. `cache` has `get(kind, key)` and `put(kind, key, bytes)`; without it nothing is kept.

    `done` hears of every kernel that is compiled, `tuned` of every contraction whose tiles are measured.
    """
    target = host_target(options)
    checked = module.buffers if options.verify else None
    fronts = {name: transform(program, sizes or {}, checked) for name, program in module.programs.items()}
    programs: dict[str, CompiledProgram] = {}
    sources: dict[str, KernelSource] = {}
    packed: list[PersistentPlan] = []
    parameters = {b.path for b in module.buffers.values() if b.role == Role.PARAMETER}
    layouts = padded_parameters([program for program, _ in fronts.values()], parameters)
    every = {name: lower(program, layouts) for name, (program, _) in fronts.items()}
    tiles = Tiles(target, thread_count(options.threads), cache)
    measured = tiles.measure(every.values(), workers, tuned) if options.tune else ()
    for name, (program, stages) in fronts.items():
        lowered = every[name]
        kernels = kernel_sources(lowered, target, tiles)
        keys = [kernel.key(target.environment) for kernel in kernels]
        sources |= dict(zip(keys, kernels, strict=True))
        names = dict(enumerate(keys))
        program_plan, kept = plan_program(lowered, names)
        packed += kept
        programs[name] = CompiledProgram(program, stages, lowered, kernels, program_plan)
    objects, built = build_objects(sources, target, cache, workers, done)
    plan = ExecutablePlan(
        programs=tuple(p.plan for p in programs.values()),
        persistent=(*(_persistent(b, layouts.get(b.path)) for b in module.buffers.values()), *packed),
        constants=tuple(_constants(programs)),
        kernels=tuple(KernelPlan(key, key, sources[key].symbol) for key in sources),
        features=target.features,
        notes={"module": module.name, "width": target.width},
    )
    if options.verify:
        steps = [(p.lowered, [kernel.key(target.environment) for kernel in p.kernels]) for p in programs.values()]
        check_kernels(plan, objects, steps, module.buffers)
    constants = {name: op.attr("data").data for p in programs.values() for name, op in p.lowered.constants.items()}
    return Compiled(module, plan, objects, constants, programs, built, measured, tiles.used)


def emit_cuda(module: Module, sizes: Mapping[str, int] | None = None) -> dict[str, CudaProgram]:
    """Every program of a module as CUDA sources and launches, from the same loop programs. Raises DiagnosticError (DL0810)."""
    lowered = {name: lower(without_routines(transform(program, sizes or {})[0])) for name, program in module.programs.items()}
    return {name: emit_program(program, module.sources) for name, program in lowered.items()}


def without_routines(program: Program) -> Program:
    """The program with routines written out that have an expansion: another back end knows few of them."""
    plain = expand_composites(program.graph, routines=True)
    return program if plain == program.graph else replace(program, graph=dead_code(cse(simplify(plain))))


def build_objects(
    sources: Mapping[str, KernelSource], target: Target, cache: Any, workers: Workers | None, done: Callable[[str, Built], None] | None
) -> tuple[dict[str, bytes], dict[str, Built]]:
    """Object code of every kernel, from the cache or compiled now."""
    objects: dict[str, bytes] = {}
    if cache is not None:
        for key in sources:
            code = cache.get("object", key)
            if code is not None:
                objects[key] = code
    missing = {key: source for key, source in sources.items() if key not in objects}
    built: dict[str, Built] = {}
    if missing:
        pool = workers or Workers()
        try:
            built = pool.compile(missing, done)
        finally:
            if workers is None:
                pool.close()
        for key, kernel in built.items():
            objects[key] = kernel.code
            if cache is not None:
                cache.put("object", key, kernel.code)
    return objects, built


def _constants(programs: Mapping[str, CompiledProgram]) -> list[ConstantPlan]:
    plans = []
    for program in programs.values():
        for name, op in program.lowered.constants.items():
            t = op.attr("data").type
            plans.append(ConstantPlan(name, t.dtype.value, tuple(_size(n) for n in t.shape)))
    return plans


def _persistent(buffer: Buffer, layout: Layout | None) -> PersistentPlan:
    shape = tuple(_size(n) for n in buffer.type.shape)
    pitch = layout.pitch if layout is not None else 0
    return PersistentPlan(buffer.path, buffer.type.dtype.value, shape, buffer.role.value, _initial(buffer.initial), pitch)


def _size(extent: object) -> int:
    assert isinstance(extent, int), f"a persistent buffer with an unbound size: {extent}"
    return extent


def _initial(initial: Any) -> dict[str, Any]:
    return {"kind": initial.kind, "settings": dict(initial.settings), "stream": initial.stream}
