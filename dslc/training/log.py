"""The log of a run: one JSON object a line, appended to when a run is resumed.

| `event` | holds |
|---|---|
| `start` | versions, CPU, threads, seed, source digest, data, settings, `resumed` (the step, or null) |
| `steps` | means over the steps since the last record, of metrics and of `statistics` where the recipe wants them; step, epoch, speed |
| `epoch` | means over the epoch, test metrics and tables, seconds, speed; how often and how long (seconds) steps waited for data |
| `checkpoint` | file, step, seconds that saving took |
| `note`, `end` | a text; the outcome "finished", "interrupted" or "failed" |

After a crash the steps since the last checkpoint are done and logged again: of two records of one step the later one counts.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.training.protocol import EpochReport, Observer, RunReport, StepReport


class JsonLog(Observer):
    """Writes the records to `path`; every line is on its way to the disk before training goes on. Error: DL0725."""

    def __init__(self, path: Path, *, append: bool = False):
        self.path = path
        try:
            if append:
                _cut_torn_line(path)
            self._file = path.open("a" if append else "w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise DiagnosticError(
                Diagnostic("DL0725", f"cannot write the log {path}: {error.strerror}", hint="give a folder that exists and may be written")
            ) from error

    def started(self, run: RunReport) -> None:
        info = run.info
        versions = {"python": platform.python_version(), "numpy": np.__version__, **dict(info.versions)}
        self._write(
            "start",
            recipe=run.recipe,
            source_digest=info.source_digest,
            versions=versions,
            cpu=cpu_name(),
            platform=sys.platform,
            threads=info.threads,
            data=run.data,
            examples=run.examples,
            test_examples=run.test_examples,
            **({"validation_examples": run.validation_examples} if run.validation_examples else {}),
            epochs=run.epochs,
            steps=run.steps,
            batch=run.batch,
            accumulate=run.accumulate,
            **({"phases": [asdict(phase) for phase in run.phases]} if run.phases else {}),
            seed=run.seed,
            settings=dict(run.settings),
            resumed=run.resumed,
        )

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def logged(self, report: StepReport) -> None:
        self._write(
            "steps",
            epoch=report.epoch,
            step=report.step,
            metrics=dict(report.metrics),
            examples_per_second=round(report.examples_per_second, 1),
            **({"statistics": dict(report.statistics)} if report.statistics else {}),
        )

    def epoch(self, report: EpochReport) -> None:
        record = asdict(report)
        for name in ("validation_metrics", "validation_tables"):
            if not record[name]:
                del record[name]
        self._write("epoch", **record)

    def saved(self, path: Path, step: int, seconds: float) -> None:
        self._write("checkpoint", file=path.name, step=step, seconds=round(seconds, 6))

    def finished(self, outcome: str, step: int) -> None:
        self._write("end", outcome=outcome, step=step)
        self.close()

    def close(self) -> None:
        self._file.close()

    def _write(self, event: str, **values: object) -> None:
        if not self._file.closed:
            self._file.write(json.dumps({"event": event, "time": round(time.time(), 3), **values}, allow_nan=True) + "\n")


def read_log(path: Path) -> list[Mapping[str, object]]:
    """The records of a log; a last line that a crash has cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            records.append(json.loads(line))
    return records


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cut_torn_line(path: Path) -> None:
    """Removes what a killed process has left of its last line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 4096)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)
