"""Calls: configuration in brackets, then operators, blocks, models, list functions and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dslc.diagnostics import Note, Span
from dslc.frontend import signatures, static, syntax
from dslc.frontend.arguments import block_arguments, evaluate_given, operator_attributes
from dslc.frontend.gradients import call_grad, grad_targets
from dslc.frontend.lists import call_list_function
from dslc.frontend.report import Refused, plural
from dslc.frontend.scope import CALL_STEPS, Context, Frame, enter, spend
from dslc.frontend.statistics import remember
from dslc.frontend.tensors import cast, emit, meet
from dslc.frontend.values import (
    POISON,
    BlockFunction,
    Builtin,
    GradFunction,
    LearningRate,
    ListValue,
    ModelFunction,
    OperatorFunction,
    Poison,
    Results,
    SharedFunction,
    Tensor,
    Value,
    describe,
)
from dslc.ir.dims import DimExpr
from dslc.ir.operator import OPERATORS
from dslc.ir.types import DType

DRAW_INPUTS = ("seed", "counter")
TRAINING_ONLY = ("dropout",)  # the identity outside training


@dataclass(frozen=True, slots=True)
class Call:
    """A call: arguments with their places, the call's own place, and the `as` name."""

    arguments: tuple[Value, ...]
    spans: tuple[Span, ...]
    span: Span
    name: syntax.Name | None = None


# --- brackets after a function --------------------------------------------------------------------------------------------


def configure(context: Context, target: Value, node: syntax.Brackets, frame: Frame) -> Value:
    """`target[...]` where the target is a function."""
    match target:
        case OperatorFunction(attrs=None):
            given = evaluate_given(context, node.subscripts, frame)
            function = OperatorFunction(target.name, tuple(operator_attributes(context, target.name, given, node.span).items()))
            takes = [n for n in OPERATORS[target.name].inputs if n not in DRAW_INPUTS]
            return function if takes else call(context, function, Call((), (), node.span), frame)
        case BlockFunction(static=None):
            given = evaluate_given(context, node.subscripts, frame)
            return replace(target, static=block_arguments(context, target, given, node.span))
        case Builtin(name="grad"):
            return grad_targets(context, node, frame)
        case Builtin(name="eval" | "ema" as name):
            return _special_model(context, name, node, frame)
        case Builtin():
            raise context.reporter.error(
                "DL0307", f"`{target.name}` takes its argument in parentheses", node.span, hint=f"write {target.name}(...)"
            )
        case ModelFunction():
            raise context.reporter.error(
                "DL0307",
                f"the model `{target.name}` has no static arguments",
                node.span,
                hint="static arguments belong to a block: `block Net[width](...)`, then `model Small = Net[64]`",
            )
        case OperatorFunction() | BlockFunction():
            raise context.reporter.error("DL0307", f"`{target.name}` has its static arguments already", node.span)
        case _:
            raise context.reporter.error("DL0307", f"brackets do not go with {describe(target)}", node.span)


# --- calls ---------------------------------------------------------------------------------------------------------------


def call(context: Context, function: Value, call_: Call, frame: Frame) -> Value:
    """`function(arguments)`."""
    if isinstance(function, Poison):
        return POISON
    if call_.name is not None and not isinstance(function, BlockFunction):
        raise context.reporter.error(
            "DL0317", f"`as {call_.name.text}` names the parameters of a block; {describe(function)} makes none here", call_.name.span
        )
    match function:
        case OperatorFunction():
            return call_operator(context, function, call_, frame.training)
        case BlockFunction():
            return _call_fresh_block(context, function, call_, frame)
        case SharedFunction():
            return call_block(context, function.block, call_, function.path, frame.training, frame)
        case ModelFunction():
            return call_model(context, function, call_, frame)
        case GradFunction():
            return call_grad(context, function, call_.arguments, call_.spans, call_.span)
        case LearningRate():
            return _call_rate(context, function, call_, frame)
        case Builtin(name="size"):
            return _size(context, call_)
        case Builtin(name="grad" | "eval" | "ema" as name):
            hint = "write grad[x](loss)" if name == "grad" else f"write {name}[Model](x)"
            raise context.reporter.error("DL0306", f"`{name}` needs brackets", call_.span, hint=hint)
        case Builtin():
            if any(isinstance(a, Poison) for a in call_.arguments):
                return POISON
            return call_list_function(context, function.name, call_.arguments, call_.span)
        case _:
            raise context.reporter.error("DL0308", f"{describe(function)} is no function", call_.span)


