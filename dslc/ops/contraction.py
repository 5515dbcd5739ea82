"""Contractions: sums of products over shared axes (`dot_general`), and matmul and einsum written with it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import ContractionMap, Expr, Reader, binary, reduce, var
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.einsum import Equation, parse_equation
from dslc.ops.shapes import f32

Array = np.ndarray[Any, Any]
Ints = tuple[int, ...]


def same_number_type(what: str, *types: TensorType) -> DType:
    """The common dtype of numeric operands, or a failure."""
    dtype = types[0].dtype
    for position, t in enumerate(types):
        if t.dtype == DType.BOOL:
            raise TypeFailure(f"{what} needs numbers, not {t}", inputs=(position,), hint="convert it with cast[f32](...)")
        if t.dtype != dtype:
            raise TypeFailure(f"{what} of {types[0]} and {t}: the element types differ", inputs=(0, position))
    return dtype


def free_axes(rank: int, *taken: Ints) -> Ints:
    """The axes that are in none of `taken`, ascending."""
    used = {axis for axes in taken for axis in axes}
    return tuple(axis for axis in range(rank) if axis not in used)


@operator
class DotGeneral(Operator):
    """Sum of products over the contracted axes, for each index of the batch axes.

    The result's axes are the batch axes, the free axes of `x`, the free axes of `y`. As in StableHLO's `dot_general`.
    """

    family = "contraction"
    widens = True
    onnx = "MatMul"
    inputs = ("x", "y")
    attrs = {
        "contract": Attr("any", doc="contracted axes of x, and those of y that they meet: ((..), (..))"),
        "batch": Attr("any", ((), ()), "batch axes of x, and those of y that they meet"),
    }

    def infer(self, x: TensorType, y: TensorType, contract: tuple[Ints, Ints], batch: tuple[Ints, Ints]) -> TensorType:
        dtype = same_number_type("dot_general", x, y)
        for what, (left, right) in (("contract", contract), ("batch", batch)):
            if len(left) != len(right):
                raise TypeFailure(f"dot_general: {what} names {len(left)} axes of {x} and {len(right)} of {y}")
            for i, j in zip(left, right, strict=True):
                if not (0 <= i < x.rank and 0 <= j < y.rank):
                    raise TypeFailure(f"dot_general: {what} names axes {i} and {j} of {x} and {y}")
                if x.shape[i] != y.shape[j]:
                    raise TypeFailure(
                        f"dot_general of {x} and {y}: axis {i} is {x.shape[i]} and axis {j} is {y.shape[j]}", inputs=(0, 1), axes=(i, j)
                    )
        for t, axes in ((x, contract[0] + batch[0]), (y, contract[1] + batch[1])):
            if len(set(axes)) != len(axes):
                raise TypeFailure(f"dot_general: an axis of {t} is named twice")
        free_x, free_y = free_axes(x.rank, contract[0], batch[0]), free_axes(y.rank, contract[1], batch[1])
        return TensorType(dtype, tuple(x.shape[i] for i in batch[0] + free_x) + tuple(y.shape[j] for j in free_y))

    def body(self, index: tuple[Dim, ...], x: Reader, y: Reader, contract: tuple[Ints, Ints], batch: tuple[Ints, Ints]) -> Expr:
        def element(*k: Dim) -> Expr:
            at_x, at_y = _operand_indices(x.type.rank, y.type.rank, index, k, contract, batch)
            return binary("mul", x[at_x], y[at_y])

        extents = tuple(x.type.shape[i] for i in contract[0])
        return reduce("add", extents, element) if extents else element()

    def contraction(self, x: TensorType, y: TensorType, contract: tuple[Ints, Ints], batch: tuple[Ints, Ints]) -> ContractionMap:
        out = self.infer(x, y, contract, batch)
        outer = tuple((f"d{axis}", extent) for axis, extent in enumerate(out.shape))
        inner = tuple((f"k{n}", x.shape[i]) for n, i in enumerate(contract[0]))
        index = tuple(var(name) for name, _ in outer)
        at_x, at_y = _operand_indices(x.rank, y.rank, index, tuple(var(name) for name, _ in inner), contract, batch)
        return ContractionMap(outer + inner, index, at_x, at_y)

    def vjp(
        self, b: Builder, dy: Value, y: Value, left: Value, right: Value, contract: tuple[Ints, Ints], batch: tuple[Ints, Ints]
    ) -> tuple[Value, Value]:
        batches = len(batch[0])
        lead = tuple(range(batches))
        free_l = free_axes(left.type.rank, contract[0], batch[0])
        free_r = free_axes(right.type.rank, contract[1], batch[1])
        of_l = tuple(range(batches, batches + len(free_l)))  # where the result holds the free axes of each side
        of_r = tuple(range(batches + len(free_l), dy.type.rank))
        # d left: [batch, free left, contracted in right's order], and the same with the operands exchanged
        order = sorted(range(len(contract[1])), key=lambda n: contract[1][n])
        dl_axes = batch[0] + free_l + tuple(contract[0][n] for n in order)
        flipped = tuple(contract[0][n] for n in order) + free_l
        if batch[0] + flipped == tuple(range(left.type.rank)):
            d_left = b.dot_general(right, dy, contract=(free_r, of_r), batch=(batch[1], lead))
        else:
            d_left = _arranged(b, b.dot_general(dy, right, contract=(of_r, free_r), batch=(lead, batch[1])), dl_axes)
        order = sorted(range(len(contract[0])), key=lambda n: contract[0][n])
        dr_axes = batch[1] + free_r + tuple(contract[1][n] for n in order)
        if dr_axes == tuple(range(right.type.rank)):
            d_right = b.dot_general(dy, left, contract=(of_l, free_l), batch=(lead, batch[0]))
        else:
            flipped = batch[1] + tuple(contract[1][n] for n in order) + free_r
            d_right = _arranged(b, b.dot_general(left, dy, contract=(free_l, of_l), batch=(batch[0], lead)), flipped)
        return d_left, d_right

    def reference(self, x: Array, y: Array, contract: tuple[Ints, Ints], batch: tuple[Ints, Ints]) -> Array:
        free_x, free_y = free_axes(x.ndim, contract[0], batch[0]), free_axes(y.ndim, contract[1], batch[1])
        left = x.transpose(batch[0] + free_x + contract[0])
        right = y.transpose(batch[1] + contract[1] + free_y)
        batches, inner = [x.shape[i] for i in batch[0]], math.prod(x.shape[i] for i in contract[0])
        rows, columns = [x.shape[i] for i in free_x], [y.shape[j] for j in free_y]
        with np.errstate(invalid="ignore", over="ignore"):
            product = left.reshape(*batches, math.prod(rows), inner) @ right.reshape(*batches, inner, math.prod(columns))
        return product.reshape(batches + rows + columns)

    samples = [
        Sample(((3, 4), (4, 5)), {"contract": ((1,), (0,))}),
        Sample(((2, 3, 4), (4, 5)), {"contract": ((2,), (0,))}),
        Sample(((2, 3, 4), (5, 2, 4)), {"contract": ((2,), (2,)), "batch": ((0,), (1,))}),
        Sample(((4, 2, 3), (3, 5, 2)), {"contract": ((1, 2), (2, 0))}),
        Sample(((3,), (4,)), {"contract": ((), ())}),
        Sample(((2, 3), (2, 3)), {"contract": ((1,), (1,)), "batch": ((0,), (0,))}),
        Sample(((5,), (5,)), {"contract": ((0,), (0,))}),
    ]
    errors = [
        BadSample((f32(3, 4), f32(5, 2)), {"contract": ((1,), (0,))}, "axis 1 is 4 and axis 0 is 5"),
        BadSample((f32(3, 4), f32(4, 2)), {"contract": ((2,), (0,))}, "names axes 2 and 0"),
        BadSample((f32(3, 4), f32(4, 2)), {"contract": ((1,), ())}, "names 1 axes"),
        BadSample((f32(4, 4), f32(4, 4)), {"contract": ((1,), (0,)), "batch": ((1,), (1,))}, "named twice"),
        BadSample((TensorType(DType.BOOL, (3, 4)), f32(4, 2)), {"contract": ((1,), (0,))}, "needs numbers"),
        BadSample((f32(3, 4), TensorType(DType.F64, (4, 2))), {"contract": ((1,), (0,))}, "element types differ"),
    ]


def _operand_indices(
    rank_x: int, rank_y: int, out: tuple[Dim, ...], inner: tuple[Dim, ...], contract: tuple[Ints, Ints], batch: tuple[Ints, Ints]
) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    free_x, free_y = free_axes(rank_x, contract[0], batch[0]), free_axes(rank_y, contract[1], batch[1])
    batches = len(batch[0])
    lead, rows, columns = out[:batches], out[batches : batches + len(free_x)], out[batches + len(free_x) :]
    at_x = dict(zip(batch[0] + free_x + contract[0], lead + rows + inner, strict=True))
    at_y = dict(zip(batch[1] + free_y + contract[1], lead + columns + inner, strict=True))
    return tuple(at_x[i] for i in range(rank_x)), tuple(at_y[j] for j in range(rank_y))


def _arranged(b: Builder, value: Value, axes: Ints) -> Value:
    """`value`, whose axis n is meant to be axis `axes[n]` of the result, transposed there where needed."""
    perm = tuple(sorted(range(len(axes)), key=lambda n: axes[n]))
    if perm == tuple(range(len(axes))):
        return value
    result: Value = b.transpose(value, axes=perm)
    return result


@operator
class Matmul(Operator):
    """Matrix product `x @ y` with NumPy's rule: `[..., M, K] @ [..., K, P]`, batch axes broadcast, vectors allowed.

    Becomes one dot_general: axes that only one side has are free axes of that side.
    """

    family = "contraction"
    widens = True
    onnx = "MatMul"
    inputs = ("x", "y")

    def infer(self, x: TensorType, y: TensorType) -> TensorType:
        dtype = same_number_type("matmul", x, y)
        for position, t in enumerate((x, y)):
            if t.rank == 0:
                raise TypeFailure("matmul needs vectors or matrices, not a scalar", inputs=(position,), hint="use * for scalars")
        inner_y = max(y.rank - 2, 0)
        if x.shape[-1] != y.shape[inner_y]:
            raise TypeFailure(
                f"cannot multiply {x} and {y}: the last axis of the left is {x.shape[-1]}, axis {inner_y} of the right is {y.shape[inner_y]}",
                inputs=(0, 1),
                axes=(x.rank - 1, inner_y),
            )
        batch: list[Dim] = []
        for i, j in _aligned(max(x.rank - 2, 0), max(y.rank - 2, 0)):
            left: Dim = 1 if i is None else x.shape[i]
            right: Dim = 1 if j is None else y.shape[j]
            if left != right and left != 1 and right != 1:
                raise TypeFailure(
                    f"cannot multiply {x} and {y}: the batch axes are {left} and {right}", inputs=(0, 1), axes=(i or 0, j or 0)
                )
            batch.append(right if left == 1 else left)
        rows = x.shape[-2:-1] if x.rank > 1 else ()
        return TensorType(dtype, tuple(batch) + rows + (y.shape[-1:] if y.rank > 1 else ()))

    def expand(self, b: Builder, x: Value, y: Value) -> Value:
        out = self.infer(x.type, y.type)
        matrix_x, matrix_y = x.type.rank > 1, y.type.rank > 1
        pairs = _aligned(max(x.type.rank - 2, 0), max(y.type.rank - 2, 0))
        labels_x = _batch_labels(x.type, [i for i, _ in pairs], [None if j is None else y.type.shape[j] for _, j in pairs])
        labels_y = _batch_labels(y.type, [j for _, j in pairs], [None if i is None else x.type.shape[i] for i, _ in pairs])
        result = list(range(len(pairs))) + ([_ROW] if matrix_x else []) + ([_COLUMN] if matrix_y else [])
        x, terms_x = _without(b, x, labels_x + ([_ROW] if matrix_x else []) + [_INNER])
        y, terms_y = _without(b, y, labels_y + [_INNER] + ([_COLUMN] if matrix_y else []))
        value, terms = contract_pair(b, x, terms_x, y, terms_y, keep=set(result))
        missing = [n for n in result if n not in terms]  # batch axes that are 1 on both sides
        kept = [n for n in result if n in terms]
        value = _arranged(b, value, tuple(kept.index(n) for n in terms))
        if missing:
            value = b.reshape(value, shape=out.shape)
        return value

    def reference(self, x: Array, y: Array) -> Array:
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(np.matmul(x, y))

    samples = [
        Sample(((3, 4), (4, 5))),
        Sample(((2, 3, 4), (4, 5))),
        Sample(((2, 3, 4), (2, 4, 5))),
        Sample(((2, 1, 3, 4), (3, 4, 2))),
        Sample(((1, 3, 4), (1, 4, 2))),
        Sample(((3, 4), (2, 4, 5))),
        Sample(((4,), (4,))),
        Sample(((4,), (2, 4, 3))),
        Sample(((2, 3, 4), (4,))),
    ]
    errors = [
        BadSample((f32(3, 4), f32(5, 2)), {}, "axis of the left is 4, axis 0 of the right is 5"),
        BadSample((f32(), f32(5, 2)), {}, "not a scalar"),
        BadSample((f32(2, 3, 4), f32(3, 4, 5)), {}, "batch axes are 2 and 3"),
        BadSample((f32(3, 4), TensorType(DType.F64, (4, 2))), {}, "element types differ"),
    ]


_INNER, _ROW, _COLUMN, _DROP = -1, -2, -3, -4


def _aligned(left: int, right: int) -> list[tuple[int | None, int | None]]:
    """Batch axes of two ranks, aligned at their ends."""
    rank = max(left, right)
    return [(n - rank + left if n >= rank - left else None, n - rank + right if n >= rank - right else None) for n in range(rank)]


def _batch_labels(mine: TensorType, axes: list[int | None], others: list[Dim | None]) -> list[int]:
    """A label for each batch axis that I have; axes of size 1 are dropped: broadcasting makes them the other side's free axes."""
    labels = []
    for label, axis in enumerate(axes):
        if axis is not None:
            labels.append(_DROP if mine.shape[axis] == 1 else label)
    return labels


