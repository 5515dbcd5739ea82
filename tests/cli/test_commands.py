"""Every subcommand: what it prints, what it writes, its exit status."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dslc.cli import COMMANDS

Run = Callable[..., tuple[int, str, str]]

NET = """# a small network
dim N <= 64

model Tiny(x: f32[N, 4]) -> f32[N, 3] {
  return x |> Dense[8, relu] |> Dense[3]
}

train tiny {
  data x: f32[N, 4], y: i64[N] from "npz:data.npz"
  logits = Tiny(x)
  minimize cross_entropy(logits, y) over Tiny with SGD[0.1]
  metric accuracy = mean(argmax[axis = 1](logits) == y)
  epochs 3  batch 16  seed 1
  save "tiny.safetensors" with every = 1
}
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0))
    (tmp_path / "net.dl").write_text(NET)
    return tmp_path / "net.dl"


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_has_an_example(command: str, dslc: Run) -> None:
    status, out, _ = dslc(command, "--help")
    assert status == 0
    assert f"Example: dslc {command}" in " ".join(out.split())


def test_wrong_usage_is_status_2(dslc: Run) -> None:
    assert dslc("trian")[0] == 2
    assert "'train'" in dslc("trian")[2]
    assert dslc("check")[0] == 2
    assert dslc("check", "--nonsense", "x")[0] == 2
    assert dslc("run", "digits", "--input", "image")[0] == 2
    assert dslc("train", "digits", "--set", "lr=fast")[0] == 2
    assert dslc("run", "digits", "--dim", "N=many")[0] == 2


def test_a_missing_file_is_a_diagnostic(dslc: Run) -> None:
    for command in ("check", "summary", "run", "train", "compile", "show", "bench"):
        status, _, err = dslc(command, "lennet")
        assert status == 1 and "DL0801" in err and "lenet" in err, command


def test_check(net: Path, dslc: Run) -> None:
    assert dslc("check", "net.dl")[:2] == (0, "net.dl: no errors (1 model, 1 recipe)\n")
    net.write_text(NET.replace("Dense[3]", "Dense[5]").replace("epochs 3", "epochs 0").replace("relu", "rellu"))
    status, _, err = dslc("check", "net.dl")
    assert status == 1 and err.count("error[") >= 2 and "^" in err
    status, out, _ = dslc("check", "net.dl", "--json")
    report = json.loads(out)
    assert status == 1 and not report["ok"]
    assert {"code", "severity", "message", "span", "notes", "hint"} == set(report["diagnostics"][0])


def test_explain(dslc: Run) -> None:
    status, out, _ = dslc("explain", "804")
    assert status == 0 and out.startswith("DL0804: ") and "Wrong:" in out
    assert len(dslc("explain")[1].splitlines()) > 40
    assert json.loads(dslc("explain", "DL0804", "--json")[1])[0]["code"] == "DL0804"
    assert dslc("explain", "DL9999")[0] == 1


def test_fmt(net: Path, dslc: Run) -> None:
    net.write_text(NET.replace("  return x", " return   x"))
    assert dslc("fmt", "net.dl", "--check")[0] == 1
    assert dslc("fmt", "net.dl")[:2] == (0, "formatted net.dl\n")
    assert dslc("fmt", "net.dl", "--check")[:2] == (0, "")
    assert dslc("fmt", ".", "--check")[:2] == (0, "")
    assert "# a small network" in net.read_text()
    net.write_text("model {")
    assert dslc("fmt", "net.dl")[0] == 1
    assert net.read_text() == "model {"


def test_summary(net: Path, dslc: Run) -> None:
    status, out, _ = dslc("summary", "net.dl")
    assert status == 0
    assert re.search(r"Dense\[8, relu\] +f32\[N, 8\] +40", out)
    assert re.search(r"total +67", out)
    layers = json.loads(dslc("summary", "net.dl:Tiny", "--json")[1])["layers"]
    assert sum(layer["parameters"] for layer in layers) == 67


@pytest.mark.parametrize("stage", ["graph", "clusters", "loops", "kernels", "memory", "asm"])
def test_show(stage: str, net: Path, dslc: Run) -> None:
    status, out, _ = dslc("show", "net.dl", "--stage", stage)
    assert status == 0
    wanted = {
        "graph": "dot_general", "clusters": "Tiny.dense.w: f32[4, 8]", "loops": "sum over", "kernels": "def kernel(row, thread, threads, batch)",
        "memory": "bytes an example", "asm": "ret",
    }  # fmt: skip
    assert wanted[stage] in out


