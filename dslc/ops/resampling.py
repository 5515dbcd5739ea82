"""Weighted sums over short runs of an axis: the one operation that resizing, adaptive means and their gradients are made of.

A `Sampling` says which elements each result reads, with which weights; it is made when the program is compiled. Its transpose
says which results read each element: the gradient is the same operation with the transposed sampling, a sum in a fixed order
and never a scatter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, Reader, binary, const, reduce, select
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index

F32, I64 = DType.F32, DType.I64
Form = tuple[int, int, int]  # (a, b, c): the first element that result o reads is (a * o + b) // c
WRITTEN_OUT = 8  # a sum of at most so many terms is straight code
FUSED = 16  # a sum of at most so many terms along several axes is made at once; less where neighbouring results share their terms
FUSED_PHASED = 4


@dataclass(frozen=True, slots=True)
class Sampling:
    """Results 0 .. size-1 along an axis of `source` elements: result o is the sum of weights[o, k] * x[first(o) + k]."""

    source: int
    form: Form
    weights: Array  # [size, taps], 0 where first(o) + k lies outside of the axis

    @property
    def size(self) -> int:
        return int(self.weights.shape[0])

    @property
    def first(self) -> Array:
        a, b, c = self.form
        return (a * np.arange(self.size, dtype=np.int64) + b) // c

    @property
    def same(self) -> bool:
        """Whether each result is the element in its place."""
        return self.size == self.source and self.form == (1, 0, 1) and self.weights.shape[1] == 1 and bool(np.all(self.weights == 1))

    def terms(self) -> Iterable[tuple[int, int, float]]:
        """(result, element, weight) of every weight that is not 0."""
        for o, k in np.argwhere(self.weights != 0):
            yield int(o), int(self.first[o] + k), float(self.weights[o, k])

    def transposed(self) -> Sampling:
        """Element i as a result: the weighted sum of the results that read it."""
        a, b, c = self.form
        turned = (c, -b, a) if a else (0, 0, 1)
        return sampling(self.size, self.source, turned, ((i, o, w) for o, i, w in self.terms()))


def sampling(source: int, size: int, form: Form, terms: Iterable[tuple[int, int, float]]) -> Sampling:
    """From (result, element, weight) triples, which add up where they repeat; `form` may be off by a constant, which is corrected."""
    common = math.gcd(*form)
    a, b, c = (n // common for n in form)
    listed = [(o, i, w) for o, i, w in terms if w]
    offsets = [i - (a * o + b) // c for o, i, _ in listed]
    low, high = min(offsets, default=0), max(offsets, default=0)
    weights = np.zeros((size, high - low + 1))
    for (o, _, w), offset in zip(listed, offsets, strict=True):
        weights[o, offset - low] += w
    return Sampling(source, (a, b + low * c, c), weights)


def resample(b: Builder, x: Value, axis: int, how: Sampling) -> Value:
    """x resampled along an axis."""
    last = axis == x.type.rank - 1
    if how.weights.shape[1] == 1 and np.all(how.weights == 1):
        if not last or _phases(how) or how.form[2] == 1:
            picked: Value = b.pick(x, axis=axis, size=how.size, form=how.form)
            return picked
        gathered: Value = b.gather(x, b.constant(how.first, I64), axis=axis)
        return gathered
    weights = b.constant(_table(how), x.type.dtype)
    starts = [b.constant(how.first, I64)] if last and not _phases(how) else []
    result: Value = b.resample_axis(x, weights, *starts, axis=axis, size=how.size, form=how.form, guarded=_guarded(how))
    return result


def resample_axes(b: Builder, x: Value, axes: dict[int, Sampling]) -> Value:
    """x resampled along axes, in the dictionary's order; at once where that takes no more work than one after the other."""
    last = x.type.rank - 1
    terms = math.prod(how.weights.shape[1] for how in axes.values())
    phased = any(_phases(how) != 1 for how in axes.values())
    if len(axes) > 1 and terms <= (FUSED_PHASED if phased else FUSED) and all(axis != last or _phases(how) for axis, how in axes.items()):
        order = sorted(axes)
        made = [axes[axis] for axis in order]
        weights = [b.constant(_table(how), x.type.dtype) for how in made]
        result: Value = b.resample_grid(
            x,
            *weights,
            axes=tuple(order),
            sizes=tuple(how.size for how in made),
            forms=tuple(how.form for how in made),
            guarded=any(_guarded(how) for how in made),
        )
        return result
    for axis, how in axes.items():
        x = resample(b, x, axis, how)
    return x