def _without(b: Builder, x: Value, labels: list[int]) -> tuple[Value, list[int]]:
    """Reshapes away the axes labelled `_DROP`."""
    if _DROP not in labels:
        return x, labels
    kept = [axis for axis, label in enumerate(labels) if label != _DROP]
    return b.reshape(x, shape=tuple(x.type.shape[axis] for axis in kept)), [labels[axis] for axis in kept]


def contract_pair(b: Builder, x: Value, of_x: list[int], y: Value, of_y: list[int], keep: set[int]) -> tuple[Value, list[int]]:
    """One dot_general of two labelled operands: a shared label is a batch axis if it is in `keep`, else it is summed.

    Labels of one operand differ from each other; the labels of the result are given back with it.
    """
    shared = [label for label in of_x if label in of_y]
    batch = [label for label in shared if label in keep]
    inner = [label for label in shared if label not in keep]
    value = b.dot_general(
        x,
        y,
        contract=(tuple(of_x.index(n) for n in inner), tuple(of_y.index(n) for n in inner)),
        batch=(tuple(of_x.index(n) for n in batch), tuple(of_y.index(n) for n in batch)),
    )
    return value, batch + [n for n in of_x if n not in shared] + [n for n in of_y if n not in shared]


@operator
class Einsum(Operator):
    """Einstein summation, `einsum["b i j, b j k -> b i k"](x, y)`; spaces between labels are optional.

    Labels that the result does not name are summed; a label twice in one operand takes the diagonal; `...` stands for
    axes that broadcast. Without `->` the result has the labels that occur once, in alphabetical order, as in NumPy.
    """

    family = "contraction"
    widens = True
    onnx = "Einsum"
    inputs = ("*xs",)
    attrs = {"equation": Attr("str", doc="labels of each operand, and of the result after ->")}

    def infer(self, *types: TensorType, equation: str) -> TensorType:
        dtype = same_number_type("einsum", *types) if types else DType.F32
        parsed = parse_equation(equation, types)
        return TensorType(dtype, tuple(parsed.sizes[label] for label in parsed.result))

    def expand(self, b: Builder, *xs: Value, equation: str) -> Value:
        parsed = parse_equation(equation, tuple(x.type for x in xs))
        terms = [_own_labels(b, x, parsed, n) for n, x in enumerate(xs)]
        value, labels = terms[0]
        for n, (other, of_other) in enumerate(terms[1:], 1):
            keep = set(parsed.result).union(*(later for _, later in terms[n + 1 :]))
            value, labels = contract_pair(b, value, labels, other, of_other, keep)
        present = [label for label in parsed.result if label in labels]
        value = _arranged(b, value, tuple(present.index(label) for label in labels))
        if present != list(parsed.result):  # broadcast axes of size 1 everywhere
            value = b.reshape(value, shape=tuple(parsed.sizes[label] for label in parsed.result))
        return value

    def reference(self, *xs: Array, equation: str) -> Array:
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(np.einsum(equation.replace(" ", ""), *xs))

    samples = [
        Sample(((2, 3), (3, 4)), {"equation": "ij,jk->ik"}),
        Sample(((2, 3, 4), (2, 5, 4)), {"equation": "b i d, b j d -> b j i"}),
        Sample(((3, 4), (4, 5), (5, 2)), {"equation": "ij,jk,kl->li"}),
        Sample(((3, 3),), {"equation": "ii->i"}),
        Sample(((3, 3),), {"equation": "ii"}),
        Sample(((2, 3),), {"equation": "ij->ji"}),
        Sample(((2, 3), (4, 2)), {"equation": "ij,kl->l"}),
        Sample(((2, 3, 4), (4, 5)), {"equation": "...i,ij->...j"}),
        Sample(((2, 1, 3), (4, 3)), {"equation": "...i,...i->..."}),
        Sample(((3,), (4,)), {"equation": "i,j->ij"}),
    ]
    errors = [
        BadSample((f32(2, 3), f32(4, 5)), {"equation": "ij,jk->ik"}, "j is 3 and 4"),
        BadSample((f32(2, 3),), {"equation": "ij,jk->ik"}, "2 operands"),
        BadSample((f32(2, 3),), {"equation": "ijk->i"}, "names 3 axes"),
        BadSample((f32(2, 3),), {"equation": "ij->ik"}, "k is in no operand"),
        BadSample((f32(2, 3),), {"equation": "ij->ii"}, "twice in the result"),
        BadSample((f32(2, 3),), {"equation": "i?->i"}, "letters"),
    ]


