"""`dslc compile`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dslc.cli.output import Compiling, compile_options, json_option, parse_dims, print_json

if TYPE_CHECKING:
    from dslc.api.sources import Source

Job = tuple[str | None, dict[str, int], str | None, Path | None, bool]  # model, sizes, precision, artifact, averaged weights


@click.command("compile")
@click.argument("file", metavar="F[:MODEL]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The artifact to write, NAME.dlc.")
@click.option("--target", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--weights", type=click.Path(path_type=Path), help="Weights to put in; initial values without.")
@click.option("--ema", is_flag=True, help="Take the averaged weights of the checkpoint.")
@click.option("--embed", is_flag=True, help="Put the machine code in, for readers who trust the file.")
@click.option("--verify", is_flag=True, help="Check every pass and every kernel against the interpreter; slow.")
@click.option("--tune", is_flag=True, help="Measure tiles on this machine and keep the fastest for later compilations; the bits stay the same.")
@compile_options
@json_option
def command(
    file: str, output: Path | None, target: str, weights: Path | None, ema: bool, embed: bool, verify: bool, tune: bool,
    dims: tuple[str, ...], threads: int | None, width: str | None, precision: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Compile a model, and write it as an artifact that `dslc run` and `dslc.load` take. Without -o, the file's `export` items say what
    is written.

    With --target cuda: kernel sources, launch plan and PTX of a model or recipe, to a folder or the terminal.

    Example: dslc compile lenet --weights lenet.safetensors -o lenet.dlc
    """
    from dslc.api.compilation import compile as compile_source
    from dslc.api.sources import find_source, split_name

    path, model = split_name(file)
    sizes = parse_dims(dims)
    if target == "cuda":
        if tune:
            raise click.UsageError("--tune measures on this machine's CPU: it does not go with --target cuda")
        _cuda(path, model, output, sizes, precision, as_json)
        return
    source = find_source(path)
    jobs = [(model, sizes, precision, output, ema)] if output is not None else _exports(source, model, sizes, precision, ema)
    reports = []
    gains = []
    for name, fixed, kind, artifact, averaged in jobs:
        progress = Compiling()
        lanes = int(width) if width else None
        program = compile_source(
            source, name, dims=fixed, precision=kind, threads=threads, width=lanes, verify=verify, tune=tune, progress=progress, tuned=progress.tuned
        )  # fmt: skip
        progress.end()
        if weights is not None:
            program.load_weights(weights, ema=averaged)
        if artifact is not None:
            program.save(artifact, embed=embed)
        gains.append(progress.gains())
        reports.append({**describe(program, progress), "artifact": str(artifact) if artifact else None})
    if as_json:
        print_json(reports[0] if len(reports) == 1 else reports)
        return
    for number, report in enumerate(reports):
        print("\n" * min(number, 1), end="")
        _print(report, gains[number])
        if report["artifact"]:
            print(f"wrote {report['artifact']}" + ("" if weights is not None else " with initial values (give --weights for trained ones)"))


def _exports(source: Source, model: str | None, dims: dict[str, int], precision: str | None, ema: bool) -> list[Job]:
    """What the file exports, of this model if one is named; where it exports nothing, a compilation that writes nothing."""
    from dslc.api.exports import exports_of

    chosen = [e for e in exports_of(source) if model is None or e.model == model]
    jobs: list[Job] = [(e.model, {**e.dims, **dims}, precision or e.precision, Path(e.file), ema or e.ema) for e in chosen]
    return jobs or [(model, dims, precision, None, ema)]


def _cuda(path: Path | str, name: str | None, output: Path | None, dims: dict[str, int], precision: str | None, as_json: bool) -> None:
    from dslc.api.cuda import cuda_code

    code = cuda_code(path, name, dims=dims, precision=precision)
    written = code.write(output) if output is not None else []
    if as_json:
        print_json({"programs": code.plan_json(), "kernels": len(code.kernels), "ptx": len(code.ptx), "files": [str(p) for p in written]})
        return
    if output is None:
        for key, kernel in code.kernels.items():
            print(
                f"# {key[:16]}: blocks {kernel.launch.grid[0]} x {kernel.launch.grid[1]}, threads {kernel.launch.block[0]} x {kernel.launch.block[1]}"
            )
            print(kernel.text)
    ptx = f"PTX of {len(code.ptx)}" if code.ptx else "no PTX (pip install 'dslc[cuda]')"
    place = f", written to {output}" if output is not None else ""
    print(f"{len(code.kernels)} kernels of {', '.join(code.programs)}, {ptx}{place}; running them needs a GPU")


def describe(program: Any, progress: Compiling) -> dict[str, Any]:
    """What `dslc compile` says about a program."""
    bound = program.batch_bound or 1
    labels = program.kernel_labels
    slowest = sorted(progress.seconds.items(), key=lambda item: -item[1])[:3]
    return {
        "name": program.name,
        "inputs": program.inputs,
        "outputs": program.outputs,
        "parameters": program.parameter_count,
        "flops": program.flops(1),
        "batch_bound": program.batch_bound,
        "memory": program.memory(1).as_json(),
        "memory_at_bound": program.memory(bound).as_json(),
        "kernels": program.kernel_count,
        "compiled": progress.count,
        "tuned": [t.as_json() for t in progress.contractions],
        "slowest": [{"kernel": labels.get(key, key[:12]), "seconds": round(seconds, 3)} for key, seconds in slowest],
    }


def _print(report: dict[str, Any], gains: Iterable[str]) -> None:
    from dslc.api.figures import readable, readable_bytes

    for name, types in (("inputs", report["inputs"]), ("results", report["outputs"])):
        print(f"{name:12s}{', '.join(f'{n}: {t}' for n, t in types.items())}")
    bound = report["batch_bound"]
    print(f"{'parameters':12s}{report['parameters']:,}")
    print(f"{'arithmetic':12s}{readable(report['flops'])}FLOP an example")
    peak = f"{report['memory']['total']:,} bytes for one example"
    if bound and bound > 1:
        peak += f", {report['memory_at_bound']['total']:,} ({readable_bytes(report['memory_at_bound']['total'])}) for a batch of {bound}"
    print(f"{'peak memory':12s}{peak}")
    print(f"{'kernels':12s}{report['kernels']}, of which {report['compiled']} were compiled now")
    for entry in report["slowest"]:
        print(f"{'':12s}{entry['seconds']:.2f} s  {entry['kernel']}")
    for number, line in enumerate(gains):
        print(f"{'' if number else 'tiles':12s}{line}")