def _table(how: Sampling) -> Array:
    """Weights as [taps, phase, place]: those of the results of one phase stand behind each other."""
    phases = _phases(how) or 1
    return np.ascontiguousarray(how.weights.T.reshape(-1, how.size // phases, phases).transpose(0, 2, 1))


def _guarded(how: Sampling) -> bool:
    return bool(np.any(how.weights == 0))


def _phases(how: Sampling) -> int:
    """f where results o = f * place + phase read from an offset of their phase on, in equal steps; 0 where it is not so."""
    a, _, c = how.form
    if a and a % c == 0:
        return 1
    return c // a if a and c % a == 0 and how.size % (c // a) == 0 else 0


def _place(index: Index, axis: int, at: Dim) -> Index:
    return (*index[:axis], at, *index[axis + 1 :])


@operator
class Pick(Operator):
    """Element (a * o + b) // c of an axis for each result o along it, for a form (a, b, c)."""

    family = "image"
    internal = True
    attrs = {
        "axis": Attr("axis", doc="the axis, counted from the front"),
        "size": Attr("dim", doc="how many results"),
        "form": Attr("ints", doc="(a, b, c)"),
    }
    samples = [
        Sample(((5, 4),), {"axis": 1, "size": 8, "form": (1, 0, 2)}),
        Sample(((3, 7, 2),), {"axis": 1, "size": 5, "form": (7, 1, 5)}),
        Sample(((3, 33),), {"axis": 1, "size": 16, "form": (2, 1, 1)}),
    ]
    errors = [BadSample((TensorType(F32, (4,)),), {"axis": 0, "size": 5, "form": (1, 0, 1)}, "outside")]

    def infer(self, x: TensorType, axis: int, size: Dim, form: Form) -> TensorType:
        a, b, c = form
        extent = x.shape[axis]
        if isinstance(size, int) and isinstance(extent, int) and size and (b // c < 0 or (a * (size - 1) + b) // c >= extent):
            raise TypeFailure(f"pick reads outside of axis {axis} of {x}", inputs=(0,), axes=(axis,))
        return x.with_shape(_place(x.shape, axis, size))

    def body(self, index: Index, x: Reader, axis: int, size: Dim, form: Form) -> Expr:
        a, b, c = form
        return x[_place(index, axis, dims.floor_divide(index[axis] * a + b, c))]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, axis: int, size: int, form: Form) -> tuple[Value]:
        source = x.type.shape[axis]
        assert isinstance(source, int)
        return (resample(b, dy, axis, Sampling(source, form, np.ones((size, 1))).transposed()),)

    def reference(self, x: Array, axis: int, size: int, form: Form) -> Any:
        return np.take(x, (form[0] * np.arange(size) + form[1]) // form[2], axis)


@operator
class ResampleAxis(Operator):
    """Result o along an axis is the sum over k of weights[k, o % phases, o // phases] * x[first(o) + k].

    first(o) is (a * o + b) // c for a form (a, b, c), or the element o of the tensor `starts` where that is given. With `guarded`
    a weight of 0 stands for 0 whatever it would multiply, and may lie outside of the axis.
    """

    family = "image"
    internal = True
    inputs = ("x", "weights", "*starts")
    attrs = {
        "axis": Attr("axis", doc="the axis, counted from the front"),
        "size": Attr("dim", doc="how many results"),
        "form": Attr("ints", doc="(a, b, c)"),
        "guarded": Attr("bool", True, "whether some weights are 0"),
    }
    samples = [
        Sample(((5, 2, 4), np.array([[[0.0, 0.25]], [[1.0, 0.5]]])), {"axis": 1, "size": 2, "form": (1, -1, 1)}, gradient=False),
        Sample(((5, 3), (2, 2, 2)), {"axis": 1, "size": 4, "form": (1, 0, 2), "guarded": False}),
        Sample(((2, 5, 18), (10, 1, 3)), {"axis": 2, "size": 3, "form": (4, 0, 1), "guarded": False}),
        Sample(
            ((3, 5), np.array([[[0.5, 0.0, 0.2]], [[1.0, 0.5, 0.0]]]), np.array([2, -1, 4])),
            {"axis": 1, "size": 3, "form": (5, -3, 3)},
            gradient=False,
        ),
        Sample(((5, 5), (2, 1, 3), np.array([2, 0, 3])), {"axis": 1, "size": 3, "form": (5, -3, 3), "guarded": False}),
    ]
    errors = [
        BadSample((TensorType(F32, (4,)), TensorType(F32, (2, 2, 2))), {"axis": 0, "size": 5, "form": (1, 0, 1)}, "weights"),
        BadSample((TensorType(F32, (4,)), TensorType(DType.F64, (2, 1, 4))), {"axis": 0, "size": 4, "form": (1, 0, 1)}, "weights"),
    ]

    def infer(self, x: TensorType, weights: TensorType, *starts: TensorType, axis: int, size: Dim, form: Form, guarded: bool) -> TensorType:
        fits = weights.rank == 3 and weights.dtype == x.dtype and x.dtype.floating and weights.shape[1] * weights.shape[2] == size
        if not fits:
            raise TypeFailure(f"resample_axis of {x}: weights {weights} are not [taps, phases, {size} / phases]", inputs=(0, 1))
        return x.with_shape(_place(x.shape, axis, size))

    def body(self, index: Index, x: Reader, weights: Reader, *starts: Reader, axis: int, size: Dim, form: Form, guarded: bool) -> Expr:
        o, taps = index[axis], weights.type.shape[0]
        first = dims.floor_divide(o * form[0] + form[1], form[2])

        def term(k: Dim) -> Expr:
            weight = _weight(weights, k, o)
            if starts:
                assert isinstance(k, int)
                element = x.at(_place(index, axis, 0), axis, binary("add", starts[0][o], const(k, I64)))
            else:
                element = x[_place(index, axis, first + k)]
            return _product(weight, element, guarded)

        assert isinstance(taps, int)
        if taps > WRITTEN_OUT and not starts:
            return reduce("add", (taps,), term)
        return _sum([term(k) for k in range(taps)])

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, weights: Value, *starts: Value, axis: int, size: int, form: Form, guarded: bool
    ) -> tuple[Value | None, ...]:
        # Only for completeness: what uses this operator has a gradient with the transposed sampling. Every result is looked at.
        taps, phases, places = weights.type.shape
        extent = x.type.shape[axis]
        assert isinstance(taps, int) and isinstance(extent, int)
        where = starts[0] if starts else b.constant((form[0] * np.arange(size, dtype=np.int64) + form[1]) // form[2], I64)
        table = b.reshape(b.transpose(weights, axes=(0, 2, 1)), shape=(taps, size))
        moved = b.transpose(dy, axes=(*(a for a in range(dy.type.rank) if a != axis), axis))
        other = b.transpose(x, axes=(*(a for a in range(dy.type.rank) if a != axis), axis))
        grid = b.unsqueeze(b.iota(size=extent, dtype=I64), axis=0)
        zero = b.scalar(0.0, x.type.dtype)
        dx, slopes = None, []
        for k in range(taps):
            at = b.unsqueeze(b.add(where, b.scalar(k, I64)), axis=1)
            at = b.maximum(b.scalar(0, I64), b.minimum(at, b.scalar(extent - 1, I64))) if starts else at
            here = b.cast(b.eq(at, grid), dtype=x.type.dtype)
            row = b.reshape(b.slice(table, starts=(k, 0), stops=(k + 1, size), steps=(1, 1)), shape=(size,))
            part = b.matmul(b.mul(moved, row), here)
            dx = part if dx is None else b.add(dx, part)
            slope = b.sum(b.mul(moved, b.matmul(other, b.transpose(here, axes=(1, 0)))), axis=tuple(range(dy.type.rank - 1)))
            slopes.append(b.where(b.eq(row, zero), zero, slope) if guarded else slope)
        assert dx is not None
        back = tuple(a if a < axis else dy.type.rank - 1 if a == axis else a - 1 for a in range(dy.type.rank))
        dweights = b.transpose(b.reshape(b.stack(*slopes, axis=0), shape=(taps, places, phases)), axes=(0, 2, 1))
        return b.transpose(dx, axes=back), dweights, *(None for _ in starts)

    def reference(self, x: Array, weights: Array, *starts: Array, axis: int, size: int, form: Form, guarded: bool) -> Any:
        taps, phases, _ = weights.shape
        o = np.arange(size)
        first = starts[0] if starts else (form[0] * o + form[1]) // form[2]
        places = first[:, None] + np.arange(taps)
        table = weights[:, o % phases, o // phases].T  # [size, taps]
        extent = x.shape[axis]
        assert starts or not guarded or np.all((table == 0) | ((places >= 0) & (places < extent)))
        picked = np.moveaxis(x, axis, -1)[..., places.clip(0, extent - 1)]
        if guarded:
            picked = np.where(table == 0, x.dtype.type(0), picked)
        return np.moveaxis((picked * table).sum(-1), -1, axis)


def _weight(weights: Reader, k: Dim, o: Dim) -> Expr:
    """The weight of term k of result o."""
    phases = weights.type.shape[1]
    return weights[(k, 0, o) if phases == 1 else (k, o % phases, dims.floor_divide(o, phases))]


def _product(weight: Expr, element: Expr, guarded: bool) -> Expr:
    zero = const(0.0, element.dtype)
    product = binary("mul", weight, element)
    return select(binary("eq", weight, zero), zero, product) if guarded else product


def _sum(terms: list[Expr]) -> Expr:
    total = terms[0]
    for term in terms[1:]:
        total = binary("add", total, term)
    return total


@operator
class ResampleGrid(Operator):
    """resample_axis along several axes at once, the first innermost: sums over a small grid of elements."""

    family = "image"
    internal = True
    inputs = ("x", "*weights")
    attrs = {
        "axes": Attr("axes", doc="the axes, counted from the front, in order"),
        "sizes": Attr("dims", doc="how many results along each"),
        "forms": Attr("any", doc="(a, b, c) of each"),
        "guarded": Attr("bool", True, "whether some weights are 0"),
    }
    samples = [
        Sample(
            ((5, 2, 3), (2, 2, 2), (2, 1, 2)),
            {"axes": (1, 2), "sizes": (4, 2), "forms": ((0, 0, 1), (1, 0, 1)), "guarded": False},
        ),
        Sample(
            ((5, 2, 3), np.array([[[0.0, 0.25]], [[1.0, 0.5]]]), np.array([[[0.5, 0.5, 1.0]], [[1.0, 0.5, 0.0]]])),
            {"axes": (1, 2), "sizes": (2, 3), "forms": ((1, -1, 1), (1, 0, 1))},
            gradient=False,
        ),
    ]
    errors = [
        BadSample((TensorType(F32, (4, 4)), TensorType(F32, (2, 1, 4))), {"axes": (0, 1), "sizes": (4, 4), "forms": ()}, "each axis"),
    ]

    def infer(self, x: TensorType, *weights: TensorType, axes: Index, sizes: Index, forms: tuple[Form, ...], guarded: bool) -> TensorType:
        if not len(axes) == len(sizes) == len(forms) == len(weights):
            raise TypeFailure("resample_grid needs a size, a form and weights for each axis")
        for axis, size, form, table in zip(axes, sizes, forms, weights, strict=True):
            assert isinstance(axis, int)
            x = _AXIS.infer(x, table, axis=axis, size=size, form=form, guarded=guarded)
        return x

    def body(self, index: Index, x: Reader, *weights: Reader, axes: Any, sizes: Index, forms: tuple[Form, ...], guarded: bool) -> Expr:
        def along(depth: int, place: Index) -> Expr:
            if depth < 0:
                return x[place]
            axis, form, table = axes[depth], forms[depth], weights[depth]
            o, taps = index[axis], table.type.shape[0]
            assert isinstance(taps, int)
            first = dims.floor_divide(o * form[0] + form[1], form[2])
            terms = [_product(_weight(table, k, o), along(depth - 1, _place(place, axis, first + k)), guarded) for k in range(taps)]
            return _sum(terms)

        return along(len(axes) - 1, index)

    def vjp(
        self, b: Builder, dy: Value, y: Value, x: Value, *weights: Value, axes: Any, sizes: Any, forms: Any, guarded: bool
    ) -> tuple[Value | None, ...]:
        settings = [{"axis": a, "size": s, "form": f, "guarded": guarded} for a, s, f in zip(axes, sizes, forms, strict=True)]
        stages = [x]
        for how, table in zip(settings, weights, strict=True):
            stages.append(b.resample_axis(stages[-1], table, **how))
        slopes: list[Value | None] = []
        for how, table, before in zip(reversed(settings), reversed(weights), reversed(stages[:-1]), strict=True):
            cotangent, slope = _AXIS.vjp(b, dy, dy, before, table, **how)
            assert cotangent is not None
            dy = cotangent
            slopes.append(slope)
        return dy, *reversed(slopes)

    def reference(self, x: Array, *weights: Array, axes: Any, sizes: Any, forms: Any, guarded: bool) -> Any:
        for axis, size, form, table in zip(axes, sizes, forms, weights, strict=True):
            x = _AXIS.reference(x, table, axis=axis, size=size, form=form, guarded=guarded)
        return x


_AXIS = ResampleAxis()
