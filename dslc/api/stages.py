"""Every stage of the compiler for a program, as text: what `dslc show` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.plan import BufferPlan, ExecutablePlan, ProgramPlan, StepPlan
from dslc.options import from_environment
from dslc.runtime.convert import show

if TYPE_CHECKING:
    from dslc.compiler import Compiled, CompiledProgram
    from dslc.ir.graph import Value
    from dslc.ir.loops import LoopProgram
    from dslc.ir.module import Module
    from dslc.ir.routines import Routine
    from dslc.lowering.contraction import Contraction
    from dslc.lowering.steps import Step

STAGES = ("graph", "clusters", "loops", "kernels", "memory", "asm")


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of a compiled module."""

    compiled: Compiled

    @staticmethod
    def of(graph: str, compiled: Compiled | None, plan: ExecutablePlan) -> Stages:
        """The stages that are at hand, or compiled again from a module's text; the object code is in the cache then."""
        if compiled is not None:
            return Stages(compiled)
        from dslc.compiler import compile_module
        from dslc.ir.module_text import parse_module
        from dslc.runtime.cache import Cache

        options = replace(from_environment(), width=plan.notes.get("width"))
        return Stages(compile_module(parse_module(graph), options, cache=Cache(options.cache)))

    @property
    def module(self) -> Module:
        """The typed graphs as the front end made them."""
        return self.compiled.module

    def text(self, stage: str, after: str | None = None) -> str:
        """One stage; `after` chooses the graph after an earlier pass. DL0805 for a name that is none."""
        if stage not in STAGES:
            raise DiagnosticError(Diagnostic("DL0805", f"there is no stage {stage[:40]!r}", hint=f"the stages are {', '.join(STAGES)}"))
        parts = []
        for name, program in self.compiled.programs.items():
            title = f"# program {name}"
            body = {
                "graph": lambda p=program: graph_text(p, after),
                "clusters": lambda p=program: clusters_text(p),
                "loops": lambda p=program: loops_of(p),
                "kernels": lambda p=program: kernels_text(p),
                "memory": lambda p=program: memory_text(p.plan),
                "asm": lambda p=program: assembly_text(p),
            }[stage]()
            parts.append(f"{title}\n{body}" if len(self.compiled.programs) > 1 else body)
        return "\n".join(parts)


def graph_text(program: CompiledProgram, after: str | None = None) -> str:
    """The graph after the last pass, or after the one that is named."""
    from dslc.ir.text import print_graph

    names = [s.name for s in program.stages]
    if after is not None and after not in names:
        raise DiagnosticError(Diagnostic("DL0805", f"there is no pass {after[:40]!r}", hint=f"the passes are {', '.join(names)}"))
    chosen = next((s for s in program.stages if s.name == after), program.stages[-1])
    return print_graph(chosen.graph)


def paired(program: CompiledProgram) -> list[tuple[Step, StepPlan, bool]]:
    """The steps of the lowered program with their plans, in order; those of the prologue are marked."""
    from dslc.lowering.plan import prologue_steps

    early = set(prologue_steps(program.lowered))
    first, rest = iter(program.plan.prologue), iter(program.plan.steps)
    return [(step, next(first if n in early else rest), n in early) for n, step in enumerate(program.lowered.steps)]


def clusters_text(program: CompiledProgram) -> str:
    """The fused operators: one line a kernel call, with what it reads and writes; what a loop runs again and again stands inside it."""
    lines = []
    loops = program.lowered.loops
    for number, (step, plan, early) in enumerate(paired(program)):
        depth = sum(loop.begin < number < loop.end for loop in loops)
        for loop in loops:
            if loop.begin == number:
                how = (" backwards" if loop.reverse else "") + (", each thread for examples of its own" if plan.examples else "")
                lines.append(f"     {'  ' * depth}for {loop.length} iterations{how}  {loop.op.span or ''}".rstrip())
                depth += 1
        written = {v.id for v in step.writes}
        reads = ", ".join(f"{_name(program, n)}" for v, n in _arguments(step.args, plan.args) if v.id not in written)
        writes = ", ".join(f"{_name(program, n)}" for v, n in _arguments(step.args, plan.args) if v.id in written)
        how = (" serial" if step.serial else "") + (" when weights change" if early else "")
        barrier = "  -- threads meet --" if plan.barrier else ""
        lines.append(f"{number:3d}  {'  ' * depth}{writes} = {step.label}({reads}){how}  {plan.span}{barrier}")
    return "\n".join(lines) + "\n"


