"""`x[...]` on a tensor: numbers, slices, `...`, `none` for a new axis, and an integer tensor that gathers along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dslc.diagnostics import Span
from dslc.frontend import syntax
from dslc.frontend.report import Refused
from dslc.frontend.scope import Context, Frame, ask
from dslc.frontend.tensors import emit, note_of
from dslc.frontend.values import Poison, Tensor, Value, describe, is_size
from dslc.ir.dims import Dim, DimExpr
from dslc.ir.prove import Proved, Refuted, Relation


@dataclass(slots=True)
class _Plan:
    """What the subscripts ask of each axis, in order."""

    starts: list[Dim | None] = field(default_factory=list)
    stops: list[Dim | None] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    gathered: tuple[int, Tensor] | None = None  # the axis, counted without the dropped ones
    added: list[int] = field(default_factory=list)  # positions in the result before a gather

    def axis(self, start: Dim | None, stop: Dim | None, step: int) -> None:
        self.starts.append(start)
        self.stops.append(stop)
        self.steps.append(step)


def index(context: Context, tensor: Tensor, node: syntax.Brackets, frame: Frame) -> Value:
    plan = _plan(context, tensor, node, frame)
    span = node.span
    value: Value = tensor
    if any(s is not None for s in plan.starts + plan.stops) or any(s != 1 for s in plan.steps):
        attrs = {"starts": tuple(plan.starts), "stops": tuple(plan.stops), "steps": tuple(plan.steps)}
        value = emit(context, "slice", (tensor,), attrs, span)
    if plan.dropped:
        assert isinstance(value, Tensor)
        value = emit(context, "squeeze", (value,), {"axis": tuple(plan.dropped)}, span)
    if plan.gathered is not None:
        assert isinstance(value, Tensor)
        value = emit(context, "gather", (value, plan.gathered[1]), {"axis": plan.gathered[0]}, span)
    if plan.added:
        assert isinstance(value, Tensor)
        value = emit(context, "unsqueeze", (value,), {"axis": tuple(plan.added)}, span)
    return value


def _plan(context: Context, tensor: Tensor, node: syntax.Brackets, frame: Frame) -> _Plan:
    rank = tensor.type.rank
    items = _evaluated(context, node.subscripts, frame)
    taking = sum(
        1 for item, value in items if not isinstance(item, syntax.Ellipsis) and not (value is None and not isinstance(item, syntax.Slice))
    )
    ellipses = [item for item, _ in items if isinstance(item, syntax.Ellipsis)]
    if len(ellipses) > 1:
        raise context.reporter.error("DL0221", "an index has at most one `...`", ellipses[1].span)
    if taking > rank:
        raise context.reporter.error(
            "DL0221", f"{taking} subscripts for {tensor.type}, which has {rank} axes", node.span, notes=[note_of(context, tensor)]
        )
    plan, axis, position = _Plan(), 0, 0
    for item, value in items:
        if isinstance(item, syntax.Ellipsis):
            for _ in range(rank - taking):
                plan.axis(None, None, 1)
            axis, position = axis + rank - taking, position + rank - taking
        elif isinstance(item, syntax.Slice):
            _slice(context, plan, item, tensor.type.shape[axis], frame)
            axis, position = axis + 1, position + 1
        elif value is None:
            plan.added.append(position)
            position += 1
        elif isinstance(value, Tensor):
            position = _gather(context, plan, value, axis, position, item.span)
            axis += 1
        else:
            _number(context, plan, value, tensor.type.shape[axis], axis, item.span)
            axis += 1
    for _ in range(axis, rank):
        plan.axis(None, None, 1)
    return plan


def _evaluated(context: Context, subscripts: Sequence[syntax.Subscript], frame: Frame) -> list[tuple[syntax.Subscript, Value]]:
    found: list[tuple[syntax.Subscript, Value]] = []
    for item in subscripts:
        if isinstance(item, syntax.Named):
            raise context.reporter.error("DL0221", f"`{item.name.text} =` has no meaning in the index of a tensor", item.span)
        if isinstance(item, syntax.Slice | syntax.Ellipsis):
            found.append((item, True))
        else:
            found.append((item, context.evaluate(item, frame)))
    if any(isinstance(value, Poison) for _, value in found):
        raise Refused
    return found


def _slice(context: Context, plan: _Plan, item: syntax.Slice, size: Dim, frame: Frame) -> None:
    bounds: list[Dim | None] = []
    for part in (item.start, item.stop, item.step):
        value = None if part is None else context.evaluate(part, frame)
        if isinstance(value, Poison):
            raise Refused
        if part is not None and not is_size(value):
            hint = "slices are static; a run-time index is x[t] with an integer tensor t" if isinstance(value, Tensor) else None
            raise context.reporter.error("DL0221", f"a bound of a slice is a whole number, not {describe(value)}", part.span, hint=hint)
        assert value is None or isinstance(value, int | DimExpr)
        bounds.append(value)
    start, stop, step = bounds
    if step is None:
        step = 1
    if not isinstance(step, int) or step == 0:
        raise context.reporter.error("DL0221", f"the step of a slice is a fixed number other than 0, not {step}", item.span)
    for bound, part in ((start, item.start), (stop, item.stop)):
        if part is not None and isinstance(bound, DimExpr | int) and (isinstance(bound, DimExpr) or isinstance(size, DimExpr)):
            _check_bound(context, bound, size, part.span)
    if stop is not None and stop == size and step > 0:
        stop = None
    plan.axis(None if start == 0 and step > 0 else start, stop, step)


def _check_bound(context: Context, bound: Dim, size: Dim, span: Span) -> None:
    """A symbolic bound, or a bound on a symbolic axis, must be shown to lie within it."""
    if isinstance(bound, int) and bound <= 0:
        bound = -bound
    verdict = ask(context, Relation(bound, "<=", size))
    if isinstance(verdict, Proved):
        return
    why = f"the slice goes to {bound}, and the axis has {size}"
    if isinstance(verdict, Refuted):
        raise context.reporter.error(
            "DL0221", f"{why}: {verdict}", span, hint=f"add `given {bound} <= {size}` to the signature, or bind the sizes"
        )
    raise context.reporter.error("DL0215", f"cannot show {bound} <= {size}", span, hint=f"add `given {bound} <= {size}`, or bind the sizes")


def _number(context: Context, plan: _Plan, value: Value, size: Dim, axis: int, span: Span) -> None:
    if not is_size(value):
        raise context.reporter.error("DL0221", f"an index is a whole number, a slice or an integer tensor, not {describe(value)}", span)
    assert isinstance(value, int | DimExpr)
    if isinstance(value, int) and isinstance(size, int) and not -size <= value < size:
        raise context.reporter.error("DL0221", f"the index {value} lies outside an axis of size {size}", span)
    if isinstance(value, DimExpr) or isinstance(size, DimExpr):
        _check_bound(context, -value if isinstance(value, int) and value < 0 else value + 1, size, span)
    last = isinstance(value, int) and value == -1
    plan.axis(value, None if last else value + 1, 1)
    plan.dropped.append(axis)


def _gather(context: Context, plan: _Plan, value: Tensor, axis: int, position: int, span: Span) -> int:
    if plan.gathered is not None:
        raise context.reporter.error("DL0221", "an index has at most one tensor", span, hint="index in two steps")
    if not value.type.dtype.integer:
        raise context.reporter.error(
            "DL0221", f"a tensor in an index holds whole numbers, and this is {value.type}", span, hint="choose elements with where(...)"
        )
    plan.axis(None, None, 1)
    plan.gathered = (axis - len(plan.dropped), value)
    return position + value.type.rank
