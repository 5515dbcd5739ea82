"""A program for inference as an ONNX model, with its weights inside: `export(program, arrays)` gives the file's bytes.

Needs the package `onnx`. Sizes are bound, the batch too; idioms are found first, so that a convolution keeps its bias and batch
normalisation is one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dslc.interchange.onnx_operators import NAME, TABLE
from dslc.interchange.refusal import refused
from dslc.interchange.torch_network import translated
from dslc.ir.module import PortKind, Program
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import ints

OPSET = 21
_TYPES = {
    DType.F16: "FLOAT16", DType.BF16: "BFLOAT16", DType.F32: "FLOAT", DType.F64: "DOUBLE", DType.I8: "INT8", DType.U8: "UINT8",
    DType.I32: "INT32", DType.I64: "INT64", DType.BOOL: "BOOL",
}  # fmt: skip


class Network:
    """A growing list of nodes; values go by names."""

    def __init__(self, onnx: Any):
        self.onnx = onnx
        self.made: list[Any] = []
        self.tensors: list[Any] = []
        self._count = 0

    def type(self, dtype: DType) -> int:
        """ONNX's number of an element type."""
        return int(getattr(self.onnx.TensorProto, _TYPES[dtype]))

    def constant(self, value: Any, dtype: DType) -> str:
        """An array that is part of the model."""
        return self.weight(self._name(), np.asarray(value).astype(dtype.numpy))

    def weight(self, name: str, array: Any) -> str:
        """An array under a name of its own."""
        self.tensors.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(np.shape(array)), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one result."""
        return self.nodes(kind, inputs, 1, **attributes)[0]

    def nodes(self, kind: str, inputs: Sequence[str], results: int, **attributes: Any) -> list[str]:
        """A node with several results."""
        names = [self._name() for _ in range(results)]
        self.made.append(self.onnx.helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def reshape(self, x: str, shape: Sequence[Any]) -> str:
        """x with another shape."""
        return self.node("Reshape", x, self.constant(np.array(shape, np.int64), DType.I64))

    def _name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def port(self, name: str, type: TensorType) -> Any:
        """A described input or output."""
        return self.onnx.helper.make_tensor_value_info(name, self.type(type.dtype), list(ints(type.shape)))


def export(program: Program, arrays: Mapping[str, Any]) -> bytes:
    """The bytes of a model that computes a bound program with these weights. DL0830 for an operator that ONNX has not."""
    import onnx

    graph = translated(program.graph, TABLE, NAME)
    net = Network(onnx)
    names: dict[Any, str] = {}
    inputs, outputs = [], []
    used = {value for op in graph.ops for value in op.inputs}
    for port, value in zip(program.inputs, graph.inputs, strict=True):
        if port.kind == PortKind.BUFFER:
            if value in used:
                names[value] = net.weight(f"w{value.id}", arrays[port.name])
        elif port.kind == PortKind.INPUT:
            names[value] = port.name
            inputs.append(net.port(port.name, value.type))
        elif value in used:
            reader = next(op for op in graph.ops if value in op.inputs)
            raise refused(reader, NAME, "it reads a number that changes from call to call")
    for op in graph.ops:
        made = TABLE[op.kind](net, op, *(names[value] for value in op.inputs))
        names |= zip(op.outputs, [made] if isinstance(made, str) else made, strict=True)
    for port, value in zip(program.outputs, graph.outputs, strict=True):
        if port.kind != PortKind.BUFFER:
            net.made.append(onnx.helper.make_node("Identity", [names[value]], [f"{port.name}_"]))
            outputs.append(net.port(f"{port.name}_", value.type))
    model = onnx.helper.make_model(
        onnx.helper.make_graph(net.made, "dslc", inputs, outputs, net.tensors),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=10,
    )
    serialized: bytes = model.SerializeToString()
    return serialized
