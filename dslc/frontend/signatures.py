"""Types and signatures: dimensions are inferred from the arguments, results and facts are checked against them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dslc.diagnostics import Note, Span
from dslc.frontend import static, syntax
from dslc.frontend.report import Refused
from dslc.frontend.scope import Context, Frame, ask
from dslc.frontend.source import expression_text
from dslc.frontend.tensors import coerce, name_origin, note_of
from dslc.frontend.values import POISON, Origin, Poison, Tensor, Value, describe, is_size
from dslc.ir import dims, prove
from dslc.ir.dims import Dim, DimExpr
from dslc.ir.prove import Proved, Refuted, Relation
from dslc.ir.types import TensorType


def dimension(context: Context, expression: syntax.Expr, frame: Frame) -> Dim:
    """A size in a type, evaluated."""
    value = context.evaluate(expression, frame)
    if isinstance(value, Poison):
        raise Refused
    if not is_size(value):
        raise context.reporter.error("DL0305", f"a size is a whole number, not {describe(value)}", expression.span)
    assert isinstance(value, int | DimExpr)
    return value


def evaluate_type(context: Context, declared: syntax.Type, frame: Frame, what: str) -> TensorType:
    """A declared type whose names are all known, with sizes of at least 1."""
    dtype = context.dtype(declared.dtype)
    shape: list[Dim] = []
    failed = False
    for item in declared.dims:
        try:
            if isinstance(item, syntax.RowDims):
                shape += row(context, item, frame)
            else:
                size = dimension(context, item, frame)
                check_size(context, size, item.span, expression_text(item), what)
                shape.append(size)
        except Refused:
            failed = True
    if failed:
        raise Refused
    type_ = TensorType(dtype, tuple(shape))
    check_total(context, type_, declared.span, what)
    return type_


def row(context: Context, item: syntax.RowDims, frame: Frame) -> tuple[Dim, ...]:
    found = frame.rows.get(item.name.text)
    if found is None:
        raise context.reporter.error(
            "DL0216", f"nothing says which dimensions `*{item.name.text}` is", item.span, hint="use it in the type of an argument"
        )
    return found


def check_size(context: Context, size: Dim, span: Span, text: str, what: str) -> None:
    """Refuses sizes below 1 and beyond 2^31 - 1."""
    if isinstance(size, int) and not 1 <= size <= static.MAX_SIZE:
        shown = text if text == str(size) else f"{text} = {size}"
        limit = "at least 1" if size < 1 else "at most 2^31 - 1"
        raise context.reporter.error("DL0217", f"{what}: the size {shown} must be {limit}", span)


def check_total(context: Context, type_: TensorType, span: Span, what: str) -> None:
    """Refuses tensors too large for any memory, batch left aside."""
    count = 1
    for size in type_.shape:
        count *= size if isinstance(size, int) else 1
    if count * type_.dtype.size > 2**40:
        raise context.reporter.error("DL0217", f"{what} would take {count * type_.dtype.size / 2**40:,.0f} TiB: {type_}", span)


# --- arguments -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Match:
    """Dimensions of one call while they are inferred."""

    context: Context
    frame: Frame
    callee: str
    local: set[str]  # names that this signature may bind
    bound_at: dict[str, str]  # how each name got its value, for messages


def match_inputs(
    context: Context, signature: syntax.Signature, frame: Frame, arguments: Sequence[Value], spans: Sequence[Span]
) -> list[Tensor | Poison]:
    """Binds the signature's dimensions in `frame` from the arguments and returns them with their declared element types."""
    callee = signature.name.text
    matching = _Match(context, frame, callee, signature_names(signature) - frame.names.keys(), {})
    matching.local = {n for n in matching.local if not known(context, frame, n)}
    converted: list[Tensor | Poison] = []
    postponed: list[tuple[syntax.Input, int, syntax.Expr, Dim, Tensor, Span]] = []
    for declared, value, span in zip(signature.inputs, arguments, spans, strict=True):
        try:
            converted.append(_match_one(matching, declared, value, span, postponed))
        except Refused:
            converted.append(POISON)
    for declared, axis, expression, actual, tensor, span in postponed:
        try:
            _match_expression(matching, declared, axis, expression, actual, tensor, span)
        except Refused:
            converted = [POISON if c is tensor else c for c in converted]
    return converted


