"""`dslc fmt`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dslc.diagnostics import Diagnostic, DiagnosticError


@click.command("fmt")
@click.argument("files", metavar="F...", nargs=-1, required=True)
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 where a file is not formatted.")
def command(files: tuple[str, ...], check: bool) -> int:
    """Format .dl files in place, comments included; a folder stands for the .dl files in it.
    `-` reads standard input and writes standard output.

    Example: dslc fmt net.dl
    """
    from dslc.frontend.format import format_source

    status = 0
    for file in _files(files):
        text = _read(file)
        formatted = format_source(text, "<stdin>" if file == "-" else file)
        if file == "-":
            if not check:
                print(formatted, end="")
            status |= int(check and formatted != text)
        elif formatted != text:
            print(f"{'would format' if check else 'formatted'} {file}")
            status |= int(check)
            if not check:
                _write(Path(file), formatted)
    return status


def _files(given: tuple[str, ...]) -> list[str]:
    """The files named, with folders replaced by the .dl files under them."""
    found: list[str] = []
    for name in given:
        folder = Path(name)
        found += sorted(map(str, folder.rglob("*.dl"))) if name != "-" and folder.is_dir() else [name]
    return found


def _read(file: str) -> str:
    from dslc.frontend.lex import decode

    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise DiagnosticError(Diagnostic("DL0801", f"{file} cannot be read: {error.strerror or error}")) from error
    return decode(data, file)


def _write(path: Path, text: str) -> None:
    from dslc.runtime.cache import atomic_file

    try:
        mode = path.stat().st_mode
        with atomic_file(path.resolve()) as temporary:
            temporary.write_text(text, encoding="utf-8")
            temporary.chmod(mode)
    except OSError as error:
        raise DiagnosticError(Diagnostic("DL0803", f"{path} cannot be written: {error.strerror or error}")) from error
