"""What all subcommands share: how diagnostics look, common options, and results for people or programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from dslc.diagnostics import Diagnostic, DiagnosticError, render
from dslc.options import from_environment

if TYPE_CHECKING:
    from dslc.backends.cpu.tuning import Tuned

Command = TypeVar("Command", bound=Callable[..., Any])

_PLAIN = "\x1b[0m"
_CARETS = re.compile(r"(\^+)")
_HEAD = re.compile(r"\b(error|warning)\[(DL\d{4})\]")


def colored(stream: TextIO) -> bool:
    """Whether `stream` is a terminal and NO_COLOR is not set."""
    return stream.isatty() and from_environment().color


def show_diagnostics(diagnostics: Iterable[Diagnostic], sources: Mapping[str, str], stream: TextIO | None = None) -> None:
    """With source lines and carets, to standard error."""
    stream = stream or sys.stderr
    color = colored(stream)
    for number, diagnostic in enumerate(diagnostics):
        text = render(diagnostic, sources)
        if color:
            hue = "\x1b[1;31m" if diagnostic.severity == "error" else "\x1b[1;33m"
            text = _CARETS.sub(rf"{hue}\1{_PLAIN}", _HEAD.sub(rf"{hue}\g<0>{_PLAIN}", text, count=1))
        print(("\n" if number else "") + text, file=stream)


def show_error(error: DiagnosticError, as_json: bool = False) -> int:
    """Everything that was refused; the exit status for it."""
    if as_json:
        print_json({"ok": False, "diagnostics": [d.as_json() for d in error.diagnostics]})
    else:
        show_diagnostics(error.diagnostics, error.sources)
    return 1


def show_internal_error(error: Exception, traceback: bool) -> int:
    """A defect of dslc, without a traceback unless it is asked for."""
    if traceback:
        import traceback as tracebacks

        tracebacks.print_exception(error)
    first = str(error).splitlines()[0] if str(error) else ""
    print(f"dslc: internal error: {type(error).__name__}{': ' + first[:300] if first else ''}", file=sys.stderr)
    print("This is a defect of dslc. Please report it with the file and the command that led to it;", file=sys.stderr)
    print("`dslc --traceback ...` shows where it happened, `dslc doctor` what the report should say about this machine.", file=sys.stderr)
    return 1


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=1, default=str))


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Aligned columns; `right` are those that hold numbers. The first row is the head."""
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        lines.append("  ".join(t.rjust(w) if c in right else t.ljust(w) for c, (t, w) in enumerate(zip(row, widths, strict=True))).rstrip())
        if number == 0:
            lines.append("  ".join("-" * w for w in widths))
    return "\n".join(lines)


def live(text: str) -> None:
    """A line on the terminal that the next one replaces; nothing where standard error is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


class Compiling:
    """Counts the kernels that are compiled, on the terminal."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds: dict[str, float] = {}
        self.contractions: list[Tuned] = []

    def __call__(self, key: str, seconds: float) -> None:
        self.count += 1
        self.seconds[key] = seconds
        live(f"compiling: {self.count} kernels")

    def tuned(self, contraction: Tuned) -> None:
        """The tiles of a contraction were measured."""
        self.contractions.append(contraction)
        live(f"measuring tiles: {len(self.contractions)} contractions")

    def gains(self) -> list[str]:
        """What measuring gave, a line for each contraction."""
        lines = []
        for t in self.contractions:
            kept = "as planned" if t.gain == 1.0 else f"{t.gain:.2f} times as fast as {t.planned}"
            lines.append(f"{t.label}: {t.tile}: {kept}" + (" (measured before)" if t.known else ""))
        return lines

    def end(self) -> None:
        """Take the line away."""
        if self.count or self.contractions:
            live("")


# ------------------------------------------------------------------------------------------------- common options


def parse_dims(values: Sequence[str]) -> dict[str, int]:
    """`--dim T=64`."""
    found = {}
    for text in values:
        name, equals, size = text.partition("=")
        if not equals or not name.isidentifier() or not size.isascii() or not size.isdigit() or len(size) > 18:
            raise click.BadParameter(f"{text!r} is not NAME=SIZE, such as T=64", param_hint="--dim")
        found[name] = int(size)
    return found


def parse_numbers(values: Sequence[str]) -> dict[str, float | int]:
    """`--set lr=1e-3`."""
    found: dict[str, float | int] = {}
    for text in values:
        name, equals, number = text.partition("=")
        try:
            found[name] = int(number) if number.lstrip("+-").isdigit() else float(number)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=NUMBER, such as lr=1e-3", param_hint="--set")
    return found


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def dim_option(command: Command) -> Command:
    """`--dim NAME=SIZE`."""
    return click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Fix a size by name; may be repeated.")(command)


def compile_options(command: Command) -> Command:
    """What may be said about every compilation."""
    command = click.option("--precision", type=click.Choice(["f32", "f64"]), help="f64 computes in f64 throughout, for checking.")(command)
    command = click.option("--width", type=click.Choice(["4", "8", "16"]), help="SIMD lanes; the bits do not depend on them.")(command)
    command = click.option("--threads", type=click.IntRange(1, 1024), help="Threads; the bits do not depend on them.")(command)
    return dim_option(command)
