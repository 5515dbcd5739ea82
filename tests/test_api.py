"""The Python interface: compile, call, load, save, train, build, and what is refused."""

from __future__ import annotations

import operator
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import dslc
from dslc.api.compilation import Request, elaborate, options_of, request_of
from dslc.api.layers import layers
from dslc.api.signature import recipe_from_json, recipe_json
from dslc.api.sources import Source, find_source, split_name, zoo
from dslc.ir.module_text import parse_module, print_module

TEXT = """
dim N <= 64

model Net(x: f32[N, 4]) -> f32[N, 3] {
  return x |> Dense[8, relu] |> Dense[3]
}

train net {
  data x: f32[N, 4], y: i64[N] from "npz:nowhere.npz"
  minimize cross_entropy(Net(x), y) over Net with AdamW[1e-2]
  epochs 2  batch 16  seed 1
  save "net.safetensors" with every = 1
}
"""


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def net(own_cache: Path) -> dslc.Program:
    return dslc.compile(TEXT)


def batch(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)


def by_hand(net: dslc.Program, x: np.ndarray) -> np.ndarray:
    w = {name.removeprefix("Net."): a.astype(np.float64) for name, a in net.weights.items()}
    return np.maximum(x @ w["dense.w"] + w["dense.b"], 0) @ w["dense[1].w"] + w["dense[1].b"]


# ---------------------------------------------------------------------------------------------------------- calls


@pytest.mark.parametrize("count", [1, 7, 64])
def test_any_batch_up_to_the_bound(net: dslc.Program, count: int) -> None:
    x = batch(count)
    np.testing.assert_allclose(net(x=x), by_hand(net, x), rtol=1e-5, atol=1e-6)


def test_results_are_the_callers_own(net: dslc.Program) -> None:
    first = net(x=batch(3))
    kept = first.copy()
    net(x=batch(3, seed=1))
    assert (first == kept).all() and first.flags.writeable and first.flags.owndata
    out = np.empty((3, 3), np.float32)
    assert net(x=batch(3), out=out) is out and (out == kept).all()


def test_arrays_of_other_kinds(net: dslc.Program) -> None:
    x = batch(6)
    expected = net(x=x)
    wide = np.zeros((6, 8), np.float32)
    wide[:, ::2] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    for other in (wide[:, ::2], np.asfortranarray(x), frozen, x.astype(">f4"), x.tolist()):
        assert (net(x=other) == expected).all()
    np.testing.assert_allclose(net(x=x.astype(np.float64)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, "DL0650"),
        ({"y": batch(1)}, "DL0650"),
        ({"x": np.zeros((2, 5), np.float32)}, "DL0651"),
        ({"x": batch(65)}, "DL0653"),
        ({"x": np.zeros((0, 4), np.float32)}, "DL0653"),
        ({"x": np.array([["a", "b", "c", "d"]])}, "DL0656"),
    ],
)
def test_calls_that_are_refused(net: dslc.Program, inputs: dict[str, np.ndarray], code: str) -> None:
    with pytest.raises(dslc.DiagnosticError, match=code):
        net(**inputs)


def test_two_threads_call_one_program(net: dslc.Program) -> None:
    xs = [batch(5 + i, seed=i) for i in range(2)]
    expected = [net(x=x) for x in xs]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            if not (net(x=xs[number]) == expected[number]).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_same_bits_for_threads_and_widths(net: dslc.Program) -> None:
    x = batch(33)
    for threads, width in ((1, 16), (2, 8), (3, 4)):
        other = dslc.compile(TEXT, threads=threads, width=width)
        other.load_weights(net.weights)
        assert (other(x=x) == net(x=x)).all(), (threads, width)


def test_several_results_and_random_operators() -> None:
    text = "model M(x: f32[1000]) -> (a: f32[1000], b: f32[1000]) { return x + 1, x + random_normal[1000] }"
    program = dslc.compile(text)
    x = np.zeros(1000, np.float32)
    first, second = program(x=x, seed=1), program(x=x, seed=2)
    assert list(first) == ["a", "b"] and (first["a"] == 1).all()
    assert not (first["b"] == second["b"]).any()
    assert (program(x=x, seed=1)["b"] == first["b"]).all()
    assert abs(float(first["b"].mean())) < 0.15 and abs(float(first["b"].std()) - 1) < 0.1


