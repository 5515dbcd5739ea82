"""`Builder.to_dl`: a model built in Python as text, which parsed again gives the same graph."""

from __future__ import annotations

import numpy as np
import pytest

import dslc
import dslc.api.build
import dslc.ops
from dslc.api.text import model_text
from dslc.frontend import elaborate
from dslc.ir.builder import Builder
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.module import Module, Port, PortKind, Program
from dslc.ir.operator import OPERATORS, Sample
from dslc.ir.types import DType

# The language folds `size` into a number and passes over `identity`; random operators take the seed of the program.
FOLDED = ("identity", "size")
SPELT = {n: o for n, o in OPERATORS.items() if not o.internal and not o.draw and n not in FOLDED}


def shape_of(graph: Graph) -> list[object]:
    """A graph without the numbers of its values and its places."""
    numbers: dict[Value, int] = {}
    for value in graph.values():
        numbers[value] = len(numbers)

    def operation(op: Op) -> object:
        return op.kind, [numbers[v] for v in op.inputs], repr([(k, _plain(v)) for k, v in op.attrs]), [str(v.type) for v in op.outputs]

    return [[str(v.type) for v in graph.inputs], [operation(op) for op in graph.ops], [numbers[v] for v in graph.outputs]]


def _plain(value: object) -> object:
    """A number as a float: 7, 7.0 and true fill a tensor alike."""
    return float(value) if isinstance(value, int | float) else value


def same(module: Module, text: str) -> None:
    program = module.programs["infer"]
    again = elaborate(text, "again.dl").module
    assert shape_of(again.programs["infer"].graph) == shape_of(program.graph), text
    assert [p.name for p in again.programs["infer"].inputs] == [p.name for p in program.inputs]
    assert [p.name for p in again.programs["infer"].outputs] == [p.name for p in program.outputs]
    assert again.programs["infer"].bound == program.bound
    for path, buffer in module.buffers.items():
        found = again.buffers[path]
        assert (found.type, found.role, found.initial.kind, found.initial.stream) == (
            *(buffer.type, buffer.role),
            *(buffer.initial.kind, buffer.initial.stream),
        )
        assert dict(found.initial.settings).items() >= dict(buffer.initial.settings).items()


TYPES = {"float64": "f32", "int64": "i64", "int32": "i32", "uint8": "u8", "bool": "bool"}


def sampled(kind: str, sample: Sample) -> Module:
    """A model of one operator. Arrays of samples are written in float64 and mean f32."""
    builder = Builder()
    arrays = [given if isinstance(given, np.ndarray) else np.zeros(given) for given in sample.inputs]
    values = [builder.input(DType(TYPES[a.dtype.name]), *a.shape) for a in arrays]
    result = builder.apply(kind, *values, **sample.attrs)
    results = result if isinstance(result, tuple) else (result,)
    inputs = tuple(Port(PortKind.INPUT, f"x{i}") for i in range(len(values)))
    outputs = tuple(Port(PortKind.RESULT, f"y{i}") for i in range(len(results)))
    return Module("M", {"infer": Program("infer", builder.graph(*results), inputs, outputs)}, {})


@pytest.mark.parametrize("kind", SPELT)
def test_every_operator_is_printed_and_read_again(kind: str) -> None:
    for sample in SPELT[kind].samples:
        module = sampled(kind, sample)
        if any(n == 0 for v in module.programs["infer"].graph.values() for n in v.type.shape):
            continue  # a file has no empty tensors
        same(module, model_text(module, module.programs["infer"]))


def built() -> tuple[dslc.Builder, dict[str, dslc.api.build.Tensor]]:
    b = dslc.Builder("Tiny", batch=16)
    x = b.input("points", "f32", ("N", 4))
    w = b.parameter("w", "f32", (4, 3), "normal", std=0.02)
    bias = b.parameter("bias", "f32", (3,), 0.5)
    centre = b.state("centre", "f32", (4,))
    b.update(centre, centre * 0.9 + b.mean(x, axis=0) * 0.1)
    logits = (x - centre) @ w + bias
    return b, {"shares": b.softmax(b.identity(logits), axis=-1), "best": b.argmax(logits, axis=1)}


def test_a_model_with_parameters_and_states() -> None:
    b, results = built()
    text = b.to_dl(results)
    assert "dim N <= 16" in text and "state centre: f32[4] = 0.0" in text and "update centre = " in text
    assert "param w: f32[4, 3] ~ normal[std = 0.02]" in text
    module = elaborate(text, "again.dl").module
    kinds = [op.kind for op in b.module(**results).programs["infer"].graph.ops if op.kind != "identity"]
    assert [op.kind for op in module.programs["infer"].graph.ops] == kinds
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    mine, theirs = b.compile(results, threads=1)(points=x), dslc.compile(text, threads=1)(points=x)
    assert mine.keys() == theirs.keys() and all((mine[k] == theirs[k]).all() for k in mine)


def test_updates_take_effect_in_training() -> None:
    b, results = built()
    recipe = """
    train tiny {
      data points: f32[N, 4] from "npz:points.npz"
      minimize mean(Tiny(points).shares) over Tiny with SGD[0.0]
      steps 1  batch 4
    }
    """
    x = np.ones((4, 4), np.float32)
    trainer = dslc.Trainer(b.to_dl(results) + recipe, data={"train": (x,)}, save=False)
    trainer.fit()
    np.testing.assert_allclose(trainer.weights["Tiny.centre"], 0.1, rtol=1e-6)


def test_numbers_and_names_that_are_hard_to_spell() -> None:
    b = dslc.Builder("Odd", batch=None)
    t0 = b.input("t0", "f64", (2,))
    numbers = [float("inf"), float("-inf"), float("nan"), -0.0, 1e-300, 1 / 3]
    total = t0
    for value in numbers:
        total = b.maximum(total, b.full(value=value, shape=(2,), dtype=DType.F64))
    module = b.module(total=total)
    same(module, b.to_dl(total=total))


@pytest.mark.parametrize("name", ["a b", "model", "", "1a", "relu", "a.b"])
def test_names_without_a_spelling(name: str) -> None:
    b = dslc.Builder("M")
    x = b.input(name, "f32", (2,))
    with pytest.raises(dslc.DiagnosticError, match="DL0807"):
        b.to_dl(y=b.relu(x))


def test_what_has_no_spelling() -> None:
    b = dslc.Builder("M")
    x = b.input("x", "f32", (2,))
    with pytest.raises(dslc.DiagnosticError, match="a constant array has no spelling"):
        b.to_dl(y=x + b.constant([1.0, 2.0]))
    with pytest.raises(dslc.DiagnosticError, match="only a state is updated"):
        b.update(x, x)
    with pytest.raises(dslc.DiagnosticError, match=r"is f32\[\], and this is f32\[2\]"):
        b.update(b.state("s"), x)