def _own_labels(b: Builder, x: Value, parsed: Equation, position: int) -> tuple[Value, list[int]]:
    """An operand with each label once and no label that only it has and the result lacks."""
    labels = list(parsed.operands[position])
    x, labels = _without(b, x, [_DROP if n in parsed.broadcast and x.type.shape[a] == 1 else n for a, n in enumerate(labels)])
    while True:
        repeated = next((n for n in labels if labels.count(n) > 1), None)
        if repeated is None:
            break
        first = labels.index(repeated)
        second = labels.index(repeated, first + 1)
        x = _diagonal(b, x, first, second)
        del labels[second]
    elsewhere = set(parsed.result).union(*(of for n, of in enumerate(parsed.operands) if n != position))
    alone = tuple(axis for axis, label in enumerate(labels) if label not in elsewhere)
    if alone:
        x = b.sum(x, axis=alone)
        labels = [label for axis, label in enumerate(labels) if axis not in alone]
    return x, labels


def _diagonal(b: Builder, x: Value, first: int, second: int) -> Value:
    """x[..., i, ..., i, ...] with the second of the two axes removed: the others masked by 0, then summed (exact)."""
    size, after = x.type.shape[first], x.type.rank - second - 1
    number = b.iota(size=size, dtype=DType.I64)
    rows = b.reshape(number, shape=(size,) + (1,) * (x.type.rank - first - 1))
    equal = b.eq(rows, b.reshape(number, shape=(size,) + (1,) * after))
    value: Value = b.sum(b.where(equal, x, b.scalar(0, x.type.dtype)), axis=(second,))
    return value
