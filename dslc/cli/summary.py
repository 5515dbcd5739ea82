"""`dslc summary`."""

from __future__ import annotations

import click

from dslc.cli.output import dim_option, json_option, parse_dims, print_json


@click.command("summary")
@click.argument("file", metavar="F[:MODEL]")
@dim_option
@json_option
def command(file: str, dims: tuple[str, ...], as_json: bool) -> None:
    """The layers of a model with shapes, parameters, arithmetic and bytes of the result, for one example.

    Example: dslc summary lenet
    """
    from dslc.api.compilation import elaborate, options_of, request_of
    from dslc.api.layers import layers, table
    from dslc.api.sources import split_name

    path, model = split_name(file)
    if path.endswith(".dlc"):
        from dslc.api.compilation import load

        module = load(path).module
    else:
        module = elaborate(request_of(path, model, False, parse_dims(dims), options_of(None, None, None, None, True))).module
    rows = layers(module)
    if as_json:
        print_json({"name": module.name, "layers": [r.as_json() for r in rows]})
    else:
        print(f"{module.name}\n\n{table(rows)}")
