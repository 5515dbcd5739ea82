"""What a run-time batch can be part of: memory grows with the batch in proportion, and callers' arrays have it as their first axis."""

from __future__ import annotations

from dslc.diagnostics import Diagnostic, DiagnosticError, Span
from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.module import PortKind, Program
from dslc.lowering.steps import Lowered, located

EXTERNAL = (PortKind.INPUT, PortKind.RESULT, PortKind.METRIC)


def check_batch(lowered: Lowered) -> None:
    """Refuses tensors in memory whose size is no multiple of the batch, and ports with the batch elsewhere than first (DL0601)."""
    program = lowered.source
    if program.batch is None:
        return
    spans = {value: op.span for op in program.graph.ops for value in op.outputs}
    places = {
        **dict(zip(program.graph.inputs, program.inputs, strict=True)),
        **dict(zip(program.graph.outputs, program.outputs, strict=True)),
    }
    for value, port in places.items():
        shape = value.type.shape
        if port.kind in EXTERNAL and not all(isinstance(n, int) for n in shape[1:]):
            raise _refused(
                program, spans.get(value), f"`{port.name}` is {value.type}: the batch {program.batch} can only be its first axis"
            )
    for step in lowered.steps:
        for value in step.args:
            place = lowered.places[located(lowered.places, value).value]
            if not _in_proportion(place.layout.size, program.batch):
                what = f"a tensor {value.type} does not grow in proportion to the batch {program.batch}"
                raise _refused(program, spans.get(value), what)


def _in_proportion(size: Dim, batch: str) -> bool:
    return isinstance(size, int) or size == dims.evaluate(size, {batch: 1}) * dims.name(batch)


def _refused(program: Program, span: Span | None, what: str) -> DiagnosticError:
    hint = f"fix the batch when compiling: --dim {program.batch}=64"
    return DiagnosticError(Diagnostic("DL0601", what, span, hint=hint))
