"""Builds well-typed graphs: `b.matmul(x, w)` infers the result's type or raises `TypeFailure` with the reason."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dslc.diagnostics import Span
from dslc.ir.dims import Dim
from dslc.ir.graph import ConstantData, Graph, Op, Value, sorted_attrs
from dslc.ir.operator import OPERATORS, REQUIRED, TypeFailure
from dslc.ir.types import DType, TensorType


class Builder:
    """Appends operations to a growing graph; `span` marks what follows with a place in the source."""

    def __init__(self, inputs: Iterable[Value] = (), ops: Iterable[Op] = ()):
        self.inputs, self.ops = list(inputs), list(ops)
        self.span: Span | None = None
        self._next = 1 + max((v.id for v in [*self.inputs, *(v for op in self.ops for v in op.outputs)]), default=-1)

    def input(self, dtype: DType, *shape: Dim) -> Value:
        self.inputs.append(self.value(TensorType(dtype, tuple(shape))))
        return self.inputs[-1]

    def value(self, type: TensorType) -> Value:
        self._next += 1
        return Value(self._next - 1, type)

    def emit(self, kind: str, inputs: Iterable[Value], attrs: dict[str, Any], regions: tuple[Graph, ...] = ()) -> Op:
        """One operation with inferred result types; attributes with a default may be left out."""
        op_class = OPERATORS[kind]
        inputs = tuple(inputs)
        full = {name: attr.default for name, attr in op_class.attrs.items() if attr.default is not REQUIRED} | attrs
        unknown = full.keys() - op_class.attrs.keys()
        if unknown:
            raise TypeFailure(f"{kind} has no setting {sorted(unknown)[0]}")
        lacking = [name for name in op_class.attrs if name not in full]
        if lacking:
            raise TypeFailure(f"{kind} needs the setting {lacking[0]}")
        types = op_class.infer(*(v.type for v in inputs), **full)
        types = types if isinstance(types, tuple) else (types,)
        op = Op(kind, inputs, sorted_attrs(full), tuple(self.value(t) for t in types), regions, self.span)
        self.ops.append(op)
        return op

    def apply(self, kind: str, *inputs: Value, **attrs: Any) -> Any:
        """The result of an operator: a Value, or a tuple where it has several."""
        op = self.emit(kind, inputs, attrs)
        return op.outputs[0] if len(op.outputs) == 1 else op.outputs

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        if kind not in OPERATORS:
            raise AttributeError(kind)
        return lambda *inputs, **attrs: self.apply(kind, *inputs, **attrs)

    def constant(self, array: np.ndarray[Any, Any], dtype: DType) -> Value:
        """A constant tensor from an array."""
        array = np.ascontiguousarray(array, dtype.numpy)
        type_ = TensorType(dtype, tuple(int(n) for n in array.shape))
        value: Value = self.apply("constant", data=ConstantData(type_, array.tobytes()))
        return value

    def scalar(self, value: float | int | bool, dtype: DType) -> Value:
        """A 0-d constant."""
        result: Value = self.apply("full", value=value, dtype=dtype, shape=())
        return result

    def like(self, value: float | int | bool, type: TensorType) -> Value:
        """A constant of a type's dtype and shape."""
        result: Value = self.apply("full", value=value, dtype=type.dtype, shape=type.shape)
        return result

    def graph(self, *outputs: Value) -> Graph:
        return Graph(tuple(self.inputs), tuple(self.ops), tuple(outputs))