def call_operator(context: Context, function: OperatorFunction, call_: Call, training: bool) -> Value:
    operator = OPERATORS[function.name]
    names = [n for n in operator.inputs if n not in DRAW_INPUTS]
    values: list[Value] = list(call_.arguments)
    spans = list(call_.spans)
    if any(isinstance(v, Poison) for v in values):
        return POISON
    variadic = bool(names) and names[-1].startswith("*")
    if variadic and len(values) == 1 and isinstance(values[0], ListValue | Results):
        values = list(values[0].items)
        spans = [spans[0]] * len(values)
    fixed = len(names) - variadic
    if len(values) < fixed or (len(values) > fixed and not variadic):
        raise _wrong_count(context, function.name, [n.lstrip("*") for n in names], call_)
    attrs = dict(function.attrs) if function.attrs is not None else operator_attributes(context, function.name, [], call_.span)
    if len(values) == 1 and isinstance(values[0], int | float) and not isinstance(values[0], bool):
        folded = static.function(function.name, float(values[0]))
        if folded is not None:
            return folded
    tensors = meet(context, values, spans, call_.span, function.name, operator.elementwise)
    if function.name == "identity" or (function.name in TRAINING_ONLY and not training):
        return tensors[0]
    if operator.draw:
        seed, counter, stream = context.program.draw()
        placed = {"seed": seed, "counter": counter}
        ordered = iter(tensors)
        tensors = [placed[n] if n in placed else next(ordered) for n in operator.inputs]
        attrs["stream"] = stream
    return emit(context, function.name, tensors, attrs, call_.span)


def _wrong_count(context: Context, name: str, names: Sequence[str], call_: Call) -> Refused:
    extra = call_.arguments[len(names) :]
    hint = None
    if extra and not any(isinstance(v, Tensor) for v in extra):
        hint = f"static arguments stand in brackets: {name}[...](x)"
    takes = f"{plural(len(names), 'tensor')} ({', '.join(names)})" if names else "no tensors"
    span = call_.spans[len(names)] if len(call_.spans) > len(names) else call_.span
    return context.reporter.error("DL0301", f"{name} takes {takes}, and here are {len(call_.arguments)}", span, hint=hint)


def _call_fresh_block(context: Context, function: BlockFunction, call_: Call, frame: Frame) -> Value:
    if isinstance(function.item, syntax.Optimizer):
        raise context.reporter.error(
            "DL0308",
            f"the optimizer `{function.name}` is no function of tensors",
            call_.span,
            hint="optimizers stand after `with` in `minimize`",
        )
    if function.static is None:
        _check_brackets(context, function, call_)
        function = replace(function, static=block_arguments(context, function, [], call_.span))
    name = call_.name.text if call_.name is not None else function.name.lower()
    path = frame.child_path(name)
    return call_block(context, function, call_, path, frame.training, frame)


def _check_brackets(context: Context, function: BlockFunction, call_: Call) -> None:
    """`Dense(4)(x)`: static arguments in parentheses get the right spelling shown."""
    signature = function.item.signature
    lacking = [p for p in signature.static if p.default is None]
    if not lacking or not call_.arguments or not all(isinstance(a, int | float | str | DimExpr) for a in call_.arguments):
        return
    written = ", ".join(f'"{a}"' if isinstance(a, str) else str(a).lower() if isinstance(a, bool) else str(a) for a in call_.arguments)
    tensors = ", ".join(i.name.text for i in signature.inputs)
    raise context.reporter.error(
        "DL0306",
        f"{function.name} needs its static argument `{lacking[0].name.text}` in brackets",
        call_.span,
        hint=f"write {function.name}[{written}]({tensors})",
    )


def call_model(context: Context, function: ModelFunction, call_: Call, frame: Frame) -> Value:
    training = frame.training if function.training is None else function.training
    path = model_path(function)
    if function.averaged:
        frame = replace(frame, averaged=True)
    return call_block(context, model_block(context, function), call_, path, training, frame, model=True)


