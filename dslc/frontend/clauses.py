"""The clauses of a recipe that are data: settings, saving, loading."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dslc.diagnostics import Note, Span
from dslc.frontend import syntax
from dslc.frontend.calls import model_path
from dslc.frontend.files import Unit
from dslc.frontend.programs import find_model
from dslc.frontend.report import Refused, did_you_mean, listed
from dslc.frontend.scope import Context, Frame
from dslc.frontend.values import ListValue, Poison, Results, Value
from dslc.ir.recipe import LARGEST_SEED, BestPlan, Judged, LoadPlan, SavePlan

RANGES = {
    "epochs": (1, 10**9), "steps": (1, 10**15), "batch": (1, 2**31 - 1), "seed": (0, LARGEST_SEED), "validate": (0, 10**9),
    "patience": (1, 10**9),
}
SETTINGS = (*RANGES, "budget", "monitor", "statistics")
LOAD_OPTIONS = ("rename", "fresh", "layout")
EVERY = ("every", "every_steps", "every_seconds")
SAVE_OPTIONS = (*EVERY, "best")


@dataclass(slots=True)
class Settings:
    """The numbers of a recipe; `budget` is bytes of memory, `monitor` where it is named."""

    epochs: int | None = None
    steps: int | None = None
    batch: int = 32
    seed: int = 0
    validate: int = 1
    validation: float | None = None
    patience: int | None = None
    monitor: syntax.Str | None = None
    statistics: bool = False
    budget: int | None = None


def read_settings(context: Context, train: syntax.Train) -> Settings:
    settings = Settings()
    places: dict[str, syntax.Setting] = {}
    for clause in train.clauses:
        if not isinstance(clause, syntax.Setting):
            continue
        name = clause.name.text
        if name not in SETTINGS:
            hint = did_you_mean(name, SETTINGS) or f"the settings are {listed(SETTINGS)}"
            context.reporter.error("DL0110", f"a recipe has no setting `{name}`", clause.name.span, hint=hint)
            continue
        if name in places:
            context.reporter.error(
                "DL0102", f"the setting `{name}` is given twice", clause.name.span, notes=[Note("first here", places[name].span)]
            )
            continue
        places[name] = clause
        if name not in RANGES or (name == "validate" and isinstance(clause.value, syntax.Number)):
            _special(context, clause, settings)
            continue
        low, high = RANGES[name]
        value = clause.value
        if not isinstance(value, syntax.Int) or not low <= value.value <= high:
            context.reporter.error("DL0508", f"`{name}` is a whole number from {low} to {high:,}", value.span)
            continue
        setattr(settings, name, value.value)
    unknown = any(isinstance(c, syntax.Setting) and c.name.text not in SETTINGS for c in train.clauses)
    if "epochs" not in places and "steps" not in places and not unknown:
        context.reporter.warning(
            "DL0509",
            f"the recipe {train.name.text} says neither `epochs` nor `steps`: it trains one epoch",
            train.name.span,
            hint="write epochs 5",
        )
    return settings


def _special(context: Context, clause: syntax.Setting, settings: Settings) -> None:
    """The settings that are no whole numbers."""
    match clause.name.text, clause.value:
        case "budget", syntax.Size(value=size) if size > 0:
            settings.budget = size
        case "budget", other:
            context.reporter.error("DL0508", "`budget` is an amount of memory", other.span, hint="write budget 2GiB")
        case "monitor", syntax.Str() as metric:
            settings.monitor = metric
        case "monitor", other:
            context.reporter.error("DL0508", "`monitor` is the name of a metric in quotes", other.span, hint='write monitor "accuracy"')
        case "statistics", syntax.Bool(value=wanted):
            settings.statistics = wanted
        case "statistics", other:
            context.reporter.error("DL0508", "`statistics` is true or false", other.span)
        case _, syntax.Number(value=share) if 0 < share < 1:
            settings.validation = share
        case _, other:
            hint = "write validate 0.1 to hold out a tenth of the training examples, validate 5 to evaluate every five epochs"
            context.reporter.error("DL0508", "`validate` is a share below 1, or a whole number of epochs", other.span, hint=hint)


# --- save and judge ------------------------------------------------------------------------------------------------------


def read_saves(context: Context, train: syntax.Train, metrics: Collection[str]) -> tuple[SavePlan | None, BestPlan | None]:
    """The `save` clauses: one by epochs, steps or seconds, and one by the best of `metrics`."""
    plan: SavePlan | None = None
    best: BestPlan | None = None
    seen: dict[bool, syntax.Save] = {}
    for clause in (c for c in train.clauses if isinstance(c, syntax.Save)):
        if len(clause.target.value) == 0 or "\0" in clause.target.value:
            context.reporter.error("DL0508", "`save` names a file", clause.target.span)
        judging = next((o for o in clause.options if o.name.text == "best"), None)
        other = seen.setdefault(judging is not None, clause)
        if other is not clause:
            notes = [Note("the first is here", other.span)]
            hint = "a recipe saves where it stands, and with `best = accuracy` its best epoch"
            context.reporter.error("DL0525", "a recipe has one `save` of each kind", clause.span, notes=notes, hint=hint)
        every = _save_options(context, clause, judging is not None)
        if judging is None:
            epochs, steps = every.get("every"), every.get("every_steps")
            whole = (None if epochs is None else int(epochs), None if steps is None else int(steps))
            plan = SavePlan(clause.target.value, *whole, every.get("every_seconds"))
        else:
            judged = _judged(context, judging.value, metrics)
            best = None if judged is None else BestPlan(clause.target.value, judged)
    return plan, best


def _save_options(context: Context, clause: syntax.Save, judging: bool) -> dict[str, float]:
    every: dict[str, float] = {}
    for option in clause.options:
        name = option.name.text
        if name not in SAVE_OPTIONS:
            hint = did_you_mean(name, SAVE_OPTIONS) or f"the options are {listed(SAVE_OPTIONS)}"
            context.reporter.error("DL0103", f"`save` has no option `{name}`", option.name.span, hint=hint)
            continue
        if name == "best":
            continue
        if judging:
            hint = "the best epoch is saved when it comes; write a second `save` for the state of the run"
            context.reporter.error("DL0525", f"`{name}` does not go with `best`", option.name.span, hint=hint)
            continue
        value = option.value
        fractional = isinstance(value, syntax.Number) and name == "every_seconds"
        amount = value.value if isinstance(value, syntax.Int) or (isinstance(value, syntax.Number) and fractional) else 0
        if not 0 < amount <= 10**9:
            context.reporter.error("DL0508", f"`{name}` is a positive number", value.span, hint=f"write {name} = 1")
            continue
        every[name] = amount
    return every


def read_monitor(
    context: Context, train: syntax.Train, settings: Settings, best: BestPlan | None, metrics: Collection[str]
) -> Judged | None:
    """By what training stops: the metric that is named, else that of the best epoch, else the loss."""
    if settings.monitor is not None:
        text = settings.monitor.value
        return _known_metric(context, text.removeprefix("-"), not text.startswith("-"), settings.monitor.span, metrics)
    if best is not None:
        return best.judged
    if settings.patience is None:
        return None
    if "loss" in metrics:
        return Judged("loss", False)
    hint = f'write monitor "-{next(iter(metrics))}"'
    context.reporter.error("DL0525", "`patience` of a recipe with phases needs a metric", train.name.span, hint=hint)
    return None


def _judged(context: Context, node: syntax.Expr, metrics: Collection[str]) -> Judged | None:
    """`accuracy`, `-loss`, `-critic.loss`."""
    larger = True
    if isinstance(node, syntax.Unary) and node.op == "-":
        larger, node = False, node.operand
    if isinstance(node, syntax.Name):
        return _known_metric(context, node.text, larger, node.span, metrics)
    if isinstance(node, syntax.Member) and isinstance(node.target, syntax.Name):
        return _known_metric(context, f"{node.target.text}.{node.name.text}", larger, node.span, metrics)
    hint = "write best = accuracy, or best = -loss where less is better"
    context.reporter.error("DL0525", "`best` names a metric", node.span, hint=hint)
    return None


def _known_metric(context: Context, name: str, larger: bool, span: Span, metrics: Collection[str]) -> Judged | None:
    if name not in metrics:
        hint = did_you_mean(name, metrics) or f"it has {listed(list(metrics))}"
        context.reporter.error("DL0525", f"the recipe has no metric `{name[:80]}` that is a number", span, hint=hint)
        return None
    if larger and name.split(".")[-1] == "loss":
        hint = f"write -{name}: less is better"
        context.reporter.error("DL0525", "the largest loss is the worst", span, hint=hint)
        return None
    return Judged(name, larger)


# --- load ----------------------------------------------------------------------------------------------------------------


def read_loads(context: Context, unit: Unit, train: syntax.Train, frame: Frame, parameters: Collection[str]) -> tuple[LoadPlan, ...]:
    """The `load` clauses, after the recipe's calls: a model whose `parameters` the recipe does not use has nothing to load."""
    plans: list[LoadPlan] = []
    for clause in train.clauses:
        if not isinstance(clause, syntax.Load):
            continue
        try:
            plan = _load(context, unit, clause, frame, parameters)
        except Refused:
            continue
        earlier = next((p for p in plans if p.model == plan.model), None)
        if earlier is not None:
            notes = [Note("first here", earlier.span)]
            context.reporter.error("DL0102", f"`{plan.model}` is loaded twice", clause.span, notes=notes)
            continue
        plans.append(plan)
    return tuple(plans)


