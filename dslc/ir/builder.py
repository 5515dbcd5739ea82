"""Builds well-typed graphs: `b.matmul(x, w)` infers the result's type or raises `TypeFailure` with the reason."""
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from dslc.diagnostics import Span
from dslc.ir.dims import Dim
from dslc.ir.graph import ConstantData, Graph, Op, Value, sorted_attrs
from dslc.ir.halves import as_values
from dslc.ir.operator import OPERATORS, REQUIRED, Operator, TypeFailure, infer_types, meeting_float
from dslc.ir.types import DType, TensorType


class Builder:
    """Appends operations to a growing graph; `span` marks what follows with a place in the source.

    An operator of f16 or bf16 operands is that of their f32 values, its result rounded once; what only moves elements keeps them.
    A sum of products of 8-bit integers is that of their i32 values.
    """

    def __init__(self, inputs: Iterable[Value] = (), ops: Iterable[Op] = ()):
        self.inputs, self.ops = list(inputs), list(ops)
        self.span: Span | None = None
        self._exact: dict[int, Value] = {}  # 16-bit constants by id, and the same numbers in f32
        self._ids = itertools.count(1 + max((v.id for v in [*self.inputs, *(v for op in self.ops for v in op.outputs)]), default=-1))

    def input(self, dtype: DType, *shape: Dim) -> Value:
        self.inputs.append(self.value(TensorType(dtype, tuple(shape))))
        return self.inputs[-1]

    def value(self, type: TensorType) -> Value:
        return Value(next(self._ids), type)

    def inner(self) -> Builder:
        """A builder for a region of this graph. Its ids are others than this one's, so that a value that it captures keeps its own."""
        region = Builder()
        region._ids, region.span = self._ids, self.span
        return region

    def emit(self, kind: str, inputs: Iterable[Value], attrs: dict[str, Any], regions: tuple[Graph, ...] = ()) -> Op:
        """One operation with inferred result types; attributes with a default may be left out.

        Where it computes in another type than it was asked for, it stands in the graph between conversions; what is given back has
        the operands and results that were asked for.
        """
        op_class = OPERATORS[kind]
        inputs = tuple(inputs)
        full = {name: attr.default for name, attr in op_class.attrs.items() if attr.default is not REQUIRED} | attrs
        unknown = full.keys() - op_class.attrs.keys()
        if unknown:
            raise TypeFailure(f"{kind} has no setting {sorted(unknown)[0]}")
        lacking = [name for name in op_class.attrs if name not in full]
        if lacking:
            raise TypeFailure(f"{kind} needs the setting {lacking[0]}")
        if not (op_class.moves or op_class.meta):
            if _halves(inputs, full):
                return self._rounded(op_class, inputs, full)
            if op_class.widens and inputs and all(v.type.dtype.narrow for v in inputs):
                wide = self.emit(kind, (self.apply("cast", v, dtype=DType.I32) for v in inputs), attrs, regions)
                return replace(wide, inputs=inputs)
        types = infer_types(kind, (v.type for v in inputs), full, regions)
        op = Op(kind, inputs, sorted_attrs(full), tuple(self.value(t) for t in types), regions, self.span)
        self.ops.append(op)
        return op

    def _rounded(self, op_class: type[Operator] | Operator, inputs: tuple[Value, ...], attrs: dict[str, Any]) -> Op:
        """The operation on f32 values, its results rounded to the 16-bit type that all floating operands have, or that is asked for."""
        asked = [a for a in attrs.values() if isinstance(a, DType) and a.half]
        target = asked[0] if asked else meeting_float([v.type.dtype for v in inputs])
        attrs = {name: DType.F32 if isinstance(a, DType) and a.half else a for name, a in attrs.items()}
        if target.half and op_class.name == "full":
            attrs["value"] = as_values(np.asarray(attrs["value"], np.float64), target).item()
        op = self.emit(op_class.name, (self._widened(v) for v in inputs), attrs)
        if not target.half:
            return replace(op, inputs=inputs)
        outputs = tuple(self.apply("cast", v, dtype=target) if v.type.dtype == DType.F32 else v for v in op.outputs)
        if op_class.name == "full":
            self._exact[outputs[0].id] = op.output
        return replace(op, inputs=inputs, outputs=outputs)

    def _widened(self, value: Value) -> Value:
        if not value.type.dtype.half:
            return value
        wide: Value = self._exact.get(value.id) or self.apply("cast", value, dtype=DType.F32)
        return wide

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
        if dtype.half:
            rounded: Value = self.apply("cast", self.constant(as_values(np.asarray(array), dtype), DType.F32), dtype=dtype)
            return rounded
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


def _halves(inputs: tuple[Value, ...], attrs: dict[str, Any]) -> bool:
    return any(v.type.dtype.half for v in inputs) or any(isinstance(a, DType) and a.half for a in attrs.values())
