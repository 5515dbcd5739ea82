"""Operations of a loop's body for all iterations at once: the same operator with one more axis.

A lifted value is a tensor around the loop and the axis of it that counts iterations, or None where all iterations share one value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Op, Value
from dslc.ir.operator import OPERATORS


@dataclass(frozen=True, slots=True)
class Lifted:
    """A tensor for all iterations."""

    value: Value
    axis: int | None

    @property
    def rank(self) -> int:
        """Of the value of one iteration."""
        return self.value.type.rank - (self.axis is not None)


def can_lift(op: Op, varying: Sequence[bool]) -> bool:
    """Whether `lift` knows the operation, where some operands differ from iteration to iteration."""
    if op.kind == "dot_general":
        return sum(varying) == 1
    if op.kind == "gather":
        return list(varying) == [False, True]
    operator = OPERATORS[op.kind]
    return op.kind in _RULES or (operator.elementwise and not operator.draw and len(op.outputs) == 1 and not op.regions)


def lift(b: Builder, op: Op, operands: Sequence[Lifted], length: Dim) -> Lifted:
    """The operation for all iterations; at least one operand has an axis for them."""
    return _RULES.get(op.kind, _elementwise)(b, op, operands, length)


def aligned(b: Builder, x: Lifted, rank: int, at: int, length: Dim | None = None) -> Value:
    """A lifted operand with `rank` axes besides that of the iterations, which stands at `at`.

    Axes of size 1 come in front; so is that of the iterations, unless `length` tells how far a shared value is repeated.
    """
    missing = rank - x.rank
    own = max(at - missing, 0)  # the place of the iterations among the operand's own axes
    ones: tuple[Dim, ...] = (1,) * missing
    if x.axis is not None:
        value = moved(b, x.value, x.axis, own)
        shape = value.type.shape
        rest = (*ones, *shape[:own], *shape[own + 1 :])
        return value if not missing else _reshaped(b, value, (*rest[:at], shape[own], *rest[at:]))
    if length is None and at <= missing:
        return x.value  # broadcasting puts the missing axes in front
    rest = (*ones, *x.value.type.shape)
    value = _reshaped(b, x.value, (*rest[:at], 1, *rest[at:]))
    if length is not None:
        value = b.apply("expand", value, shape=(*rest[:at], length, *rest[at:]))
    return value


def _reshaped(b: Builder, value: Value, shape: tuple[Dim, ...]) -> Value:
    result: Value = b.reshape(value, shape=shape)
    return result


def moved(b: Builder, value: Value, axis: int, to: int) -> Value:
    """An axis at another place, the others in their order."""
    if axis == to:
        return value
    order = [a for a in range(value.type.rank) if a != axis]
    order.insert(to, axis)
    result: Value = b.transpose(value, axes=tuple(order))
    return result


def _place(operands: Sequence[Lifted], rank: int) -> int:
    """Where the axis of the iterations goes in a result with `rank` others: where the largest operand has it."""
    first = max((x for x in operands if x.axis is not None), key=lambda x: x.rank)
    assert first.axis is not None
    return first.axis + rank - first.rank


def _elementwise(b: Builder, op: Op, operands: Sequence[Lifted], length: Dim) -> Lifted:
    rank = op.output.type.rank
    at = _place(operands, rank)
    return Lifted(b.apply(op.kind, *(aligned(b, x, rank, at) for x in operands), **dict(op.attrs)), at)


def _dot_general(b: Builder, op: Op, operands: Sequence[Lifted], length: Dim) -> Lifted:
    x, y = operands
    contract, batch = op.attr("contract"), op.attr("batch")
    axes = []
    for side, operand in enumerate(operands):
        taken = (contract[side], batch[side])
        axes.append([tuple(_shifted(a, operand.axis) for a in group) for group in taken])
    value = b.dot_general(x.value, y.value, contract=(axes[0][0], axes[1][0]), batch=(axes[0][1], axes[1][1]))
    side = 0 if x.axis is not None else 1
    axis = operands[side].axis
    assert axis is not None
    before = axis - sum(1 for group in axes[side] for a in group if a < axis)  # free axes before it
    if side == 1:
        before += x.rank - len(contract[0]) - len(batch[0])
    return Lifted(value, len(batch[0]) + before)


def _shifted(axis: int, inserted: int | None) -> int:
    return axis + (inserted is not None and axis >= inserted)


def _gather(b: Builder, op: Op, operands: Sequence[Lifted], length: Dim) -> Lifted:
    table, index = operands
    assert index.axis is not None
    axis = op.attr("axis") % table.rank
    return Lifted(b.gather(table.value, index.value, axis=axis), axis + index.axis)


def _reshape(b: Builder, op: Op, operands: Sequence[Lifted], length: Dim) -> Lifted:
    (x,) = operands
    assert x.axis is not None
    shape = op.output.type.shape
    if x.value.type.shape[: x.axis] == shape[: x.axis]:
        return Lifted(b.reshape(x.value, shape=(*shape[: x.axis], length, *shape[x.axis :])), x.axis)
    return Lifted(b.reshape(moved(b, x.value, x.axis, 0), shape=(length, *shape)), 0)


def _transpose(b: Builder, op: Op, operands: Sequence[Lifted], length: Dim) -> Lifted:
    (x,) = operands
    assert x.axis is not None
    axes = op.attr("axes") or tuple(reversed(range(x.rank)))
    order = tuple(_shifted(a % x.rank, x.axis) for a in axes)
    return Lifted(b.transpose(x.value, axes=(x.axis, *order)), 0)


def _expand(b: Builder, op: Op, operands: Sequence[Lifted], length: Dim) -> Lifted:
    shape = op.output.type.shape
    at = _place(operands, len(shape))
    return Lifted(b.expand(aligned(b, operands[0], len(shape), at), shape=(*shape[:at], length, *shape[at:])), at)


def _slice(b: Builder, op: Op, operands: Sequence[Lifted], length: Dim) -> Lifted:
    (x,) = operands
    at = x.axis
    assert at is not None
    attrs: dict[str, Any] = {
        name: (*bounds[:at], whole, *bounds[at:]) for (name, bounds), whole in zip(op.attrs, (0, 1, length), strict=True)
    }
    return Lifted(b.slice(x.value, **attrs), at)  # starts, steps, stops


def _concat(b: Builder, op: Op, operands: Sequence[Lifted], length: Dim) -> Lifted:
    rank = op.output.type.rank
    at = _place(operands, rank)
    axis = _shifted(op.attr("axis") % rank, at)
    return Lifted(b.concat(*(aligned(b, x, rank, at, length) for x in operands), axis=axis), at)


def _reduced(b: Builder, op: Op, operands: Sequence[Lifted], length: Dim) -> Lifted:
    (x,) = operands
    at = x.axis
    assert at is not None
    given, keep = op.attr("axis"), op.attr("keep")
    axes = tuple(range(x.rank)) if given is None else tuple(a % x.rank for a in (given if isinstance(given, tuple) else (given,)))
    value = b.apply(op.kind, x.value, axis=tuple(_shifted(a, at) for a in axes), keep=keep)
    return Lifted(value, at if keep else at - sum(1 for a in axes if a < at))


_RULES: dict[str, Callable[[Builder, Op, Sequence[Lifted], Dim], Lifted]] = {
    "dot_general": _dot_general,
    "gather": _gather,
    "reshape": _reshape,
    "transpose": _transpose,
    "expand": _expand,
    "slice": _slice,
    "concat": _concat,
    "sum": _reduced,
    "mean": _reduced,
    "max": _reduced,
    "min": _reduced,
}
