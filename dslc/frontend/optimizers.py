"""The optimizer's update of each parameter: learning rates, clipping, accumulated gradients, averaged parameters.

With `accumulate = K` there are two programs: `train` adds the gradients of one batch, weighted by its examples, to buffers, and
`update` moves the parameters by their mean and empties the buffers. Without it `train` does all at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dslc.diagnostics import Note, Span
from dslc.frontend import signatures, syntax
from dslc.frontend.arguments import block_arguments, evaluate_given
from dslc.frontend.groups import Options
from dslc.frontend.report import Refused, listed, plural
from dslc.frontend.scope import Context, Frame, holds_tensor
from dslc.frontend.tensors import cast, emit
from dslc.frontend.values import BlockFunction, LearningRate, Origin, Poison, Results, Tensor, Value, describe, is_number
from dslc.ir.dims import Dim, DimExpr
from dslc.ir.module import Buffer, Initial, PortKind, Role
from dslc.ir.recipe import AVERAGE
from dslc.ir.types import DType, TensorType

RATE = "lr"
GRADIENT = "gradient/"  # before the path of a parameter: the sum of its gradients in this step
ZERO = Initial("constant", (("value", 0),))


def gradients_of(context: Context, clause: syntax.Minimize, paths: Sequence[str], loss: Tensor) -> list[Tensor]:
    """The gradient of the loss by each parameter that moves; for others nothing is computed."""
    values = [context.program.loaded[p] for p in paths]
    result = emit(context, "grad", (loss, *values), {}, clause.span, "the gradient")
    return [g for g in (result.items if isinstance(result, Results) else (result,)) if isinstance(g, Tensor)]


def move_parameters(
    context: Context, clause: syntax.Minimize, chosen: Mapping[str, int], gradients: Sequence[Tensor], options: Options, step: Tensor,
    frame: Frame, prefix: str = "",
) -> None:  # fmt: skip
    """Adds clipping, updates and averages to the program; the new values become outputs.

    `prefix` names the phase before settings and states of optimizers: each phase has its own.
    """
    total = context.program.input(PortKind.SETTING, f"{prefix}total", TensorType(DType.I64), default=1)
    optimizers: dict[int, BlockFunction] = {}
    for index, node in enumerate(clause.groups):
        try:
            optimizers[index] = optimizer_of(context, node, index, total, frame, prefix)
        except Refused:
            continue
    if context.reporter.failed:
        return
    if options.clip is not None:
        clip = context.program.input(PortKind.SETTING, f"{prefix}clip", TensorType(context.stored), default=options.clip)
        gradients = _clipped(context, gradients, clip, clause.span)
    context.program.shared = {}  # what depends on the step alone is computed once, not for each parameter
    moved: dict[str, Tensor] = {}
    for (path, index), gradient in zip(chosen.items(), gradients, strict=True):
        value = context.program.loaded[path]
        new = _update(context, clause.groups[index], optimizers[index], path, value, gradient, step, prefix)
        if new is not None:
            moved[path] = new
    if options.ema is not None:
        _average(context, clause, moved, options.ema, f"{prefix}ema")


def add_up(context: Context, clause: syntax.Minimize, paths: Sequence[str], gradients: Sequence[Tensor], batch: Dim, examples: str) -> None:
    """Adds this batch's gradients, times its examples, to their buffers, and its examples to the count `examples`."""
    builder = context.program.builder
    builder.span = clause.span
    count = builder.extent(size=batch, dtype=DType.I64)
    before = context.program.buffer(examples, TensorType(DType.I64), Role.GRADIENT, ZERO, clause.span)
    context.program.output(PortKind.BUFFER, examples, Tensor(builder.add(before.value, count)))
    weights: dict[DType, Tensor] = {}
    for path, gradient in zip(paths, gradients, strict=True):
        dtype = gradient.type.dtype
        if dtype not in weights:
            weights[dtype] = Tensor(builder.extent(size=batch, dtype=dtype))
        old = context.program.buffer(f"{GRADIENT}{path}", gradient.type, Role.GRADIENT, _zero(dtype), clause.span)
        new = builder.add(old.value, builder.mul(gradient.value, weights[dtype].value))
        context.program.output(PortKind.BUFFER, f"{GRADIENT}{path}", Tensor(new))