def test_show_a_pass_and_a_picture(net: Path, dslc: Run) -> None:
    assert "matmul" in dslc("show", "net.dl", "--after", "graph")[1]
    assert dslc("show", "net.dl", "--after", "nonsense")[0] == 1
    assert dslc("show", "net.dl", "--svg", "graph.svg")[0] == 0
    assert dslc("show", "net.dl", "--stage", "memory", "--svg", "memory.svg", "--batch", 8)[0] == 0
    for name in ("graph.svg", "memory.svg"):
        assert net.with_name(name).read_text().startswith("<svg ")
    assert "# program evaluate" in dslc("show", "net.dl", "--train", "--stage", "clusters")[1]


def test_compile_and_run_an_artifact(net: Path, dslc: Run) -> None:
    status, out, _ = dslc("compile", "net.dl", "-o", "net.dlc")
    assert status == 0 and "wrote net.dlc" in out
    report = json.loads(dslc("compile", "net.dl", "--json")[1])
    assert report["artifact"] is None, "the file exports nothing"
    assert report["parameters"] == 67 and report["batch_bound"] == 64 and report["memory"]["total"] > 0
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    np.save("x.npy", x)
    status, _, err = dslc("run", "net.dl", "--input", "x=x.npy", "-o", "a.npz")
    assert status == 0 and "initial values" in err
    assert dslc("run", "net.dlc", "--input", "x=x.npy", "-o", "b.npy")[::2] == (0, "")
    assert (np.load("a.npz")["output"] == np.load("b.npy")).all()
    out = dslc("run", "net.dlc", "--input", "x=x.npy", "--json", "--threads", 1)[1]
    assert np.array_equal(np.array(json.loads(out)["output"], np.float32), np.load("b.npy"))


def test_compile_writes_what_the_file_exports(net: Path, dslc: Run) -> None:
    net.write_text(NET + 'export Tiny as "one.dlc" with N = 1\nexport Tiny as "any.dlc"\n')
    reports = json.loads(dslc("compile", "net.dl", "--json")[1])
    assert [r["artifact"] for r in reports] == ["one.dlc", "any.dlc"]
    assert [r["batch_bound"] for r in reports] == [None, 64]
    np.save("x.npy", np.ones((1, 4), np.float32))
    one, several = (json.loads(dslc("run", name, "--input", "x=x.npy", "--json")[1])["output"] for name in ("one.dlc", "any.dlc"))
    np.testing.assert_allclose(one, several, rtol=1e-5)


def test_run_refuses_what_does_not_fit(net: Path, dslc: Run) -> None:
    np.save("x.npy", np.zeros((5, 7), np.float32))
    assert "DL0651" in dslc("run", "net.dl", "--input", "x=x.npy")[2]
    assert "DL0650" in dslc("run", "net.dl")[2]
    assert "DL0808" in dslc("run", "net.dl", "--input", "z=x.npy")[2]
    assert "DL0802" in dslc("run", "net.dl", "--weights", "data.npz", "--input", "x=x.npy")[2]
    assert "DL0809" in dslc("run", "net.dl", "--input", "x=x.npy", "--dump", "softplus")[2]


def test_run_dumps_values_inside(net: Path, dslc: Run) -> None:
    np.save("x.npy", np.ones((2, 4), np.float32))
    assert dslc("run", "net.dl", "--input", "x=x.npy", "--dump", "relu", "-o", "all.npz")[0] == 0
    saved = np.load("all.npz")
    (name,) = set(saved.files) - {"output"}
    assert name.endswith(".relu") and saved[name].shape == (2, 8) and saved[name].min() >= 0


def test_train_writes_what_it_says(net: Path, dslc: Run) -> None:
    status, out, _ = dslc("train", "net.dl", "--threads", 1)
    assert status == 0 and "epoch 3/3" in out
    assert {"tiny.safetensors", "tiny.jsonl", "tiny.svg"} <= {p.name for p in net.parent.iterdir()}
    records = [json.loads(line) for line in Path("tiny.jsonl").read_text().splitlines()]
    assert [r["event"] for r in records].count("epoch") == 3
    before = Path("tiny.safetensors").read_bytes()
    status, out, _ = dslc("train", "net.dl", "--resume", "--epochs", 4)
    assert status == 0 and "epoch 4/4" in out and "epoch 3/4" not in out and "found compiled" in out
    assert Path("tiny.safetensors").read_bytes() != before
    np.save("x.npy", np.ones((1, 4), np.float32))
    assert dslc("run", "net.dl", "--weights", "tiny.safetensors", "--input", "x=x.npy")[0] == 0


def test_settings_recompile_nothing(net: Path, dslc: Run) -> None:
    dslc("train", "net.dl", "--no-log")
    for arguments in (["--set", "lr=0.01"], ["--seed", "3"], ["--epochs", "1"], ["--batch", "7"], ["--steps", "2"]):
        status, out, _ = dslc("train", "net.dl", "--no-log", *arguments)
        assert status == 0 and "found compiled" in out, arguments
    status, _, err = dslc("train", "net.dl", "--set", "rate=0.01")
    assert status == 1 and "DL0720" in err
    status, out, _ = dslc("train", "net.dl", "--json", "--no-log", "--folder", str(net.parent))
    assert status == 0 and json.loads(out)["steps"] == 21


