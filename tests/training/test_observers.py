"""The log, the progress lines and the curves."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from softmax_regression import SoftmaxRegression, recipe

from dslc.diagnostics import DiagnosticError
from dslc.training import EpochReport, Fit, RunInfo, RunReport, StepReport, open_recipe_data
from dslc.training.log import JsonLog, cpu_name, read_log
from dslc.training.plot import CurvePlot, panels_of, svg, ticks, write_curves
from dslc.training.progress import LiveProgress, PlainProgress, duration, progress_for, shown

HISTORY = [EpochReport(e, 10 * e, {"accuracy": 1 - 0.5 / e, "loss": 1 / e}, {"loss": 1.2 / e}, 1.0, 100.0) for e in range(1, 8)]
RUN = RunReport("net", "digits", 1437, 360, 10**5, "images", 12, 276, 64, 7, {"lr": 0.1}, RunInfo("ab12", 2, (("dslc", "0.1"),)), None, ())


def test_the_log_of_a_run_that_is_resumed(tmp_path: Path) -> None:
    digits = open_recipe_data(recipe())
    path = tmp_path / "log.jsonl"
    for epochs, append in ((2, False), (3, True)):
        info = RunInfo("ab12", 2, (("dslc", "0.1.0"),))
        log = JsonLog(path, append=append)
        Fit(
            recipe(epochs=epochs), SoftmaxRegression(), digits, folder=tmp_path, resume=append, info=info, observers=[log], log_every=10
        ).run()
    records = read_log(path)
    assert [r["event"] for r in records if r["event"] != "steps"] == [
        *("start", "epoch", "checkpoint", "epoch", "checkpoint", "end"),
        *("start", "epoch", "checkpoint", "end"),
    ]
    first, second = (r for r in records if r["event"] == "start")
    assert first["seed"] == 7 and first["source_digest"] == "ab12" and first["threads"] == 2 and first["resumed"] is None
    assert {"python", "numpy", "dslc"} <= dict(first["versions"]).keys() and first["cpu"] == cpu_name() != ""  # type: ignore[call-overload]
    assert first["settings"] == {"lr": 0.02} and second["resumed"] == 46
    assert [r["step"] for r in records if r["event"] == "steps"] == [10, 20, 30, 40, 50, 60]
    epoch = next(r for r in records if r["event"] == "epoch")
    assert set(epoch) >= {"epoch", "step", "metrics", "test_metrics", "seconds", "examples_per_second"}


def test_a_torn_last_line_is_cut_when_the_log_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for torn, kept in (
        ('{"event": "a"}\n{"event": "b', 1),
        ('{"eve', 0),
        ("", 0),
        ('{"event": "a"}\n', 1),
        ('{"event": "a"}\n' + "x" * 9000, 1),
    ):
        path.write_text(torn)
        assert len(read_log(path)) == kept
        log = JsonLog(path, append=True)
        log.note("hello")
        log.close()
        assert len(read_log(path)) == kept + 1 and read_log(path)[-1]["text"] == "hello"
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError, match="DL0725"):
        JsonLog(tmp_path / "no" / "log.jsonl")


def test_plain_lines() -> None:
    stream = io.StringIO()
    progress = progress_for(stream)
    assert isinstance(progress, PlainProgress)
    progress.started(RUN)
    progress.note("careful")
    progress.progress(StepReport(1, 5, 276, 320, {"loss": 2.0}, 1000.0, 3.0))  # within ten seconds: no line
    progress.epoch(EpochReport(1, 23, {"loss": 0.51234, "accuracy": 0.9123}, {"loss": 0.4, "accuracy": 0.95}, 0.5, 2874.4))
    progress.finished("interrupted", 30)
    assert stream.getvalue().splitlines() == [
        "net: 1,437 + 360 held out images of digits, batch 64, 276 steps, seed 7",
        "note: careful",
        "epoch  1/12  loss 0.5123  accuracy 91.2%  test loss 0.4  accuracy 95.0%  2,874 images/s  0.5 s",
        "interrupted after step 30",
    ]


def test_a_long_epoch_prints_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.started(RUN)
    monkeypatch.setattr("dslc.training.progress._PLAIN_SECONDS", 0.0)
    progress.progress(StepReport(2, 5, 276, 320, {"loss": 2.0}, 1000.0, 75.0))
    assert stream.getvalue().splitlines()[-1] == "epoch 2/12  step 5/276  loss 2  1,000 images/s  1:15 left"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    progress = progress_for(stream)
    assert isinstance(progress, LiveProgress)
    progress.note("before [the] start")
    progress.started(RUN)
    progress.progress(StepReport(1, 5, 276, 320, {"loss": 2.0, "accuracy": 0.5}, 1000.0, 3.0))
    progress.epoch(HISTORY[0])
    progress.finished("finished", 276)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "note: before [the] start" in text
    assert "5/276" in text and "loss 2  accuracy 50.0%  1,000 images/s  3.0 s left" in text
    assert "epoch  1/12  accuracy 50.0%  loss 1" in text
    assert isinstance(progress_for(Terminal(), color=False), PlainProgress)


def test_small_spellings() -> None:
    assert [duration(s) for s in (0.04, 59.9, 65, 3599.6, 7390)] == ["0.0 s", "59.9 s", "1:05", "1:00:00", "2:03:10"]
    assert shown({"loss": 12345.678, "top5_accuracy": 1.0}) == "loss 1.235e+04  top5_accuracy 100.0%"


def test_svg_curves() -> None:
    panels = panels_of(HISTORY)
    assert [p.title for p in panels] == ["loss", "accuracy"]
    assert [[c.label for c in p.curves] for p in panels] == [["train", "test"], ["train"]]
    root = ElementTree.fromstring(svg(panels, 'a <b> & "c"'))
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == 'a <b> & "c"'
    lines = root.findall(f".//{space}polyline")
    assert len(lines) == 3
    train, test = ([tuple(map(float, p.split(","))) for p in line.get("points", "").split()] for line in lines[:2])
    assert len(train) == 7 and all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(train)), "a falling loss goes down"
    assert all(t[1] < r[1] for t, r in zip(test, train, strict=True)), "the larger loss is drawn higher"
    assert all(0 <= x <= 360 and 0 <= y <= 260 for x, y in train + test)


@pytest.mark.parametrize("history", [[], HISTORY[:1], [EpochReport(1, 1, {"loss": math.nan, "m": 0.0}, {}, 1, 1)]])
def test_svg_of_little(history: list[EpochReport]) -> None:
    ElementTree.fromstring(svg(panels_of(history)))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.913, 0.987), (-3, 5e9), (1e-9, 2e-9), (4, 4), (0, 0), (-1e-30, 1e-30), (1, 300)])
def test_ticks_are_round_and_span(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 9 and marks[0] <= low and marks[-1] >= high and marks == sorted(set(marks))


def test_curves_are_drawn_while_training(tmp_path: Path) -> None:
    digits = open_recipe_data(recipe())
    path = tmp_path / "curves.svg"
    for epochs, resume in ((2, False), (4, True)):
        Fit(recipe(epochs=epochs), SoftmaxRegression(), digits, folder=tmp_path, resume=resume, observers=[CurvePlot(path)]).run()
    lines = ElementTree.parse(path).getroot().findall(".//{http://www.w3.org/2000/svg}polyline")
    assert [len(line.get("points", "").split()) for line in lines] == [4, 4, 4, 4], "the epochs before the resumption are missing"


def test_png_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_curves(tmp_path / "a.png", HISTORY, "title")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_png_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DiagnosticError, match="DL0729"):
        CurvePlot(tmp_path / "a.png")


def test_curves_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError, match="DL0725"):
        write_curves(tmp_path / "no" / "a.svg", HISTORY)
