"""Recipes: a `train` item becomes the programs `train` and `evaluate`, and the data that the fit loop needs.

The training program is one graph: forward pass, gradients, clipping, optimizer updates, metrics and state updates, with
buffers as inputs and outputs. Learning rates, the number of steps and the clipping limit are run-time settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dslc.diagnostics import Note
from dslc.frontend import syntax
from dslc.frontend.calls import Call, call
from dslc.frontend.clauses import Settings, read_loads, read_monitor, read_saves, read_settings
from dslc.frontend.data_options import read_option
from dslc.frontend.files import Unit
from dslc.frontend.groups import Options, assign_groups, check_frozen, minimize_options
from dslc.frontend.optimizers import GRADIENT, ZERO, add_up, gradients_of, move_parameters, static_names, take_sums
from dslc.frontend.phases import UPDATE, Part, Shared, averages, check_phases, clauses_for, minimizes, moved_models, phases_of, repeat_of
from dslc.frontend.program import reaches
from dslc.frontend.programs import Sizes, bind_sizes, sibling
from dslc.frontend.report import Refused, did_you_mean, listed
from dslc.frontend.scope import Context, Frame, fork
from dslc.frontend.signatures import evaluate_type
from dslc.frontend.statements import run
from dslc.frontend.statistics import add_statistics
from dslc.frontend.tensors import cast, note_of
from dslc.frontend.values import ListValue, OperatorFunction, Origin, Poison, Tensor, Value, describe
from dslc.ir import dims
from dslc.ir.module import PortKind, Program, Role
from dslc.ir.recipe import AVERAGE, COLLECTED, BestPlan, DataOption, Judged, LoadPlan, PhasePlan, Recipe, RecipeField, SavePlan
from dslc.ir.types import DType, TensorType


@dataclass(slots=True)
class Built:
    """One program of a recipe, and what it says about the data. `update` moves the parameters where `program` only adds up gradients.

    `totals` are the metrics that `program` counts over an evaluation. `plan` is the phase that it is the program of.
    """

    program: Program | None = None
    update: tuple[Program, Context] | None = None
    options: Options = field(default_factory=Options)
    plan: PhasePlan | None = None
    fields: list[RecipeField] = field(default_factory=list)
    augment: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    totals: tuple[str, ...] = ()
    loads: tuple[LoadPlan, ...] = ()
    settings: Settings | None = None
    save: SavePlan | None = None
    best: BestPlan | None = None
    monitor: Judged | None = None
    source: syntax.Str | None = None
    data_options: dict[str, DataOption] = field(default_factory=dict)


def build_recipe(context: Context, unit: Unit, train: syntax.Train, part: Part, shared: Shared, collect: Sequence[str] = ()) -> Built:
    """One program of a recipe (`parts_of`): one that trains, or that which evaluates. The latter gives the tensors `collect` too.

    The parts of a recipe are built in order with one `shared`.
    """
    built = Built()
    training = part.training
    context.program.averaging = averages(minimizes(train))
    frame = Frame(unit, f"the recipe {train.name.text}", "", training, no_parameters="a recipe makes no parameters of its own")
    if training:
        built.settings = read_settings(context, train)
        context.program.made = {} if built.settings.statistics else None
    check_phases(context, train)
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
    clauses = clauses_for(train, part)
    minimize = next((c for c in clauses if isinstance(c, syntax.Minimize)), None)
    if training and minimize is not None:
        built.options = minimize_options(context, minimize, frame)
    if part.phase is not None:
        built.plan = PhasePlan(part.phase.name.text, repeat_of(context, part.phase, frame), built.options.accumulate)
    counter: Tensor | None = None
    if training:
        # Random numbers are keyed by the batch, so that those of one step differ, and by all batches, so that those of phases do.
        counter = _counter(context, train, "step" if built.options.accumulate == 1 and part.phase is None else "batch")
        context.program.random = context.program.input(PortKind.SEED, "seed", TensorType(DType.I64)), counter
    sizes = _data(context, unit, data[0], frame, built)
    loss = _clauses(context, train, clauses, part, frame, built)
    shared.parameters |= {p for p, b in context.program.buffers.items() if b.role == Role.PARAMETER}
    shared.states |= {p for p, b in context.program.buffers.items() if b.role == Role.STATE}
    if training and part.last:
        built.loads = read_loads(context, unit, train, frame, shared.parameters | shared.states)
    elif not training:
        _collect(context, train, frame, collect)
        _check_averages(context, train, shared)
    if (loss is None and training) or context.reporter.failed:
        return built
    if training:
        assert counter is not None and loss is not None
        _train(context, unit, train, part, loss, counter, frame, built, shared)
        if part.last:
            check_frozen(context, train, shared.parameters)
    for path, tensor in context.program.current.items():
        if not training or context.program.buffers[path].role != Role.METRIC:
            context.program.output(PortKind.BUFFER, path, tensor)
    if not context.reporter.failed:
        built.program = context.program.finish(sizes.batch, sizes.bound)
    return built


def _counter(context: Context, train: syntax.Train, what: str) -> Tensor:
    """The number of this step or batch, from 1."""
    path = f"{train.name.text}.{what}"
    before = context.program.buffer(path, TensorType(DType.I64), Role.COUNTER, ZERO, train.name.span)
    builder = context.program.builder
    builder.span = train.name.span
    count = Tensor(builder.add(before.value, builder.scalar(1, DType.I64)))
    context.program.output(PortKind.BUFFER, path, count)
    return count


def _train(
    context: Context, unit: Unit, train: syntax.Train, part: Part, minimized: tuple[Tensor, syntax.Minimize], batch: Tensor,
    frame: Frame, built: Built, shared: Shared,
) -> None:  # fmt: skip
    """Gradients, and what becomes of them: the new parameters, or sums that the program `update` takes. `batch` is the number of this one."""
    loss, clause = minimized
    prefix = part.prefix
    context.floating = context.stored  # from here on optimizers and schedules
    moving = moved_models(context, unit, train) if part.phase is not None else set()
    chosen = assign_groups(context, unit, train, clause, loss, moving)
    if context.reporter.failed or not chosen:
        return
    shared.moved |= chosen.keys()
    shared.averaged |= chosen.keys() if built.options.ema is not None else set()
    gradients = gradients_of(context, clause, list(chosen), loss)
    if context.program.made is not None:
        add_statistics(context, clause, list(chosen), gradients)
    if built.options.accumulate == 1:
        step = _counter(context, train, f"{prefix}step") if part.phase is not None else batch
        move_parameters(context, clause, chosen, gradients, built.options, step, frame, prefix)
        return
    first = next(c for c in train.clauses if isinstance(c, syntax.Data)).inputs[0]
    column = frame.names[first.name.text]
    assert isinstance(column, Tensor), "a column of the data"
    examples = f"{GRADIENT}{train.name.text}.{prefix}examples"
    add_up(context, clause, list(chosen), gradients, column.type.shape[0], examples)
    other = sibling(context, UPDATE if part.phase is None else f"{UPDATE}.{part.phase.name.text}")
    means = take_sums(other, clause, {path: context.program.buffers[path] for path in chosen}, examples)
    step = _counter(other, train, f"{prefix}step")
    move_parameters(other, clause, chosen, means, built.options, step, static_names(frame), prefix)
    for path, tensor in other.program.current.items():
        other.program.output(PortKind.BUFFER, path, tensor)
    if not context.reporter.failed:
        built.update = other.program.finish(None, None), other


def _check_averages(context: Context, train: syntax.Train, shared: Shared) -> None:
    """`ema[Model]` reads averages that some `minimize` keeps, of everything that moves."""
    read = (p.removeprefix(AVERAGE) for p, b in context.program.buffers.items() if b.role == Role.EMA)
    lost = [p for p in read if p in shared.moved and p not in shared.averaged]
    if lost:
        hint = "write `ema = 0.999` in the phase that moves it too"
        context.reporter.error("DL0517", f"no averages are kept of {listed(lost, 4)}", train.name.span, hint=hint)


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
            tensor = context.program.input(PortKind.INPUT, name, _read_type(type_), Origin(f"the data `{name}`", declared.span))
            tensor = cast(context, tensor, type_.dtype, declared.span)
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
            built.fields.append(RecipeField(name, _read_type(type_).dtype, tuple(n for n in example if isinstance(n, int))))
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


def _read_type(declared: TensorType) -> TensorType:
    """Data come in f32 where the recipe computes in 16 bits."""
    return declared.with_dtype(DType.F32) if declared.dtype.half else declared


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


def _clauses(
    context: Context, train: syntax.Train, clauses: Sequence[syntax.Clause], part: Part, frame: Frame, built: Built
) -> tuple[Tensor, syntax.Minimize] | None:
    """Bindings, metrics and the loss, in the order of the text; an evaluation has those of all phases."""
    found: tuple[Tensor, syntax.Minimize] | None = None
    metrics = _Metrics([f"{p.name.text}.loss" for p in phases_of(train)] or ["loss"])
    inside = set(map(id, part.phase.body)) if part.phase is not None else set()
    for clause in clauses:
        prefix = part.prefix if id(clause) in inside else ""
        match clause:
            case syntax.Assign():
                run(context, [clause], frame)
            case syntax.Metric():
                _metric(context, train, clause, frame, prefix, metrics)
            case syntax.Minimize() if found is None:
                loss = _loss(context, clause, frame, prefix)
                if loss is not None:
                    found = loss, clause
            case _:
                pass
    if not part.training:
        for phase in phases_of(train):
            inner = fork(frame)
            for clause in phase.body:
                match clause:
                    case syntax.Assign():
                        run(context, [clause], inner)
                    case syntax.Metric():
                        _metric(context, train, clause, inner, f"{phase.name.text}.", metrics)
                    case syntax.Minimize():
                        _loss(context, clause, inner, f"{phase.name.text}.")
    if not minimizes(train) and not phases_of(train):
        context.reporter.error(
            "DL0501",
            f"the recipe {train.name.text} minimizes nothing",
            train.name.span,
            hint="write minimize cross_entropy(logits, label) over Model with AdamW[1e-3]",
        )
    built.metrics, built.totals = tuple(metrics.names), tuple(metrics.totals)
    if not part.training:
        numbers = [name for name in metrics.names if name not in metrics.tables]
        built.save, built.best = read_saves(context, train, numbers)
        with context.reporter.muted():
            settings = read_settings(context, train)
        built.monitor = read_monitor(context, train, settings, built.best, numbers)
    return found


@dataclass(slots=True)
class _Metrics:
    """Names so far; `totals` are counted over an evaluation, `tables` are those that are no single number."""

    names: list[str]
    totals: list[str] = field(default_factory=list)
    tables: set[str] = field(default_factory=set)


def _loss(context: Context, clause: syntax.Minimize, frame: Frame, prefix: str) -> Tensor | None:
    """The loss of a `minimize`, which is a metric too."""
    loss = _scalar(context, clause.loss, context.evaluate(clause.loss, frame), "the loss", "DL0506")
    if loss is not None:
        context.program.output(PortKind.METRIC, f"{prefix}loss", loss)
    return loss


def _metric(context: Context, train: syntax.Train, clause: syntax.Metric, frame: Frame, prefix: str, metrics: _Metrics) -> None:
    """A metric: a mean over examples, or, where it has a state, what it makes of all batches of an evaluation.

    The training program leaves out what only an evaluation has: metrics with a state, and those of averaged parameters. `prefix` is
    that of its phase.
    """
    name = f"{prefix}{clause.name.text}"
    value = context.evaluate(clause.value, replace(frame, metric=True, path=f"{train.name.text}.{name}", counters={}))
    if name in metrics.names:
        context.reporter.error("DL0102", f"the metric `{name}` is defined twice", clause.name.span, hint="`loss` is always a metric")
        return
    metrics.names.append(name)
    roles = _roles_behind(context, value)
    if Role.METRIC in roles and isinstance(value, Tensor) and all(isinstance(n, int) for n in value.type.shape):
        metrics.totals.append(name)
        metrics.tables |= {name} if value.type.rank else set()
        if not frame.training:
            context.program.output(PortKind.RESULT, name, value)
        return
    tensor = _scalar(context, clause.value, value, f"the metric {name}", "DL0507")
    if tensor is not None and not (frame.training and roles & {Role.METRIC, Role.EMA}):
        context.program.output(PortKind.METRIC, name, tensor)


def _roles_behind(context: Context, value: Value) -> set[Role]:
    """The roles of the buffers that a metric depends on."""
    if not isinstance(value, Tensor):
        return set()
    reached = reaches(context.program.builder, value.value)
    return {b.role for path, b in context.program.buffers.items() if context.program.loaded[path].value.id in reached}


def _collect(context: Context, train: syntax.Train, frame: Frame, names: Sequence[str]) -> None:
    """Tensors of the recipe, one row an example, that metrics in Python are given."""
    data = {i.name.text: frame.names.get(i.name.text) for c in train.clauses if isinstance(c, syntax.Data) for i in c.inputs}
    batch = next((t.type.shape[0] for t in data.values() if isinstance(t, Tensor)), None)
    known = {text: v for text, v in frame.names.items() if isinstance(v, Tensor) and v.type.rank and v.type.shape[0] == batch}
    for name in names:
        if name in data or isinstance(frame.names.get(name), Poison):
            continue
        if name not in known:
            hint = did_you_mean(name, known) or f"it has {listed(list(known))}"
            what = f"the recipe {train.name.text} has no tensor `{name[:80]}` with a row for each example"
            context.reporter.error("DL0518", what, train.name.span, hint=hint)
            continue
        context.program.output(PortKind.RESULT, f"{COLLECTED}{name}", known[name])


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


def recipe_data(unit: Unit, train: syntax.Train, trained: Sequence[Built], evaluated: Built) -> Recipe:
    """What the fit loop needs, from the programs that train and the one that evaluates."""
    built = trained[-1]
    settings = built.settings
    assert settings is not None and built.source is not None
    programs = [p for b in trained for p in (b.program, b.update[0] if b.update else None) if p is not None]
    ports = [port for program in programs for port in program.inputs if port.kind == PortKind.SETTING]
    defaults = {port.name: port.default for port in ports if port.default is not None}
    phases = tuple(b.plan for b in trained if b.plan is not None)
    return Recipe(
        name=train.name.text,
        source=built.source.value,
        fields=tuple(built.fields),
        epochs=settings.epochs,
        steps=settings.steps,
        batch=settings.batch,
        seed=settings.seed,
        validate=settings.validate,
        validation=settings.validation,
        patience=settings.patience,
        monitor=evaluated.monitor,
        accumulate=1 if phases else built.options.accumulate,
        phases=phases,
        ema=any(b.options.ema is not None for b in trained),
        metrics=evaluated.metrics,
        totals=evaluated.totals,
        loads=built.loads,
        augment=built.augment,
        data_options=tuple(built.data_options.items()),
        settings=tuple(defaults.items()),
        save=evaluated.save,
        best=evaluated.best,
        statistics=settings.statistics,
        budget=settings.budget,
        base=unit.folder or Path(),
        span=built.source.span,
    )
