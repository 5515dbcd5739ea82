"""The CUDA back end as the compiler sees it: kernels and launches of a lowered program, or a refusal that names what is not covered.

Loop programs and contractions are covered in general. What is not: sums over lanes inside loops that threads share, and expressions
that this printer does not know.
"""

from __future__ import annotations

from collections.abc import Mapping

from dslc.backends.cuda import contract, emit, routines
from dslc.backends.cuda.expressions import NotCovered
from dslc.backends.cuda.kernel import CudaKernel, CudaProgram
from dslc.diagnostics import Diagnostic, DiagnosticError, Note, Span
from dslc.ir.loops import LoopProgram
from dslc.ir.routines import Routine
from dslc.lowering.plan import plan_program
from dslc.lowering.steps import Lowered, Step


def emit_step(step: Step) -> CudaKernel:
    """The kernel of one step. Raises NotCovered."""
    if isinstance(step.program, Routine):
        return routines.emit(step.program)
    return emit.emit(step.program) if isinstance(step.program, LoopProgram) else contract.emit(step.program)


def emit_program(lowered: Lowered, sources: Mapping[str, str] | None = None) -> CudaProgram:
    """Sources and launch plan of a program. Raises DiagnosticError (DL0810) with every step that is not covered."""
    kernels: dict[str, CudaKernel] = {}
    names: dict[int, str] = {}
    refused = [_refused("scan needs", "steps that run again", loop.op.span) for loop in lowered.loops]
    for number, step in enumerate(lowered.steps):
        try:
            kernel = emit_step(step)
        except NotCovered as reason:
            refused.append(_refusal(step, str(reason)))
            continue
        names[number] = kernel.key
        kernels[kernel.key] = kernel
    if refused:
        raise DiagnosticError(*dict.fromkeys(refused), sources=sources)
    return CudaProgram(kernels, *plan_program(lowered, names))


def _refusal(step: Step, reason: str) -> Diagnostic:
    *most, last = step.label.split("+")
    operators, verb = (f"{', '.join(most)} and {last}", "need") if most else (last, "needs")
    note = (Note("the kernel is made from the operators that are fused here"),) if "+" in step.label else ()
    return _refused(f"{operators} {verb}", reason, step.span, note)


def _refused(who: str, reason: str, span: Span | None, notes: tuple[Note, ...] = ()) -> Diagnostic:
    what = f"{who} {reason}, which the CUDA back end does not cover"
    return Diagnostic("DL0810", what, span, notes, "compile for the CPU: --target cpu")


def no_device() -> Diagnostic:
    """Why a program for CUDA does not run here."""
    return Diagnostic(
        "DL0811", "there is no CUDA device to run on", hint="compile for the CPU (--target cpu), or run where a GPU and its driver are"
    )


def no_compiler() -> Diagnostic:
    """Why there is no PTX."""
    return Diagnostic("DL0812", "the CUDA compiler is not installed", hint="pip install 'dslc[cuda]' brings it; it needs no GPU")
