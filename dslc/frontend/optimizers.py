"""`minimize`: which parameters move, their gradients, clipping, and the optimizer's update of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dslc.diagnostics import Note, Span
from dslc.frontend import signatures, syntax
from dslc.frontend.arguments import block_arguments, evaluate_given
from dslc.frontend.calls import model_path
from dslc.frontend.files import Unit
from dslc.frontend.program import reaches
from dslc.frontend.programs import find_model
from dslc.frontend.report import Refused, did_you_mean, listed, plural
from dslc.frontend.scope import Context, Frame
from dslc.frontend.tensors import cast, emit
from dslc.frontend.values import BlockFunction, LearningRate, Origin, Poison, Results, Tensor, Value, describe, is_number
from dslc.ir.dims import DimExpr
from dslc.ir.module import PortKind, Role
from dslc.ir.types import DType, TensorType

OPTIONS = ("clip", "accumulate", "ema")
RATE = "lr"


@dataclass(slots=True)
class Group:
    """Parameters that one optimizer moves."""

    node: syntax.Group
    optimizer: BlockFunction
    index: int


def update_parameters(
    context: Context, unit: Unit, train: syntax.Train, clause: syntax.Minimize, loss: Tensor, step: Tensor, frame: Frame
) -> None:
    """Adds gradients and updates to the program; the new values become outputs."""
    total = context.program.input(PortKind.SETTING, "total", TensorType(DType.I64), default=1)
    groups: list[Group] = []
    clip: Tensor | None = None
    for index, node in enumerate(clause.groups):
        try:
            clip = _options(context, node, index, frame) or clip
            groups.append(Group(node, _optimizer(context, node, index, total, frame), index))
        except Refused:
            continue
    chosen = _assign_groups(context, unit, train, clause, groups, loss)
    if context.reporter.failed or not chosen:
        return
    paths = list(chosen)
    values = [context.program.loaded[p] for p in paths]
    result = emit(context, "grad", (loss, *values), {}, clause.span, "the gradient")
    gradients = [g for g in (result.items if isinstance(result, Results) else (result,)) if isinstance(g, Tensor)]
    if clip is not None:
        gradients = _clipped(context, gradients, clip, clause.span)
    context.program.shared = {}  # what depends on the step alone is computed once, not for each parameter
    for path, value, gradient in zip(paths, values, gradients, strict=True):
        _update(context, chosen[path], path, value, gradient, step, frame)


def _options(context: Context, node: syntax.Group, index: int, frame: Frame) -> Tensor | None:
    """`clip = 1.0`; the other options of the language are refused."""
    found: Tensor | None = None
    for option in node.options:
        name = option.name.text
        if name not in OPTIONS:
            hint = did_you_mean(name, OPTIONS) or "the option is `clip`, the largest norm of all gradients"
            context.reporter.error("DL0103", f"`minimize` has no option `{name}`", option.name.span, hint=hint)
        elif name != "clip":
            context.reporter.error("DL0114", f"`{name}` is not in this version", option.name.span)
        elif index > 0:
            context.reporter.error("DL0510", "`clip` holds for all groups: it stands in the first", option.name.span)
        else:
            value = context.evaluate(option.value, frame)
            if isinstance(value, Poison):
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                context.reporter.error("DL0508", f"`clip` is a positive number, not {describe(value)}", option.value.span)
                continue
            found = context.program.input(PortKind.SETTING, "clip", TensorType(context.floating), default=float(value))
    return found


# --- optimizers and learning rates ---------------------------------------------------------------------------------------


def _optimizer(context: Context, node: syntax.Group, index: int, total: Tensor, frame: Frame) -> BlockFunction:
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
        static_values[RATE] = _rate(context, static_values[RATE], suffix, total, span)
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


def _rate(context: Context, value: Value, suffix: str, total: Tensor, span: Span) -> Value:
    """A number or a schedule as what the optimizer calls with the step."""
    if is_number(value) and not isinstance(value, DimExpr):
        assert isinstance(value, int | float)
        return LearningRate(None, _setting(context, RATE + suffix, float(value)), total)
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
            settings[name] = _setting(context, (RATE if position == 0 else f"{RATE}.{name}") + suffix, float(number))
        else:
            settings[name] = number
    return LearningRate(BlockFunction(value.unit, value.item, settings), None, total)


def _setting(context: Context, name: str, default: float) -> Tensor:
    return context.program.input(PortKind.SETTING, name, TensorType(context.floating), Origin(f"the setting {name}", None), default)


# --- groups --------------------------------------------------------------------------------------------------------------


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern with `*` as its only wildcard fits a whole path."""
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), path) is not None


