"""The loop: learning, weighted metrics, limits, resumption to the bit, Ctrl-C, refusals, overhead."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from softmax_regression import FIELDS, SoftmaxRegression, recipe

from dslc.data import DataSet, Field
from dslc.diagnostics import DiagnosticError
from dslc.ir.recipe import Recipe, SavePlan
from dslc.training import EpochReport, Fit, Interrupted, Observer, RunInfo, RunReport, StepReport, checkpoint, open_recipe_data


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return open_recipe_data(recipe())


class Record(Observer):
    """Keeps everything that it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def started(self, run: RunReport) -> None:
        self.events.append(("started", run))

    def note(self, text: str) -> None:
        self.events.append(("note", text))

    def progress(self, report: StepReport) -> None:
        self.events.append(("progress", report))

    def logged(self, report: StepReport) -> None:
        self.events.append(("logged", report))

    def epoch(self, report: EpochReport) -> None:
        self.events.append(("epoch", report))

    def saved(self, path: Path, step: int, seconds: float) -> None:
        self.events.append(("saved", step))

    def finished(self, outcome: str, step: int) -> None:
        self.events.append(("finished", outcome))

    def of(self, kind: str) -> list[object]:
        return [what for name, what in self.events if name == kind]


def bits(program: SoftmaxRegression) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in program.state().items()}


def refused(code: str, *args: object, **options: object) -> str:
    with pytest.raises(DiagnosticError) as caught:
        Fit(*args, **options).run()  # type: ignore[arg-type]
    assert [d.code for d in caught.value.diagnostics] == [code], caught.value.render()
    return caught.value.render()


def test_it_learns_the_digits(digits: DataSet, tmp_path: Path) -> None:
    reports = Fit(recipe(epochs=15), SoftmaxRegression(), digits, folder=tmp_path).run()
    assert len(reports) == 15 and reports[-1].epoch == 15 and reports[-1].step == 15 * 23
    assert reports[-1].test_metrics["accuracy"] > 0.94
    assert reports[-1].metrics["loss"] < reports[4].metrics["loss"] < reports[0].metrics["loss"]
    assert reports[-1].examples_per_second == pytest.approx(1437 / reports[-1].seconds)