def model_block(context: Context, function: ModelFunction) -> BlockFunction:
    """A model's signature and body as a configured block."""
    item = function.item
    if isinstance(item, syntax.Instance):
        return instance_block(context, function)
    if item.signature.static:
        raise context.reporter.error(
            "DL0318",
            f"the model {function.name} has static parameters",
            item.signature.static[0].span,
            hint=f"write `block {function.name}Net[...](...)` and `model {function.name} = {function.name}Net[...]`",
        )
    return BlockFunction(function.unit, syntax.Block(item.signature, item.body, span=item.span), {})


def model_path(function: ModelFunction) -> str:
    """Where a model's parameters stand: its name, behind the names of the imports that lead to its file."""
    return f"{function.unit.alias}.{function.name}" if function.unit.alias else function.name


def instance_block(context: Context, function: ModelFunction) -> BlockFunction:
    """The configured block of `model Name = Block[...]`."""
    assert isinstance(function.item, syntax.Instance)
    enter(context, (function.unit.file, function.name), function.item.name.span)
    try:
        value = context.evaluate(function.item.block, Frame(function.unit, function.name, no_parameters="this makes no parameters"))
        if isinstance(value, Poison):
            raise Refused
        if not isinstance(value, BlockFunction) or isinstance(value.item, syntax.Optimizer):
            raise context.reporter.error(
                "DL0318", f"a model is made of a block, not of {describe(value)}", function.item.block.span, hint="model Small = Net[64]"
            )
        if value.static is None:
            value = replace(value, static=block_arguments(context, value, [], function.item.block.span))
    finally:
        context.open_items.pop()
    return value


def call_block(
    context: Context, function: BlockFunction, call_: Call, path: str, training: bool, caller: Frame, model: bool = False
) -> Value:
    """Elaborates a block's body with the arguments; parameters stand below `path`."""
    signature = function.item.signature
    names = [declared.name.text for declared in signature.inputs]
    if len(call_.arguments) != len(names):
        raise _wrong_count(context, function.name, names, call_)
    no_parameters = caller.no_parameters if not model else None
    frame = Frame(function.unit, function.name, path, training, dict(function.static or {}), no_parameters=no_parameters)
    frame.averaged, frame.metric = caller.averaged, caller.metric and not model
    spend(context, CALL_STEPS, call_.span)
    enter(context, (function.unit.file, function.name), call_.span)
    floating = context.floating
    if "norm" in context.families and function.unit.library and function.name.endswith("Norm"):
        context.floating = DType.F32
    try:
        arguments = signatures.match_inputs(context, signature, frame, call_.arguments, call_.spans)
        if any(isinstance(a, Poison) for a in arguments):
            return _failed(context, signature, frame)
        for text, argument in zip(names, arguments, strict=True):
            frame.names[text] = argument
        with context.reporter.call(function.name, call_.span, call_.span == signature.name.span):
            _check_given(context, signature, frame, call_.span)
            results = run_body(context, function.item, frame)
            signatures.describe_results(context, signature, frame, results, call_.span)
    except Refused:
        return _failed(context, signature, frame)
    finally:
        context.open_items.pop()
        inner, context.floating = context.floating, floating
    if inner != floating:  # the body was in f32; its `float` results are the caller's
        results = [cast(context, r, floating, call_.span) if isinstance(r, Tensor) and r.type.dtype == inner else r for r in results]
    if training and path and function.name[0].isupper():
        remember(context, path, results, call_.span)
    _, result_names = signatures.declared_results(signature)
    return results[0] if len(results) == 1 else Results(tuple(results), result_names)


def _check_given(context: Context, signature: syntax.Signature, frame: Frame, span: Span) -> None:
    """The facts are the caller's to satisfy, so a failure stands at the call, without the note that leads there."""
    site = context.reporter.calls.pop()
    try:
        signatures.check_given(context, signature, frame, span)
    finally:
        context.reporter.calls.append(site)


