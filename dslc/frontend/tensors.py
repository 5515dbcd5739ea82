"""Tensor operations: numbers become tensors, element types meet by the language's rules, and refusals get their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dslc.diagnostics import Note, Span
from dslc.frontend.report import Refused
from dslc.frontend.scope import MAX_OPERATIONS, Context, spend, too_many_operators
from dslc.frontend.values import Origin, Poison, Results, Tensor, Value, describe, is_number
from dslc.ir.dims import DimExpr
from dslc.ir.graph import Op
from dslc.ir.operator import OPERATORS, TypeFailure, meeting_float
from dslc.ir.types import DType, TensorType

ARITHMETIC = {"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "%": "mod", "@": "matmul", "**": "pow"}
COMPARISON = {"==": "eq", "!=": "ne", "<=": "le", ">=": "ge", "<": "lt", ">": "gt"}
LOGIC = {"and": "and", "or": "or"}


def emit(context: Context, kind: str, inputs: Sequence[Tensor], attrs: Mapping[str, object], span: Span, what: str | None = None) -> Value:
    """Appends one operation; a type failure becomes a diagnostic at `span` that tells where each operand came from."""
    builder = context.program.builder
    if len(builder.ops) >= MAX_OPERATIONS:
        raise too_many_operators(context, span)
    shared = context.program.shared if inputs and all(t.type.rank == 0 for t in inputs) else None
    key = () if shared is None else (kind, tuple(t.value.id for t in inputs), tuple(attrs.items()))
    if shared is not None and key in shared:
        return shared[key]
    listed = sum(len(v) for v in attrs.values() if isinstance(v, tuple | str)) // 2
    spend(context, 2 + 8 * max(0, len(inputs) - 4) + listed, span)
    builder.span = context.reporter.place(span)
    if context.families and OPERATORS[kind].family in context.families:
        inputs = [cast(context, t, DType.F32, span) if t.type.dtype.half else t for t in inputs]
    try:
        op = builder.emit(kind, [t.value for t in inputs], dict(attrs))
    except TypeFailure as failure:
        raise type_failure(context, failure, inputs, span) from None
    result = results_of(context, op, span, what or f"the result of {kind}")
    if shared is not None:
        shared[key] = result
    return result


def results_of(context: Context, op: Op, span: Span, what: str) -> Value:
    """The results of an operation, with their origin; an element-wise one keeps how the sizes of its operand came about."""
    sizes: tuple[str, ...] = ()
    if OPERATORS[op.kind].elementwise:
        for value in op.inputs:
            origin = context.program.origins.get(value.id)
            if origin is not None and origin.sizes and value.type.shape == op.outputs[0].type.shape:
                sizes = origin.sizes
                break
    for output in op.outputs:
        context.program.origins[output.id] = Origin(what, span, sizes)
    if len(op.outputs) == 1:
        return Tensor(op.outputs[0])
    return Results(tuple(Tensor(output) for output in op.outputs))


def type_failure(context: Context, failure: TypeFailure, inputs: Sequence[Tensor], span: Span) -> Refused:
    positions = failure.inputs or tuple(range(len(inputs)))
    axes = dict(zip(failure.inputs, failure.axes, strict=False))
    notes = [note_of(context, inputs[p], axes.get(p)) for p in dict.fromkeys(positions) if p < len(inputs)]
    code = "DL0210" if failure.axes else "DL0202" if "element type" in failure.message else "DL0201"
    return context.reporter.error(code, failure.message, span, notes=notes, hint=failure.hint)


def note_of(context: Context, tensor: Tensor, axis: int | None = None) -> Note:
    """Where a tensor and its sizes came from; only the size along `axis` where one is at fault."""
    origin = context.program.origins.get(tensor.value.id)
    if origin is None:
        return Note(f"one side is {tensor.type}")
    derived = [s for s in origin.sizes if axis is None or s.startswith(f"axis {axis % max(tensor.type.rank, 1)} ")]
    sizes = f", where {'; '.join(derived)}" if derived else ""
    span = context.reporter.place(origin.span) if origin.span is not None else None
    return Note(f"{origin.what} is {tensor.type}{sizes}", span)


def name_origin(context: Context, tensor: Tensor, origin: Origin) -> None:
    context.program.origins[tensor.value.id] = origin


def number(context: Context, value: Value, dtype: DType, span: Span) -> Tensor:
    """A static number as a 0-d tensor of `dtype`."""
    if isinstance(value, bool):
        if dtype != DType.BOOL:
            raise context.reporter.error("DL0203", f"{describe(value)} is no {dtype.value} number", span, hint="write 1 or 0")
        return _scalar(context, value, dtype, span)
    if not is_number(value):
        raise context.reporter.error("DL0305", f"a tensor is needed here, not {describe(value)}", span)
    if dtype == DType.BOOL:
        raise context.reporter.error("DL0203", f"{describe(value)} is no bool", span, hint="write true or false, or a comparison")
    if isinstance(value, DimExpr):
        result = emit(context, "extent", (), {"size": value, "dtype": dtype}, span, f"the size {value}")
        assert isinstance(result, Tensor)
        return result
    assert isinstance(value, int | float)
    if dtype.integer:
        if isinstance(value, float) and not value.is_integer():
            raise context.reporter.error(
                "DL0203", f"{value:g} is no {dtype.value} number", span, hint="convert the tensor with cast[f32](...)"
            )
        info = {DType.I8: (-128, 127), DType.U8: (0, 255), DType.I32: (-(2**31), 2**31 - 1), DType.I64: (-(2**63), 2**63 - 1)}[dtype]
        if not info[0] <= value <= info[1]:
            raise context.reporter.error("DL0203", f"{value} does not fit {dtype.value}", span)
        value = int(value)
    else:
        value = float(value)
    return _scalar(context, value, dtype, span)


def _scalar(context: Context, value: float, dtype: DType, span: Span) -> Tensor:
    """A 0-d constant; equal ones are one value."""
    key = (repr(value), dtype)
    found = context.program.scalars.get(key)
    if found is None:
        context.program.builder.span = context.reporter.place(span)
        found = context.program.scalars[key] = Tensor(context.program.builder.scalar(value, dtype))
    return found


def cast(context: Context, tensor: Tensor, dtype: DType, span: Span) -> Tensor:
    """`tensor` converted where it has another element type; keeps its origin."""
    if tensor.type.dtype == dtype:
        return tensor
    origin = context.program.origins.get(tensor.value.id)
    result = emit(context, "cast", (tensor,), {"dtype": dtype}, span)
    assert isinstance(result, Tensor)
    if origin is not None:
        name_origin(context, result, origin)
    return result


def meet(context: Context, values: Sequence[Value], spans: Sequence[Span], span: Span, what: str, elementwise: bool) -> list[Tensor]:
    """Operands as tensors: numbers take the type of the tensors they meet, floats widen, a scalar integer meeting a float converts."""
    for value, place in zip(values, spans, strict=True):
        if not (isinstance(value, Tensor | bool) or is_number(value)):
            raise context.reporter.error("DL0305", f"{what} needs tensors, not {describe(value)}", place)
    tensors = [v for v in values if isinstance(v, Tensor)]
    floats = [t.type.dtype for t in tensors if t.type.dtype.floating]
    widest = meeting_float(floats) if floats else None
    if widest is None:
        integers = [t.type.dtype for t in tensors if t.type.dtype.integer]
        if integers:
            literal = integers[0]
        elif any(isinstance(v, float) for v in values) or any(isinstance(v, DimExpr) for v in values):
            literal = context.floating
        else:
            literal = DType.I64
    else:
        literal = widest
    result = []
    for value, place in zip(values, spans, strict=True):
        if isinstance(value, Tensor):
            dtype = value.type.dtype
            scalar_integer = elementwise and dtype.integer and value.type.rank == 0
            result.append(cast(context, value, widest, place) if widest is not None and (dtype.floating or scalar_integer) else value)
        else:
            result.append(number(context, value, DType.BOOL if isinstance(value, bool) else literal, place))
    return result


def binary(context: Context, op: str, left: Value, right: Value, spans: tuple[Span, Span], span: Span) -> Value:
    """`left op right` where at least one side is a tensor."""
    if isinstance(left, Poison) or isinstance(right, Poison):
        return left if isinstance(left, Poison) else right
    kind = ARITHMETIC.get(op) or COMPARISON.get(op) or LOGIC[op]
    a, b = meet(context, (left, right), spans, span, f"`{op}`", op != "@")
    if op == "**" and right == 2:
        kind, b = "mul", a
    x, y = a.type.dtype, b.type.dtype
    if x != y and not (kind == "matmul" and x.narrow and y.narrow):
        hint = f"convert one side with cast[{(x if x.floating else y).value}](...)"
        raise context.reporter.error(
            "DL0202",
            f"`{op}` of {a.type} and {b.type}: their element types differ",
            span,
            notes=[note_of(context, a), note_of(context, b)],
            hint=hint,
        )
    return emit(context, kind, (a, b), {}, span, f"the result of `{op}`")


def coerce(context: Context, value: Value, declared: TensorType, what: str, span: Span) -> Tensor:
    """An argument, result or state as its declared type has it: floats convert; shapes are compared by the caller."""
    if not isinstance(value, Tensor):
        if isinstance(value, bool) or is_number(value):
            return number(context, value, declared.dtype, span)
        raise context.reporter.error("DL0305", f"{what} is a tensor {declared}, not {describe(value)}", span)
    actual = value.type.dtype
    if actual == declared.dtype:
        return value
    if (actual.floating or (actual.integer and value.type.rank == 0)) and declared.dtype.floating:
        return cast(context, value, declared.dtype, span)
    raise context.reporter.error(
        "DL0202",
        f"{what} is declared {declared.dtype.value}, and this is {value.type}",
        span,
        notes=[note_of(context, value)],
        hint=f"convert it with cast[{declared.dtype.value}](...)",
    )


def known_operators() -> list[str]:
    return [name for name, operator in OPERATORS.items() if not operator.internal]
