"""Triangles and diagonals of matrices, which stand on the last two axes: tril, triu, eye, diag, diagonal."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader, binary, cast, const, select
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index, check_shape

F32, F64, I32, BOOL = DType.F32, DType.F64, DType.I32, DType.BOOL
OFFSET = Attr("int", 0, "which diagonal: 0 the main one, above it positive, below it negative")


def _zero(x: Expr) -> Expr:
    return const(False if x.dtype == BOOL else 0.0 if x.dtype.floating else 0, x.dtype)


class Triangle(Operator):
    """Base of tril and triu."""

    family = "movement"
    onnx = "Trilu"
    attrs = {"offset": OFFSET}
    compare: ClassVar[str]
    samples = [
        Sample(((5, 3, 4),)),
        Sample(((4, 4),), {"offset": 1}),
        Sample(((3, 19),), {"offset": -1}),
        Sample((np.ones((2, 2), np.bool_),), gradient=False),
        Sample((np.array([[np.nan, np.inf], [np.inf, 1.0]]),), gradient=False),
    ]
    errors = [BadSample((TensorType(F32, (3,)),), {}, "[..., rows, columns]")]

    def infer(self, x: TensorType, offset: int) -> TensorType:
        return _matrix(self.name, x)

    def body(self, index: Index, x: Reader, offset: int) -> Expr:
        element = x[index]
        return select(binary(self.compare, IndexValue(index[-1]), IndexValue(index[-2] + offset)), element, _zero(element))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, offset: int) -> tuple[Value]:
        return (b.apply(self.name, dy, offset=offset),)


def _matrix(what: str, x: TensorType) -> TensorType:
    if x.rank < 2:
        raise TypeFailure(f"{what} needs matrices [..., rows, columns], not {x}", inputs=(0,))
    return x


@operator
class Tril(Triangle):
    """The lower triangle of each matrix of x[..., rows, columns]: 0 above the diagonal."""

    compare = "le"

    def reference(self, x: Array, offset: int) -> Any:
        return np.tril(x, offset)


@operator
class Triu(Triangle):
    """The upper triangle of each matrix of x[..., rows, columns]: 0 below the diagonal."""

    compare = "ge"

    def reference(self, x: Array, offset: int) -> Any:
        return np.triu(x, offset)


@operator
class Eye(Operator):
    """A matrix with ones on a diagonal and zeros elsewhere."""

    onnx = "EyeLike"
    family = "constant"
    inputs = ()
    differentiable = False
    attrs = {
        "rows": Attr("dim", doc="how many rows"),
        "columns": Attr("dim", None, "how many columns; as many as rows unless told"),
        "offset": OFFSET,
        "dtype": Attr("dtype", F32, "the element type"),
    }
    samples = [
        Sample((), {"rows": 4}),
        Sample((), {"rows": 3, "columns": 18, "offset": 2, "dtype": F64}),
        Sample((), {"rows": 3, "offset": -1, "dtype": I32}),
        Sample((), {"rows": 2, "dtype": BOOL}),
    ]
    errors = [BadSample((), {"rows": -1}, "at least 0")]

    def infer(self, rows: Dim, columns: Dim | None, offset: int, dtype: DType) -> TensorType:
        return TensorType(dtype, check_shape((rows, rows if columns is None else columns)))

    def body(self, index: Index, rows: Dim, columns: Dim | None, offset: int, dtype: DType) -> Expr:
        here = binary("eq", IndexValue(index[1]), IndexValue(index[0] + offset))
        return here if dtype == BOOL else cast(here, dtype)

    def reference(self, rows: int, columns: int | None, offset: int, dtype: DType) -> Any:
        return np.eye(rows, columns, offset, dtype.numpy)


@operator
class Diag(Operator):
    """Matrices with the vectors of x[..., n] on a diagonal and zeros elsewhere: [..., n + |offset|, n + |offset|]."""

    family = "movement"
    attrs = {"offset": OFFSET}
    samples = [Sample(((5, 3),)), Sample(((4,),), {"offset": 2}), Sample(((2, 3),), {"offset": -1})]
    errors = [BadSample((TensorType(F32, ()),), {}, "vectors [..., n]")]

    def infer(self, x: TensorType, offset: int) -> TensorType:
        if x.rank < 1:
            raise TypeFailure(f"diag needs vectors [..., n], not {x}", inputs=(0,))
        size = x.shape[-1] + abs(offset)
        return x.with_shape((*x.shape[:-1], size, size))

    def expand(self, b: Builder, x: Value, offset: int) -> Value:
        rows, columns = self.infer(x.type, offset).shape[-2:]
        result: Value = b.undiagonal(x, rows=rows, columns=columns, offset=offset)
        return result

    def reference(self, x: Array, offset: int) -> Any:
        size = x.shape[-1] + abs(offset)
        result = np.zeros((*x.shape[:-1], size, size), x.dtype)
        for at in np.ndindex(x.shape[:-1]):
            result[at] = np.diag(x[at], offset)
        return result


@operator
class Diagonal(Operator):
    """The elements on a diagonal of each matrix of x[..., rows, columns]."""

    family = "movement"
    attrs = {"offset": OFFSET}
    samples = [
        Sample(((5, 3, 3),)),
        Sample(((2, 4),), {"offset": 1}),
        Sample(((4, 2),), {"offset": 1}),
        Sample(((2, 4, 2),), {"offset": -1}),
    ]
    errors = [
        BadSample((TensorType(F32, (3,)),), {}, "[..., rows, columns]"),
        BadSample((TensorType(F32, (3, 3)),), {"offset": 3}, "no diagonal"),
    ]

    def infer(self, x: TensorType, offset: int) -> TensorType:
        return x.with_shape((*x.shape[:-2], _length(_matrix("diagonal", x), offset)))

    def body(self, index: Index, x: Reader, offset: int) -> Expr:
        return x[(*index[:-1], index[-1] - min(offset, 0), index[-1] + max(offset, 0))]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, offset: int) -> tuple[Value]:
        rows, columns = x.type.shape[-2:]
        return (b.undiagonal(dy, rows=rows, columns=columns, offset=offset),)

    def reference(self, x: Array, offset: int) -> Any:
        return np.diagonal(x, offset, -2, -1).copy()


def _length(x: TensorType, offset: int) -> Dim:
    """The number of elements on a diagonal of the last two axes."""
    rows, columns = x.shape[-2] + min(offset, 0), x.shape[-1] - max(offset, 0)
    if isinstance(rows, int) and isinstance(columns, int):
        if min(rows, columns) < 1:
            raise TypeFailure(f"there is no diagonal {offset} in {x}", inputs=(0,))
        return min(rows, columns)
    if rows != columns:
        raise TypeFailure(f"a diagonal of {x} needs square matrices, or fixed sizes", inputs=(0,))
    return rows


@operator
class Undiagonal(Operator):
    """Matrices of zeros but for the vectors of x[..., n] on a diagonal: the gradient of diagonal."""

    family = "movement"
    internal = True
    attrs = {"rows": Attr("dim", doc="rows of the result"), "columns": Attr("dim", doc="columns of the result"), "offset": OFFSET}
    samples = [
        Sample(((5, 3),), {"rows": 3, "columns": 3}),
        Sample(((2,),), {"rows": 2, "columns": 4, "offset": 1}),
        Sample(((2, 2),), {"rows": 4, "columns": 2, "offset": -1}),
    ]
    errors = [BadSample((TensorType(F32, (3,)),), {"rows": 4, "columns": 4}, "does not fit")]

    def infer(self, x: TensorType, rows: Dim, columns: Dim, offset: int) -> TensorType:
        result = x.with_shape((*x.shape[:-1], rows, columns))
        if _length(result, offset) != x.shape[-1]:
            raise TypeFailure(f"{x} does not fit on diagonal {offset} of {result}", inputs=(0,))
        return result

    def body(self, index: Index, x: Reader, rows: Dim, columns: Dim, offset: int) -> Expr:
        *lead, row, column = index
        element = x[(*lead, row if offset >= 0 else column)]
        return select(binary("eq", IndexValue(column), IndexValue(row + offset)), element, _zero(element))

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, rows: Dim, columns: Dim, offset: int) -> tuple[Value]:
        return (b.diagonal(dy, offset=offset),)

    def reference(self, x: Array, rows: int, columns: int, offset: int) -> Any:
        result = np.zeros((*x.shape[:-1], rows, columns), x.dtype)
        n = np.arange(x.shape[-1])
        result[..., n - min(offset, 0), n + max(offset, 0)] = x
        return result
