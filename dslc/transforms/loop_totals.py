"""Sums over the iterations of a loop, computed behind it: a sum of products is one product that sums over the iterations too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dslc.ir.graph import Op, Value
from dslc.transforms.lifting import moved
from dslc.transforms.loop_view import View, apply, first_free, fixed_side, free_axes

# The sum of results is the result of sums: f(a + b) = f(a) + f(b).
LINEAR = frozenset({"cast", "neg", "reshape", "transpose", "slice", "unslice", "expand", "concat", "add", "sub"})


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over all iterations: what the loop must stack for it, and how it is computed behind."""

    stacks: tuple[Value, ...]
    build: Callable[[], Value]


def total(view: View, value: Value) -> Total | None:
    """The sum of a value over all iterations; None where nothing is better than adding up one by one."""
    op = view.made.get(value)
    if op is None or view.fixed(value):
        return None
    if op.kind == "dot_general":
        return _of_product(view, op)
    if op.kind == "sum":
        return _of_sum(view, op)
    if op.kind == "gather_grad":
        return _of_gather_grad(view, op)
    return _of_linear(view, op) if op.kind in LINEAR else None


def _of_linear(view: View, op: Op) -> Total | None:
    value = op.output
    if op.kind == "cast" and not (op.inputs[0].type.dtype.floating and value.type.dtype.floating):
        return None
    if op.kind in ("add", "sub") and any(v.type != value.type for v in op.inputs):
        return None
    return _combined(view, op.kind, dict(op.attrs), [total(view, v) for v in op.inputs])


def _combined(view: View, kind: str, attrs: dict[str, object], totals: Sequence[Total | None]) -> Total | None:
    found = [t for t in totals if t is not None]
    if len(found) < len(totals):
        return None
    return Total(tuple(v for t in found for v in t.stacks), lambda: apply(view.outside, kind, *(t.build() for t in found), **attrs))


def _of_product(view: View, op: Op) -> Total | None:
    fixed = fixed_side(view, op)
    if fixed is not None:
        return _by_fixed(view, op, fixed)
    for side, operand in enumerate(op.inputs):
        joined = view.joined(operand)
        if joined is None or joined.axis not in free_axes(op, side) or joined.dtype != joined.parts[0].type.dtype:
            continue
        if not view.at_hand(joined.parts):
            continue
        products = [replace(op, inputs=(p, op.inputs[1]) if side == 0 else (op.inputs[0], p)) for p in joined.parts]
        if any(not any(view.varying(p)) for p in products):
            continue
        axis = first_free(op, side) + free_axes(op, side).index(joined.axis)
        return _combined(view, "concat", {"axis": axis}, [_of_product(view, p) for p in products])
    x, y = map(view.all, op.inputs)

    def contracted() -> Value:
        sides = (x.build(), y.build())
        axes: dict[str, list[tuple[int, ...]]] = {"contract": [], "batch": []}
        for side, operand in enumerate(sides):
            at = operand.axis
            assert at is not None
            for name, groups in axes.items():
                own = tuple(a + (a >= at) for a in op.attr(name)[side])
                groups.append((at, *own) if name == "contract" else own)
        attrs = {name: tuple(groups) for name, groups in axes.items()}
        return apply(view.outside, "dot_general", sides[0].value, sides[1].value, **attrs)

    return Total((*x.stacks, *y.stacks), contracted)


def _by_fixed(view: View, op: Op, fixed: int) -> Total | None:
    """The sum of a @ w over all a is that sum times w."""
    rest = total(view, op.inputs[1 - fixed])
    if rest is None:
        return None

    def product() -> Value:
        pair = (view.outer(op.inputs[fixed]), rest.build())
        return apply(view.outside, "dot_general", *(pair if fixed == 0 else pair[::-1]), **dict(op.attrs))

    return Total(rest.stacks, product)


def _of_sum(view: View, op: Op) -> Total | None:
    (x,) = op.inputs
    everything, given, b = view.all(x), op.attr("axis"), view.outside
    axes = tuple(range(x.type.rank)) if given is None else tuple(a % x.type.rank for a in (given if isinstance(given, tuple) else (given,)))

    def summed() -> Value:
        stack = everything.build()
        at = stack.axis
        assert at is not None
        result = apply(b, "sum", stack.value, axis=(at, *(a + (a >= at) for a in axes)), keep=False)
        return result if result.type == op.output.type else apply(b, "reshape", result, shape=op.output.type.shape)

    return Total(everything.stacks, summed)


def _of_gather_grad(view: View, op: Op) -> Total | None:
    """The rows of all iterations are added to the table in one go."""
    if not all(view.varying(op)):
        return None
    dy, index = map(view.all, op.inputs)
    axis = op.attr("axis")

    def scattered() -> Value:
        rows, picks = dy.build(), index.build()
        assert rows.axis is not None and picks.axis is not None
        placed = moved(view.outside, rows.value, rows.axis, axis + picks.axis)
        return apply(view.outside, "gather_grad", placed, picks.value, **dict(op.attrs))

    return Total((*dy.stacks, *index.stacks), scattered)