def known(context: Context, frame: Frame, text: str) -> bool:
    """Whether a name in a signature means something already: a static parameter or a constant of the file."""
    return text in frame.names or isinstance(frame.unit.items.get(text), syntax.Const)


def signature_names(signature: syntax.Signature) -> set[str]:
    """The dimension names that the types of the arguments mention."""
    found: set[str] = set()
    for declared in signature.inputs:
        for entry in declared.type.dims:
            found |= {node.text for node in syntax.walk(entry) if isinstance(node, syntax.Name)}
    return found


def _match_one(
    matching: _Match,
    declared: syntax.Input,
    value: Value,
    span: Span,
    postponed: list[tuple[syntax.Input, int, syntax.Expr, Dim, Tensor, Span]],
) -> Tensor:
    context, frame = matching.context, matching.frame
    if isinstance(value, Poison):
        raise Refused
    dtype = context.dtype(declared.type.dtype)
    what = f"the argument `{declared.name.text}` of {matching.callee}"
    tensor = coerce(context, value, TensorType(dtype), what, span)
    entries, shape = declared.type.dims, tensor.type.shape
    rows = [i for i, entry in enumerate(entries) if isinstance(entry, syntax.RowDims)]
    if len(rows) > 1:
        raise context.reporter.error("DL0216", "a type has at most one row of dimensions", entries[rows[1]].span)
    if (not rows and len(shape) != len(entries)) or len(shape) < len(entries) - len(rows):
        raise _rank_error(matching, declared, tensor, span)
    pairs: list[tuple[int, syntax.Expr]] = []
    if rows:
        before, after = entries[: rows[0]], entries[rows[0] + 1 :]
        middle = shape[len(before) : len(shape) - len(after)]
        pairs += [(i, e) for i, e in enumerate(before) if not isinstance(e, syntax.RowDims)]
        pairs += [(len(shape) - len(after) + i, e) for i, e in enumerate(after) if not isinstance(e, syntax.RowDims)]
        _bind_row(matching, declared, entries[rows[0]], middle, tensor, span)
    else:
        pairs += [(i, e) for i, e in enumerate(entries) if not isinstance(e, syntax.RowDims)]
    for axis, expression in pairs:
        if isinstance(expression, syntax.Name) and expression.text in matching.local and expression.text not in frame.names:
            frame.names[expression.text] = shape[axis]
            matching.bound_at[expression.text] = f"{expression.text} = {shape[axis]} from axis {axis} of `{declared.name.text}`"
        else:
            postponed.append((declared, axis, expression, shape[axis], tensor, span))
    return tensor


def _rank_error(matching: _Match, declared: syntax.Input, tensor: Tensor, span: Span) -> Refused:
    context = matching.context
    expected = type_text(declared.type)
    return context.reporter.error(
        "DL0212",
        f"{matching.callee} takes `{declared.name.text}: {expected}`, with {len(declared.type.dims)} axes, "
        f"not {tensor.type} with {tensor.type.rank}",
        span,
        notes=[note_of(context, tensor), Note("the signature", declared.span)],
        hint="flatten(x) makes [N, rest]; reshape[...] and unsqueeze[axis = ...] change the number of axes",
    )


def _bind_row(
    matching: _Match, declared: syntax.Input, entry: syntax.Expr | syntax.RowDims, middle: tuple[Dim, ...], tensor: Tensor, span: Span
) -> None:
    assert isinstance(entry, syntax.RowDims)
    context, frame, text = matching.context, matching.frame, entry.name.text
    bound = frame.rows.setdefault(text, middle)
    same = len(bound) == len(middle) and all(equal(context, a, b) for a, b in zip(bound, middle, strict=True))
    if not same:
        raise context.reporter.error(
            "DL0211",
            f"{matching.callee}: `*{text}` is [{', '.join(map(str, bound))}] and [{', '.join(map(str, middle))}]",
            span,
            notes=[note_of(context, tensor), Note("the signature", declared.span)],
        )


