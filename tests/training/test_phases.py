"""Recipes with phases: several optimisations in turn."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recipes import Stop, StopAt, bits

import dslc
from dslc.data import epoch_order
from dslc.diagnostics import DiagnosticError
from dslc.frontend import check
from dslc.ir.recipe import PhasePlan, Recipe
from dslc.training.cycle import Cycle
from dslc.training.log import JsonLog, read_log
from dslc.training.progress import PlainProgress

LINES = """
dim N <= 64
model A(x: f32[N]) -> f32[N] {
  param w: f32[] = 1
  return x * w
}
model B(x: f32[N]) -> f32[N] {
  param w: f32[] = 1
  return x * w
}
train t {
  data x: f32[N] from "npz:none.npz"
  product = B(A(x))
  phase first[repeat = 2] {
    minimize mean((product - 2.0) ** 2) over A with SGD[linear[0.1]]
  }
  phase second {
    minimize mean((product + x) ** 2) over B with SGD[0.2]
    metric size = mean(abs(product))
  }
  epochs 2  batch 4  seed 3
}
"""


def test_phases_by_hand() -> None:
    """Every execution takes the next batch, moves its own model alone, and counts its own steps."""
    x = np.random.default_rng(1).standard_normal(18).astype(np.float32)
    trainer = dslc.Trainer(LINES, data=(x,), save=False, precision="f64")
    reports = trainer.fit()
    a = b = 1.0
    step = firsts = 0
    losses: dict[str, list[tuple[float, int]]] = {}
    for epoch in range(2):
        order = epoch_order(18, 3, epoch)
        for start in range(0, 18, 4):  # five batches, so that the second epoch begins within a cycle
            batch = x[order[start : start + 4]].astype(np.float64)
            product = a * b * batch
            if step % 3 < 2:
                firsts += 1
                losses.setdefault("first.loss", []).append(((product - 2) @ (product - 2) / len(batch), len(batch)))
                a -= 0.1 * (1 - (firsts - 1) / 7) * np.mean(2 * (product - 2) * b * batch)
            else:
                losses.setdefault("second.loss", []).append(((product + batch) @ (product + batch) / len(batch), len(batch)))
                b -= 0.2 * np.mean(2 * (product + batch) * a * batch)
            step += 1
        if epoch == 0:
            for name, seen in losses.items():
                mean = sum(value * count for value, count in seen) / sum(count for _, count in seen)
                assert reports[0].metrics[name] == pytest.approx(mean, rel=1e-9)
    assert trainer.step == step == 10 and firsts == 7
    assert trainer.weights["A.w"] == pytest.approx(a, rel=1e-12) and trainer.weights["B.w"] == pytest.approx(b, rel=1e-12)
    assert set(reports[1].metrics) == {"first.loss", "second.loss", "second.size"}


GAN = """
dim N <= 64
model Gen(z: f32[N, 3]) -> f32[N, 4] { return z |> Dense[5] |> BatchNorm |> relu |> Dense[4] as head }
model Critic(x: f32[N, 4]) -> f32[N, 1] { return x |> Dense[5, tanh] |> Dense[1] as head }
train t {
  data real: f32[N, 4] from "npz:none.npz"
  fake = Gen(random_normal[N, 3])
  phase critic[repeat = 2] {
    u = random_uniform[N, 1]
    mix = u * real + (1.0 - u) * stop_gradient(fake)
    slope = norm[axis = 1](grad[mix](sum(Critic(mix))))
    minimize mean(Critic(stop_gradient(fake))) - mean(Critic(real)) + 10.0 * mean((slope - 1.0) ** 2)
      over Critic with Adam[1e-3, b1 = 0.0], clip = 1.0, accumulate = 2
      over "*.b" with SGD[1e-2]
    metric slope = mean(slope)
  }
  phase generator {
    minimize -mean(Critic(fake)) over Gen with AdamW[cosine[1e-3]], ema = 0.9
  }
  metric averaged = mean(ema[Gen](random_normal[N, 3]))
  epochs 3  batch 16  seed 5
  save "t.safetensors" with every_steps = 1
}
"""
REAL = np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32)


def gan(folder: Path, **options: Any) -> dslc.Trainer:
    return dslc.Trainer(GAN, data={"train": (REAL,), "test": (REAL[:50],)}, folder=folder, **{"threads": 2} | options)


def test_resume_within_a_cycle(tmp_path: Path) -> None:
    """An epoch is ten batches; the phases take two, two and one of them."""
    whole = gan(tmp_path, save=False, threads=1)
    whole.fit()
    assert whole.step == 18
    for stop in (1, 2, 7, 12):
        with pytest.raises(Stop):
            gan(tmp_path, resume=True, observers=[StopAt(stop)]).fit()
    part = gan(tmp_path, resume=True)
    part.fit()
    assert bits(part) == bits(whole)
    assert [(r.metrics, r.test_metrics) for r in part.history] == [(r.metrics, r.test_metrics) for r in whole.history]
    net = dslc.compile(GAN, "Gen")
    net.load_weights(tmp_path / "t.safetensors", ema=True)
    assert (net.weights["Gen.head.w"] == part.averaged_weights["Gen.head.w"]).all()
    assert not (net.weights["Gen.head.w"] == part.weights["Gen.head.w"]).all()


def test_every_phase_has_its_own_settings_and_states() -> None:
    trainer = gan(Path(), save=False, settings={"critic.lr": 0.0, "critic.lr[1]": 0.0})
    before = trainer.weights
    trainer.fit()
    moved = {name.split(".")[0] for name, array in trainer.weights.items() if (array != before[name]).any() and "running" not in name}
    assert moved == {"Gen"}
    state = trainer.program.state()
    assert int(state["counter/t.critic.step"]) == 12 and int(state["counter/t.generator.step"]) == 6
    owners = {name.split("/")[1].split(".")[0]: name.split(".")[2] for name in state if name.startswith("optimizer/")}
    assert owners == {"critic": "Critic", "generator": "Gen"}
    assert "critic.lr[1]" in dict(trainer.recipe.settings) and "generator.ema" in dict(trainer.recipe.settings)


NOISE = """
dim N <= 64
model M(x: f32[N]) -> f32[N] {
  param w: f32[] = 0
  return x * w
}
train t {
  data x: f32[N] from "npz:none.npz"
  noise = random_normal[N]
  phase a[repeat = 2] { minimize mean(M(x)) over M with SGD[0.0] metric seen = mean(noise) }
  phase b { minimize mean(M(x)) over M with SGD[0.0], accumulate = 2 metric seen = mean(noise) }
  steps 6  batch 4
}
"""


def test_no_draw_is_used_twice() -> None:
    trainer = dslc.Trainer(NOISE, data=(np.zeros(64, np.float32),), save=False)
    seen: list[float] = []
    for name in ("a", "a", "b", "b", "a", "a", "b", "b"):
        results = trainer.program.phase(name).step({"x": np.zeros(4, np.float32)}, {"seed": 1})
        seen.append(float(results[f"{name}.seen"]))
    assert len(set(seen)) == 8


def test_the_log_shows_each_phase(tmp_path: Path) -> None:
    stream = io.StringIO()
    gan(tmp_path, epochs=1, save=False, log_every=3, observers=[JsonLog(tmp_path / "t.jsonl"), PlainProgress(stream)]).fit()
    start, *rest = read_log(tmp_path / "t.jsonl")
    phases = [{"name": "critic", "repeat": 2, "accumulate": 2}, {"name": "generator", "repeat": 1, "accumulate": 1}]
    assert start["phases"] == phases and start["steps"] == 6
    steps = [r for r in rest if r["event"] == "steps"]
    assert [set(r["metrics"]) for r in steps] == [{"critic.loss", "critic.slope", "generator.loss"}] * 2  # type: ignore[arg-type]
    shown = stream.getvalue()
    assert "2 critic + generator in turn" in shown and "critic.loss" in shown and "generator.loss" in shown


def test_what_a_phase_evaluates() -> None:
    """What only the other phase uses is no part of its program: the generator's program has no input."""
    trainer = gan(Path(), save=False)
    plans = {p.name: p for p in trainer.ready.plan.programs}
    assert set(plans) == {"train.critic", "update.critic", "train.generator", "evaluate"}
    written = {name.split(".")[0] for name in plans["train.generator"].writes}
    assert "Critic" not in written and "Gen" in written
    assert trainer.memory().program == "train.critic"
    with pytest.raises(DiagnosticError, match="DL0730"):
        dslc.Trainer(GAN.replace("epochs 3", "epochs 3  budget 1KiB"), data=(REAL,), save=False)


