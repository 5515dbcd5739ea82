"""NaN and infinities: found in any layer, forward and backward, at their step and line; replayed; and the watch costs little."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recipes import bits
from softmax_regression import SoftmaxRegression
from softmax_regression import recipe as plain_recipe

import dslc
from dslc.cli import run
from dslc.data import DataSet, epoch_order, open_data
from dslc.diagnostics import DiagnosticError
from dslc.training import Fit
from dslc.training import finite as watch
from dslc.training.finite import FiniteWatch, Position, finite, first_not_finite

NET = """
dim N <= 64
block planted[kind](h: f32[N, D], bad: f32[N]) -> f32[N, D] {
  b = bad[:, none]
  return if kind == "forward" then h + log(1.0 - b) else if kind == "backward" then h + sqrt(1.0 - b + 0.0 * h) else h
}
block cell[kind](h: f32[N, D], bad: f32[N]) -> f32[N, D] { return h |> planted[kind](bad) }
model Net(x: f32[N, 6], bad: f32[N]) -> f32[N, 3] {
  h = Dense[8, tanh](x) as first
  h = planted["KIND0"](h, bad)
  h = Dense[8](h) as second |> BatchNorm |> relu
  h = planted["KIND1"](h, bad)
  h = Dense[3](h) as head
  return cell["KIND2"](h, bad)
}
train t {
  data x: f32[N, 6], bad: f32[N], y: i64[N] from "npz:none.npz"
  logits = Net(x, bad)
  minimize cross_entropy(logits, y) over Net with AdamW[1e-2]OPTIONS
  epochs 3  batch 16  seed 5
  save "t.safetensors" with every = 1
}
"""


def source(kinds: tuple[str, str, str], options: str = "") -> str:
    text = NET.replace("OPTIONS", options)
    for number, kind in enumerate(kinds):
        text = text.replace(f"KIND{number}", kind)
    return text


def data(at: int | None) -> tuple[np.ndarray, ...]:
    """150 examples: ten steps an epoch. Where `bad` is 1 the planted function goes wrong."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((150, 6)).astype(np.float32), rng.integers(0, 3, 150)
    bad = np.zeros(150, np.float32)
    if at is not None:
        bad[at] = 1
    return x, bad, y


def step_of(example: int, batch: int = 16) -> int:
    """The step of the first epoch that sees an example."""
    return int(np.flatnonzero(epoch_order(150, 5, 0) == example)[0]) // batch + 1


def reported(action: Callable[[], object]) -> str:
    with pytest.raises(DiagnosticError) as caught:
        action()
    assert [d.code for d in caught.value.diagnostics] == ["DL0726"]
    return caught.value.render()


@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_planted_nan_in_any_layer(layer: int, kind: str, tmp_path: Path) -> None:
    kinds = ["", "", ""]
    kinds[layer] = kind
    path = tmp_path / "t.dl"
    path.write_text(source((kinds[0], kinds[1], kinds[2])))
    step = step_of(77)
    whole = dslc.Trainer(path, data=data(77), folder=tmp_path, save=False, steps=step - 1, threads=1) if step > 1 else None
    if whole is not None:
        whole.fit()
    trainer = dslc.Trainer(path, data=data(77), folder=tmp_path, save=False, threads=1)
    text = reported(trainer.fit)
    line = path.read_text().splitlines().index(next(line for line in path.read_text().splitlines() if f'"{kind}"](h, bad)' in line)) + 1
    operator = "log" if kind == "forward" else "sqrt|div|mul|rsqrt"
    assert re.search(rf"t\.dl:\d+:\d+: error\[DL0726\].* at step {step} \(epoch 1\): `({operator})` in the {kind} pass makes", text), text
    assert f"t.dl:{line}:" in text or "t.dl:5:" in text, "the line of the planted function, or of its call"
    assert trainer.step == step - 1
    if whole is not None:
        assert bits(trainer) == bits(whole), "the run stands before the step"
    assert reported(lambda: trainer.replay(step)).splitlines()[0] == text.splitlines()[0]


