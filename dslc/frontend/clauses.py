"""The clauses of a recipe that are data: settings, saving, loading."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dslc.diagnostics import Note
from dslc.frontend import syntax
from dslc.frontend.calls import model_path
from dslc.frontend.files import Unit
from dslc.frontend.programs import find_model
from dslc.frontend.report import Refused, did_you_mean, listed
from dslc.frontend.scope import Context, Frame
from dslc.frontend.values import ListValue, Poison, Results, Value
from dslc.ir.recipe import LARGEST_SEED, LoadPlan, SavePlan

RANGES = {"epochs": (1, 10**9), "steps": (1, 10**15), "batch": (1, 2**31 - 1), "seed": (0, LARGEST_SEED), "validate": (0, 10**9)}
SETTINGS = (*RANGES, "budget")
LOAD_OPTIONS = ("rename", "fresh", "layout")
SAVE_OPTIONS = ("every", "every_steps", "every_seconds")


@dataclass(slots=True)
class Settings:
    """The numbers of a recipe; `budget` is bytes of memory."""

    epochs: int | None = None
    steps: int | None = None
    batch: int = 32
    seed: int = 0
    validate: int = 1
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
        if name == "budget":
            _budget(context, clause, settings)
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


def _budget(context: Context, clause: syntax.Setting, settings: Settings) -> None:
    if isinstance(clause.value, syntax.Size) and clause.value.value > 0:
        settings.budget = clause.value.value
    else:
        context.reporter.error("DL0508", "`budget` is an amount of memory", clause.value.span, hint="write budget 2GiB")


def read_saves(context: Context, train: syntax.Train) -> SavePlan | None:
    """The `save` clause; at most one in this version."""
    saves = [c for c in train.clauses if isinstance(c, syntax.Save)]
    if not saves:
        return None
    first = saves[0]
    if len(saves) > 1:
        context.reporter.error("DL0114", "a second `save` clause is not in this version", saves[1].span)
    every: dict[str, float] = {}
    for option in first.options:
        name = option.name.text
        if name not in SAVE_OPTIONS:
            hint = did_you_mean(name, SAVE_OPTIONS) or f"the options are {listed(SAVE_OPTIONS)}"
            context.reporter.error("DL0103", f"`save` has no option `{name}`", option.name.span, hint=hint)
            continue
        value = option.value
        fractional = isinstance(value, syntax.Number) and name == "every_seconds"
        amount = value.value if isinstance(value, syntax.Int) or (isinstance(value, syntax.Number) and fractional) else 0
        if not 0 < amount <= 10**9:
            context.reporter.error("DL0508", f"`{name}` is a positive number", value.span, hint=f"write {name} = 1")
            continue
        every[name] = amount
    if len(first.target.value) == 0 or "\0" in first.target.value:
        context.reporter.error("DL0508", "`save` names a file", first.target.span)
    epochs, steps = every.get("every"), every.get("every_steps")
    return SavePlan(
        first.target.value,
        None if epochs is None else int(epochs),
        None if steps is None else int(steps),
        every.get("every_seconds"),
    )


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
                isinstance(p, Results | ListValue) and len(p.items) == 2 and isinstance(p.items[0], str) and isinstance(p.items[1], str | None)
                for p in items
            )
            return None if pairs else ("a list of pairs: a pattern, and a name or none", '[("fc.*", none)]')
        case "fresh":
            patterns = isinstance(value, ListValue) and all(isinstance(p, str) for p in items)
            return None if patterns else ("a list of patterns", '["head.*"]')
        case _:
            return None if value == "torch" or value is None else ('"torch", or none for files of dslc', '"torch"')