def _failed(context: Context, signature: syntax.Signature, frame: Frame) -> Value:
    """What stands for the results of a call that was refused: tensors of the declared types where those are known."""
    if not _sizes_known(signature, frame):
        return POISON
    with context.reporter.muted():
        results = signatures.placeholder_results(context, signature, frame)
    if any(isinstance(r, Poison) for r in results):
        return POISON
    _, names = signatures.declared_results(signature)
    return results[0] if len(results) == 1 else Results(tuple(results), names)


def _sizes_known(signature: syntax.Signature, frame: Frame) -> bool:
    types, _ = signatures.declared_results(signature)
    for declared in types:
        for node in syntax.walk(declared):
            if isinstance(node, syntax.RowDims) and node.name.text not in frame.rows:
                return False
    wanted = {n.text for declared in types for entry in declared.dims for n in syntax.walk(entry) if isinstance(n, syntax.Name)}
    rows = {entry.name.text for declared in types for entry in declared.dims if isinstance(entry, syntax.RowDims)}
    return (wanted - rows) <= frame.names.keys()


def run_body(context: Context, item: syntax.Block | syntax.Optimizer, frame: Frame) -> list[Tensor | Poison]:
    """The results of a body, with the declared types."""
    signature = item.signature
    returned = context.run(item.body, frame)
    types, _ = signatures.declared_results(signature)
    if returned is None:
        raise context.reporter.error(
            "DL0313", f"{signature.name.text} returns nothing", signature.name.span, hint="end the body with `return ...`"
        )
    values, spans = [v for v, _ in returned], [s for _, s in returned]
    if len(values) == 1 and isinstance(values[0], Results) and len(types) == len(values[0].items):
        values, spans = list(values[0].items), spans * len(types)
    if any(isinstance(v, Poison) for v in values) and len(values) != len(types):
        raise Refused
    if len(values) != len(types):
        raise context.reporter.error(
            "DL0309",
            f"{signature.name.text} declares {plural(len(types), 'result')}, and this returns {len(values)}",
            spans[0].to(spans[-1]),
            notes=[Note("declared here", signature.result.span)],
        )
    results = signatures.match_results(context, signature, frame, values, spans)
    if any(isinstance(r, Poison) for r in results):
        raise Refused
    return results


# --- eval, schedules, sizes -----------------------------------------------------------------------------------------


def _special_model(context: Context, name: str, node: syntax.Brackets, frame: Frame) -> Value:
    """`eval[Model]`, and `ema[Model]`, which is the same with the averaged parameters."""
    given = evaluate_given(context, node.subscripts, frame)
    if len(given) != 1 or not isinstance(given[0].value, ModelFunction):
        raise context.reporter.error("DL0405", f"`{name}` takes one model in its brackets", node.span, hint=f"write {name}[Model](x)")
    if name == "ema" and not context.program.averaging:
        raise context.reporter.error(
            "DL0517",
            "there are no averaged weights here",
            node.span,
            hint="`ema[Model]` stands in a recipe that says `minimize ... over Model with AdamW[1e-3], ema = 0.999`",
        )
    return replace(given[0].value, training=False, averaged=name == "ema")


def _call_rate(context: Context, rate: LearningRate, call_: Call, frame: Frame) -> Value:
    if len(call_.arguments) != 1:
        raise context.reporter.error("DL0301", f"a learning rate takes the step, and here are {len(call_.arguments)} arguments", call_.span)
    if rate.schedule is None:
        return rate.rate
    step = call_.arguments[0]
    key = (id(rate), step.value.id if isinstance(step, Tensor) else -1)
    if key not in context.program.rates:  # the same for every parameter of a group
        inner = Call((step, rate.total), (call_.span, call_.span), call_.span)
        outer = Frame(frame.unit, "a schedule", no_parameters="a schedule makes no parameters")
        context.program.rates[key] = call_block(context, rate.schedule, inner, "", frame.training, outer)
    return context.program.rates[key]


def _size(context: Context, call_: Call) -> Value:
    if len(call_.arguments) != 1:
        raise context.reporter.error("DL0301", f"size takes one tensor, and here are {len(call_.arguments)}", call_.span)
    value = call_.arguments[0]
    if isinstance(value, Poison):
        return POISON
    if not isinstance(value, Tensor):
        raise context.reporter.error(
            "DL0305", f"size takes a tensor, not {describe(value)}", call_.spans[0], hint="the length of a list is len(...)"
        )
    return value.type.size