class Counting:
    """Returns what a test can foresee: the loss of a batch is the mean of its labels."""

    max_batch: int | None = None

    def __init__(self) -> None:
        self.inputs = (Field("label", "i64"),)
        self.sizes: list[int] = []
        self.seen: list[dict[str, float | int]] = []

    def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
        assert list(batch) == ["label"], "a field that the program does not read was put into the batch"
        self.sizes.append(len(batch["label"]))
        self.seen.append(dict(settings))
        return {"loss": float(batch["label"].mean())}

    def evaluate(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
        return {"loss": float(batch["label"].mean())}

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        pass


def test_metrics_are_means_over_examples(digits: DataSet) -> None:
    program = Counting()
    [report] = Fit(recipe(epochs=1, batch=100, save=None), program, digits).run()
    assert program.sizes == [100] * 14 + [37]
    assert digits.test is not None
    assert report.metrics["loss"] == pytest.approx(digits.train.arrays["label"].mean(), rel=1e-12)
    assert report.test_metrics["loss"] == pytest.approx(digits.test.arrays["label"].mean(), rel=1e-12)


def test_settings_reach_every_step(digits: DataSet) -> None:
    program = Counting()
    Fit(recipe(epochs=2, save=None).override(seed=5, settings={"lr": 0.5}), program, digits).run()
    assert program.seen == [{"lr": 0.5, "seed": 5, "step": i, "total": 46} for i in range(46)]


class Accumulating(Counting):
    """Records batches and updates in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[object] = []

    def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
        self.calls.append(len(batch["label"]))
        return super().step(batch, settings)

    def update(self, settings: Mapping[str, float | int]) -> None:
        self.calls.append(f"update {settings['step']}")

    def reset(self) -> None:
        self.calls.append("reset")


def test_a_step_takes_several_batches(digits: DataSet) -> None:
    """1,437 examples in batches of 300: four and a rest of 237, in steps of two, two and one."""
    program = Accumulating()
    reports = Fit(recipe(epochs=2, batch=300, accumulate=2, save=None), program, digits).run()
    epoch = ["reset", 300, 300, "update {}", 300, 300, "update {}", 237, "update {}"]
    counts = iter(range(6))
    assert program.calls == [c.format(next(counts)) if str(c).startswith("update") else c for c in epoch * 2]
    assert [r.step for r in reports] == [3, 6] and program.seen[0]["total"] == 6
    assert reports[0].metrics["loss"] == pytest.approx(digits.train.arrays["label"].mean(), rel=1e-12)


def test_steps_that_accumulate_are_counted_whole(digits: DataSet) -> None:
    program = Accumulating()
    fit = Fit(recipe(epochs=None, steps=4, batch=300, accumulate=2, save=None), program, digits)
    assert [r.step for r in fit] == [3, 4] and fit.finished
    assert program.calls[-4:] == ["reset", 300, 300, "update 3"]


@pytest.mark.parametrize(
    ("epochs", "steps", "sizes"),
    [
        (None, None, [23]),
        (2, None, [23, 23]),
        (None, 50, [23, 23, 4]),
        (None, 46, [23, 23]),
        (1, 50, [23]),
        (9, 30, [23, 7]),
        (None, 3, [3]),
    ],
)
def test_limits_of_epochs_and_steps(digits: DataSet, epochs: int | None, steps: int | None, sizes: list[int]) -> None:
    record = Record()
    fit = Fit(recipe(epochs=epochs, steps=steps, save=None), Counting(), digits, observers=[record])
    reports = list(fit)
    assert np.diff([0, *(r.step for r in reports)]).tolist() == sizes
    assert reports[-1].test_metrics and fit.finished and list(fit) == []
    run = record.of("started")[0]
    assert isinstance(run, RunReport) and (run.epochs, run.steps) == (len(sizes), sum(sizes))
    assert record.of("finished") == ["finished"]


@pytest.mark.parametrize(("validate", "evaluated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (0, [])])
def test_validate(digits: DataSet, validate: int, evaluated: list[int]) -> None:
    reports = Fit(recipe(epochs=5, validate=validate, save=None), Counting(), digits).run()
    assert [r.epoch for r in reports if r.test_metrics] == evaluated


def test_observers_and_the_time_of_saving(digits: DataSet, tmp_path: Path) -> None:
    record = Record()
    plan = SavePlan("a.safetensors", every_epochs=2)
    Fit(recipe(epochs=5, save=plan), SoftmaxRegression(), digits, folder=tmp_path, observers=[record], log_every=10).run()
    assert record.of("saved") == [46, 92, 115]
    logged = [r for r in record.of("logged") if isinstance(r, StepReport)]
    assert [r.step for r in logged] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110]
    assert [r.epoch for r in logged] == [1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5]
    assert logged[0].metrics["loss"] > logged[1].metrics["loss"], "the means are not those of the last steps"
    assert record.events[0][0] == "started" and record.events[-1] == ("finished", "finished")
    assert record.of("progress"), "no progress was reported"


def test_saving_by_steps_and_by_seconds(digits: DataSet, tmp_path: Path) -> None:
    record = Record()
    Fit(recipe(epochs=2, save=SavePlan("a", every_steps=10)), Counting(), digits, folder=tmp_path, observers=[record]).run()
    assert record.of("saved") == [10, 20, 30, 40, 46]

    class Slow(Counting):
        def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
            time.sleep(0.01)
            return super().step(batch, settings)

    record = Record()
    started = time.perf_counter()
    Fit(recipe(epochs=2, save=SavePlan("a", every_seconds=0.1)), Slow(), digits, folder=tmp_path, observers=[record]).run()
    intervals = (time.perf_counter() - started) / 0.1
    steps = record.of("saved")
    assert 3 <= len(steps) <= intervals + 1 and steps[-1] == 46  # never sooner than asked, and the end is always saved


def uninterrupted(digits: DataSet, folder: Path, **changes: object) -> tuple[dict[str, bytes], tuple[EpochReport, ...]]:
    program = SoftmaxRegression()
    reports = Fit(recipe(**changes), program, digits, folder=folder).run()
    return bits(program), reports


def without_times(reports: tuple[EpochReport, ...]) -> list[object]:
    return [(r.epoch, r.step, r.metrics, r.test_metrics) for r in reports]


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [1, 22, 23, 24, 40, 69])
def test_resumed_bits_equal_the_uninterrupted_runs(digits: DataSet, tmp_path: Path, at: int) -> None:
    want, reports = uninterrupted(digits, tmp_path / "..", epochs=3, save=None)

    class Failing(SoftmaxRegression):
        def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
            if settings["step"] == at:
                raise Stop
            return super().step(batch, settings)

    plan = SavePlan("a.safetensors", every_steps=1)
    record = Record()
    fit = Fit(recipe(save=plan), Failing(), digits, folder=tmp_path, observers=[record])
    if at < 69:
        with pytest.raises(Stop):
            fit.run()
        assert record.of("finished") == ["failed"]
    else:
        fit.run()
    program = SoftmaxRegression()
    resumed = Fit(recipe(save=plan), program, digits, folder=tmp_path, resume=True)
    assert resumed.step == at
    again = resumed.run()
    assert bits(program) == want
    assert without_times(again) == without_times(reports), "the metrics of the resumed epoch differ"


def test_resumption_between_last_step_and_report(digits: DataSet, tmp_path: Path) -> None:
    """A run of 30 steps ends within an epoch; killed while it evaluates, it evaluates when resumed."""

    class Failing(SoftmaxRegression):
        def evaluate(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
            if self._state["optimizer/step"] == 30:
                raise Stop
            return super().evaluate(batch, settings)

    given = recipe(epochs=None, steps=30, save=SavePlan("a", every_steps=5))
    with pytest.raises(Stop):
        Fit(given, Failing(), digits, folder=tmp_path).run()
    program = SoftmaxRegression()
    reports = Fit(given, program, digits, folder=tmp_path, resume=True).run()
    want, expected = uninterrupted(digits, tmp_path / "..", epochs=None, steps=30, save=None)
    assert without_times(reports) == without_times(expected) and bits(program) == want
    assert Fit(given, SoftmaxRegression(), digits, folder=tmp_path, resume=True).finished


def test_resuming_a_finished_run_with_more_epochs(digits: DataSet, tmp_path: Path) -> None:
    Fit(recipe(epochs=2), SoftmaxRegression(), digits, folder=tmp_path).run()
    program = SoftmaxRegression()
    reports = Fit(recipe(epochs=3), program, digits, folder=tmp_path, resume=True).run()
    want, expected = uninterrupted(digits, tmp_path / "..", epochs=3, save=None)
    assert bits(program) == want and without_times(reports) == without_times(expected)


def test_resuming_with_another_batch_trains_every_example_once_an_epoch(digits: DataSet, tmp_path: Path) -> None:
    class Failing(Counting):
        def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
            if settings["step"] == 7:
                raise Stop
            return super().step(batch, settings)

    plan = SavePlan("a", every_steps=1)
    with pytest.raises(Stop):
        Fit(recipe(save=plan), Failing(), digits, folder=tmp_path).run()
    program = Counting()
    reports = Fit(recipe(save=plan, batch=100), program, digits, folder=tmp_path, resume=True).run()
    assert sum(program.sizes) == 3 * 1437 - 7 * 64
    assert reports[0].metrics["loss"] == pytest.approx(digits.train.arrays["label"].mean(), rel=1e-12)


def test_resume_without_a_checkpoint_begins_and_says_so(digits: DataSet, tmp_path: Path) -> None:
    record = Record()
    assert len(Fit(recipe(), SoftmaxRegression(), digits, folder=tmp_path, resume=True, observers=[record]).run()) == 3
    assert "training from the beginning" in str(record.of("note"))


def test_what_resume_refuses(digits: DataSet, tmp_path: Path) -> None:
    Fit(recipe(epochs=1), SoftmaxRegression(), digits, folder=tmp_path, info=RunInfo("aa")).run()
    assert "--seed 7" in refused("DL0727", recipe(seed=8), SoftmaxRegression(), digits, folder=tmp_path, resume=True)
    fewer = open_recipe_data(recipe(), given=(digits.train.arrays["image"][:100], digits.train.arrays["label"][:100]))
    refused("DL0727", recipe(), SoftmaxRegression(), fewer, folder=tmp_path, resume=True)
    other = SoftmaxRegression()
    other._state["Logistic.more"] = np.zeros(1)
    assert "missing: Logistic.more" in refused("DL0724", recipe(), other, digits, folder=tmp_path, resume=True)
    refused("DL0721", recipe(save=None), SoftmaxRegression(), digits, folder=tmp_path, resume=True)
    record = Record()
    Fit(recipe(), SoftmaxRegression(), digits, folder=tmp_path, resume=True, info=RunInfo("bb"), observers=[record])
    assert "source has changed" in str(record.of("note"))


def test_the_checkpoint_holds_what_a_user_needs(digits: DataSet, tmp_path: Path) -> None:
    Fit(recipe(), SoftmaxRegression(), digits, folder=tmp_path, info=RunInfo("abc")).run()
    loaded = checkpoint.load(tmp_path / "digits.safetensors")
    assert sorted(loaded.weights) == ["Logistic.b", "Logistic.seen", "Logistic.w"]
    assert loaded.run.source_digest == "abc" and loaded.run.seed == 7 and (loaded.run.epoch, loaded.run.step) == (3, 69)
    assert loaded.data == digits.description.to_json()
    assert loaded.tensors["Logistic.seen"] == 3 * 1437


def test_a_loss_that_is_no_number_names_the_step(digits: DataSet, tmp_path: Path) -> None:
    class Diverging(Counting):
        def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
            return {"loss": float("nan") if settings["step"] >= 33 else 1.0}

    plan = SavePlan("a", every_epochs=1)
    message = refused("DL0726", recipe(save=plan), Diverging(), digits, folder=tmp_path)
    assert "the loss is nan at step 34 (epoch 2)" in message and "checkpoint of an earlier step" in message
    assert checkpoint.load(tmp_path / "a").run.step == 23


class Pressing(SoftmaxRegression):
    """Presses Ctrl-C at a step, or while it evaluates."""

    def __init__(self, at: int, evaluating: bool = False):
        super().__init__()
        self.at = at
        self.evaluating = evaluating

    def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
        if settings["step"] == self.at and not self.evaluating:
            os.kill(os.getpid(), signal.SIGINT)
        return super().step(batch, settings)

    def evaluate(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
        if self._state["optimizer/step"] == self.at and self.evaluating:
            os.kill(os.getpid(), signal.SIGINT)
        return super().evaluate(batch, settings)


@pytest.mark.parametrize("evaluating", [False, True])
@pytest.mark.parametrize("iterate", [False, True])
def test_ctrl_c_saves_and_the_run_can_go_on(digits: DataSet, tmp_path: Path, evaluating: bool, iterate: bool) -> None:
    before = signal.getsignal(signal.SIGINT)
    program = Pressing(46 if evaluating else 30, evaluating)
    record = Record()
    fit = Fit(recipe(), program, digits, folder=tmp_path, observers=[record])
    started = time.perf_counter()
    with pytest.raises(Interrupted) as caught:
        list(fit) if iterate else fit.run()
    assert time.perf_counter() - started < 1
    assert caught.value.step == (46 if evaluating else 31) and caught.value.path == tmp_path / "digits.safetensors"
    assert record.of("finished") == ["interrupted"] and signal.getsignal(signal.SIGINT) is before
    assert isinstance(caught.value, KeyboardInterrupt)
    resumed = SoftmaxRegression()
    Fit(recipe(), resumed, digits, folder=tmp_path, resume=True).run()
    assert bits(resumed) == uninterrupted(digits, tmp_path / "..", save=None)[0]


def test_a_second_ctrl_c_stops_at_once(digits: DataSet) -> None:
    class Hanging(Counting):
        def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("went on")

    with pytest.raises(KeyboardInterrupt) as caught:
        Fit(recipe(save=None), Hanging(), digits).run()
    assert not isinstance(caught.value, Interrupted)


def test_ctrl_c_without_a_file_to_save_to(digits: DataSet) -> None:
    with pytest.raises(Interrupted) as caught:
        Fit(recipe(save=None), Pressing(3), digits).run()
    assert caught.value.path is None and caught.value.step == 4


def test_in_another_thread(digits: DataSet) -> None:
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(len(Fit(recipe(save=None), SoftmaxRegression(), digits).run())))
    thread.start()
    thread.join(20)
    assert done == [3]


@pytest.mark.parametrize("path", ["../a.safetensors", "/tmp/a.safetensors", "x/../../a", "", "..", "a\0b"])
def test_a_recipe_cannot_save_elsewhere(digits: DataSet, tmp_path: Path, path: str) -> None:
    refused("DL0728", recipe(save=SavePlan(path)), SoftmaxRegression(), digits, folder=tmp_path)


def test_settings_out_of_range(digits: DataSet) -> None:
    for wrong in ({"batch": 0}, {"epochs": 0}, {"steps": -1}, {"seed": -1}, {"seed": 2**63}, {"save": SavePlan("a", every_steps=0)}):
        with pytest.raises(DiagnosticError) as caught:
            recipe(**wrong)
        assert caught.value.diagnostics[0].code == "DL0720"
    with pytest.raises(DiagnosticError, match="did you mean 'lr'"):
        recipe().override(settings={"lrr": 1.0})
    assert "bound of 256" in refused("DL0720", recipe(batch=300), SoftmaxRegression(), digits)


def test_override_keeps_the_rest() -> None:
    changed = recipe().override(epochs=9, batch=5, seed=1, settings={"lr": 0.25})
    assert (changed.epochs, changed.batch, changed.seed, changed.settings) == (9, 5, 1, (("lr", 0.25),))
    assert changed.fields == FIELDS and recipe().override() == recipe()


def test_the_loop_costs_little(digits: DataSet) -> None:
    """Microseconds a step beyond the making of batches; the bound is generous for a busy machine."""
    answer = {"loss": 1.0, "accuracy": 0.5}

    class Nothing(Counting):
        def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
            return answer

    given: Recipe = recipe(epochs=5, save=None, validate=0)

    def once() -> float:
        fit = Fit(given, Nothing(), digits, observers=[Observer()])
        started = time.perf_counter()
        fit.run()
        loop = time.perf_counter() - started
        started = time.perf_counter()
        for epoch in range(5):
            for _ in fit.batches.shuffled(7, epoch):
                pass
        return (loop - (time.perf_counter() - started)) / fit.step

    assert min(once() for _ in range(30)) < 30e-6
