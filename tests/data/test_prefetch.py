"""The thread that makes batches ahead: the same bits, bounded, errors, interruption, and no thread left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dslc.data import Batches, Field, from_python
from dslc.data.dataset import DataSet
from dslc.data.description import Array
from dslc.data.prefetch import AHEAD, Prefetch
from dslc.ir.recipe import Recipe, RecipeField, SavePlan
from dslc.ir.types import DType
from dslc.training import EpochReport, Fit, Interrupted
from dslc.training.checkpoint import load
from dslc.training.progress import epoch_line

FIELDS = (Field("x", "f32", (3,)), Field("y", "i64"))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [t.name for t in threading.enumerate() if t.name == "dslc-prefetch"] == []


def numbers(count: int) -> DataSet:
    return from_python((np.arange(3 * count, dtype=np.uint8).reshape(count, 3), np.arange(count)), FIELDS)


def eventually(condition: object, seconds: float = 10.0) -> None:
    until = time.perf_counter() + seconds
    while not condition():  # type: ignore[operator]
        assert time.perf_counter() < until
        time.sleep(0.001)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**63 - 1), st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_the_same_batches_as_without(count: int, size: int, seed: int, start: int) -> None:
    data = numbers(count)
    plain = Batches(data.train, data.description.fields, size, threaded=False)
    ahead = Batches(data.train, data.description.fields, size, threaded=True)
    assert ahead.nbytes == (AHEAD + 1) * plain.nbytes
    for epoch in range(2):
        want = [(b["x"].tobytes(), b["y"].tobytes(), n) for b, n in plain.shuffled(seed, epoch, start)]
        with ahead.ahead(ahead.shuffled(seed, epoch, start)) as batches:
            assert [(b["x"].tobytes(), b["y"].tobytes(), n) for b, n in batches] == want
    with ahead.ahead(ahead.in_order()) as batches:
        assert [v for b, _ in batches for v in b["y"].tolist()] == list(range(count))


def test_a_batch_holds_until_the_next_is_asked_for() -> None:
    data = numbers(40)
    ahead = Batches(data.train, data.description.fields, 2, threaded=True)
    with ahead.ahead(ahead.in_order()) as batches:
        for i, (batch, _) in enumerate(batches):
            time.sleep(0.002)  # the thread makes all that it may meanwhile
            assert batch["y"].tolist() == [2 * i, 2 * i + 1]


def test_it_is_bounded_and_never_waits_when_making_is_cheaper() -> None:
    made = 0

    def count() -> Iterator[int]:
        nonlocal made
        for i in range(50):
            made += 1
            yield i

    with Prefetch(count()) as batches:
        eventually(lambda: made == AHEAD)
        for i in batches:
            eventually(lambda i=i: made == min(50, i + 1 + AHEAD))
            assert made <= i + 1 + AHEAD
            eventually(lambda: batches._ready or batches._ended)
    assert made == 50 and batches.waits == 0 and batches.waited == 0.0


def test_waits_are_counted() -> None:
    asked = threading.Semaphore(0)

    def slow() -> Iterator[int]:
        for i in range(5):
            if i:
                asked.acquire()
                time.sleep(0.01)
            yield i

    with Prefetch(slow()) as batches:
        for i in batches:
            if i < 4:
                eventually(lambda: not batches._ready)
                asked.release()
    assert batches.waits == 4 and batches.waited >= 0.03


def test_an_error_is_raised_in_its_place_after_the_batches_before() -> None:
    def failing() -> Iterator[int]:
        yield from range(4)
        raise ValueError("the fifth")

    seen = []
    with Prefetch(failing()) as batches, pytest.raises(ValueError, match="the fifth"):
        for i in batches:
            seen.append(i)
    assert seen == [0, 1, 2, 3]


def test_leaving_early_stops_the_thread() -> None:
    with Prefetch(iter(range(10**9))) as batches:
        assert next(batches) == 0
    with pytest.raises(RuntimeError), Prefetch(iter(range(10**9))):
        raise RuntimeError


def test_small_batches_are_made_in_place() -> None:
    small, large = numbers(64), from_python((np.zeros((64, 3, 64, 64), np.uint8),), [Field("x", "f32", (3, 64, 64))])
    assert not Batches(small.train, small.description.fields, 64).threaded
    assert Batches(large.train, large.description.fields, 64).threaded


def test_waits_are_shown() -> None:
    report = EpochReport(1, 9, {"loss": 0.5}, {}, 2.0, 100.0)
    assert "wait" not in epoch_line(report, 3, "images")
    assert epoch_line(replace(report, waits=1200, waited=0.75), 3, "images").endswith("1,200 waits for data, 0.8 s")


class Sum:
    """A program whose state is the order of what it has seen."""

    max_batch: int | None = None
    inputs = FIELDS

    def __init__(self, press: int = -1, fail: int = -1):
        self.total = np.zeros(3, np.float64)
        self.press = press
        self.fail = fail

    def step(self, batch: dict[str, Array], values: dict[str, float | int]) -> dict[str, float]:
        if values["step"] == self.press:
            os.kill(os.getpid(), signal.SIGINT)
        if values["step"] == self.fail:
            raise ArithmeticError
        self.total = self.total * 0.9 + batch["x"].sum(axis=0)
        return {"loss": float(batch["y"].mean())}

    def evaluate(self, batch: dict[str, Array], settings: dict[str, float | int]) -> dict[str, float]:
        return {"loss": float(batch["y"].mean())}

    def state(self) -> dict[str, Array]:
        return {"total": self.total}

    def load_state(self, state: dict[str, Array]) -> None:
        self.total = state["total"].copy()


def recipe(**changes: object) -> Recipe:
    fields = (RecipeField("x", DType.F32, (3,)), RecipeField("y", DType.I64, ()))
    return Recipe("numbers", "digits", fields, **({"epochs": 3, "batch": 4, "seed": 5} | changes))  # type: ignore[arg-type]


def fit(program: Sum, threaded: bool, folder: Path, resume: bool = False) -> Fit:
    data = numbers(50)
    made = Fit(recipe(save=SavePlan("a", every_steps=1)), program, data, folder=folder, resume=resume)
    made._batches = Batches(data.train, data.description.fields, 4, threaded=threaded)
    return made


def test_training_resumes_to_the_bit_after_ctrl_c(tmp_path: Path) -> None:
    plain = Sum()
    reports = fit(plain, False, tmp_path / "..").run()
    (tmp_path / ".." / "a").unlink()
    program = Sum(press=17)
    with pytest.raises(Interrupted):
        fit(program, True, tmp_path).run()
    assert load(tmp_path / "a").run.step == 18
    resumed = Sum()
    again = fit(resumed, True, tmp_path, resume=True).run()
    assert resumed.total.tobytes() == plain.total.tobytes()
    assert [r.metrics for r in again] == [r.metrics for r in reports]


def test_an_error_in_a_step_leaves_no_thread(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError):
        fit(Sum(fail=9), True, tmp_path).run()
    assert load(tmp_path / "a").run.step >= 1
