"""`dslc run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dslc.cli.output import Compiling, compile_options, json_option, parse_dims

if TYPE_CHECKING:
    from dslc.api.program import Program


@click.command("run")
@click.argument("file", metavar="F[:MODEL]")
@click.option("--weights", type=click.Path(path_type=Path), help="A safetensors file, such as a checkpoint of training.")
@click.option("--ema", is_flag=True, help="Take the averaged weights of the checkpoint.")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=FILE", help=".npy, .npz, .png, .jpg, .wav, .txt or text:WORDS; may be repeated."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write the results: .npz, or .npy for one.")
@click.option("--seed", type=click.IntRange(0), help="Of random operators, and of initial values where there are no weights.")
@click.option("--dump", metavar="PATTERN", help="Also give the values inside that match, such as '*relu' or '5:30.*'.")
@click.option("--trust", is_flag=True, help="Run the machine code that an artifact brings.")
@compile_options
@json_option
def command(
    file: str, weights: Path | None, ema: bool, inputs: tuple[str, ...], output: Path | None, seed: int | None, dump: str | None, trust: bool,
    dims: tuple[str, ...], threads: int | None, width: str | None, precision: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Run a model, from source or from an artifact, on arrays, pictures, sounds or text, which are prepared as in training.

    Example: dslc run lenet --weights lenet.safetensors --input image=shoe.png
    """
    from dslc.api.pictures import read_inputs, write_results

    program = _program(file, weights, ema, seed or 0, trust, parse_dims(dims), threads, int(width) if width else None, precision)
    if weights is None and not file.endswith(".dlc"):
        click.echo("note: no --weights given, so this runs with initial values", err=True)
    arrays = read_inputs(_pairs(inputs), program.input_ports, program.data)
    description = program.data
    if dump is not None:
        from dslc.api.compilation import options_of
        from dslc.api.intermediates import with_intermediates

        program, _ = with_intermediates(program, dump, options_of(None, precision, threads, int(width) if width else None, True))
    program.seed = seed or 0
    results = program(**arrays)
    named = results if isinstance(results, dict) else {next(iter(program.outputs)): results}
    if output is not None:
        write_results(output, named)
    if as_json:
        import json

        print(json.dumps({name: array.tolist() for name, array in named.items()}))
    else:
        _print(named, description, output, [_named(path) for _, path in _pairs(inputs)])


def _program(
    file: str,
    weights: Path | None,
    ema: bool,
    seed: int,
    trust: bool,
    dims: dict[str, int],
    threads: int | None,
    width: int | None,
    precision: str | None,
) -> Program:
    from dslc.api.compilation import compile as compile_source
    from dslc.api.compilation import load
    from dslc.api.sources import split_name

    if file.endswith(".dlc"):
        program = load(file, trust=trust, threads=threads)
    else:
        path, model = split_name(file)
        progress = Compiling()
        program = compile_source(path, model, dims=dims, precision=precision, threads=threads, width=width, seed=seed, progress=progress)
        progress.end()
    if weights is not None:
        program.load_weights(weights, ema=ema)
    return program


def _named(given: Path | str) -> str:
    """How a result is called that belongs to this input."""
    return given.name if isinstance(given, Path) else repr(given[:40])


def _pairs(inputs: tuple[str, ...]) -> list[tuple[str, Path | str]]:
    """Names with files, or with text itself."""
    pairs: list[tuple[str, Path | str]] = []
    for text in inputs:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise click.BadParameter(f"{text!r} is not NAME=FILE, such as image=x.npy", param_hint="--input")
        pairs.append((name, path.removeprefix("text:") if path.startswith("text:") else Path(path)))
    return pairs


def _print(results: dict[str, Any], description: Any, output: Path | None, files: list[str]) -> None:
    """Classes with probabilities where the data has classes, text where it was text, else the arrays, shortened."""
    import numpy as np

    from dslc.api.pictures import classes_of, probabilities, texts_of

    for name, array in results.items():
        classes = classes_of(description, array.shape[-1]) if array.ndim == 2 and array.dtype.kind == "f" else None
        if classes is not None:
            for row, shares in enumerate(probabilities(array)):
                best = np.argsort(-shares, kind="stable")[:3]
                what = files[row] if len(files) == len(array) else f"{name}[{row}]"
                print(f"{what}: " + ", ".join(f"{classes[i]} {shares[i]:.1%}" for i in best))
        elif (texts := texts_of(description, array)) is not None:
            for row, text in enumerate(texts):
                print(f"{name}[{row}]: {text}")
        else:
            shape = ", ".join(map(str, array.shape))
            print(f"{name}: {array.dtype}[{shape}]")
            if output is None:
                print(np.array2string(array, threshold=40, edgeitems=3, precision=5))
    if output is not None:
        print(f"wrote {output}")