def test_cycles_of_any_length() -> None:
    """Steps and epochs of a run, against counting one by one."""
    rng = np.random.default_rng(2)
    for _ in range(300):
        phases = tuple(PhasePlan(str(i), *map(int, rng.integers(1, 5, 2))) for i in range(rng.integers(1, 4)))
        cycle = Cycle(Recipe("r", "d", (), phases=phases))
        batches, epochs, most = int(rng.integers(1, 12)), int(rng.integers(1, 40)), int(rng.choice([10**9, rng.integers(1, 200)]))
        step = begun = 0
        for _ in range(epochs):
            begun += step < most
            left = batches
            while left > 0 and step < most:
                left -= cycle.at(step).accumulate
                step += 1
        assert cycle.length(batches, epochs, most) == (step, begun)
        assert cycle.executed(step) == {p.name: sum(cycle.at(i).name == p.name for i in range(step)) for p in phases}
    assert Cycle(Recipe("r", "d", (), phases=(PhasePlan("a", 3, 2), PhasePlan("b")))).length(7, 10**9, 10**15) == (4 * 10**9, 10**9)


def problems(*clauses: str) -> list[str]:
    text = GAN[: GAN.index("train t")] + 'train t {\n  data real: f32[N, 4] from "npz:none.npz"\n' + "\n".join(clauses) + "\n  steps 3\n}\n"
    return [d.code for d in check(text).diagnostics]


