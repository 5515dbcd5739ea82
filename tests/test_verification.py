"""`--verify`: it accepts what is right, and names the first pass or kernel that is wrong, with the line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dslc import compiler
from dslc.backends.cpu.build import KernelSource
from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.frontend.elaborate import elaborate
from dslc.ir.graph import Graph
from dslc.ir.module import Module
from dslc.ir.operator import OPERATORS
from dslc.options import Options
from dslc.runtime.cache import Cache
from dslc.transforms.rewrite import Rule, rewrite

NET = """dim N <= 16

model Net(x: f32[N, 6], label: i64[N]) -> f32[N, 4] {
  hidden = x |> Dense[8, tanh] |> dropout[0.25]
  return hidden |> Dense[4] |> softmax
}

model Small(x: f32[N, 1, 6, 6]) -> f32[N, 4] {
  return x
    |> Conv2D[3, 3, bias = false]
    |> BatchNorm |> relu
    |> MaxPool2D[2]
    |> flatten
    |> Dense[4] as head
}

train small {
  data x: f32[N, 1, 6, 6], label: i64[N] from "digits"
  minimize cross_entropy(Small(x), label) over Small with AdamW[1e-3]
  epochs 1  batch 4
}
"""
WIDTH = 8


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def train(precision: str | None = None) -> Module:
    module = elaborate(NET, "net.dl", recipe="small", precision=precision).module
    return replace(module, programs={"train": module.programs["train"]})


def net() -> Module:
    return elaborate(NET, "net.dl", model="Net").module


def verified(module: Module, cache: Cache) -> None:
    compiler.compile_module(module, Options(verify=True, width=WIDTH), cache=cache)


def refused(module: Module, cache: Cache) -> Diagnostic:
    with pytest.raises(DiagnosticError) as raised:
        verified(module, cache)
    (diagnostic,) = raised.value.diagnostics
    return diagnostic


@pytest.mark.parametrize("precision", [None, "f64"])
def test_what_is_right_is_accepted(cache: Cache, precision: str | None) -> None:
    verified(train(precision), cache)


def test_gradients_of_gradients_are_accepted(cache: Cache) -> None:
    text = """
model Penalty(x: f32[N, 5], w: f32[5]) -> f32[5] {
  slope = grad[x](sum(tanh(x * stop_gradient(w)) * tanh(x * w)))
  return grad[w](sum(slope * slope))
}
dim N <= 8
"""
    verified(elaborate(text, "penalty.dl", model="Penalty").module, cache)


@pytest.mark.parametrize("model", ["lenet", "digits"])
def test_models_are_accepted_in_every_pass(model: str) -> None:
    path = Path(__file__).parent.parent / "models" / f"{model}.dl"
    module = elaborate(path.read_text(encoding="utf-8"), path.name, folder=path.parent, recipe=model).module
    for program in module.programs.values():
        compiler.transform(program, {}, module.buffers)


FOLDER = Path(__file__).parent / "verify"
PROGRAMS = [
    (path.name, kind, name)
    for path in sorted(FOLDER.glob("*.dl"))
    for kind, name in re.findall(r"^(model|train) (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize(("file", "kind", "name"), PROGRAMS)
def test_networks_of_many_operators(cache: Cache, file: str, kind: str, name: str) -> None:
    """All stages of the compiler on what the models of the zoo do not have."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    module = elaborate(text, file, **{"recipe" if kind == "train" else "model": name}).module
    if kind == "train":
        module = replace(module, programs={"train": module.programs["train"]})
    verified(module, cache)


# ---- passes -------------------------------------------------------------------------------------------------------


def by_rule(text: str) -> Callable[[Graph], Graph]:
    return lambda graph: rewrite(graph, (Rule(text),))


def insert(monkeypatch: pytest.MonkeyPatch, after: str, change: Callable[[Graph], Graph]) -> None:
    """A pass `planted` behind another."""
    names = [name for name, _ in compiler.PASSES]
    at = names.index(after) + 1
    monkeypatch.setattr(compiler, "PASSES", (*compiler.PASSES[:at], ("planted", change), *compiler.PASSES[at:]))


@pytest.mark.parametrize(
    ("after", "rule", "text"),
    [
        ("upsampling", "relu(x) = abs(x)", "BatchNorm |> relu"),  # the gradients stand in both graphs
        ("simplify", "relu(x) = abs(x)", "BatchNorm |> relu"),
        ("dead code", "sqrt(x) = abs(x)", "AdamW[1e-3]"),
        ("cse", "rsqrt(x) = sqrt(x)", "BatchNorm |> relu"),
    ],
)
def test_a_wrong_rewrite_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch, cache: Cache, after: str, rule: str, text: str) -> None:
    insert(monkeypatch, after, by_rule(rule))
    found = refused(train(), cache)
    assert found.code == "DL0910"
    assert "the pass `planted` on program `train` changes the result" in found.message
    assert found.span is not None
    if "AdamW" not in text:  # the lines of an optimizer are in the library
        assert found.span.file == "<std>/layers.dl" or text in NET.splitlines()[found.span.line - 1]