def test_f64(net: dslc.Program) -> None:
    double = dslc.compile(TEXT, precision="f64")
    double.load_weights(net.weights)
    x = batch(9)
    np.testing.assert_allclose(double(x=x), by_hand(net, x.astype(np.float64)), rtol=1e-13, atol=1e-14)


# --------------------------------------------------------------------------------------------------- weights, files


def test_weights_go_through_files(net: dslc.Program, tmp_path: Path) -> None:
    net.save_weights(tmp_path / "w.safetensors")
    other = dslc.compile(TEXT, seed=5)
    x = batch(4)
    assert not (other(x=x) == net(x=x)).any()
    other.load_weights(tmp_path / "w.safetensors")
    assert (other(x=x) == net(x=x)).all()


def test_weights_are_copies_and_set_as_a_whole(net: dslc.Program) -> None:
    before, changed = net.weights, np.ones((8, 3), np.float32)
    for copies in (net.weights, net.parameters, dslc.Trainer(TEXT, data=data(), save=False).weights):
        with pytest.raises(dslc.DiagnosticError, match="DL0822"):
            operator.setitem(cast(Any, copies), "Net.dense[1].w", changed)
        with pytest.raises(dslc.DiagnosticError, match="DL0822"):
            operator.delitem(cast(Any, copies), "Net.dense[1].w")
    net.load_weights(net.weights | {"Net.dense[1].w": changed})
    assert (net.weights["Net.dense[1].w"] == changed).all() and (net.weights["Net.dense.w"] == before["Net.dense.w"]).all()
    net.load_weights(before)
    assert all((a == before[name]).all() for name, a in net.weights.items())


def test_weights_that_do_not_fit_are_listed(net: dslc.Program) -> None:
    before = net.weights
    given = dict(before)
    given["Net.extra"] = np.zeros(3, np.float32)
    del given["Net.dense.b"]
    given["Net.dense.w"] = np.zeros((8, 4), np.float32)
    with pytest.raises(dslc.DiagnosticError) as raised:
        net.load_weights(given)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == "DL0804"
    for part in ("missing: `Net.dense.b`", "left over: `Net.extra`", "`Net.dense.w` is [8, 4] there and [4, 8] here"):
        assert part in diagnostic.message
    assert all((a == before[name]).all() for name, a in net.weights.items())


def test_artifacts(net: dslc.Program, tmp_path: Path) -> None:
    x = batch(8)
    net.save(tmp_path / "net.dlc")
    assert (dslc.load(tmp_path / "net.dlc")(x=x) == net(x=x)).all()
    elsewhere = dslc.load(tmp_path / "net.dlc", cache=tmp_path / "empty")  # unknown there: the graph is compiled again
    assert (elsewhere(x=x) == net(x=x)).all()
    net.save(tmp_path / "code.dlc", embed=True)
    trusted = dslc.load(tmp_path / "code.dlc", cache=tmp_path / "empty2", trust=True)
    assert (trusted(x=x) == net(x=x)).all()
    assert repr(trusted) == repr(net)


def test_damaged_artifacts(net: dslc.Program, tmp_path: Path) -> None:
    path = tmp_path / "net.dlc"
    net.save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(0, 256)
        path.write_bytes(bytes(data[: len(data) if rng.random() < 0.7 else int(rng.integers(0, len(data)))]))
        try:
            dslc.load(path)(x=batch(2))
        except dslc.DiagnosticError as error:
            assert error.diagnostics[0].code.startswith("DL06")


def test_a_module_as_text() -> None:
    for training in (False, True):
        module = elaborate(Request(Source(TEXT), None, training, (), options_of(None, None, None, None, True))).module
        again = parse_module(print_module(module))
        assert again.programs == module.programs and again.digest == module.digest
        assert {p: (b.type, b.role, b.initial) for p, b in again.buffers.items()} == {
            p: (b.type, b.role, b.initial) for p, b in module.buffers.items()
        }