def _arguments(values: tuple[Value, ...], args: tuple[tuple[int, int], ...]) -> Iterator[tuple[Value, int]]:
    for value, (index, _) in zip(values, args, strict=True):
        yield value, index


def _name(program: CompiledProgram, index: int) -> str:
    buffer = program.plan.buffers[index]
    return f"{buffer.name}: {show(buffer.dtype, buffer.shape)}"


def loops_of(program: CompiledProgram) -> str:
    """The loop program of every kernel, once."""
    from dslc.lowering.text import loops_text

    return "\n".join(f"# {calls}\n{loops_text(step)}" for calls, step, _ in _kernels(program))


def kernels_text(program: CompiledProgram) -> str:
    """The generated Numba Python of every kernel, once."""
    return "\n\n".join(f"# {calls}\n{source}" for calls, _, source in _kernels(program))


def _kernels(program: CompiledProgram) -> Iterator[tuple[str, LoopProgram | Contraction | Routine, str]]:
    calls: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    for number, (step, kernel) in enumerate(zip(program.lowered.steps, program.kernels, strict=True)):
        first.setdefault(kernel.text, number)
        calls.setdefault(kernel.text, []).append(f"step {number} {step.label}{f' at {step.span}' if step.span else ''}")
    for text, number in first.items():
        yield "; ".join(calls[text]), program.lowered.steps[number].program, text


def assembly_text(program: CompiledProgram) -> str:
    """The machine code of every kernel as LLVM prints it."""
    from dslc.backends.cpu import native

    parts = []
    seen = set()
    for number, (step, kernel) in enumerate(zip(program.lowered.steps, program.kernels, strict=True)):
        if kernel.text in seen:
            continue
        seen.add(kernel.text)
        _, _, assembly = native.compile_object(kernel.text, kernel.entry, kernel.width, assembly=True)
        parts.append(f"# step {number} {step.label}{f' at {step.span}' if step.span else ''}\n{assembly.rstrip()}\n")
    return "\n".join(parts)


# ---------------------------------------------------------------------------------------------------------- memory


@dataclass(frozen=True, slots=True)
class Life:
    """A buffer of the arena from the first step that uses it to the last."""

    buffer: BufferPlan
    first: int
    last: int


def lives(plan: ProgramPlan) -> list[Life]:
    """The arena's buffers in the order of their offsets. What a loop and steps outside of it use lives through the whole loop."""
    used: dict[int, list[int]] = {}
    for number, step in enumerate(plan.steps):
        for index, _ in step.args:
            if index >= 0:
                used.setdefault(index, []).append(number)
    found = [Life(plan.buffers[i], *_span(plan, at)) for i, at in used.items() if plan.buffers[i].region in ("fixed", "batch")]
    return sorted(found, key=lambda life: (life.buffer.region, life.buffer.offset, life.first))


def _span(plan: ProgramPlan, at: list[int]) -> tuple[int, int]:
    first, last = min(at), max(at)
    for loop in reversed(plan.loops):
        inside = [loop.contains(n) for n in at]
        if any(inside) and not all(inside):
            first, last = min(first, loop.begin), max(last, loop.end - 1)
    return first, last


def memory_text(plan: ProgramPlan) -> str:
    """The plan of the arena: every buffer with its place and the steps in which it is alive."""
    unit = {"fixed": "bytes", "batch": "bytes an example"}
    lines = [f"arena: {plan.fixed_bytes:,} bytes + {plan.batch_bytes:,} bytes an example"]
    lines += [f"loop: steps {loop.begin:3d}-{loop.end - 1:3d}, {loop.length:,} iterations" for loop in plan.loops]
    for life in lives(plan):
        b = life.buffer
        lines.append(
            f"{b.region:7s} {b.offset:10,d} .. {b.offset + b.nbytes:10,d} {unit[b.region]:17s} steps {life.first:3d}-{life.last:3d}  {b.name}"
        )
    return "\n".join(lines) + "\n"