def _load(context: Context, unit: Unit, clause: syntax.Load, frame: Frame, parameters: Collection[str]) -> LoadPlan:
    root = model_path(find_model(context, unit, [p.text for p in clause.model.parts], clause.model.span))
    if not context.reporter.failed and not any(p.startswith(f"{root}.") for p in parameters):
        used = sorted({p.split(".")[0] for p in parameters})
        hint = f"the recipe uses {listed(used)}" if used else "call the model in the recipe"
        raise context.reporter.error("DL0514", f"the recipe uses no parameters of `{root}`", clause.model.span, hint=hint)
    found: dict[str, Value] = {}
    for option in clause.options:
        name = option.name.text
        if name not in LOAD_OPTIONS:
            hint = did_you_mean(name, LOAD_OPTIONS) or f"the options are {listed(LOAD_OPTIONS)}"
            context.reporter.error("DL0103", f"`load` has no option `{name}`", option.name.span, hint=hint)
            continue
        value = context.evaluate(option.value, frame)
        if not isinstance(value, Poison):
            found[name] = value
            wrong = _wrong_load_option(name, value)
            if wrong is not None:
                context.reporter.error("DL0516", f"`{name}` is {wrong[0]}", option.value.span, hint=f"write {name} = {wrong[1]}")
    rename, fresh, layout = found.get("rename"), found.get("fresh"), found.get("layout")
    if context.reporter.failed:
        raise Refused
    rules = [p.items for p in rename.items if isinstance(p, Results | ListValue)] if isinstance(rename, ListValue) else []
    return LoadPlan(
        root,
        clause.source.value,
        tuple((str(pattern), None if name is None else str(name)) for pattern, name in rules),
        tuple(str(p) for p in fresh.items) if isinstance(fresh, ListValue) else (),
        layout if isinstance(layout, str) else None,
        clause.source.span,
    )


def _wrong_load_option(name: str, value: Value) -> tuple[str, str] | None:
    """What an option of `load` must be, and an example, where it is something else."""
    items = value.items if isinstance(value, ListValue) else ()
    match name:
        case "rename":
            pairs = isinstance(value, ListValue) and all(
                isinstance(p, Results | ListValue)
                and len(p.items) == 2
                and isinstance(p.items[0], str)
                and isinstance(p.items[1], str | None)
                for p in items
            )
            return None if pairs else ("a list of pairs: a pattern, and a name or none", '[("fc.*", none)]')
        case "fresh":
            patterns = isinstance(value, ListValue) and all(isinstance(p, str) for p in items)
            return None if patterns else ("a list of patterns", '["head.*"]')
        case _:
            return None if value == "torch" or value is None else ('"torch", or none for files of dslc', '"torch"')