# ------------------------------------------------------------------------------------------------------ inspection


def test_what_a_program_says_about_itself(net: dslc.Program) -> None:
    assert net.name == "Net" and net.inputs == {"x": "f32[N, 4]"} and list(net.outputs.values()) == ["f32[N, 3]"]
    assert net.parameter_count == 4 * 8 + 8 + 8 * 3 + 3 and net.batch_bound == 64
    assert set(net.parameters) == {"Net.dense.w", "Net.dense.b", "Net.dense[1].w", "Net.dense[1].b"}
    assert net.flops(10) == 10 * net.flops(1) >= 10 * 2 * (4 * 8 + 8 * 3)
    assert net.memory(64).total > net.memory(1).total > 4 * net.parameter_count
    assert "67 parameters" in repr(net)


def test_pictures_and_summaries(net: dslc.Program) -> None:
    svg = net._repr_svg_()
    assert svg.startswith("<svg ") and svg.count("<rect") >= 6 and "matmul dense.w" in svg
    assert svg in net._repr_html_()
    assert "total" in net.summary()
    rows = layers(net.module)
    assert [r.parameters for r in rows] == [40, 27] and rows[0].flops >= 64
    for stage in ("graph", "clusters", "loops", "kernels", "memory"):
        assert net.show(stage).strip()


def test_a_cached_program_is_the_same(net: dslc.Program) -> None:
    again = dslc.compile(TEXT)
    assert again._compiled is None, "found in the cache"
    assert (again(x=batch(3)) == net(x=batch(3))).all()
    assert again.show("kernels") == net.show("kernels") and again.flops(3) == net.flops(3)


# --------------------------------------------------------------------------------------------------------- sources


def test_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"digits", "lenet", "mlp"} <= set(zoo())
    assert find_source("digits").text == zoo()["digits"].read_text()
    Path("digits").write_text("# mine")
    assert find_source("digits").text == "# mine"
    assert split_name("net.dl:LeNet") == ("net.dl", "LeNet") and split_name("lenet") == ("lenet", None)
    Path("a:b").write_text("")
    assert split_name("a:b") == ("a:b", None)
    for wrong in ("", "nowhere.dl", "x" * 5000, "a\0b", "."):
        with pytest.raises(dslc.DiagnosticError, match="DL0801"):
            find_source(wrong)
    Path("latin.dl").write_bytes("# \u00e9".encode("latin-1"))
    with pytest.raises(dslc.DiagnosticError):
        find_source("latin.dl")


def test_parse_gives_diagnostics_as_objects() -> None:
    parsed = dslc.parse(TEXT)
    assert parsed.ok and parsed.models == ("Net",) and parsed.recipes == ("net",)
    broken = dslc.parse(TEXT.replace("relu", "rellu").replace("Dense[3]", "Dense[4]"))
    assert not broken.ok and len(broken.errors) >= 1 and broken.errors[0].span is not None
    assert "rellu" in broken.render() and "^" in broken.render()
    assert not dslc.parse("model {").ok
    with pytest.raises(dslc.DiagnosticError):
        dslc.compile("model M(x: f32[4]) -> f32[5] { return x }")


def test_options_are_checked() -> None:
    for options in ({"width": 5}, {"threads": 0}, {"precision": "f16"}, {"target": "tpu"}):
        with pytest.raises(dslc.DiagnosticError, match="DL0901"):
            dslc.compile(TEXT, **options)  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------------- training


def data(count: int = 96) -> tuple[np.ndarray, np.ndarray]:
    x = batch(count, seed=3)
    return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)


def test_training_from_arrays(tmp_path: Path) -> None:
    trainer = dslc.Trainer(TEXT, data={"train": data(), "test": data(32)}, epochs=30, folder=tmp_path)
    losses = [report.metrics["loss"] for report in trainer]
    assert len(losses) == 30 and losses[-1] < 0.5 * losses[0] and trainer.finished
    net = dslc.compile(TEXT)
    net.load_weights(tmp_path / "net.safetensors")
    x, y = data()
    assert (net(x=x[:64]).argmax(axis=1) == y[:64]).mean() > 0.8
    assert all((a == trainer.weights[name]).all() for name, a in net.weights.items())