MOVE = "minimize mean(Critic(real)) over Critic with SGD[0.1]"


def test_phases_that_are_refused() -> None:
    assert problems(f"phase a {{ {MOVE} }}") == []
    assert problems(f"phase a {{ {MOVE} }}", f"phase a {{ {MOVE} }}") == ["DL0102"]
    assert problems(f"phase a {{ {MOVE} {MOVE} }}") == ["DL0524"]
    assert problems(f"phase a {{ {MOVE} }}", MOVE) == ["DL0524"]
    assert problems(MOVE, MOVE) == ["DL0524"]
    assert problems("phase a { metric m = mean(real) }") == ["DL0501"]
    assert problems(f"phase a[repeat = 0] {{ {MOVE} }}") == ["DL0508"]
    assert problems(f"phase a[repeats = 2] {{ {MOVE} }}") == ["DL0103"]


def test_warnings_know_of_all_phases() -> None:
    """A loss may depend on what another phase moves; a frozen pattern may fit parameters of any."""
    generator = "phase b { minimize -mean(Critic(Gen(random_normal[4, 3]))) over Gen with SGD[0.1] }"
    assert problems(f"phase a {{ {MOVE} }}", generator, 'freeze "Critic.head.b"', 'freeze "Gen.head.b"') == []
    assert sorted(problems(generator)) == ["DL0522", "DL0523"]
    assert problems(f"phase a {{ {MOVE} }}", generator, 'freeze "Crit.*"') == ["DL0520"]


def test_averages_of_what_another_phase_moves() -> None:
    """An average that one phase keeps and another leaves behind would be wrong."""
    two = "phase a { minimize mean(Critic(real)) over Critic with SGD[0.1] }"
    kept = "phase b { minimize mean(Gen(random_normal[4, 3])) over Gen with SGD[0.1], ema = 0.9 }"
    assert problems(two, kept, "metric m = mean(ema[Gen](random_normal[4, 3]))") == []
    assert problems(two, kept, "metric m = mean(ema[Critic](real))") == ["DL0517"]