def take_sums(context: Context, clause: syntax.Minimize, parameters: Mapping[str, Buffer], examples: str) -> list[Tensor]:
    """In the program `update`: the parameters, and the mean gradient of the examples counted in `examples`; empties the buffers."""
    builder = context.program.builder
    builder.span = clause.span
    scalar = TensorType(DType.I64)
    count = context.program.buffer(examples, scalar, Role.GRADIENT, ZERO, clause.span)
    context.program.output(PortKind.BUFFER, examples, Tensor(builder.scalar(0, DType.I64)))
    means: list[Tensor] = []
    for path, made in parameters.items():
        context.program.buffer(path, made.type, made.role, made.initial, made.span)
        dtype = made.type.dtype
        total = context.program.buffer(f"{GRADIENT}{path}", made.type, Role.GRADIENT, _zero(dtype), clause.span)
        examples_seen = cast(context, count, dtype, clause.span)
        means.append(Tensor(builder.div(total.value, examples_seen.value)))
        context.program.output(PortKind.BUFFER, f"{GRADIENT}{path}", Tensor(builder.like(0.0, made.type)))
    return means


def _zero(dtype: DType) -> Initial:
    return Initial("constant", (("value", 0.0 if dtype.floating else 0),))


def static_names(frame: Frame) -> Frame:
    """The frame of a recipe without its tensors, for a program of its own."""
    names = {text: value for text, value in frame.names.items() if not holds_tensor(value)}
    return Frame(frame.unit, frame.what, frame.path, frame.training, names, no_parameters=frame.no_parameters)


# --- optimizers and learning rates ---------------------------------------------------------------------------------------


def optimizer_of(context: Context, node: syntax.Group, index: int, total: Tensor, frame: Frame, prefix: str = "") -> BlockFunction:
    """The configured optimizer of a group; its learning rate is a run-time setting."""
    expression = node.optimizer
    head, subscripts = (expression.target, expression.subscripts) if isinstance(expression, syntax.Brackets) else (expression, ())
    value = context.evaluate(head, frame)
    if isinstance(value, Poison):
        raise Refused
    if not isinstance(value, BlockFunction) or not isinstance(value.item, syntax.Optimizer) or value.static is not None:
        optimizers = [n for n, (_, item) in context.files.library.items() if isinstance(item, syntax.Optimizer)]
        raise context.reporter.error(
            "DL0511",
            f"{describe(value)} is no optimizer",
            expression.span,
            hint=f"the library has {listed(optimizers)}: write with AdamW[1e-3]",
        )
    _check_optimizer(context, value)
    order = [p.name.text for p in value.item.signature.static]
    given = evaluate_given(context, subscripts, frame)
    suffix = "" if index == 0 else f"[{index}]"
    static_values = block_arguments(context, value, given, expression.span)
    if RATE in order:
        span = next(
            (g.span for i, g in enumerate(given) if (g.name.text if g.name else order[i] if i < len(order) else "") == RATE),
            expression.span,
        )
        static_values[RATE] = _rate(context, static_values[RATE], prefix, suffix, total, span)
    return BlockFunction(value.unit, value.item, static_values)


def _check_optimizer(context: Context, function: BlockFunction) -> None:
    signature = function.item.signature
    if len(signature.inputs) != 3:
        raise context.reporter.error(
            "DL0512",
            f"the optimizer {function.name} takes {plural(len(signature.inputs), 'tensor')}, not 3",
            signature.name.span,
            hint="optimizer Name[lr](p: float[*L], g: float[*L], step: i64[]) -> float[*L] { ... }",
        )


def _rate(context: Context, value: Value, prefix: str, suffix: str, total: Tensor, span: Span) -> Value:
    """A number or a schedule as what the optimizer calls with the step."""
    if is_number(value) and not isinstance(value, DimExpr):
        assert isinstance(value, int | float)
        return LearningRate(None, _setting(context, prefix + RATE + suffix, float(value)), total)
    if not isinstance(value, BlockFunction) or isinstance(value.item, syntax.Optimizer):
        raise context.reporter.error(
            "DL0511",
            f"a learning rate is a number or a schedule, not {describe(value)}",
            span,
            hint="write AdamW[1e-3] or AdamW[cosine[1e-3]]",
        )
    if value.static is None:
        value = BlockFunction(value.unit, value.item, block_arguments(context, value, [], span))
    assert value.static is not None
    if len(value.item.signature.inputs) != 2:
        raise context.reporter.error(
            "DL0512", f"the schedule {value.name} takes (step, total)", span, notes=[Note("defined here", value.item.signature.name.span)]
        )
    settings: dict[str, Value] = {}
    for position, (name, number) in enumerate(value.static.items()):
        if isinstance(number, int | float) and not isinstance(number, bool):
            which = RATE if position == 0 else f"{RATE}.{name}"
            settings[name] = _setting(context, prefix + which + suffix, float(number))
        else:
            settings[name] = number
    return LearningRate(BlockFunction(value.unit, value.item, settings), None, total)


