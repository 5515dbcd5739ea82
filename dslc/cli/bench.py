"""`dslc bench`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from dslc.cli.output import Compiling, compile_options, json_option, parse_dims, print_json, table

if TYPE_CHECKING:
    from dslc.api.measure import Limits, Row, Timing
    from dslc.api.stages import Stages
    from dslc.runtime.executable import Program as RuntimeProgram


@dataclass(frozen=True, slots=True)
class Subject:
    """What is timed."""

    name: str
    call: Callable[[], object]
    program: RuntimeProgram
    inputs: Mapping[str, Any]
    settings: Mapping[str, Any] | None
    flops: int
    threads: int
    stages: Callable[[], Stages]


@click.command("bench")
@click.argument("file", metavar="F[:NAME]")
@click.option("--batch", type=click.IntRange(1), help="Examples a call; 1, or the recipe's batch with --train.")
@click.option("--train", is_flag=True, help="NAME is a recipe: time its training step.")
@click.option("--profile", "profiled", is_flag=True, help="Time by kernel and by source line, with GFLOP/s and GB/s.")
@click.option("--against", help="Compare with these, with commas between: torch, torch.compile, onnxruntime.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Turns of each contender of a comparison.")
@click.option("--seconds", type=click.FloatRange(0.01, 600), default=1.0, show_default=True, help="How long to measure.")
@compile_options
@json_option
def command(
    file: str, batch: int | None, train: bool, profiled: bool, against: str | None, rounds: int, seconds: float, dims: tuple[str, ...],
    threads: int | None, width: str | None, precision: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Time a model on random inputs through the Python API; the speed of this machine is measured in the same run.

    With --against the same network, translated, is run by other libraries with the same weights; with --train NAME may then be a model.

    Example: dslc bench lenet --batch 32 --profile
    """
    from dslc.api.compilation import cache_of, options_of
    from dslc.api.measure import by_line, machine_limits, profile, time_calls
    from dslc.api.stages import paired

    options = options_of(None, precision, threads, int(width) if width else None, True)
    if against is not None:
        if profiled:
            raise click.UsageError("--profile and --against do not go together")
        _compare(file, against, train, batch, parse_dims(dims), options, rounds, as_json)
        return
    subject = _training(file, batch, parse_dims(dims), options) if train else _inference(file, batch or 1, parse_dims(dims), options)
    timing = time_calls(subject.call, seconds)
    rows, limits = None, None
    count = _batch(subject)
    if profiled:
        compiled = subject.stages().compiled.programs[subject.program.plan.name]
        steps = [step for step, _, early in paired(compiled) if not early]
        rows = profile(subject.program, steps, subject.inputs, subject.settings, count)
        limits = machine_limits(options, cache_of(options))
    if as_json:
        report: dict[str, Any] = {"name": subject.name, "batch": count, "threads": subject.threads, **asdict(timing)}
        report["gflops"] = subject.flops / timing.median / 1e9
        report |= {"limits": asdict(limits), "steps": [r.as_json() for r in rows]} if rows is not None and limits is not None else {}
        print_json(report)
        return
    _print(subject, timing, count)
    if rows is not None and limits is not None:
        _print_profile(rows, limits)
        print()
        print(
            table([("line", "us", "share"), *((line, f"{s * 1e6:.1f}", f"{share:.1%}") for line, s, share in by_line(rows))], right=(1, 2))
        )


def _inference(file: str, batch: int, dims: dict[str, int], options: Any) -> Subject:
    from dslc.api.compilation import compile as compile_source
    from dslc.api.compilation import load
    from dslc.api.measure import random_inputs
    from dslc.api.sources import split_name

    progress = Compiling()
    if file.endswith(".dlc"):
        program = load(file, threads=options.threads)
    else:
        path, model = split_name(file)
        program = compile_source(
            path, model, dims=dims, precision=options.precision, threads=options.threads, width=options.width, progress=progress
        )
    progress.end()
    inputs = random_inputs(program.runtime.plan, batch)
    program(**inputs)
    return Subject(
        program.name,
        lambda: program(**inputs),
        program.runtime,
        inputs,
        None,
        program.flops(batch),
        program.threads,
        lambda: program.stages,
    )


