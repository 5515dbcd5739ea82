"""`dslc explain`."""

from __future__ import annotations

import click

from dslc.cli.output import json_option, print_json


@click.command("explain")
@click.argument("code", required=False)
@json_option
def command(code: str | None, as_json: bool) -> None:
    """Say what an error code means, with an example and its correction; without a code, list them all.

    Example: dslc explain DL0210
    """
    from dslc.explain import explain, explanations

    chosen = [explain(code)] if code is not None else list(explanations().values())
    if as_json:
        print_json([{"code": e.code, "title": e.title, "text": e.text.strip(), "wrong": e.wrong, "right": e.fixed} for e in chosen])
    elif code is not None:
        print(chosen[0])
    else:
        for entry in chosen:
            print(f"{entry.code}  {entry.title}")
