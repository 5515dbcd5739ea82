"""What another library cannot do is said, never passed over: a Diagnostic with the operator and its line."""

from __future__ import annotations

from dslc.diagnostics import Diagnostic, DiagnosticError, Span
from dslc.ir.graph import Op


def refused(op: Op, library: str, why: str | None = None) -> DiagnosticError:
    """DL0830: `op` has no counterpart in `library`, or none with these attributes."""
    reason = f": {why}" if why else ""
    return DiagnosticError(
        Diagnostic(
            "DL0830",
            f"the operator {op.kind} has no translation to {library}{reason}",
            op.span,
            hint="compare a network without it, or leave this library out of --against",
        )
    )


def untrainable(why: str, span: Span | None = None, hint: str | None = None) -> DiagnosticError:
    """DL0831: a training step that another library cannot take in the same way."""
    return DiagnosticError(Diagnostic("DL0831", why, span, hint=hint))
