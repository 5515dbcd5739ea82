"""Static evaluation: arithmetic and comparison of numbers and sizes, decisions, and conversions of static arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dslc.diagnostics import Note, Span
from dslc.frontend.report import NeedsSize, Refused
from dslc.frontend.scope import Context, ask, spend
from dslc.frontend.values import ListValue, RangeValue, Results, Undecided, Value, describe, is_number, is_size
from dslc.ir import dims, prove
from dslc.ir.dims import Dim, DimError, DimExpr
from dslc.ir.prove import Proved, Refuted, Relation
from dslc.ir.types import DType

LARGEST = 2**63 - 1
MAX_SIZE = 2**31 - 1
MAX_ITEMS = 100_000
ITEMS_A_STEP = 16  # of a list that is copied
STEPS_A_PAIR = 4  # of items that stand beside each other: an object of its own

NEGATED = {"==": "!=", "!=": "==", "<=": ">", ">=": "<", "<": ">=", ">": "<="}

FUNCTIONS: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "expm1": math.expm1,
    "log1p": math.log1p,
    "log2": math.log2,
    "log10": math.log10,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
}


def arithmetic(context: Context, op: str, left: Value, right: Value, span: Span) -> Value:
    """`left op right` of two static numbers or lists."""
    if op == "+" and isinstance(left, ListValue) and isinstance(right, ListValue):
        check_length(context, left.total + right.total, span)
        spend(context, (left.total + right.total) // ITEMS_A_STEP, span)
        return ListValue(left.items + right.items)
    if op == "+" and isinstance(left, str) and isinstance(right, str):
        if len(left) + len(right) > 10_000:
            raise context.reporter.error("DL0311", "a string of more than 10,000 characters", span)
        return left + right
    if not (is_number(left) and is_number(right)):
        hint = "write a condition with `if`" if isinstance(left, bool) or isinstance(right, bool) else None
        raise context.reporter.error("DL0302", f"`{op}` does not go with {describe(left)} and {describe(right)}", span, hint=hint)
    assert isinstance(left, int | float | DimExpr) and isinstance(right, int | float | DimExpr)
    if isinstance(left, DimExpr) or isinstance(right, DimExpr):
        spend(context, _terms(left) * _terms(right), span)
    try:
        result = _number(context, op, left, right, span)
    except (DimError, ZeroDivisionError, ValueError):
        raise context.reporter.error("DL0220", f"{left} {op} {right} divides by zero", span) from None
    except OverflowError:
        raise context.reporter.error("DL0217", f"{left} {op} {right} is too large for a number", span) from None
    return bounded(context, result, span)


def check_length(context: Context, total: int, span: Span) -> None:
    """Refuses lists of more than 100,000 items, those of the lists in them counted."""
    if total > MAX_ITEMS:
        raise context.reporter.error("DL0311", f"a list of more than {MAX_ITEMS:,} items", span)


def bounded(context: Context, value: Dim | float, span: Span) -> Dim | float:
    """`value`, refused where it leaves the range of 64-bit numbers."""
    if isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
        text = str(value) if value.bit_length() < 200 else f"a number of {value.bit_length()} bits"
        raise context.reporter.error("DL0217", f"{text} does not fit 64 bits", span)
    if isinstance(value, DimExpr):
        length = len(str(value)) if len(value.terms) <= 200 else 4001
        if length > 4000:
            raise context.reporter.error("DL0217", "this size is too long an expression", span)
        spend(context, length // 4, span)
    return value


def _terms(value: Dim | float) -> int:
    return len(value.terms) if isinstance(value, DimExpr) else 1


def _number(context: Context, op: str, left: Dim | float, right: Dim | float, span: Span) -> Dim | float:
    if isinstance(left, float) or isinstance(right, float):
        if isinstance(left, DimExpr) or isinstance(right, DimExpr):
            symbolic = left if isinstance(left, DimExpr) else right
            raise _needs_size(context, symbolic, span)
        return _float(op, float(left), float(right))
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "//":
            return dims.floor_divide(left, right)
        case "%":
            return left - right * dims.floor_divide(left, right)
        case "/":
            return _exact(context, left, right, span)
        case "**":
            return _power(context, left, right, span)
        case _:
            raise context.reporter.error("DL0302", f"`{op}` needs tensors, not {describe(left)} and {describe(right)}", span)


def need_fixed(context: Context, size: Value) -> None:
    """Where a size must be fixed: while checking, goes back to check with the declared sizes."""
    if context.checking and isinstance(size, DimExpr) and dims.names(size) <= context.declared:
        raise NeedsSize(dims.names(size))


def _needs_size(context: Context, size: Value, span: Span) -> Refused:
    need_fixed(context, size)
    return context.reporter.error(
        "DL0303", f"{size} is a run-time size here, not a number", span, hint="write the expression with tensors, or bind the size"
    )


def _float(op: str, left: float, right: float) -> float:
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left / right
        case "//":
            return left // right
        case "%":
            return left % right
        case _:
            if left < 0 and not right.is_integer():
                return math.nan
            return math.pow(left, right)


def _power(context: Context, left: Dim, right: Dim, span: Span) -> Dim | float:
    if not isinstance(right, int):
        raise _needs_size(context, right, span)
    if isinstance(left, DimExpr):
        return left**right
    if right < 0:
        return float(left) ** right
    if abs(left) > 1 and right * abs(left).bit_length() > 200:
        raise context.reporter.error("DL0217", f"{left} ** {right} does not fit 64 bits", span)
    return int(left**right)


def _exact(context: Context, left: Dim, right: Dim, span: Span) -> Dim:
    """`left / right`, which must be whole."""
    if isinstance(left, int) and isinstance(right, int):
        if right == 0:
            raise DimError("division by zero")
        if left % right:
            raise context.reporter.error(
                "DL0219",
                f"{left} / {right} is not a whole number",
                span,
                hint=f"write {left}.0 / {right} for a float, or {left} // {right}",
            )
        return left // right
    if not dims.is_known_multiple(left, right):
        verdict = ask(context, prove.divides(right, left))
        if isinstance(verdict, Refuted):
            raise context.reporter.error(
                "DL0219",
                f"{left} / {right} is not always a whole number: {verdict}",
                span,
                hint=f"add `given {left} % {right} == 0` to the signature, or write {left} // {right}",
            )
        if not isinstance(verdict, Proved):
            raise context.reporter.error(
                "DL0215", f"cannot show that {right} divides {left}", span, hint=f"add `given {left} % {right} == 0`, or bind the sizes"
            )
    return dims.divide_exactly(left, right)


def compare(context: Context, op: str, left: Value, right: Value, span: Span) -> Value:
    """A static comparison: true, false or `Undecided` where symbolic sizes leave it open."""
    if is_size(left) and is_size(right) and (isinstance(left, DimExpr) or isinstance(right, DimExpr)):
        assert isinstance(left, int | DimExpr) and isinstance(right, int | DimExpr)
        spend(context, 2, span)
        return decide_relation(context, Relation(left, op, right))
    if is_number(left) and is_number(right):
        if isinstance(left, DimExpr) or isinstance(right, DimExpr):
            raise _needs_size(context, left if isinstance(left, DimExpr) else right, span)
        assert isinstance(left, int | float) and isinstance(right, int | float)
        return prove.compared(left, op, right)
    if op in ("==", "!="):
        if left is None or right is None or type(left) is type(right) or (isinstance(left, bool) and isinstance(right, bool)):
            return (left == right) == (op == "==")
        raise context.reporter.error("DL0302", f"cannot compare {describe(left)} and {describe(right)}", span)
    raise context.reporter.error("DL0302", f"`{op}` does not go with {describe(left)} and {describe(right)}", span)


def decide_relation(context: Context, relation: Relation) -> Value:
    verdict = ask(context, relation)
    if isinstance(verdict, Proved):
        return True
    if isinstance(verdict, Refuted):
        opposite = Relation(relation.left, NEGATED[relation.operator], relation.right)
        if isinstance(ask(context, opposite), Proved):
            return False
    return Undecided(relation, verdict)


def holds(context: Context, condition: Value, span: Span, what: str) -> bool | Undecided:
    """A static condition as a truth value."""
    if isinstance(condition, bool | Undecided):
        return condition
    hint = "compare the elements with `where(c, a, b)`" if "tensor" in describe(condition) else "write a comparison"
    raise context.reporter.error("DL0304", f"{what} needs a static condition, not {describe(condition)}", span, hint=hint)


def require_fact(
    context: Context,
    condition: Value,
    span: Span,
    fact: str,
    code: str,
    *,
    needed_by: str = "",
    why: str = "",
    notes: tuple[Note, ...] = (),
) -> None:
    """Refuses a `given` or `assert` that does not hold; `why` goes after the message."""
    decided = holds(context, condition, span, "this")
    if decided is True:
        return
    text = f"{needed_by} needs {fact}, which" if needed_by else fact
    if decided is False:
        raise context.reporter.error(code, f"{text} does not hold{why}", span, notes=notes)
    assert isinstance(decided, Undecided)
    hint = f"add `given {decided.relation}` to the signature, or bind the sizes"
    if isinstance(decided.verdict, Refuted):
        raise context.reporter.error(code, f"{text} {decided.verdict}{why}", span, notes=notes, hint=hint)
    asks = f", which {needed_by} needs" if needed_by else ""
    raise context.reporter.error("DL0215", f"cannot show {fact}{asks}{why}", span, notes=notes, hint=hint)


def function(name: str, argument: float) -> float | None:
    """A mathematical operator applied to a static number; None where it has no static form or no value."""
    compute = FUNCTIONS.get(name)
    if compute is None:
        return None
    try:
        return compute(argument)
    except (ValueError, OverflowError):
        return None


# --- static arguments of operators and blocks -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expected:
    """How one kind of static argument is recognised."""

    text: str
    accepts: Callable[[Value], bool]


def _is_int(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_ints(value: Value) -> bool:
    return isinstance(value, ListValue | Results) and all(_is_int(item) for item in value.items)


def _is_nested_ints(value: Value) -> bool:
    return _is_int(value) or (isinstance(value, ListValue | Results) and all(_is_nested_ints(item) for item in value.items))


def _is_dims(value: Value) -> bool:
    return isinstance(value, ListValue | Results) and all(is_size(item) for item in value.items)


KINDS: dict[str, Expected] = {
    "int": Expected("a whole number", _is_int),
    "float": Expected("a number", lambda v: is_number(v) and not isinstance(v, DimExpr)),
    "bool": Expected("true or false", lambda v: isinstance(v, bool)),
    "str": Expected("a string", lambda v: isinstance(v, str)),
    "dtype": Expected("an element type such as f32", lambda v: isinstance(v, DType)),
    "dim": Expected("a size", is_size),
    "axis": Expected("an axis, a whole number", _is_int),
    "axes": Expected("an axis or a list of axes", lambda v: _is_int(v) or _is_ints(v)),
    "dims": Expected("a list of sizes", _is_dims),
    "shape": Expected("a list of sizes", _is_dims),
    "ints": Expected("whole numbers", _is_nested_ints),
}
LIST_KINDS = ("dims", "shape", "ints", "axes")


def attribute(context: Context, kind: str, value: Value, what: str, span: Span, optional: bool) -> object:
    """A static argument as an operator takes it: lists become tuples, a whole number a float where one is asked for."""
    if value is None and optional:
        return None
    if kind not in KINDS:
        return plain(value)
    expected = KINDS[kind]
    if kind in ("dims", "shape") and is_size(value):
        value = ListValue((value,))
    if not expected.accepts(value):
        if isinstance(value, DimExpr):
            need_fixed(context, value)
            raise context.reporter.error(
                "DL0303",
                f"{what} is {expected.text}, and {value} is not fixed when compiled",
                span,
                hint="bind the size: dim T = 64, or --dim",
            )
        raise context.reporter.error("DL0305", f"{what} is {expected.text}, not {describe(value)}", span)
    if kind == "float":
        return float(value)  # type: ignore[arg-type]
    return plain(value)


def plain(value: Value) -> object:
    """Lists as tuples, all the way down, so that attributes are hashable."""
    if isinstance(value, ListValue | Results):
        return tuple(plain(item) for item in value.items)
    if (
        isinstance(value, RangeValue)
        and isinstance(value.start, int)
        and isinstance(value.stop, int)
        and value.stop - value.start <= 100_000
    ):
        return tuple(range(value.start, value.stop))
    return value