def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole = dslc.Trainer(TEXT, data=data(), folder=tmp_path, epochs=4, save=False)
    whole.fit()
    dslc.Trainer(TEXT, data=data(), folder=tmp_path, epochs=2).fit()
    rest = dslc.Trainer(TEXT, data=data(), folder=tmp_path, epochs=4, resume=True)
    assert len(rest.fit()) == 4 and rest.step == whole.step
    assert all((a == rest.weights[name]).all() for name, a in whole.weights.items())


def test_settings_and_threads(tmp_path: Path) -> None:
    fast = dslc.Trainer(TEXT, data=data(), save=False, settings={"lr": 0.0})
    before = fast.weights
    fast.fit()
    assert fast.cached and all((a == before[name]).all() for name, a in fast.weights.items()), "a rate of 0 changes nothing"
    one, two = (dslc.Trainer(TEXT, data=data(), save=False, threads=n, batch=13) for n in (1, 2))
    one.fit(), two.fit()
    assert all((a == two.weights[name]).all() for name, a in one.weights.items())
    with pytest.raises(dslc.DiagnosticError, match="DL0720"):
        dslc.Trainer(TEXT, data=data(), settings={"rate": 1.0})
    with pytest.raises(dslc.DiagnosticError, match="DL0720"):
        dslc.Trainer(TEXT, data=data(), batch=65).fit()
    with pytest.raises(dslc.DiagnosticError, match="DL0702"):
        dslc.Trainer(TEXT)


def test_a_recipe_as_json() -> None:
    recipe = elaborate(request_of("digits", None, True, None, options_of(None, None, None, None, True))).recipe
    assert recipe is not None and recipe_from_json(recipe_json(recipe)) == recipe


def test_which_recipe() -> None:
    with pytest.raises(dslc.DiagnosticError, match="DL0503"):
        dslc.Trainer("model M(x: f32[4]) -> f32[4] { return x }")
    with pytest.raises(dslc.DiagnosticError, match="DL0503"):
        dslc.Trainer(TEXT, "nett")


# -------------------------------------------------------------------------------------------------------- building


def test_building_a_network() -> None:
    b = dslc.Builder("Tiny", batch=16)
    x = b.input("x", "f32", ("N", 4))
    w = b.parameter("w", "f32", (4, 3), "xavier_uniform")
    bias = b.parameter("b", "f32", (3,), 0.5)
    y = b.softmax(2 * (x @ w + bias) - 1.0, axis=-1)
    program = b.compile(y=y, total=-y)
    x = batch(5)
    results = program(x=x)
    z = 2 * (x @ program.parameters["Tiny.w"] + 0.5) - 1
    shares = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(results["y"], shares, rtol=1e-5)
    assert (results["total"] == -results["y"]).all()


def test_building_is_checked() -> None:
    b = dslc.Builder("Tiny")
    x = b.input("x", "f32", ("N", 4))
    with pytest.raises(dslc.DiagnosticError, match="DL0210"):
        b.matmul(x, b.parameter("w", "f32", (5, 3)))
    for action in (
        lambda: b.input("x", "f32", (4,)),
        lambda: b.input("z", "f33", (4,)),
        lambda: b.input("z", "f32", (0,)),
        lambda: b.parameter("w", "f32", (4,), 0.0),
        lambda: b.parameter("v", "f32", (4,), "nonsense"),
        lambda: b.apply("nonsense", x),
        lambda: b.compile(),
        lambda: dslc.Builder("no name"),
    ):
        with pytest.raises(dslc.DiagnosticError, match="DL0807"):
            action()
    with pytest.raises(AttributeError):
        b.nonsense  # noqa: B018


def test_an_empty_program_is_quick() -> None:
    """At most 5 us a call; ten times that here, where other processes may run."""
    from dslc.api.measure import time_calls

    b = dslc.Builder("Nothing")
    program = b.compile(y=b.input("x", "f32", (4,)))
    x = np.zeros(4, np.float32)
    assert time_calls(lambda: program(x=x), 0.2).best < 50e-6
