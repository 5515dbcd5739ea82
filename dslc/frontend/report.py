"""Collects what is wrong with a program: each mistake once, placed where the user can act on it.

An error raises `Refused`; what depends on the failed expression becomes `POISON`, which stays silent, so that one mistake is
one error. A mistake that shows inside the library is placed at the call in the user's file that led there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from dslc.diagnostics import Diagnostic, Note, Span

MAX_DIAGNOSTICS = 100
SAID_ONCE = ("DL0109", "DL0215", "DL0219", "DL0311", "DL0312")  # one cause that shows in several places
State = tuple[list[Diagnostic], set[tuple[str, Span | str | None]]]


class Refused(Exception):
    """An error that has been reported already."""


class Abandoned(Exception):
    """The program is too large to go on; reported."""


class NeedsSize(Exception):
    """A static decision depends on a size that is not bound; `names` are the sizes."""

    def __init__(self, names: frozenset[str]):
        super().__init__(", ".join(sorted(names)))
        self.names = names


@dataclass(frozen=True, slots=True)
class CallSite:
    """A call that is being elaborated."""

    callee: str
    span: Span
    declared: bool = False  # the call is the definition itself, elaborated as a program


class Reporter:
    """The diagnostics of one elaboration, and the calls that are open."""

    def __init__(self, library: frozenset[str] = frozenset()):
        self.diagnostics: list[Diagnostic] = []
        self.library = set(library)
        self.calls: list[CallSite] = []
        self._seen: set[tuple[str, Span | str | None]] = set()

    @property
    def failed(self) -> bool:
        return any(d.severity == "error" for d in self.diagnostics)

    def state(self) -> State:
        """What has been reported, to go back to with `restore`."""
        return list(self.diagnostics), set(self._seen)

    def restore(self, state: State) -> None:
        self.diagnostics, self._seen = list(state[0]), set(state[1])

    def error(self, code: str, message: str, span: Span | None, *, notes: Iterable[Note] = (), hint: str | None = None) -> Refused:
        """Records an error; `raise reporter.error(...)` leaves the expression."""
        self._record(Diagnostic(code, message, span, tuple(notes), hint))
        return Refused(message)

    def warning(self, code: str, message: str, span: Span | None, *, notes: Iterable[Note] = (), hint: str | None = None) -> None:
        self._record(Diagnostic(code, message, span, tuple(notes), hint, "warning"))

    def place(self, span: Span | None) -> Span | None:
        """`span`, or the innermost call in a user's file where it lies in the library."""
        if span is None or span.file not in self.library:
            return span
        for site in reversed(self.calls):
            if site.span.file not in self.library:
                return site.span
        return span

    @contextmanager
    def call(self, callee: str, span: Span, declared: bool = False) -> Iterator[None]:
        self.calls.append(CallSite(callee, span, declared))
        try:
            yield
        finally:
            self.calls.pop()

    @property
    def full(self) -> bool:
        """Whether further errors are not kept."""
        return len(self.diagnostics) >= MAX_DIAGNOSTICS

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Drops what is reported meanwhile: for guesses about what has failed already."""
        state = self.state()
        try:
            yield
        finally:
            self.restore(state)

    def _record(self, diagnostic: Diagnostic) -> None:
        placed = self.place(diagnostic.span)
        notes = list(diagnostic.notes)
        if placed != diagnostic.span and diagnostic.span is not None:
            notes.append(Note(f"in {self.calls[-1].callee}", diagnostic.span))
        outer = [site for site in self.calls if site.span.file not in self.library and site.span != placed]
        if outer and not outer[-1].declared and diagnostic.severity == "error":
            notes.append(Note(f"in this call of {outer[-1].callee}", outer[-1].span))
        keys: set[tuple[str, Span | str | None]] = {(diagnostic.code, diagnostic.span), (diagnostic.code, placed)}
        if diagnostic.code in SAID_ONCE:
            keys.add((diagnostic.code, diagnostic.message))
        if any(key in self._seen for key in keys if key[1] is not None):
            return
        self._seen |= keys
        if len(self.diagnostics) < MAX_DIAGNOSTICS:
            readable = [replace(note, message=readable_sizes(note.message)) for note in notes]
            self.diagnostics.append(
                replace(diagnostic, message=readable_sizes(diagnostic.message), span=placed, notes=tuple(dict.fromkeys(readable)))
            )


_SOLVED = re.compile(r"(?:(\d+) ?\* ?)?([A-Za-z_]\w*)'(\d*)")


def readable_sizes(text: str) -> str:
    """Writes the names that the prover made (`32*H'32`) with the user's (`H`)."""

    def show(match: re.Match[str]) -> str:
        factor, name, divisor = int(match[1] or 1), match[2], int(match[3] or 1)
        if factor % divisor == 0:
            return name if factor == divisor else f"{factor // divisor}*{name}"
        return f"{'' if factor == 1 else f'{factor}*'}({name} / {divisor})"

    return _SOLVED.sub(show, text)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint that names the nearest known spelling."""
    known = sorted({k for k in known if abs(len(k) - len(name)) <= 3})
    if len(known) > 400:  # difflib is slow
        known = [k for k in known if k[:1].lower() == name[:1].lower()][:400]
    folded = [k for k in known if k.lower() == name.lower()]
    near = folded or difflib.get_close_matches(name, known, 1, 0.7)
    return f"did you mean `{near[0]}`?" if near else None


def listed(items: Iterable[str], limit: int = 8) -> str:
    """`a, b and c`, cut after `limit`."""
    found = list(items)
    if len(found) > limit:
        return ", ".join(found[:limit]) + f" and {len(found) - limit} more"
    return found[0] if len(found) == 1 else ", ".join(found[:-1]) + f" and {found[-1]}" if found else "none"


def plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
