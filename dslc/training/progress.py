"""What `dslc train` shows: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, TextIO

from dslc.training.protocol import EpochReport, Observer, RunReport, StepReport

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PLAIN_SECONDS = 10.0  # between lines within an epoch where there is no terminal


def progress_for(stream: TextIO | None = None, *, color: bool = True) -> Observer:
    """A live display where `stream` (standard output if None) is a terminal and color is wanted, else plain lines."""
    stream = stream or sys.stdout
    return LiveProgress(stream) if color and stream.isatty() else PlainProgress(stream)


class PlainProgress(Observer):
    """One line an epoch, and one every ten seconds within a long epoch."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._epochs = 0
        self._unit = "examples"
        self._last = perf_counter()

    def started(self, run: RunReport) -> None:
        self._epochs, self._unit = run.epochs, run.unit
        self._print(headline(run))

    def note(self, text: str) -> None:
        self._print(f"note: {text}")

    def progress(self, report: StepReport) -> None:
        now = perf_counter()
        if now - self._last >= _PLAIN_SECONDS:
            self._print(
                f"epoch {report.epoch}/{self._epochs}  step {report.step:,}/{report.total:,}  {shown(report.metrics)}  "
                f"{report.examples_per_second:,.0f} {self._unit}/s  {duration(report.seconds_left)} left"
            )

    def epoch(self, report: EpochReport) -> None:
        self._print(epoch_line(report, self._epochs, self._unit))

    def finished(self, outcome: str, step: int) -> None:
        if outcome == "interrupted":
            self._print(f"interrupted after step {step:,}")

    def _print(self, line: str) -> None:
        self._last = perf_counter()
        print(line, file=self._stream, flush=True)


class LiveProgress(Observer):
    """A bar of the epoch's steps with loss, metrics, speed and the time that is left; finished epochs scroll above it."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._epochs = 0
        self._unit = "examples"
        self._notes: list[str] = []

    def started(self, run: RunReport) -> None:
        from rich.console import Console  # here: who reads a log needs no terminal library
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        self._epochs, self._unit = run.epochs, run.unit
        # The bar takes the room that the words leave. No thread of rich's: the training loop reports ten times a second by itself.
        self._bar = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[shown]}", table_column=Column(no_wrap=True)),
            console=Console(file=self._stream, highlight=False),
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=run.steps, completed=run.resumed or 0, shown="")
        self._bar.start()
        for line in (headline(run), *(f"note: {n}" for n in self._notes)):
            self._above(line)

    def note(self, text: str) -> None:
        if self._bar is None:
            self._notes.append(text)
        else:
            self._above(f"note: {text}")

    def progress(self, report: StepReport) -> None:
        if self._bar is None or self._task is None:
            return
        text = f"{shown(report.metrics)}  {report.examples_per_second:,.0f} {self._unit}/s  {duration(report.seconds_left)} left"
        self._bar.update(
            self._task, completed=report.step, total=report.total, description=f"epoch {report.epoch}/{self._epochs}", shown=text
        )
        self._bar.refresh()

    def epoch(self, report: EpochReport) -> None:
        self._above(epoch_line(report, self._epochs, self._unit))

    def finished(self, outcome: str, step: int) -> None:
        if outcome == "interrupted":
            self._above(f"interrupted after step {step:,}")
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _above(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False, soft_wrap=True)


def headline(run: RunReport) -> str:
    """What is trained on what."""
    held_out = f" + {run.test_examples:,} held out" if run.test_examples else ""
    held_out += f" + {run.validation_examples:,} for validation" if run.validation_examples else ""
    resumed = f", resumed after step {run.resumed:,}" if run.resumed is not None else ""
    batch = f"{run.accumulate} batches of {run.batch} a step" if run.accumulate > 1 else f"batch {run.batch}"
    turns = [phase.name if phase.repeat == 1 else f"{phase.repeat} {phase.name}" for phase in run.phases]
    batch += f", {' + '.join(turns)} in turn" if turns else ""
    return f"{run.recipe}: {run.examples:,}{held_out} {run.unit} of {run.data}, {batch}, {run.steps:,} steps, seed {run.seed}{resumed}"


def epoch_line(report: EpochReport, epochs: int, unit: str) -> str:
    """One finished epoch: training metrics, test metrics, speed, time."""
    test = f"  validation {shown(report.validation_metrics)}" if report.validation_metrics else ""
    test += f"  test {shown(report.test_metrics)}" if report.test_metrics else ""
    waited = f"  {report.waits:,} waits for data, {duration(report.waited)}" if report.waits else ""
    width = len(str(epochs))
    return (
        f"epoch {report.epoch:{width}d}/{epochs}  {shown(report.metrics)}{test}  "
        f"{report.examples_per_second:,.0f} {unit}/s  {duration(report.seconds)}{waited}"
    )


def shown(metrics: Mapping[str, float]) -> str:
    """`loss 0.5312  accuracy 81.2%`: what is called accuracy is a share."""
    return "  ".join(f"{name} {value:.1%}" if name.endswith("accuracy") else f"{name} {value:.4g}" for name, value in metrics.items())


def duration(seconds: float) -> str:
    """`4.2 s`, `1:05`, `2:03:10`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