def test_the_command_of_the_report_replays_the_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = source(("", "backward", ""), ", accumulate = 2, clip = 1.0").replace("npz:none.npz", "npz:d.npz")
    path = tmp_path / "t.dl"
    path.write_text(text)
    example = int(epoch_order(150, 5, 0)[100])
    x, bad, y = data(example)
    np.savez(tmp_path / "d.npz", x=x, bad=bad, y=y)

    def command(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        status = run(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    arguments = ("train", str(path), "--folder", str(tmp_path), "--data", str(tmp_path), "--batch", "8")
    status, failed = command(*arguments)
    assert status == 1
    told = re.search(r"`dslc (train [^`]*--replay (\d+))`", failed)
    assert told is not None, failed
    step, again = int(told[2]), told[1].split()
    assert step == step_of(example) == 7
    first = next(line for line in failed.splitlines() if "DL0726" in line)
    status, shown = command(*again)
    assert status == 1 and first in shown
    (tmp_path / "t.replay.safetensors").unlink()
    assert first in command(*again)[1], "from the beginning"
    status, fine = command(*again[:-1], str(step - 1))
    assert status == 0 and f"step {step - 1}: loss" in fine
    assert "DL0732" in command(*arguments, "--replay", "5000")[1]
    status, quiet = command(*arguments, "--no-check", "--json")
    assert status == 0 and '"loss": NaN' in quiet


def test_data_that_are_not_finite(tmp_path: Path) -> None:
    x, bad, y = data(None)
    x[9, 2] = np.nan
    trainer = dslc.Trainer(source(("", "", "")), data=(x, bad, y), save=False, folder=tmp_path)
    assert re.search(rf"at step {step_of(9)} .*the data `x` hold NaN, first in example \d+ of the batch", reported(trainer.fit))


def test_a_checkpoint_is_never_spoiled(tmp_path: Path) -> None:
    """The last step of the epoch spoils the weights after its loss was read; the checkpoint behind it must not be written."""
    path = tmp_path / "t.dl"
    path.write_text(source(("", "backward", "")).replace("every = 1", "every_steps = 1"))
    from dslc.training import checkpoint

    last = int(epoch_order(150, 5, 0)[149])
    text = reported(dslc.Trainer(path, data=data(last), folder=tmp_path).fit)
    assert "at step 10 (epoch 1)" in text
    stored = checkpoint.load(tmp_path / "t.safetensors")
    assert stored.run.step == 9 and first_not_finite(stored.tensors) is None


def test_the_watch_changes_no_bits() -> None:
    text = source(("", "", ""))
    trainers = [dslc.Trainer(text, data=data(None), save=False, check=check) for check in (True, False)]
    for trainer in trainers:
        trainer.fit()
    assert bits(trainers[0]) == bits(trainers[1])


# ----------------------------------------------------------------------------------------------------------- costs


def test_looks_and_copies_take_one_part_in_a_hundred_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of its own: a look takes 2 s, a copy 3 s, and between two of them at least a hundred times as long passes."""
    now = [0.0]
    monkeypatch.setattr(watch, "perf_counter", lambda: now[0])
    spent = {"look": 0.0, "copy": 0.0}

    def looked(arrays: Mapping[str, Any]) -> None:
        now[0] += 2
        spent["look"] += 2

    def kept(state: Mapping[str, Any], into: Mapping[str, Any]) -> dict[str, Any]:
        now[0] += 3
        spent["copy"] += 3
        return dict(state)

    monkeypatch.setattr(watch, "first_not_finite", looked)
    monkeypatch.setattr(watch, "copied", kept)
    it = FiniteWatch(lambda: {"w": np.zeros(3)})
    start = now[0]
    while now[0] < 50_000:
        now[0] += 0.5  # a step
        if it.due(now[0]):
            it.look()
            it.keep(Position(0, 0, 0))
    total = now[0] - start
    assert 0.005 * total < spent["look"] <= 0.0105 * total and 0.005 * total < spent["copy"] <= 0.0105 * total


def test_no_copy_where_there_is_no_room() -> None:
    state = {"w": np.zeros(100, np.float32)}
    it = FiniteWatch(lambda: state, room=399)
    it.keep(Position(0, 0, 1))
    assert it.kept() is None
    it = FiniteWatch(lambda: state, room=400)
    it.keep(Position(0, 0, 1))
    assert it.kept() is not None
    off = FiniteWatch(lambda: state, enabled=False)
    off.keep(Position(0, 0, 1))
    assert off.kept() is None and not off.due(0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_is_found(bad: float) -> None:
    array = np.ones((50, 70), np.float32)
    assert finite(array)
    array[31, 7] = bad
    assert not finite(array)
    assert first_not_finite({"optimizer/x": array, "w": array}) == f"`w` holds {'NaN' if np.isnan(bad) else 'an infinity'}"


def test_large_numbers_are_finite() -> None:
    assert finite(np.full(1000, 3e38, np.float32)) and finite(np.full(10, 2**62)) and finite(np.zeros(0, np.float32))
    assert finite(np.array([3e38, -3e38] * 50, np.float32))


class Breaking(SoftmaxRegression):
    """Spoils a weight at a step without a sign in the loss until much later, as a weight that is rarely used does."""

    def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
        with np.errstate(all="ignore"):
            results = super().step(batch, settings)
        if settings["step"] == 40:
            self._state["optimizer/Logistic.w.m"][3, 3] = np.inf
        return dict.fromkeys(results, 1.0)


def test_the_step_is_found_again_without_the_loss() -> None:
    digits: DataSet = open_data("digits", SoftmaxRegression().inputs)
    fit = Fit(plain_recipe(save=None), Breaking(), digits)
    text = reported(fit.run)
    assert "at step 41 (epoch 2)" in text and fit.step == 40
    assert first_not_finite(fit.program.state()) is None


def test_what_is_spoiled_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are due at every epoch, looks never: the third epoch begins with a weight that the second one spoiled."""
    monkeypatch.setattr(watch, "_SHARE", 0)
    monkeypatch.setattr(FiniteWatch, "due", lambda self, now: False)
    fit = Fit(plain_recipe(save=None), Breaking(), open_data("digits", SoftmaxRegression().inputs))
    assert "at step 41 (epoch 2)" in reported(fit.run) and fit.step == 40