def _match_expression(
    matching: _Match, declared: syntax.Input, axis: int, expression: syntax.Expr, actual: Dim, tensor: Tensor, span: Span
) -> None:
    """An axis whose size is a number, a name bound before, or an expression (solved where one name in it is still unknown)."""
    context, frame = matching.context, matching.frame
    names_in = {n.text for n in syntax.walk(expression) if isinstance(n, syntax.Name)}
    missing = sorted(n for n in names_in if n in matching.local and n not in frame.names)
    if missing:
        frame.names |= {n: dims.name(n) for n in missing}
        value = _solved(context, dimension(context, expression, frame), missing[0], actual) if len(missing) == 1 else None
        for n in missing:
            del frame.names[n]
        if value is None:
            raise context.reporter.error(
                "DL0216",
                f"{matching.callee}: {missing[0]} does not follow from axis {axis} of `{declared.name.text}`, "
                f"where {expression_text(expression)} meets {actual}",
                span,
                notes=[note_of(context, tensor), Note("the signature", declared.span)],
                hint=f"{missing[0]} is a whole number; let it stand alone in the type of an argument, or make it a static parameter",
            )
        frame.names[missing[0]] = value
        return
    expected = dimension(context, expression, frame)
    if equal(context, expected, actual):
        return
    text = expression_text(expression)
    shown = text if text == str(expected) else f"{text} = {expected}"
    derivations = [matching.bound_at[n] for n in sorted(names_in) if n in matching.bound_at]
    raise context.reporter.error(
        "DL0211",
        f"{matching.callee} takes `{declared.name.text}: {type_text(declared.type)}`, not {tensor.type}: axis {axis} is {shown} and {actual}",
        span,
        notes=[note_of(context, tensor), *(Note(d) for d in derivations), Note("the signature", declared.span)],
        hint=mismatch_hint(context, expected, actual),
    )


def _solved(context: Context, expression: Dim, name: str, actual: Dim) -> Dim | None:
    """The size that makes a linear expression in `name` equal to the actual one; None where there is none for certain."""
    offset = dims.substitute(expression, {name: 0})
    slope = dims.substitute(expression, {name: 1}) - offset
    if slope == 0 or expression != slope * dims.name(name) + offset:
        return None
    if not isinstance(ask(context, prove.divides(slope, actual - offset)), Proved):
        return None
    return dims.divide_exactly(actual - offset, slope)


def equal(context: Context, a: Dim, b: Dim) -> bool:
    """Whether two sizes are the same for all sizes that satisfy the facts."""
    if a == b or (isinstance(a, int) and isinstance(b, int)):
        return a == b
    return isinstance(ask(context, Relation(a, "==", b)), Proved)


def mismatch_hint(context: Context, a: Dim, b: Dim) -> str | None:
    if isinstance(a, int) and isinstance(b, int):
        return None
    verdict = ask(context, Relation(a, "==", b))
    why = f" ({verdict})" if isinstance(verdict, Refuted) and verdict.counterexample else ""
    return f"add `given {a} == {b}` to the signature, or bind the sizes{why}"


def check_given(context: Context, signature: syntax.Signature, frame: Frame, span: Span) -> None:
    """The facts that a signature asks for, at a call."""
    for fact in signature.given:
        value = context.evaluate(fact, frame)
        if isinstance(value, Poison):
            continue
        names_in = {n.text for n in syntax.walk(fact) if isinstance(n, syntax.Name)}
        values = [f"{n} = {frame.names[n]}" for n in sorted(names_in) if is_size(frame.names.get(n, None)) and str(frame.names[n]) != n]
        where = f" with {', '.join(values)}" if values else ""
        fact_text, callee, notes = f"`{expression_text(fact)}`", signature.name.text, (Note("the signature", fact.span),)
        static.require_fact(context, value, span, fact_text, "DL0214", needed_by=callee, why=where, notes=notes)


# --- results -------------------------------------------------------------------------------------------------------------


def declared_results(signature: syntax.Signature) -> tuple[list[syntax.Type], tuple[str, ...]]:
    """The types of the results, and their names where the signature gives them."""
    match signature.result:
        case syntax.Type() as single:
            return [single], ()
        case syntax.TupleType() as several:
            return list(several.types), ()
        case syntax.NamedResults() as named:
            return [r.type for r in named.results], tuple(r.name.text for r in named.results)


