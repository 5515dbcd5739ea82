"""`dslc train`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dslc.cli.output import Compiling, colored, compile_options, json_option, parse_dims, parse_numbers, print_json

if TYPE_CHECKING:
    from dslc.api.trainer import Trainer
    from dslc.ir.recipe import Recipe
    from dslc.training import Observer


@click.command("train")
@click.argument("file", metavar="F[:RECIPE]")
@click.option("--data", multiple=True, type=click.Path(path_type=Path), help="A folder with the data set; may be repeated.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, with the same bits.")
@click.option("--set", "settings", multiple=True, metavar="NAME=NUMBER", help="A learning rate or other setting, such as lr=1e-3.")
@click.option("--epochs", type=int, help="Epochs in all.")
@click.option("--steps", type=int, help="Steps in all.")
@click.option("--batch", type=int, help="Examples a step.")
@click.option("--seed", type=int, help="Of initial values, order of the data and random operators.")
@click.option("--folder", type=click.Path(path_type=Path), default=".", help="Where checkpoint, log and curves go.")
@click.option("--log/--no-log", default=True, help="Write RECIPE.jsonl and RECIPE.svg, the log and the curves.")
@click.option("--check/--no-check", default=True, help="Stop where NaN or an infinity comes up, and say which operator made it.")
@click.option("--replay", type=int, metavar="STEP", help="Make one step of a run again, and say where in it NaN or an infinity begins.")
@click.option("--verify", is_flag=True, help="First check every pass and every kernel against the interpreter; slow.")
@click.option("--tune", is_flag=True, help="First measure tiles on this machine, and keep the fastest for later; the bits stay the same.")
@compile_options
@json_option
def command(
    file: str, data: tuple[Path, ...], resume: bool, settings: tuple[str, ...], epochs: int | None, steps: int | None, batch: int | None,
    seed: int | None, folder: Path, log: bool, check: bool, replay: int | None, verify: bool, tune: bool, dims: tuple[str, ...],
    threads: int | None, width: str | None, precision: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Run a training recipe: progress, metrics, checkpoints, a log of JSON lines and the curves. Ctrl-C saves and exits with 130.

    Example: dslc train lenet --epochs 5 --set lr=1e-3

    Where a step makes NaN or an infinity, training stops with the operator and its place; --replay STEP shows that again.
    """
    from dslc.api.sources import split_name
    from dslc.api.trainer import Trainer
    from dslc.training import Interrupted

    path, recipe = split_name(file)
    progress = Compiling()
    trainer = Trainer(
        path, recipe, data_folders=data, folder=folder, epochs=epochs, steps=steps, batch=batch, seed=seed,
        settings=parse_numbers(settings), resume=resume and replay is None, dims=parse_dims(dims), precision=precision, threads=threads,
        verify=verify, tune=tune, width=int(width) if width else None, progress=progress, tuned=progress.tuned, check=check,
        replay=_again(
            file, data=data, set=settings, epochs=epochs, steps=steps, batch=batch, seed=seed, folder=folder if folder != Path() else None,
            dim=dims, precision=precision,
        ),
        observers=lambda r: [] if replay is not None else _observers(r, folder, log, resume, as_json),
    )  # fmt: skip
    progress.end()
    if replay is not None:
        return _replayed(trainer, replay, as_json)
    if not as_json:
        _headline(trainer, progress)
    try:
        trainer.fit()
    except Interrupted as stopped:
        where = f"saved {stopped.path}; go on with --resume" if stopped.path else "the recipe saves nothing"
        print(f"interrupted after step {stopped.step:,}: {where}", file=sys.stderr)
        return 130
    _last(trainer, folder, log, as_json)
    return 0


def _again(file: str, **options: object) -> str:
    """The command that replays a step of this run, but for the number of the step."""
    words = ["dslc", "train", file]
    for name, value in options.items():
        for one in value if isinstance(value, tuple) else () if value is None else (value,):
            words += [f"--{name}", str(one)]
    return shlex.join([*words, "--replay"])


def _replayed(trainer: Trainer, step: int, as_json: bool) -> int:
    from dslc.training.progress import shown

    metrics = trainer.replay(step)
    if as_json:
        print_json({"recipe": trainer.recipe.name, "step": step, "metrics": dict(metrics), "finite": True})
    else:
        print(f"step {step:,}: {shown(metrics)}; all numbers are finite")
    return 0


def _observers(recipe: Recipe, folder: Path, log: bool, resume: bool, quiet: bool) -> list[Observer]:
    from dslc.training.log import JsonLog
    from dslc.training.plot import CurvePlot
    from dslc.training.progress import progress_for

    watching: list[Observer] = [] if quiet else [progress_for(color=colored(sys.stdout))]
    if log:
        watching += [JsonLog(folder / f"{recipe.name}.jsonl", append=resume), CurvePlot(folder / f"{recipe.name}.svg")]
    return watching


def _headline(trainer: Trainer, progress: Compiling) -> None:
    from dslc.api.figures import readable_bytes

    memory = trainer.memory()
    how = f"compiled {progress.count} kernels in {trainer.ready.seconds:.1f} s" if not trainer.cached else "found compiled"
    held = f"a step takes {readable_bytes(memory.total)}, the data {readable_bytes(trainer.data.nbytes)}"
    print(f"{trainer.recipe.name}: {how}; {held}; {trainer.threads} threads")
    for line in progress.gains():
        print(line)


def _last(trainer: Trainer, folder: Path, log: bool, as_json: bool) -> None:
    history = trainer.history
    if as_json:
        last = history[-1] if history else None
        report = {"metrics": dict(last.metrics), "test_metrics": dict(last.test_metrics), "epoch": last.epoch} if last else {}
        if last and last.test_tables:
            report["test_tables"] = dict(last.test_tables)
        print_json(
            {"recipe": trainer.recipe.name, "steps": trainer.step, **report, "checkpoint": str(trainer.path) if trainer.path else None}
        )
        return
    written = [trainer.path] if trainer.path else []
    if log:
        written += [folder / f"{trainer.recipe.name}.jsonl", folder / f"{trainer.recipe.name}.svg"]
    if written:
        print(f"wrote {', '.join(map(str, written))}")
