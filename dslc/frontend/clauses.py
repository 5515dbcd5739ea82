"""The clauses of a recipe that are data: settings, saving, and those that this version refuses."""

from __future__ import annotations

from dataclasses import dataclass

from dslc.diagnostics import Note
from dslc.frontend import syntax
from dslc.frontend.report import did_you_mean, listed
from dslc.frontend.scope import Context
from dslc.ir.recipe import LARGEST_SEED, SavePlan

RANGES = {"epochs": (1, 10**9), "steps": (1, 10**15), "batch": (1, 2**31 - 1), "seed": (0, LARGEST_SEED), "validate": (0, 10**9)}
SETTINGS = (*RANGES, "budget")
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


def reject_clause(context: Context, clause: syntax.Clause) -> None:
    """Clauses of the language that this version does not have."""
    if isinstance(clause, syntax.Phase):
        context.reporter.error("DL0114", "`phase` is not in this version", clause.name.span, hint="a recipe has one `minimize`")
    elif isinstance(clause, syntax.Load):
        context.reporter.error(
            "DL0114",
            "`load` in a recipe is not in this version",
            clause.span,
            hint="give the weights with --weights, or load_weights in Python",
        )