def test_the_first_wrong_pass_is_named(monkeypatch: pytest.MonkeyPatch, cache: Cache) -> None:
    insert(monkeypatch, "cse", by_rule("tanh(x) = sin(x)"))
    insert(monkeypatch, "simplify", by_rule("tanh(x) = sigmoid(x)"))
    found = refused(net(), cache)
    assert found.span is not None and NET.splitlines()[found.span.line - 1].startswith("  hidden")
    assert "sigmoid" in found.notes[0].message


def test_a_wrong_gradient_is_named_with_its_parameter(monkeypatch: pytest.MonkeyPatch, cache: Cache) -> None:
    right = type(OPERATORS["relu"]).vjp
    monkeypatch.setattr(
        type(OPERATORS["relu"]),
        "vjp",
        lambda self, b, dy, y, x: tuple(b.mul(part, b.scalar(1.1, x.type.dtype)) for part in right(self, b, dy, y, x)),
    )
    found = refused(train(), cache)
    assert found.code == "DL0910"
    assert re.search(r"the pass `autodiff` .* makes a wrong gradient by `Small\.(conv2d|batchnorm)\.", found.message)
    assert found.span is not None and "minimize" in NET.splitlines()[found.span.line - 1]


def test_a_pass_that_breaks_a_rule_is_named(monkeypatch: pytest.MonkeyPatch, cache: Cache) -> None:
    def unordered(graph: Graph) -> Graph:
        return Graph(graph.inputs, graph.ops[::-1], graph.outputs)

    insert(monkeypatch, "expand", unordered)
    found = refused(net(), cache)
    assert "the pass `planted` on program `infer` breaks a rule of the graph" in found.message
    assert "not defined before its use" in found.message


# ---- kernels ------------------------------------------------------------------------------------------------------

WRONG = (
    (r"= fma\((\w+), (\w+), (\w+)\)", r"= fma(\1, \2, -\3)"),
    (r"= (t\d+) \* ", r"= -\1 * "),
    (r"= (t\d+) ([+-]) ", r"= -\1 \2 "),
    (r"vexp\(", "vtanh("),
)


def planted(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The first arithmetic of one step's kernel goes wrong; other steps keep theirs."""
    right = compiler.kernel_sources

    def sources(*arguments: Any) -> tuple[KernelSource, ...]:
        kernels = list(right(*arguments))
        changed = wrong_text(kernels[number].text)
        assert changed is not None
        kernels[number] = replace(kernels[number], text=changed)
        return tuple(kernels)

    monkeypatch.setattr(compiler, "kernel_sources", sources)


def wrong_text(text: str) -> str | None:
    for pattern, replacement in WRONG:
        changed, count = re.subn(pattern, replacement, text)
        if count:
            return changed
    return None


def steps_to_break() -> list[tuple[int, str]]:
    program, _ = compiler.transform(train().programs["train"], {})
    lowered = compiler.lower(program)
    kernels = compiler.kernel_sources(lowered, compiler.host_target(Options(width=WIDTH)))
    return [
        (n, step.label) for n, (step, kernel) in enumerate(zip(lowered.steps, kernels, strict=True)) if wrong_text(kernel.text) is not None
    ]


def test_every_wrong_kernel_is_named(cache: Cache) -> None:
    """One after the other, all kernels of a training step that compute anything."""
    verified(train(), cache)
    steps = steps_to_break()
    assert len(steps) > 8
    missed = []
    for number, label in steps:
        with pytest.MonkeyPatch.context() as monkeypatch:
            planted(monkeypatch, number)
            try:
                found = refused(train(), cache)
            except pytest.fail.Exception:
                missed.append((number, label))
                continue
        assert found.code == "DL0911"
        assert f"the kernel of step {number}, `{label}`," in found.message, found.message
    assert missed == []


def test_a_wrong_memory_plan_is_found(monkeypatch: pytest.MonkeyPatch, cache: Cache) -> None:
    right = compiler.plan_program

    def crowded(*arguments: Any) -> Any:
        plan, kept = right(*arguments)
        buffers = tuple(replace(b, offset=0) if b.region == "batch" else b for b in plan.buffers)
        return replace(plan, buffers=buffers), kept

    monkeypatch.setattr(compiler, "plan_program", crowded)
    found = refused(train(), cache)
    assert found.code == "DL0911"
    assert "every kernel is right and the memory plan is wrong: the result `" in found.message


def test_without_verify_nothing_is_checked(monkeypatch: pytest.MonkeyPatch, cache: Cache) -> None:
    insert(monkeypatch, "simplify", by_rule("tanh(x) = sigmoid(x)"))
    compiler.compile_module(net(), Options(width=WIDTH), cache=cache)
