"""Comparisons, logic on bools, selection by a condition, and conversion between element types."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dslc.ir import loops
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.elementwise import Binary, Unary
from dslc.ops.shapes import Array, Index, broadcast, number, read, require, same_dtype, unbroadcast

F32, F64, I32, I64, BOOL = DType.F32, DType.F64, DType.I32, DType.I64, DType.BOOL
_BOOLS = (np.array([True, True, False, False]), np.array([True, False, True, False]))


class Comparison(Binary):
    """Base of the comparisons: operands of one element type, a bool result; false where an operand is NaN (`ne`: true)."""

    family = "logic"
    verb = "compare"
    differentiable = False
    samples = [
        Sample((np.array([[1.0, 2.0, 3.0]] * 5), np.array([2.0, 2.0, 2.0]))),
        Sample((np.array([1, 2, 3], np.int64), np.array(2, np.int64))),
    ]
    errors = Binary.errors[:2]
    ordered: ClassVar[bool] = True

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        if self.ordered:
            require("number", self.name, x, y)
        same_dtype(self.verb, x, y)
        return TensorType(BOOL, broadcast(self.verb, x, y))


class Logic(Binary):
    """Base of the operators of two bools."""

    family = "logic"
    verb = "combine"
    kind = "bool"
    differentiable = False
    samples = [Sample(_BOOLS), Sample((np.array([[True], [False]]), _BOOLS[1]))]
    errors = [
        BadSample((TensorType(F32, (2,)), TensorType(BOOL, (2,))), {}, "bool tensor"),
        BadSample((TensorType(BOOL, (2,)), TensorType(BOOL, (3,))), {}, "axis 0 is 2 and 3"),
    ]


@operator
class Eq(Comparison):
    """True where x equals y; bools compare too."""

    onnx = "Equal"
    ordered = False
    samples = [*Comparison.samples, Sample(_BOOLS)]

    def reference(self, x: Array, y: Array) -> Any:
        return x == y


@operator
class Ne(Comparison):
    """True where x differs from y, and where either is NaN; bools compare too."""

    ordered = False
    samples = [*Comparison.samples, Sample(_BOOLS)]

    def reference(self, x: Array, y: Array) -> Any:
        return x != y


@operator
class Lt(Comparison):
    """True where x is less than y."""

    onnx = "Less"
    errors = [*Comparison.errors, BadSample((TensorType(BOOL, (2,)), TensorType(BOOL, (2,))), {}, "not bool[2]")]

    def reference(self, x: Array, y: Array) -> Any:
        return x < y


@operator
class Le(Comparison):
    """True where x is at most y."""

    onnx = "LessOrEqual"
    errors = [*Comparison.errors, BadSample((TensorType(BOOL, (2,)), TensorType(BOOL, (2,))), {}, "not bool[2]")]

    def reference(self, x: Array, y: Array) -> Any:
        return x <= y


@operator
class Gt(Comparison):
    """True where x is greater than y."""

    onnx = "Greater"
    errors = [*Comparison.errors, BadSample((TensorType(BOOL, (2,)), TensorType(BOOL, (2,))), {}, "not bool[2]")]

    def reference(self, x: Array, y: Array) -> Any:
        return x > y


@operator
class Ge(Comparison):
    """True where x is at least y."""

    onnx = "GreaterOrEqual"
    errors = [*Comparison.errors, BadSample((TensorType(BOOL, (2,)), TensorType(BOOL, (2,))), {}, "not bool[2]")]

    def reference(self, x: Array, y: Array) -> Any:
        return x >= y


@operator
class And(Logic):
    """True where both are."""

    onnx = "And"

    def reference(self, x: Array, y: Array) -> Any:
        return x & y


@operator
class Or(Logic):
    """True where at least one is."""

    onnx = "Or"

    def reference(self, x: Array, y: Array) -> Any:
        return x | y


@operator
class Xor(Logic):
    """True where exactly one is."""

    onnx = "Xor"

    def body(self, index: Index, x: Reader, y: Reader) -> Expr:
        return loops.binary("ne", read(x, index), read(y, index))

    def reference(self, x: Array, y: Array) -> Any:
        return x ^ y


@operator
class Not(Unary):
    """True where x is false."""

    onnx = "Not"
    family = "logic"
    kind = "bool"
    differentiable = False
    samples = [Sample((_BOOLS[0],))]
    errors = [BadSample((TensorType(F32, (2,)),), {}, "bool tensor")]

    def reference(self, x: Array) -> Any:
        return ~x


# ---- conversion and selection -------------------------------------------------------------------------------------


@operator
class Cast(Operator):
    """Convert to another element type. A float becomes an integer by truncation, saturated at the ends of its range, and NaN
    becomes 0; integers wrap around; a bool is 0 or 1; anything but 0 is true.
    """

    moves = True
    onnx = "Cast"
    family = "arithmetic"
    elementwise = True
    attrs = {"dtype": Attr("dtype", doc="the element type of the result")}
    samples = [
        Sample((np.array([0.5, -1.5, 300.7, 1e20, -1e20]),), {"dtype": I32}, gradient=False),
        Sample((np.array([0.5, -1.5, 300.7, np.nan, np.inf]),), {"dtype": DType.U8}, gradient=False),
        Sample((np.array([0.5, -1.5, 1e30, np.nan, -np.inf]),), {"dtype": I64}, gradient=False),
        Sample((np.array([0.0, -1.5, np.nan]),), {"dtype": BOOL}, gradient=False),
        Sample((np.array([300, -1, 7], np.int64),), {"dtype": DType.U8}, gradient=False),
        Sample((np.array([True, False]),), {"dtype": F64}, gradient=False),
        Sample((np.array([3, -1], np.int32),), {"dtype": F32}, gradient=False),
        Sample(((5, 3),), {"dtype": F64}),
    ]
    errors = [BadSample((TensorType(F32, (2,)),), {"dtype": "f33"}, "not an element type")]

    def infer(self, x: TensorType, dtype: DType) -> TensorType:
        if not isinstance(dtype, DType):
            raise TypeFailure(f"{dtype} is not an element type", hint=f"one of {', '.join(DType)}")
        return x.with_dtype(dtype)

    def body(self, index: Index, x: Reader, dtype: DType) -> Expr:
        return loops.cast(read(x, index), dtype)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, dtype: DType) -> tuple[Value | None]:
        return (b.cast(dy, dtype=x.type.dtype) if x.type.dtype.floating else None,)

    def reference(self, x: Array, dtype: DType) -> Any:
        target = dtype.numpy
        if x.dtype.kind != "f" or not dtype.integer:
            return x.astype(target)
        info = np.iinfo(np.dtype(target.str))
        # The largest integer may round up to a float that is out of range, so the ends are compared before converting.
        inside = np.where(np.isnan(x) | (x >= float(info.max)) | (x <= float(info.min)), 0, x).astype(target)
        return np.where(x >= float(info.max), info.max, np.where(x <= float(info.min), info.min, inside)).astype(target)


@operator
class Clip(Operator):
    """Limit x to [low, high]; `none` leaves a side open and NaN stays NaN. The gradient passes where low <= x <= high."""

    onnx = "Clip"
    elementwise = True
    attrs = {
        "low": Attr("float", None, "the lower limit"),
        "high": Attr("float", None, "the upper limit"),
    }
    samples = [
        Sample(((5, 4),), {"low": -0.5, "high": 0.7}),
        Sample(((5, 4),), {"low": 0.1}),
        Sample((np.array([-3, 2, 9], np.int32),), {"low": 0.0, "high": 5.0}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (2,)),), {"low": 1.0, "high": 0.0}, "above"),
        BadSample((TensorType(BOOL, (2,)),), {"low": 1.0}, "not bool[2]"),
    ]

    def infer(self, x: TensorType, low: float | None, high: float | None) -> TensorType:
        require("number", self.name, x)
        if low is not None and high is not None and low > high:
            raise TypeFailure(f"the lower limit {low} is above the upper limit {high}")
        return x

    def body(self, index: Index, x: Reader, low: float | None, high: float | None) -> Expr:
        a = value = read(x, index)
        if high is not None:
            value = loops.select(loops.binary("gt", a, number(high, a)), number(high, a), value)
        if low is not None:
            value = loops.select(loops.binary("lt", a, number(low, a)), number(low, a), value)
        return value

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, low: float | None, high: float | None) -> tuple[Value]:
        return (b.where(b.eq(x, y), dy, b.scalar(0.0, dy.type.dtype)),)

    def reference(self, x: Array, low: float | None, high: float | None) -> Any:
        return np.clip(x, low, high).astype(x.dtype) if low is not None or high is not None else x


@operator
class Where(Operator):
    """x where the condition is true, else y. The side that is not taken gets no gradient, even where it is NaN."""

    onnx = "Where"
    family = "logic"
    elementwise = True
    inputs = ("condition", "x", "y")
    samples = [
        Sample((np.array([[True], [False], [True], [True], [False]]), (5, 3), (3,))),
        Sample((np.array(True), (5, 2), (5, 2))),
    ]
    errors = [
        BadSample((TensorType(F32, (2,)), TensorType(F32, (2,)), TensorType(F32, (2,))), {}, "bool tensor"),
        BadSample((TensorType(BOOL, (2,)), TensorType(F32, (2,)), TensorType(I32, (2,))), {}, "element types differ"),
        BadSample((TensorType(BOOL, (2,)), TensorType(F32, (3,)), TensorType(F32, (3,))), {}, "axis 0 is 2 and 3"),
    ]

    def infer(self, condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
        require("bool", "the condition of where", condition)
        if x.dtype != y.dtype:
            raise TypeFailure(f"cannot choose between {x} and {y}: the element types differ", inputs=(1, 2))
        return TensorType(x.dtype, broadcast("choose by", condition, x, y))

    def body(self, index: Index, condition: Reader, x: Reader, y: Reader) -> Expr:
        return loops.select(read(condition, index), read(x, index), read(y, index))

    def vjp(self, b: Builder, dz: Value, z: Value, c: Value, x: Value, y: Value) -> tuple[None, Value, Value]:
        zero = b.scalar(0.0, dz.type.dtype)
        return None, unbroadcast(b, b.where(c, dz, zero), x.type), unbroadcast(b, b.where(c, zero, dz), y.type)

    def reference(self, condition: Array, x: Array, y: Array) -> Any:
        return np.where(condition, x, y)