def match_results(
    context: Context, signature: syntax.Signature, frame: Frame, returned: Sequence[Value], spans: Sequence[Span]
) -> list[Tensor | Poison]:
    """What a body returns, with the declared element types; shapes must agree."""
    types, _ = declared_results(signature)
    converted: list[Tensor | Poison] = []
    for index, (declared, value, span) in enumerate(zip(types, returned, spans, strict=True)):
        if isinstance(value, Poison):
            converted.append(POISON)
            continue
        what = f"the result of {signature.name.text}" if len(types) == 1 else f"result {index + 1} of {signature.name.text}"
        try:
            expected = evaluate_type(context, declared, frame, what)
            tensor = coerce(context, value, expected, what, span)
            shapes = tensor.type.shape, expected.shape
            if len(shapes[0]) != len(shapes[1]) or not all(equal(context, a, b) for a, b in zip(*shapes, strict=True)):
                raise _result_error(context, what, declared, expected, tensor, span)
            converted.append(tensor)
        except Refused:
            converted.append(POISON)
    return converted


def _result_error(context: Context, what: str, declared: syntax.Type, expected: TensorType, tensor: Tensor, span: Span) -> Refused:
    text = type_text(declared)
    shown = f"{text} = {expected}" if text != str(expected) else text
    hint = None
    if tensor.type.rank == expected.rank:
        different = [(a, b) for a, b in zip(expected.shape, tensor.type.shape, strict=True) if not equal(context, a, b)]
        hint = mismatch_hint(context, *different[0])
    return context.reporter.error(
        "DL0213",
        f"{what} is declared {shown}, and this is {tensor.type}",
        span,
        notes=[Note("declared here", declared.span), note_of(context, tensor)],
        hint=hint,
    )


def placeholder_results(context: Context, signature: syntax.Signature, frame: Frame) -> list[Tensor | Poison]:
    """Tensors of the declared types in place of results that failed, so that what uses them is still checked."""
    types, _ = declared_results(signature)
    found: list[Tensor | Poison] = []
    for declared in types:
        try:
            found.append(Tensor(context.program.builder.value(evaluate_type(context, declared, frame, signature.name.text))))
        except Refused:
            found.append(POISON)
    return found


def describe_results(context: Context, signature: syntax.Signature, frame: Frame, results: Iterable[Tensor | Poison], span: Span) -> None:
    """Records how the sizes of a call's results came about."""
    types, _ = declared_results(signature)
    for declared, tensor in zip(types, results, strict=True):
        if isinstance(tensor, Poison):
            continue
        inner = context.program.origins.get(tensor.value.id)
        sizes = tuple(_derivations(declared, frame, tensor)) or (inner.sizes if inner is not None else ())
        name_origin(context, tensor, Origin(f"the result of {signature.name.text}", span, sizes))


def _derivations(declared: syntax.Type, frame: Frame, tensor: Tensor) -> list[str]:
    """`axis 2 is 28 = (Hi + 2 * padding - k) // stride + 1 with Hi = 56, ...` for the computed axes."""
    if any(isinstance(entry, syntax.RowDims) for entry in declared.dims):
        return []
    found = []
    for axis, entry in enumerate(declared.dims):
        if isinstance(entry, syntax.RowDims | syntax.Name | syntax.Int):
            continue
        names_in = list(dict.fromkeys(n.text for n in syntax.walk(entry) if isinstance(n, syntax.Name)))
        values = [f"{n} = {frame.names[n]}" for n in names_in if is_size(frame.names.get(n, None))]
        found.append(
            f"axis {axis} is {tensor.type.shape[axis]} = {expression_text(entry)}" + (f" with {', '.join(values)}" if values else "")
        )
    return found


def type_text(declared: syntax.Type) -> str:
    """A type as the source has it."""
    entries = [f"*{e.name.text}" if isinstance(e, syntax.RowDims) else expression_text(e) for e in declared.dims]
    return f"{declared.dtype.text}[{', '.join(entries)}]"