def _assign_groups(
    context: Context, unit: Unit, train: syntax.Train, clause: syntax.Minimize, groups: Sequence[Group], loss: Tensor
) -> dict[str, Group]:
    """The group of each parameter that moves: the last one that names it, unless it is frozen."""
    parameters = [p for p, b in context.program.buffers.items() if b.role == Role.PARAMETER]
    chosen: dict[str, Group] = {}
    named_models: set[str] = set()
    for group in groups:
        for target in group.node.targets:
            if isinstance(target, syntax.Str):
                found = [p for p in parameters if matches(target.value, p)]
                if not found:
                    _no_match(context, target, parameters)
            else:
                try:
                    root = model_path(find_model(context, unit, [p.text for p in target.parts], target.span))
                except Refused:
                    continue
                named_models.add(root)
                found = [p for p in parameters if p.startswith(f"{root}.")]
                if not found:
                    _model_without_parameters(context, target, root, parameters)
            chosen |= dict.fromkeys(found, group)
    for freeze in (c for c in train.clauses if isinstance(c, syntax.Freeze)):
        for pattern in freeze.patterns:
            frozen = [p for p in parameters if matches(pattern.value, p)]
            if not frozen:
                _no_match(context, pattern, parameters)
            for path in frozen:
                chosen.pop(path, None)
    return _reached(context, clause, {p: chosen[p] for p in parameters if p in chosen}, loss, named_models, parameters)


def _no_match(context: Context, pattern: syntax.Str, parameters: Sequence[str]) -> None:
    hint = did_you_mean(pattern.value, parameters) or (
        f"there are {listed(parameters, 4)}" if parameters else "the recipe uses no parameters"
    )
    context.reporter.warning("DL0520", f'the pattern "{pattern.value[:80]}" matches no parameter', pattern.span, hint=hint)


def _model_without_parameters(context: Context, target: syntax.Path, root: str, parameters: Sequence[str]) -> None:
    used = sorted({p.split(".")[0] for p in parameters})
    hint = f"the recipe uses {listed(used)}" if used else "call the model in the recipe"
    context.reporter.error("DL0514", f"the recipe uses no parameters of `{root}`", target.span, hint=hint)


def _reached(
    context: Context, clause: syntax.Minimize, chosen: dict[str, Group], loss: Tensor, models: set[str], parameters: Sequence[str]
) -> dict[str, Group]:
    """Drops parameters that the loss does not depend on, with a warning; warns of other models that it reaches."""
    if context.reporter.failed:
        return {}
    reached = reaches(context.program.builder, loss.value)
    still = {p: g for p, g in chosen.items() if context.program.loaded[p].value.id in reached}
    lost = [p for p in chosen if p not in still]
    if lost and still:
        context.reporter.warning(
            "DL0521",
            f"the loss does not depend on {listed(lost, 4)}",
            clause.loss.span,
            notes=[Note("made here", context.program.buffers[lost[0]].span)],
            hint='remove them, or say that they stay: freeze "..."',
        )
    if not still:
        context.reporter.error("DL0515", "no parameter moves: the loss depends on none that `over` names", clause.span)
    others = sorted(
        {p.rsplit(".", 1)[0].split(".")[0] for p in parameters if context.program.loaded[p].value.id in reached}
        - {m.split(".")[0] for m in models}
    )
    if others and models and still:
        context.reporter.warning(
            "DL0522",
            f"the loss also depends on {listed(others)}, which this does not move",
            clause.span,
            hint="name it after `over`, or freeze it",
        )
    return still


# --- updates -------------------------------------------------------------------------------------------------------------


def _clipped(context: Context, gradients: list[Tensor], clip: Tensor, span: Span) -> list[Tensor]:
    """Gradients scaled so that the norm of all together is at most `clip`, as clip / (norm + 1e-6) where that is below 1."""
    builder = context.program.builder
    builder.span = span
    dtype = context.floating
    total = None
    for gradient in gradients:
        wide = cast(context, gradient, dtype, span).value
        square = builder.sum(builder.mul(wide, wide))
        total = square if total is None else builder.add(total, square)
    norm = builder.sqrt(total)
    scale = builder.minimum(builder.div(clip.value, builder.add(norm, builder.scalar(1e-6, dtype))), builder.scalar(1.0, dtype))
    return [Tensor(builder.mul(g.value, cast(context, Tensor(scale), g.type.dtype, span).value)) for g in gradients]


def _update(context: Context, group: Group, path: str, value: Tensor, gradient: Tensor, step: Tensor, frame: Frame) -> None:
    """One parameter's new value, by the optimizer's body; its states stand at `<optimizer>.<parameter>.<state>`."""
    function = group.optimizer
    signature = function.item.signature
    span = group.node.span
    inner = Frame(function.unit, function.name, f"{function.name.lower()}.{path}", True, dict(function.static or {}), optimizer=True)
    inner.no_parameters = "an optimizer makes no parameters"
    try:
        arguments = signatures.match_inputs(context, signature, inner, (value, gradient, step), (span, span, span))
        if any(isinstance(a, Poison) for a in arguments):
            return
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
        return
    new = results[0]
    if isinstance(new, Poison):
        return
    if new.type.shape != value.type.shape:
        context.reporter.error(
            "DL0512", f"the optimizer {function.name} makes {new.type} of a parameter {value.type}", signature.result.span
        )
        return
    context.program.output(PortKind.BUFFER, path, cast(context, new, value.type.dtype, span))
