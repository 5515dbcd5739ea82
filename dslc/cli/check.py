"""`dslc check`."""

from __future__ import annotations

import sys

import click

from dslc.cli.output import dim_option, json_option, parse_dims, print_json, show_diagnostics


@click.command("check")
@click.argument("files", metavar="F...", nargs=-1, required=True)
@dim_option
@json_option
def command(files: tuple[str, ...], dims: tuple[str, ...], as_json: bool) -> int:
    """Parse and type-check files: all errors at once, with places and hints. Sizes stay open unless given.

    Example: dslc check models/lenet.dl
    """
    from dslc.api.parsing import check_source

    sizes = parse_dims(dims)
    results = [check_source(file, sizes) for file in files]
    ok = all(r.ok for r in results)
    if as_json:
        print_json({"ok": ok, "diagnostics": [d.as_json() for r in results for d in r.diagnostics]})
        return 0 if ok else 1
    for number, result in enumerate(results):
        if result.diagnostics:
            print("\n" if number else "", end="", file=sys.stderr)
            show_diagnostics(result.diagnostics, result.texts)
    errors = sum(len(r.errors) for r in results)
    warnings = sum(len(r.diagnostics) for r in results) - errors
    if errors or warnings:
        print(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}", file=sys.stderr)
    if ok:
        what = [f"{_count(len(r.models), 'model')}, {_count(len(r.recipes), 'recipe')}" for r in results]
        for file, said in zip(files, what, strict=True):
            print(f"{file}: no errors ({said})")
    return 0 if ok else 1


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
