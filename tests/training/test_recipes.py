"""Compiled recipes: accumulated gradients, averaged parameters, clipping, groups, frozen and loaded parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recipes import DATA, METRICS, NET, Array, Stop, StopAt, bits, examples, recipe, trained

import dslc
from dslc.api.compilation import elaborate, options_of, request_of
from dslc.compiler import transform
from dslc.diagnostics import DiagnosticError
from dslc.training import checkpoint

pytestmark = pytest.mark.usefixtures("own_cache")

# ----------------------------------------------------------------------------------------------------- accumulate


@pytest.mark.parametrize("optimizer", ["SGD[0.1, momentum = 0.9]", "AdamW[1e-2], clip = 0.1", "LAMB[1e-2], ema = 0.9"])
def test_accumulated_batches_are_one_big_batch(optimizer: str) -> None:
    """150 examples in steps of 64, 64 and 22: the last step takes a batch of 16 and one of 6."""
    big = trained(recipe(optimizer, batch=64), precision="f64")
    small = trained(recipe(f"{optimizer}, accumulate = 4"), precision="f64")
    assert big.step == small.step == 9
    for name, array in big.weights.items():
        np.testing.assert_allclose(small.weights[name], array, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(small.averaged_weights[name], big.averaged_weights[name], rtol=1e-11, atol=1e-13)
    for ours, theirs in zip(small.history, big.history, strict=True):
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-6) and ours.step == theirs.step


def test_accumulate_in_f32_is_within_rounding() -> None:
    big, small = trained(recipe("SGD[0.1]", batch=64)), trained(recipe("SGD[0.1], accumulate = 4"))
    for name, array in big.weights.items():
        np.testing.assert_allclose(small.weights[name], array, rtol=1e-4, atol=1e-5)


def test_bits_do_not_depend_on_threads() -> None:
    text = recipe("AdamW[1e-2], clip = 0.1, accumulate = 3, ema = 0.9")
    assert bits(trained(text, threads=1)) == bits(trained(text, threads=2))
    text = recipe("LAMB[1e-2], clip = 0.1")
    assert bits(trained(text, threads=1)) == bits(trained(text, threads=2))


NOISY = """
dim N <= 256
model Net(x: f32[N, 6]) -> f32[N, 3] {
  return x + random_normal[N, 6] |> Dense[3] as head
}
"""


def test_the_batches_of_a_step_draw_other_numbers() -> None:
    """A batch of equal examples twice: with equal draws the gradient would be that of one batch."""
    text = recipe("SGD[0.1], accumulate = 2", model=NOISY, batch=4)
    x, y = np.zeros((8, 6), np.float32), np.zeros(8, np.int64)
    sums = []
    trainer = dslc.Trainer(text, data=(x, y), save=False)
    settings = {"seed": 5, "step": 0, "total": 1}
    for _ in range(2):
        trainer.program.step({"x": x[:4], "y": y[:4]}, settings)
        sums.append(trainer._executable.get("gradient/Net.head.w"))
    assert not np.allclose(sums[1], 2 * sums[0])
    trainer.program.update(settings)
    assert not trainer._executable.get("gradient/Net.head.w").any() and not trainer._executable.get("gradient/t.examples").any()


def test_train_on_is_a_whole_step() -> None:
    x, y = examples(16)
    one, several = (dslc.Trainer(recipe(f"SGD[0.1]{more}"), data=DATA, save=False, precision="f64") for more in ("", ", accumulate = 4"))
    for trainer in (one, several):
        trainer.train_on(x=x, y=y)
    for name, array in one.weights.items():
        np.testing.assert_allclose(several.weights[name], array, rtol=1e-12, atol=1e-14)


# ---------------------------------------------------------------------------------------------------------- clip


def test_clip_bounds_the_norm_of_all_gradients() -> None:
    """With SGD and a rate of 1 the step is the gradient."""
    x, y = examples(16)
    free, bound = (dslc.Trainer(recipe(f"SGD[1.0]{more}"), data=DATA, save=False, precision="f64") for more in ("", ", clip = 0.01"))
    moves = []
    for trainer in (free, bound):
        before = trainer.weights
        trainer.train_on(x=x, y=y)
        moves.append(np.concatenate([(before[n] - a).ravel() for n, a in trainer.weights.items()]))
    norm = np.linalg.norm(moves[0])
    assert norm > 0.1
    np.testing.assert_allclose(moves[1], moves[0] * (0.01 / (norm + 1e-6)), rtol=1e-9)


# ----------------------------------------------------------------------------------------------------------- ema


def test_averages_follow_the_parameters() -> None:
    trainer = dslc.Trainer(recipe("SGD[0.5], ema = 0.75"), data=DATA, save=False, precision="f64")
    expected = trainer.weights
    assert all((trainer.averaged_weights[n] == a).all() for n, a in expected.items()), "they begin as the parameters do"
    x, y = examples(16)
    for _ in range(5):
        trainer.train_on(x=x, y=y)
        expected = {n: 0.75 * a + 0.25 * trainer.weights[n] for n, a in expected.items()}
    for name, array in expected.items():
        np.testing.assert_allclose(trainer.averaged_weights[name], array, rtol=1e-13, atol=1e-15)
    assert not np.allclose(trainer.averaged_weights["Net.head.w"], trainer.weights["Net.head.w"])


def test_a_metric_of_averaged_weights() -> None:
    text = recipe("SGD[0.5], ema = 0.9", "metric averaged = mean(argmax[axis = 1](ema[Net](x)) == y)")
    trainer = trained(text)
    report = trainer.history[-1]
    assert "averaged" in report.test_metrics and "averaged" not in report.metrics
    net = dslc.compile(NET)
    x, y = DATA["test"]
    for weights, metric in ((trainer.weights, "accuracy"), (trainer.averaged_weights, "averaged")):
        net.load_weights(weights)
        assert (net(x=x).argmax(axis=1) == y).mean() == pytest.approx(report.test_metrics[metric])


def test_averaged_weights_in_files(tmp_path: Path) -> None:
    text = recipe("SGD[0.5], ema = 0.9", 'save "net.safetensors" with every = 1')
    trainer = trained(text, save=True, folder=tmp_path)
    net = dslc.compile(NET)
    for ema, weights in ((False, trainer.weights), (True, trainer.averaged_weights)):
        net.load_weights(tmp_path / "net.safetensors", ema=ema)
        assert all((net.weights[n] == a).all() for n, a in weights.items())
        trainer.save_weights(tmp_path / "plain.safetensors", ema=ema)
        net.load_weights(tmp_path / "plain.safetensors")
        assert all((net.weights[n] == a).all() for n, a in weights.items())
    with pytest.raises(DiagnosticError, match=r"DL0802.*no averaged weights"):
        net.load_weights(tmp_path / "plain.safetensors", ema=True)


# -------------------------------------------------------------------------------------------------- groups, freeze


def test_the_last_group_that_names_a_parameter_wins() -> None:
    text = recipe('SGD[0.1]\n    over "*.w" with SGD[0.0]\n    over "Net.head.*" with SGD[0.2]')
    trainer = dslc.Trainer(text, data=DATA, save=False, precision="f64")
    plain = dslc.Trainer(recipe("SGD[1.0]"), data=DATA, save=False, precision="f64")
    x, y = examples(16)
    before = trainer.weights
    for t in (trainer, plain):
        t.train_on(x=x, y=y)
    rates = {"Net.body.w": 0.0, "Net.body.b": 0.1, "Net.head.w": 0.2, "Net.head.b": 0.2}
    for name, rate in rates.items():
        np.testing.assert_allclose(before[name] - trainer.weights[name], rate * (before[name] - plain.weights[name]), rtol=1e-9, atol=1e-12)
    assert dict(trainer.recipe.settings) | {"total": 0} == {"total": 0, "lr": 0.1, "lr[1]": 0.0, "lr[2]": 0.2}


@pytest.mark.parametrize("options", ["", ", accumulate = 2, ema = 0.9, clip = 1.0"])
def test_frozen_parameters_keep_their_bits(options: str) -> None:
    trainer = dslc.Trainer(recipe(f"AdamW[0.1]{options}", 'freeze "Net.body.*"'), data=DATA, save=False)
    before = trainer.weights
    trainer.fit()
    for name, array in trainer.weights.items():
        assert (array.tobytes() == before[name].tobytes()) == name.startswith("Net.body"), name
    assert not any("Net.body" in name for name in trainer.program.state() if "/" in name), "nothing is kept for what does not move"


PRODUCTS = ("matmul", "einsum", "dot_general")


def test_no_gradient_work_for_what_is_frozen() -> None:
    def products(*clauses: str) -> int:
        request = request_of(recipe("SGD[0.1]", *clauses), "t", True, None, options_of(None, None, 1, None, False))
        program, _ = transform(elaborate(request).module.programs["train"], {})
        return sum(op.kind in PRODUCTS for op in program.graph.ops)

    assert products() == 2 + 3  # forward; weights of both layers, and what goes back through the head
    assert products('freeze "Net.body.*"') == 2 + 1
    assert products('freeze "Net.body.w"') == 2 + 2  # its bias still moves


# ---------------------------------------------------------------------------------------------------------- load


def saved(folder: Path, weights: Mapping[str, Array], name: str = "net.safetensors") -> None:
    from safetensors.numpy import save_file

    save_file({n: np.ascontiguousarray(a) for n, a in weights.items()}, folder / name)


def loading(clause: str, place: Path, **options: Any) -> dslc.Trainer:
    path = place / "t.dl"
    path.write_text(recipe("SGD[0.1], ema = 0.9", clause))
    return dslc.Trainer(path, data=DATA, **{"save": False} | options)


def refused(code: str, clause: str, folder: Path, **options: Any) -> str:
    with pytest.raises(DiagnosticError) as caught:
        loading(clause, folder, **options)
    assert [d.code for d in caught.value.diagnostics] == [code], caught.value.render()
    return caught.value.render()


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    rng = np.random.default_rng(4)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


SHAPES = {"Net.body.w": (6, 8), "Net.body.b": (8,), "Net.head.w": (8, 3), "Net.head.b": (3,)}


def test_load_begins_with_a_file(tmp_path: Path) -> None:
    there = drawn(SHAPES)
    saved(tmp_path, there)
    trainer = loading('load Net from "net.safetensors"', tmp_path)
    for name, array in there.items():
        assert (trainer.weights[name] == array).all() and (trainer.averaged_weights[name] == array).all()


def test_load_renames_and_leaves_fresh(tmp_path: Path) -> None:
    there = drawn({"Old.trunk.w": (6, 8), "Old.trunk.b": (8,), "Old.fc.w": (8, 10), "Old.fc.b": (10,)})
    saved(tmp_path, there)
    clause = 'load Net from "net.safetensors" with rename = [("Old.trunk.*", "body.*"), ("Old.fc.*", none)], fresh = ["head.*"]'
    trainer = loading(clause, tmp_path)
    plain = dslc.Trainer(recipe("SGD[0.1]"), data=DATA, save=False)
    assert (trainer.weights["Net.body.w"] == there["Old.trunk.w"]).all()
    assert (trainer.weights["Net.head.w"] == plain.weights["Net.head.w"]).all(), "a fresh parameter has its initial value"


def test_load_from_pytorch(tmp_path: Path) -> None:
    there = drawn({"layer.0.weight": (8, 6), "layer.0.bias": (8,), "layer.2.weight": (3, 8), "layer.2.bias": (3,)})
    saved(tmp_path, there)
    trainer = loading('load Net from "net.safetensors" with layout = "torch"', tmp_path)
    assert (trainer.weights["Net.body.w"] == there["layer.0.weight"].T).all()
    assert (trainer.weights["Net.head.b"] == there["layer.2.bias"]).all()


def test_load_refuses(tmp_path: Path) -> None:
    saved(tmp_path, drawn(SHAPES | {"Net.body.w": (6, 9)}))
    inner = tmp_path / "inner"
    inner.mkdir()
    assert "is [6, 9] there and [6, 8] here" in refused("DL0804", 'load Net from "net.safetensors"', tmp_path)
    assert 'load Net from "gone.safetensors"' in refused("DL0702", 'load Net from "gone.safetensors"', tmp_path)
    refused("DL0705", 'load Net from "../net.safetensors"', inner)
    refused("DL0705", 'load Net from "/etc/hostname"', inner)
    refused("DL0806", 'load Net from "net.safetensors" with fresh = ["haed.*"]', tmp_path)
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    refused("DL0802", 'load Net from "no.safetensors"', tmp_path)
    # found in a folder of --data
    saved(inner, drawn(SHAPES))
    loading('load Net from "net.safetensors"', tmp_path, data_folders=[inner])


def test_load_is_for_the_beginning_only(tmp_path: Path) -> None:
    saved(tmp_path, drawn(SHAPES))
    clauses = 'load Net from "net.safetensors"\n  save "run.safetensors" with every = 1'
    first = loading(clauses, tmp_path, save=True, folder=tmp_path, epochs=1)
    first.fit()
    (tmp_path / "net.safetensors").unlink()
    again = loading(clauses, tmp_path, save=True, folder=tmp_path, epochs=3, resume=True)
    assert bits(again) == bits(first)


# -------------------------------------------------------------------------------------------------------- resume


OPTIMIZERS = ("SGD[0.1, momentum = 0.9]", "RMSProp[1e-2, momentum = 0.5]", "Adagrad[1e-2]", "Adadelta", "Adam[1e-2]")
OPTIMIZERS += ("AdamW[1e-2]", "Adamax[1e-2]", "Nadam[one_cycle[1e-2]]", "Lion[cosine_restarts[1e-3, 3]]", "LAMB[1e-2]")
DEEP = """
dim N <= 256
model Net(x: f32[N, 6]) -> f32[N, 3] {
  h = x + random_normal[N, 6]
  for i in 0..4 { h = h |> Dense[6, tanh] |> BatchNorm as norm }
  return h |> Dense[3] as head
}
"""


@pytest.mark.parametrize("options", ["", ", clip = 0.5, accumulate = 3, ema = 0.9"])
def test_resume_to_the_bit(options: str, tmp_path: Path) -> None:
    """Every optimizer of the library moves a parameter of its own."""
    paths = [f"Net.dense[{i}].{leaf}" for i in range(4) for leaf in "wb"] + ["Net.head.w", "Net.head.b"]
    groups = "".join(f'\n    over "{path}" with {optimizer}' for path, optimizer in zip(paths, OPTIMIZERS, strict=True))
    text = recipe(f"SGD[0.1]{options}{groups}", *METRICS, 'save "run.safetensors" with every_steps = 1', model=DEEP)
    whole = trained(text, threads=None)
    for stop in (1, 4, 10):
        with pytest.raises(Stop):
            trained(text, save=True, folder=tmp_path, resume=True, threads=None, observers=[StopAt(stop)])
    part = trained(text, save=True, folder=tmp_path, resume=True, threads=None)
    stored = checkpoint.load(tmp_path / "run.safetensors")
    assert {n: a.tobytes() for n, a in stored.tensors.items()} == bits(part) == bits(whole)
    assert [r.test_metrics for r in part.history][-1] == whole.history[-1].test_metrics
    assert [r.test_tables for r in part.history][-1] == whole.history[-1].test_tables
