"""Static lists: `len zip reversed enumerate`, what a `for` walks over, and indexing."""

from __future__ import annotations

from collections.abc import Sequence

from dslc.diagnostics import Span
from dslc.frontend.report import NeedsSize, Refused, plural
from dslc.frontend.scope import Context, spend
from dslc.frontend.static import ITEMS_A_STEP, STEPS_A_PAIR, check_length
from dslc.frontend.values import ListValue, RangeValue, Results, Tensor, Value, describe
from dslc.ir import dims
from dslc.ir.dims import DimExpr

MAX_ITERATIONS = 100_000


def items_of(context: Context, value: Value, span: Span, what: str) -> tuple[Value, ...]:
    """The items of a list, of several results or of a range."""
    match value:
        case ListValue() | Results():
            return value.items
        case RangeValue():
            return _range_items(context, value, span)
        case Tensor():
            raise context.reporter.error(
                "DL0310", f"{what} is a list or a range, not {describe(value)}", span, hint="`a, b = x` unpacks a tensor along axis 0"
            )
        case _:
            raise context.reporter.error(
                "DL0310", f"{what} is a list or a range, not {describe(value)}", span, hint="write 0..n for a range"
            )


def _range_items(context: Context, value: RangeValue, span: Span) -> tuple[Value, ...]:
    start, stop = value.start, value.stop
    if isinstance(start, DimExpr) or isinstance(stop, DimExpr):
        names = dims.names(start) | dims.names(stop)
        if context.checking:
            raise NeedsSize(names)
        raise context.reporter.error(
            "DL0303",
            f"the range {start}..{stop} is not fixed when compiled",
            span,
            hint="a `for` is unrolled: bind its size, or use a number",
        )
    if stop - start > MAX_ITERATIONS:
        raise context.reporter.error(
            "DL0312", f"a `for` over {stop - start:,} items is unrolled {stop - start:,} times; the limit is {MAX_ITERATIONS:,}", span
        )
    return tuple(range(start, stop))


def call_list_function(context: Context, name: str, arguments: Sequence[Value], span: Span) -> Value:
    wanted = (1, 100) if name == "zip" else (1, 1)
    if not wanted[0] <= len(arguments) <= wanted[1]:
        raise context.reporter.error(
            "DL0301", f"{name} takes {'lists' if name == 'zip' else 'one list'}, and here are {len(arguments)}", span
        )
    lists = [items_of(context, a, span, f"the argument of {name}") for a in arguments]
    total = sum(a.total for a in arguments if isinstance(a, ListValue | Results))
    check_length(context, total, span)
    if name != "len":
        copied = total + sum(map(len, lists))
        spend(context, copied // ITEMS_A_STEP if name == "reversed" else STEPS_A_PAIR * copied, span)
    match name:
        case "len":
            return len(lists[0])
        case "reversed":
            return ListValue(lists[0][::-1])
        case "enumerate":
            return ListValue(tuple(Results((i, item)) for i, item in enumerate(lists[0])))
        case _:
            if len({len(items) for items in lists}) > 1:
                raise context.reporter.error("DL0310", f"zip of lists of {', '.join(str(len(items)) for items in lists)} items", span)
            return ListValue(tuple(Results(items) for items in zip(*lists, strict=True)))


def item_at(context: Context, value: ListValue | Results, index: Value, span: Span) -> Value:
    """`list[i]` with a static index."""
    if not isinstance(index, int) or isinstance(index, bool):
        raise context.reporter.error("DL0310", f"the index of a list is a whole number, not {describe(index)}", span)
    if not -len(value.items) <= index < len(value.items):
        raise context.reporter.error("DL0310", f"the list has {plural(len(value.items), 'item')}, none at {index}", span)
    return value.items[index]


def unpack(context: Context, value: Value, count: int, span: Span) -> tuple[Value, ...] | None:
    """The parts of `a, b = value`; None for a tensor, which the caller splits."""
    if isinstance(value, Tensor):
        return None
    if isinstance(value, ListValue | Results | RangeValue):
        items = items_of(context, value, span, "what is unpacked")
        if len(items) != count:
            raise _count(context, len(items), count, span)
        return items
    raise context.reporter.error("DL0309", f"cannot unpack {describe(value)} into {count} names", span)


def _count(context: Context, have: int, want: int, span: Span) -> Refused:
    return context.reporter.error("DL0309", f"{plural(have, 'value')} for {plural(want, 'name')}", span)
