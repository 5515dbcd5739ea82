"""A program for inference as an ONNX model, with its weights inside: `export(program, arrays)` gives the file's bytes.

Needs the package `onnx`. Sizes are bound, the batch too; idioms are found first, so that a convolution keeps its bias, and batch
normalisation and a recurrent layer are one node each. Other loops are nodes `Scan`, whose bodies read what is around them by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dslc.interchange.onnx_operators import NAME, TABLE, entry
from dslc.interchange.refusal import refused
from dslc.interchange.torch_network import translated
from dslc.ir.graph import Op, Value
from dslc.ir.module import PortKind, Program
from dslc.ir.scan import KIND, parts
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

    def run(self, ops: Sequence[Op], names: dict[Value, str]) -> None:
        """The nodes of operations; `names` gets those of their results."""
        for op in ops:
            made = TABLE[op.kind](self, op, *(names[value] for value in op.inputs))
            names |= zip(op.outputs, [made] if isinstance(made, str) else made, strict=True)

    def body(self, ops: Sequence[Op], given: Sequence[Value], outputs: Sequence[Value], around: Mapping[Value, str]) -> Any:
        """A graph of its own, in which `around` has names already."""
        outside, self.made = self.made, []
        names = {value: self._name() for value in given}
        inputs = [self.port(names[value], value.type) for value in given]
        names |= around
        self.run(ops, names)
        results = [self.port(self.node("Identity", names[value]), value.type) for value in outputs]
        made, self.made = self.made, outside
        return self.onnx.helper.make_graph(made, self._name(), inputs, results)

    def port(self, name: str, type: TensorType) -> Any:
        """A described input or output."""
        return self.onnx.helper.make_tensor_value_info(name, self.type(type.dtype), list(ints(type.shape)))


def export(program: Program, arrays: Mapping[str, Any]) -> bytes:
    """The bytes of a model that computes a bound program with these weights. DL0830 for an operator that ONNX has not."""
    import onnx

    graph = translated(program.graph, TABLE, NAME)
    net = Network(onnx)
    names: dict[Value, str] = {}
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
    net.run(graph.ops, names)
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


@entry(KIND)
def _scan(net: Network, op: Op, *xs: str) -> list[str]:
    """States are the carries; the index of an iteration is a sequence more."""
    it = parts(op)
    walked, carried = len(it.sequences), len(it.carries)
    indices = net.constant(np.arange(*ints((it.length,))), DType.I64)
    body = net.body(
        it.body.ops,
        (*it.carries, it.index, *it.slices),
        it.body.outputs,
        dict(zip(it.captured, xs[walked + carried :], strict=True)),
    )
    backwards = int(it.reverse)
    stacks = {"scan_output_axes": it.stacks, "scan_output_directions": (backwards,) * len(it.stacks)} if it.stacks else {}
    return net.nodes(
        "Scan", (*xs[walked : walked + carried], indices, *xs[:walked]), len(op.outputs), body=body, num_scan_inputs=1 + walked,
        scan_input_axes=(0, *it.elements), scan_input_directions=(backwards,) * (1 + walked), **stacks,
    )  # fmt: skip
