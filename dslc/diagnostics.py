"""Diagnostics: what a user is told when something is wrong with a file, an option or an input.

Every user error is a `Diagnostic`: a code (`DL0210`), a message, a primary span, secondary spans that say where each side
came from, and a hint that names the fix. `DiagnosticError` carries one or more of them through Python code.
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A range of characters in a source file; lines and columns count from 1, `end_column` is exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other`."""
        return Span(self.file, self.line, self.column, other.end_line, other.end_column)


@dataclass(frozen=True, slots=True)
class Note:
    """A secondary message, at a place in the source where it has one."""

    message: str
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error or warning. `code` is looked up by `dslc explain`."""

    code: str
    message: str
    span: Span | None = None
    notes: tuple[Note, ...] = ()
    hint: str | None = None
    severity: str = "error"

    def as_json(self) -> dict[str, object]:
        """A JSON-ready dictionary with stable keys."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "span": _span_json(self.span),
            "notes": [{"message": n.message, "span": _span_json(n.span)} for n in self.notes],
            "hint": self.hint,
        }


class DiagnosticError(Exception):
    """Raised where user input is refused; holds every diagnostic that was found."""

    def __init__(self, *diagnostics: Diagnostic, sources: Mapping[str, str] | None = None):
        self.diagnostics = diagnostics
        self.sources: dict[str, str] = dict(sources or {})
        super().__init__("\n".join(f"{d.code}: {d.message}" for d in diagnostics))

    def render(self) -> str:
        """All diagnostics with carets, for a terminal or a notebook."""
        return "\n\n".join(render(d, self.sources) for d in self.diagnostics)

    def __str__(self) -> str:
        return self.render()


def _span_json(span: Span | None) -> dict[str, object] | None:
    if span is None:
        return None
    return {"file": span.file, "line": span.line, "column": span.column, "end_line": span.end_line, "end_column": span.end_column}


def render(diagnostic: Diagnostic, sources: Mapping[str, str]) -> str:
    """Plain text with the source lines and carets; `sources` maps a span's file to its text."""
    place = f"{diagnostic.span}: " if diagnostic.span else ""
    lines = [f"{place}{diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}"]
    if diagnostic.span:
        lines += _excerpt(diagnostic.span, sources, "^", "")
    for note in diagnostic.notes:
        excerpt = _excerpt(note.span, sources, "-", note.message) if note.span else []
        lines += excerpt or [f"      = note: {note.message}" + (f" ({note.span})" if note.span else "")]
    if diagnostic.hint:
        lines.append(f"      = help: {diagnostic.hint}")
    return "\n".join(lines)


def _excerpt(span: Span, sources: Mapping[str, str], mark: str, message: str) -> list[str]:
    text = sources.get(span.file)
    if text is None:
        return []
    rows = text.split("\n")
    if not 1 <= span.line <= len(rows):
        return []
    row = rows[span.line - 1].rstrip("\r")
    shown = "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in row)  # hidden characters must not reach a terminal
    start = min(span.column, len(row) + 1) - 1
    end = span.end_column - 1 if span.end_line == span.line else len(row)
    width = max(1, min(end, len(row) + 1) - start)
    if len(shown) > 160:  # a very long line: show the part around the caret
        left = max(0, start - 60)
        shown, start = ("..." if left else "") + shown[left : left + 150] + "...", start - left + (3 if left else 0)
        width = min(width, 90)
    return [f"{span.line:5d} | {shown}", f"      | {' ' * start}{mark * width}{' ' + message if message else ''}"]


def to_json(diagnostics: Iterable[Diagnostic]) -> str:
    """The diagnostics as a JSON array."""
    return json.dumps([d.as_json() for d in diagnostics], indent=2)
