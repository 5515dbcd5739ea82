"""Where a program's text comes from: a path, the name of a network that comes with dslc, or the text itself."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.options import resource

LONGEST = 1 << 20  # bytes; the front end refuses more, so no more is read
TEXT_NAME = "<string>"


@dataclass(frozen=True, slots=True)
class Source:
    """A file's text, its name in messages, and the folder that its imports and data are relative to."""

    text: str
    file: str = TEXT_NAME
    folder: Path | None = None


def zoo() -> dict[str, Path]:
    """The networks that come with dslc, by name."""
    return {p.stem: p for p in sorted(resource("models").glob("*.dl"))}


def find_source(where: Source | Path | str) -> Source:
    """The source that a caller means: text where it has a line break or a brace, else a path, else a name of the zoo (DL0801)."""
    if isinstance(where, Source):
        return where
    if isinstance(where, str) and ("\n" in where or "{" in where):
        return Source(where)
    path = Path(where)
    known = zoo()
    if _is_file(path):
        return _read(path)
    if str(where) in known:
        return _read(known[str(where)], f"{where}.dl")
    raise _missing(path, known)


def split_name(where: str) -> tuple[str, str | None]:
    """`net.dl:LeNet` as file and name. A colon that belongs to an existing file's name stays with it."""
    head, colon, tail = where.rpartition(":")
    if not colon or not head or not all(part.isidentifier() for part in tail.split(".")) or _is_file(Path(where)):
        return where, None
    return head, tail


def _is_file(path: Path) -> bool:
    return _is(path, Path.is_file)


def _is(path: Path, what: Callable[[Path], bool]) -> bool:
    try:
        return what(path)
    except (OSError, ValueError):  # a name that no file can have
        return False


def _read(path: Path, shown: str | None = None) -> Source:
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise DiagnosticError(Diagnostic("DL0801", f"{path} cannot be read: {error.strerror or error}")) from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        from dslc.frontend.lex import decode  # says where

        text = decode(data, str(path))
    return Source(text, shown or str(path), path.resolve().parent)


def _missing(path: Path, known: dict[str, Path]) -> DiagnosticError:
    shown = str(path)[:200]
    if _is(path, Path.is_dir):
        return DiagnosticError(Diagnostic("DL0801", f"{shown} is a folder", hint="name the .dl file in it"))
    try:
        nearby = [str(p) for p in path.parent.glob("*.dl")]
    except (OSError, ValueError):
        nearby = []
    near = difflib.get_close_matches(shown, [*nearby, *known], 1, 0.6)
    hint = f"did you mean {near[0]}?" if near else f"give a path, or one of the networks that come with dslc: {', '.join(known)}"
    return DiagnosticError(Diagnostic("DL0801", f"there is no file {shown}", hint=hint))
