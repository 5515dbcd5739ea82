"""Recipes: a `train` item becomes the programs `train` and `evaluate`, and the data that the fit loop needs.

The training program is one graph: forward pass, gradients, clipping, optimizer updates, metrics and state updates, with
buffers as inputs and outputs. Learning rates, the number of steps and the clipping limit are run-time settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dslc.diagnostics import Note
from dslc.frontend import syntax
from dslc.frontend.calls import Call, call
from dslc.frontend.clauses import Settings, read_saves, read_settings, reject_clause
from dslc.frontend.data_options import read_option
from dslc.frontend.files import Unit
from dslc.frontend.optimizers import update_parameters
from dslc.frontend.programs import Sizes, bind_sizes
from dslc.frontend.report import Refused
from dslc.frontend.scope import Context, Frame
from dslc.frontend.signatures import evaluate_type
from dslc.frontend.statements import run
from dslc.frontend.tensors import note_of
from dslc.frontend.values import ListValue, OperatorFunction, Origin, Poison, Tensor, Value, describe
from dslc.ir import dims
from dslc.ir.module import Initial, PortKind, Program, Role
from dslc.ir.recipe import DataOption, Recipe, RecipeField
from dslc.ir.types import DType, TensorType


@dataclass(slots=True)
class Built:
    """One program of a recipe, and what it says about the data."""

    program: Program | None = None
    fields: list[RecipeField] = field(default_factory=list)
    augment: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    settings: Settings | None = None
    source: syntax.Str | None = None
    data_options: dict[str, DataOption] = field(default_factory=dict)


def build_recipe(context: Context, unit: Unit, train: syntax.Train, training: bool) -> Built:
    """The `train` program (training = true) or the `evaluate` program of a recipe."""
    built = Built()
    frame = Frame(unit, f"the recipe {train.name.text}", "", training, no_parameters="a recipe makes no parameters of its own")
    if training:
        built.settings = read_settings(context, train)
    for clause in train.clauses:
        reject_clause(context, clause)
    data = [c for c in train.clauses if isinstance(c, syntax.Data)]
    if not data:
        raise context.reporter.error(
            "DL0502",
            f"the recipe {train.name.text} has no data",
            train.name.span,
            hint='write data image: f32[N, 64], label: i64[N] from "digits"',
        )
    if len(data) > 1:
        context.reporter.error("DL0502", "a recipe has one `data` clause", data[1].span, notes=[Note("the first is here", data[0].span)])
    counter = _step_counter(context, train) if training else None
    sizes = _data(context, unit, data[0], frame, built)
    loss = _clauses(context, train, frame, built)
    if loss is None or context.reporter.failed:
        return built
    if training:
        assert counter is not None
        update_parameters(context, unit, train, loss[1], loss[0], counter, frame)
    for path, tensor in context.program.current.items():
        context.program.output(PortKind.BUFFER, path, tensor)
    if not context.reporter.failed:
        built.program = context.program.finish(sizes.batch, sizes.bound)
    return built


def _step_counter(context: Context, train: syntax.Train) -> Tensor:
    """The number of this step, from 1; it also keys the random draws."""
    path = f"{train.name.text}.step"
    scalar = TensorType(DType.I64)
    before = context.program.buffer(path, scalar, Role.COUNTER, Initial("constant", (("value", 0),)), train.name.span)
    builder = context.program.builder
    builder.span = train.name.span
    step = Tensor(builder.add(before.value, builder.scalar(1, DType.I64)))
    context.program.output(PortKind.BUFFER, path, step)
    seed = context.program.input(PortKind.SEED, "seed", scalar)
    context.program.random = seed, step
    return step


# --- data ----------------------------------------------------------------------------------------------------------------


def _data(context: Context, unit: Unit, data: syntax.Data, frame: Frame, built: Built) -> Sizes:
    sizes = bind_sizes(context, unit, [i.type for i in data.inputs], {}, batched=True)
    if sizes.batch is None and not context.checking:
        first = data.inputs[0].type
        raise context.reporter.error(
            "DL0504", "the first dimension of the data is the batch, a name such as N", first.span, hint="write f32[N, 784]"
        )
    frame.names |= sizes.values
    for declared in data.inputs:
        name = declared.name.text
        try:
            if any(isinstance(e, syntax.RowDims) for e in declared.type.dims) or not declared.type.dims:
                raise context.reporter.error(
                    "DL0504", f"`{name}` needs the batch as its first dimension", declared.type.span, hint="write i64[N] or f32[N, 784]"
                )
            type_ = evaluate_type(context, declared.type, frame, f"the data `{name}`")
            tensor = context.program.input(PortKind.INPUT, name, type_, Origin(f"the data `{name}`", declared.span))
        except Refused:
            frame.names[name] = Poison()
            continue
        frame.names[name] = tensor
        example = type_.shape[1:]
        if not context.checking:
            if sizes.batch is not None and type_.shape[0] != dims.name(sizes.batch):
                context.reporter.error(
                    "DL0504", f"`{name}` needs the batch {sizes.batch} as its first dimension, not {type_.shape[0]}", declared.type.span
                )
            built.fields.append(RecipeField(name, type_.dtype, tuple(n for n in example if isinstance(n, int))))
    source = context.evaluate(data.source, frame)
    if isinstance(source, str) and isinstance(data.source, syntax.Str):
        built.source = data.source
    elif not isinstance(source, Poison):
        context.reporter.error(
            "DL0305", f"data come from a name in quotes, not from {describe(source)}", data.source.span, hint='from "digits"'
        )
    for option in data.options:
        if option.name.text == "augment":
            if frame.training:
                _augment(context, data, option, frame, built)
        elif (read := read_option(context, option, frame)) is not None:
            built.data_options[read[0]] = read[1]
    return sizes


def _augment(context: Context, data: syntax.Data, option: syntax.Named, frame: Frame, built: Built) -> None:
    """Applies augmentations to the first data column, in training."""
    value = context.evaluate(option.value, frame)
    if isinstance(value, Poison):
        return
    functions = value.items if isinstance(value, ListValue) else (value,)
    name = data.inputs[0].name.text
    built.augment = tuple(f.name for f in functions if isinstance(f, OperatorFunction))
    for function in functions:
        current = frame.names[name]
        changed = call(context, function, Call((current,), (data.inputs[0].span,), option.value.span), frame)
        if isinstance(changed, Poison):
            return
        if not isinstance(changed, Tensor) or not isinstance(current, Tensor) or changed.type != current.type:
            context.reporter.error("DL0505", f"{describe(function)} changes the type of the data", option.value.span)
            return
        frame.names[name] = changed


# --- clauses -------------------------------------------------------------------------------------------------------------


def _clauses(context: Context, train: syntax.Train, frame: Frame, built: Built) -> tuple[Tensor, syntax.Minimize] | None:
    """Bindings, metrics and the loss, in the order of the text."""
    found: tuple[Tensor, syntax.Minimize] | None = None
    minimized = False
    metrics: list[str] = ["loss"]
    for clause in train.clauses:
        match clause:
            case syntax.Assign():
                run(context, [clause], frame)
            case syntax.Metric():
                _metric(context, clause, frame, metrics)
            case syntax.Minimize() if minimized:
                context.reporter.error("DL0114", "several `minimize` clauses need phases, which are not in this version", clause.span)
            case syntax.Minimize():
                minimized = True
                loss = _scalar(context, clause.loss, context.evaluate(clause.loss, frame), "the loss", "DL0506")
                if loss is not None:
                    context.program.output(PortKind.METRIC, "loss", loss)
                    found = loss, clause
            case _:
                pass
    if not minimized and not any(isinstance(c, syntax.Phase) for c in train.clauses):
        context.reporter.error(
            "DL0501",
            f"the recipe {train.name.text} minimizes nothing",
            train.name.span,
            hint="write minimize cross_entropy(logits, label) over Model with AdamW[1e-3]",
        )
    built.metrics = tuple(metrics)
    return found


def _metric(context: Context, clause: syntax.Metric, frame: Frame, metrics: list[str]) -> None:
    value = context.evaluate(clause.value, frame)
    name = clause.name.text
    if name in metrics:
        context.reporter.error("DL0102", f"the metric `{name}` is defined twice", clause.name.span, hint="`loss` is always a metric")
        return
    tensor = _scalar(context, clause.value, value, f"the metric {name}", "DL0507")
    metrics.append(name)
    if tensor is not None:
        context.program.output(PortKind.METRIC, name, tensor)


def _scalar(context: Context, node: syntax.Expr, value: Value, what: str, code: str) -> Tensor | None:
    if isinstance(value, Poison):
        return None
    if not isinstance(value, Tensor):
        context.reporter.error(code, f"{what} is a tensor, not {describe(value)}", node.span)
        return None
    if value.type.rank or not value.type.dtype.floating:
        context.reporter.error(
            code,
            f"{what} is a floating-point scalar, and this is {value.type}",
            node.span,
            notes=[note_of(context, value)],
            hint="take mean(...)",
        )
        return None
    return value


# --- the recipe as data --------------------------------------------------------------------------------------------------


def recipe_data(context: Context, unit: Unit, train: syntax.Train, built: Built, program: Program) -> Recipe:
    """What the fit loop needs; `built` is the training program's."""
    settings = built.settings
    assert settings is not None and built.source is not None
    defaults = tuple((port.name, port.default) for port in program.inputs if port.kind == PortKind.SETTING and port.default is not None)
    return Recipe(
        name=train.name.text,
        source=built.source.value,
        fields=tuple(built.fields),
        epochs=settings.epochs,
        steps=settings.steps,
        batch=settings.batch,
        seed=settings.seed,
        validate=settings.validate,
        metrics=built.metrics,
        augment=built.augment,
        data_options=tuple(built.data_options.items()),
        settings=defaults,
        save=read_saves(context, train),
        budget=settings.budget,
        base=unit.folder or Path(),
        span=built.source.span,
    )