def _training(file: str, batch: int | None, dims: dict[str, int], options: Any) -> Subject:
    from dslc.api.compilation import obtain, request_of
    from dslc.api.measure import random_inputs
    from dslc.api.sources import find_source, split_name
    from dslc.api.trainer import Trainer

    path, name = split_name(file)
    progress = Compiling()
    ready = obtain(request_of(path, name, True, dims, options), progress=progress)
    progress.end()
    recipe = ready.signature.recipe
    assert recipe is not None, "a module with a recipe"
    count = batch or recipe.batch
    data = random_inputs(ready.plan.program("train"), count)
    trainer = Trainer(
        find_source(path), name, {"train": data}, batch=count, save=False, dims=dims, precision=options.precision,
        threads=options.threads, width=options.width,
    )  # fmt: skip
    settings = {**dict(trainer.recipe.settings), "seed": 0, "step": 0, "total": 1000}
    program = trainer.program
    wanted = {p.name: settings[p.name] for p in program.train.plan.settings if p.name in settings}
    inputs = {p.name: data[p.name] for p in program.train.plan.inputs}
    return Subject(
        trainer.recipe.name, lambda: program.step(data, settings), program.train, inputs, wanted, trainer.flops(count), trainer.threads,
        lambda: trainer.stages,
    )  # fmt: skip


def _compare(
    file: str, against: str, train: bool, batch: int | None, dims: dict[str, int], options: Any, rounds: int, as_json: bool
) -> None:
    from dslc.api.contest import against as compare_with
    from dslc.api.contest import limit_line, wanted
    from dslc.training.log import cpu_name

    peers = wanted(against, train)
    progress = Compiling()
    found = compare_with(file, peers, training=train, batch=batch, dims=dims, options=options, rounds=rounds, progress=progress)
    progress.end()
    if as_json:
        print_json({"machine": cpu_name(), **found.as_json()})
        return
    print(f"{found.name}, {'training' if train else 'inference'}, batch {found.batch}, {found.threads} threads, on {cpu_name()}")
    print(f"this machine, measured in turn: {limit_line(found)}")
    print()
    head = ("contender", "ms", "/ dslc", "GFLOP/s", "arithmetic", "weights", "error")
    mine = found.standings[0].milliseconds
    body = []
    for standing in found.standings:
        arithmetic, weights = found.shares(standing.milliseconds)
        error = "" if standing.name == "dslc" else "drawn" if standing.error is None else f"{standing.error:.1e}"
        speed = found.flops / standing.milliseconds / 1e6
        body.append(
            (standing.name, f"{standing.milliseconds:.4g}", f"{standing.milliseconds / mine:.3f}", f"{speed:.1f}", f"{arithmetic:.0%}",
             f"{weights:.0%}", error)
        )  # fmt: skip
    print(table([head, *body], right=(1, 2, 3, 4, 5, 6)))
    print()
    print(f"best peer / dslc: {found.ratio:.3f}")


def _batch(subject: Subject) -> int:
    batched = [p for p in subject.program.plan.inputs if p.shape and not isinstance(p.shape[0], int)]
    return int(subject.inputs[batched[0].name].shape[0]) if batched else 1


def _print(subject: Subject, timing: Timing, batch: int) -> None:
    speed = subject.flops / timing.median / 1e9
    print(
        f"{subject.name}, batch {batch}, {subject.threads} threads: {timing.median * 1e6:,.1f} us a call (best {timing.best * 1e6:,.1f}), "
        f"{batch / timing.median:,.0f} examples/s, {speed:.1f} GFLOP/s, {timing.calls:,} calls"
    )


def _print_profile(rows: list[Row], limits: Limits) -> None:
    print(f"this machine, measured now: {limits.gflops:.0f} GFLOP/s in registers, {limits.gbytes:.1f} GB/s from memory")
    print()
    head = ("step", "kernel", "us", "share", "GFLOP/s", "of limit", "GB/s", "where")
    body = [
        (
            str(r.number),
            r.label,
            f"{r.seconds * 1e6:.1f}",
            f"{r.share:.1%}",
            f"{r.gflops:.1f}",
            f"{r.gflops / limits.gflops:.0%}",
            f"{r.gbytes:.1f}",
            r.span,
        )
        for r in rows
    ]
    print(table([head, *body], right=(0, 2, 3, 4, 5, 6)))
