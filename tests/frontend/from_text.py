"""Programs made from text and run by the interpreter, for the tests of the frontend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dslc.frontend import elaborate
from dslc.frontend.elaborate import Elaborated
from dslc.interpret import interpret
from dslc.ir.module import PortKind
from dslc.runtime.initial import initial_value
from dslc.transforms.autodiff import differentiate

Array = np.ndarray[Any, Any]


def made(text: str, **kw: Any) -> Elaborated:
    """The programs of a text that has no warnings either."""
    result = elaborate(text, "test.dl", **kw)
    assert [w.message for w in result.warnings] == []
    return result


def run(elaborated: Elaborated, name: str = "infer", given: Mapping[str, Any] | None = None, **inputs: Any) -> dict[str, Array]:
    """Interprets a program: inputs and buffers by name, initial values for buffers not given."""
    program = elaborated.module.programs[name]
    arrays = []
    for port, value in zip(program.inputs, program.graph.inputs, strict=True):
        if port.kind == PortKind.BUFFER and port.name not in (given or {}):
            buffer = elaborated.module.buffers[port.name]
            described = {"kind": buffer.initial.kind, "settings": dict(buffer.initial.settings), "stream": buffer.initial.stream}
            arrays.append(initial_value(described, value.type.dtype.value, tuple(int(n) for n in value.type.shape), 1))
        elif port.kind == PortKind.BUFFER:
            arrays.append((given or {})[port.name])
        else:
            arrays.append(inputs.get(port.name, port.default if port.default is not None else 3))
    results = interpret(differentiate(program.graph), arrays)
    return {port.name: array for port, array in zip(program.outputs, results, strict=True)}


def model(body: str, inputs: str = "x: f32[N, 4]", result: str = "f32[N, 4]", before: str = "") -> str:
    return f"dim N <= 64\n{before}\nmodel M({inputs}) -> {result} {{ {body} }}"


X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).normal(size=(2, 3, 8, 6)).astype(np.float32)


def value_of(body: str, result: str = "f32[N, 4]", before: str = "", **kw: Any) -> Array:
    return run(made(model(body, result=result, before=before), **kw), x=X)["output"]