def test_bench(net: Path, dslc: Run) -> None:
    report = json.loads(dslc("bench", "net.dl", "--batch", 8, "--seconds", 0.05, "--profile", "--json")[1])
    assert report["batch"] == 8 and report["median"] > 0 and report["limits"]["gflops"] > 1
    assert abs(sum(step["share"] for step in report["steps"]) - 1) < 1e-6
    status, out, _ = dslc("bench", "net.dl", "--train", "--seconds", 0.05, "--profile")
    assert status == 0 and "net.dl:5" in out


def test_ops_cache_doctor(dslc: Run) -> None:
    assert "softmax[axis = -1](x)" in dslc("ops")[1]
    assert json.loads(dslc("ops", "conv2d", "--json")[1])["family"] == "convolution"
    assert "block Dense[" in dslc("ops", "Dense")[1]
    assert dslc("ops", "soft_max")[0] == 1
    report = json.loads(dslc("doctor", "--json")[1])
    assert report["compiles"] is True and "digits" in report["data sets"]
    assert json.loads(dslc("cache", "--json")[1])["entries"] > 0


def test_pictures_are_read_as_in_training(dslc: Run) -> None:
    from PIL import Image

    Image.fromarray(np.full((20, 20), 128, np.uint8)).save("grey.png")
    assert dslc("train", "digits", "--epochs", 2, "--no-log")[0] == 0
    status, out, _ = dslc("run", "digits", "--weights", "digits.safetensors", "--input", "image=grey.png", "--input", "image=grey.png")
    assert status == 0
    first, second = out.splitlines()
    assert first == second and re.fullmatch(r"grey\.png: \d [\d.]+%, \d [\d.]+%, \d [\d.]+%", first)


def test_an_internal_error_shows_no_traceback(dslc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import dslc.explain as module

    def broken(code: str) -> object:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(module, "explain", broken)
    status, _, err = dslc("explain", "DL0001")
    assert status == 1 and "internal error: ZeroDivisionError: a defect" in err and "Traceback" not in err
    assert "Traceback" in dslc("--traceback", "explain", "DL0001")[2]


def test_verify_checks_every_pass_and_kernel(net: Path, dslc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from dslc import compiler

    calls = []
    one_pass, kernels = compiler.check_pass, compiler.check_kernels
    monkeypatch.setattr(compiler, "check_pass", lambda *a, **k: (calls.append("pass"), one_pass(*a, **k))[1])
    monkeypatch.setattr(compiler, "check_kernels", lambda *a, **k: (calls.append("kernels"), kernels(*a, **k))[1])
    for times in (1, 2):  # a cached program is checked too
        assert dslc("compile", "net.dl", "--verify")[0] == 0
        assert calls.count("pass") == times * len(compiler.PASSES) and calls.count("kernels") == times


def test_tune_says_what_it_gained_and_measures_once(net: Path, dslc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from dslc.backends.cpu import tuning
    from dslc.backends.cpu.stopwatch import Outcome

    monkeypatch.setattr(tuning.Stopwatch, "__call__", lambda self, contest: Outcome(1, 1.25))
    monkeypatch.setattr(tuning, "ALTERNATIVES", 2)
    status, out, _ = dslc("compile", "net.dl", "--tune")
    assert status == 0 and "dot_general net.dl:" in out and "1.25 times as fast as" in out and "measured before" not in out
    report = json.loads(dslc("compile", "net.dl", "--tune", "--json")[1])
    assert {"label", "tile", "planned", "gain", "known"} == set(report["tuned"][0]) and all(t["known"] for t in report["tuned"])
    assert json.loads(dslc("compile", "net.dl", "--json")[1])["compiled"] == 0, "later compilations find the measured tiles"
    assert "--tune" in dslc("compile", "--help")[1]
    status, out, _ = dslc("train", "net.dl", "--tune")
    assert status == 0 and out.count("1.25 times as fast as") >= 2, "both programs of the recipe"
    status, _, err = dslc("compile", "net.dl", "--tune", "--target", "cuda")
    assert status == 2 and "--tune" in err


def test_an_interrupt_while_measuring_exits_130(net: Path, dslc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from dslc.backends.cpu import tuning

    def interrupted(self: object, contest: object) -> None:
        raise KeyboardInterrupt

    net.write_text(net.read_text().replace("Dense[3]", "Dense[3] |> Dense[37] |> Dense[3]"))
    monkeypatch.setattr(tuning.Stopwatch, "__call__", interrupted)
    assert dslc("compile", "net.dl", "--tune")[0] == 130
    monkeypatch.undo()