def _setting(context: Context, name: str, default: float) -> Tensor:
    return context.program.input(PortKind.SETTING, name, TensorType(context.stored), Origin(f"the setting {name}", None), default)


# --- updates -------------------------------------------------------------------------------------------------------------


def _clipped(context: Context, gradients: Sequence[Tensor], clip: Tensor, span: Span) -> list[Tensor]:
    """Gradients scaled so that the norm of all together is at most `clip`, as clip / (norm + 1e-6) where that is below 1."""
    builder = context.program.builder
    builder.span = span
    dtype = context.stored
    total = None
    for gradient in gradients:
        wide = cast(context, gradient, dtype, span).value
        square = builder.sum(builder.mul(wide, wide))
        total = square if total is None else builder.add(total, square)
    norm = builder.sqrt(total)
    scale = builder.minimum(builder.div(clip.value, builder.add(norm, builder.scalar(1e-6, dtype))), builder.scalar(1.0, dtype))
    return [Tensor(builder.mul(g.value, cast(context, Tensor(scale), g.type.dtype, span).value)) for g in gradients]


def _update(
    context: Context, node: syntax.Group, function: BlockFunction, path: str, value: Tensor, gradient: Tensor, step: Tensor, prefix: str
) -> Tensor | None:
    """One parameter's new value, by the optimizer's body; its states stand at `<optimizer>.<parameter>.<state>`, behind the phase."""
    signature = function.item.signature
    span = node.span
    where = f"{prefix}{function.name.lower()}.{path}"
    inner = Frame(function.unit, function.name, where, True, dict(function.static or {}), optimizer=True)
    inner.no_parameters = "an optimizer makes no parameters"
    try:
        arguments = signatures.match_inputs(context, signature, inner, (value, gradient, step), (span, span, span))
        if any(isinstance(a, Poison) for a in arguments):
            return None
        for declared, argument in zip(signature.inputs, arguments, strict=True):
            inner.names[declared.name.text] = argument
        with context.reporter.call(function.name, span):
            returned = context.run(function.item.body, inner)
            if returned is None or len(returned) != 1:
                raise context.reporter.error(
                    "DL0512", f"the optimizer {function.name} returns the new value of the parameter", signature.name.span
                )
            results = signatures.match_results(context, signature, inner, [returned[0][0]], [returned[0][1]])
    except Refused:
        return None
    new = results[0]
    if isinstance(new, Poison):
        return None
    if new.type.shape != value.type.shape:
        context.reporter.error(
            "DL0512", f"the optimizer {function.name} makes {new.type} of a parameter {value.type}", signature.result.span
        )
        return None
    new = cast(context, new, value.type.dtype, span)
    context.program.output(PortKind.BUFFER, path, new)
    return new


def _average(context: Context, clause: syntax.Minimize, moved: dict[str, Tensor], decay: float, name: str) -> None:
    """The moving averages of what has moved: average = decay average + (1 - decay) parameter. They begin as the parameters do."""
    builder = context.program.builder
    builder.span = clause.span
    setting = context.program.input(PortKind.SETTING, name, TensorType(DType.F64), default=decay)
    rest = builder.sub(builder.scalar(1.0, DType.F64), setting.value)  # in f64: 1 - 0.9999 keeps three digits in f32
    for path, new in moved.items():
        made = context.program.buffers[path]
        dtype = made.type.dtype
        old = context.program.buffer(f"{AVERAGE}{path}", made.type, Role.EMA, made.initial, made.span)
        keep, take = (cast(context, Tensor(share), dtype, clause.span).value for share in (setting.value, rest))
        mixed = builder.add(builder.mul(old.value, keep), builder.mul(new.value, take))
        context.program.output(PortKind.BUFFER, f"{AVERAGE}{path}", Tensor(mixed))
