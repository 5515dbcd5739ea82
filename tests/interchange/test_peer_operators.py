"""Each operator that another library takes over, against dslc's own reference, on the operator's samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import dslc.ops  # noqa: F401 - fills the registry of operators
from dslc.diagnostics import DiagnosticError
from dslc.interchange.onnx_operators import TABLE as ONNX_TABLE
from dslc.interchange.torch_network import inference
from dslc.interchange.torch_operators import TABLE as TORCH_TABLE
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.module import Port, PortKind, Program
from dslc.ir.operator import OPERATORS, Sample
from dslc.ir.types import DType

# What other libraries do with not-a-number, with ties, division by zero, numbers out of range and indices outside of a table is
# their own; and PyTorch's norm of a constant keeps a rounding error.
OTHERWISE = {
    "torch": {("argsort", 3), ("cast", 0), ("cast", 1), ("cast", 2), ("floordiv", 2), ("gather", 3), ("instance_norm", 2), ("mod", 2), ("sort", 3),
              ("take_along", 0), ("top_k", 4), ("top_k", 5)},
    "onnx": {("argmax", 3), ("argmin", 3), ("cast", 0), ("cast", 1), ("cast", 2), ("gather", 3), ("max", 7), ("min", 7), ("take_along", 0),
             ("top_k", 4), ("max_pool1d", 3)},
}  # fmt: skip
RANDOM = ("random", "dropout", "bernoulli")


def samples(table: Mapping[str, Any], library: str) -> Iterator[Any]:
    for kind in sorted(table):
        if kind in OPERATORS and not kind.startswith(RANDOM):
            for number, sample in enumerate(OPERATORS[kind].samples):
                if (kind, number) not in OTHERWISE[library]:
                    yield pytest.param(kind, sample, id=f"{kind}-{number}")


def program_of(kind: str, sample: Sample) -> tuple[Program, dict[str, Any]]:
    """One operation on inputs a, b, ... with results r0, r1, ..."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(a).astype(np.float32) if isinstance(a, tuple) else np.asarray(a) for a in sample.inputs]
    arrays = [a.astype(np.float32) if a.dtype == np.float64 else a for a in arrays]
    b = Builder()
    values = [b.input(DType(_name(a)), *a.shape) for a in arrays]
    made = b.emit(kind, values, dict(sample.attrs)).outputs
    inputs = tuple(Port(PortKind.INPUT, "abcdef"[n]) for n in range(len(arrays)))
    outputs = tuple(Port(PortKind.RESULT, f"r{n}") for n in range(len(made)))
    return Program("infer", b.graph(*made), inputs, outputs), {port.name: a for port, a in zip(inputs, arrays, strict=True)}


def _name(array: Any) -> str:
    names = {"float16": "f16", "float32": "f32", "int8": "i8", "uint8": "u8", "int32": "i32", "int64": "i64", "bool": "bool"}
    return names[array.dtype.name]


def agree(kind: str, found: list[Any], wanted: list[Any]) -> None:
    for mine, right in zip(found, wanted, strict=True):
        assert tuple(mine.shape) == right.shape
        assert mine.dtype == right.dtype
        np.testing.assert_allclose(mine, right, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("kind", "sample"), list(samples(TORCH_TABLE, "torch")))
def test_torch(kind: str, sample: Sample) -> None:
    torch = pytest.importorskip("torch")
    program, inputs = program_of(kind, sample)
    try:
        results = inference(torch, program, {}, inputs, False)()
    except DiagnosticError as error:
        assert [d.code for d in error.diagnostics] == ["DL0830"]
        return
    agree(kind, [value.numpy() for value in results.values()], interpret(program.graph, list(inputs.values())))


@pytest.mark.parametrize(("kind", "sample"), list(samples(ONNX_TABLE, "onnx")))
def test_onnx(kind: str, sample: Sample) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from dslc.interchange.onnx_export import export

    program, inputs = program_of(kind, sample)
    try:
        session = runtime.InferenceSession(export(program, {}), providers=["CPUExecutionProvider"])
    except DiagnosticError as error:
        assert [d.code for d in error.diagnostics] == ["DL0830"]
        return
    except runtime.capi.onnxruntime_pybind11_state.NotImplemented:
        pytest.skip("ONNX Runtime has no kernel for this element type")
    used = {i.name for i in session.get_inputs()}
    agree(kind, session.run(None, {k: v for k, v in inputs.items() if k in used}), interpret(program.graph, list(inputs.values())))
