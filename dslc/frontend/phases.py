"""Phases: several optimisations of one recipe, in turn. Each is a training program of its own over the same buffers.

A phase sees the names that stand outside of phases: its program evaluates those that it uses, afresh in every execution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dslc.diagnostics import Note
from dslc.frontend import syntax
from dslc.frontend.calls import model_path
from dslc.frontend.files import Unit
from dslc.frontend.names import mentions
from dslc.frontend.programs import find_model
from dslc.frontend.report import Refused, did_you_mean
from dslc.frontend.scope import Context, Frame
from dslc.frontend.values import Poison, describe
from dslc.ir.recipe import MOST_REPEATED

TRAIN, UPDATE, EVALUATE = "train", "update", "evaluate"


@dataclass(frozen=True, slots=True)
class Part:
    """A program of a recipe, `phase` where it is that of one. `last`: the last one that trains."""

    program: str
    training: bool
    phase: syntax.Phase | None = None
    last: bool = True

    @property
    def prefix(self) -> str:
        """Before the names of its settings, metrics and optimizer states."""
        return f"{self.phase.name.text}." if self.phase is not None else ""


@dataclass(slots=True)
class Shared:
    """What the programs of one recipe tell each other: parameters and states that are used, parameters that move and that are averaged."""

    parameters: set[str] = field(default_factory=set)
    states: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    averaged: set[str] = field(default_factory=set)


def phases_of(train: syntax.Train) -> list[syntax.Phase]:
    """The phases in the order of the text."""
    return [c for c in train.clauses if isinstance(c, syntax.Phase)]


def parts_of(train: syntax.Train) -> list[Part]:
    """The programs of a recipe, those that train first."""
    phases = phases_of(train)
    training = [Part(f"{TRAIN}.{p.name.text}", True, p, p is phases[-1]) for p in phases] or [Part(TRAIN, True)]
    return [*training, Part(EVALUATE, False)]


def minimizes(train: syntax.Train) -> list[syntax.Minimize]:
    """Every `minimize` of a recipe, in phases and outside."""
    inside = [c for p in phases_of(train) for c in p.body]
    return [c for c in (*train.clauses, *inside) if isinstance(c, syntax.Minimize)]


def check_phases(context: Context, train: syntax.Train) -> None:
    """What is wrong with the phases of a recipe, or with several `minimize` without any."""
    phases = phases_of(train)
    outside = [c for c in train.clauses if isinstance(c, syntax.Minimize)]
    if phases and outside:
        notes = [Note("a phase is here", phases[0].name.span)]
        hint = "put it into a phase of its own: phase name { minimize ... }"
        context.reporter.error("DL0524", "a `minimize` stands beside phases", outside[0].span, notes=notes, hint=hint)
    for several in (outside, *([c for c in p.body if isinstance(c, syntax.Minimize)] for p in phases)):
        if len(several) > 1:
            notes = [Note("the first is here", several[0].span)]
            hint = "optimisations in turn stand in phases: phase critic { minimize ... } phase generator { minimize ... }"
            context.reporter.error("DL0524", "a second `minimize`", several[1].span, notes=notes, hint=hint)
    seen: dict[str, syntax.Name] = {}
    for phase in phases:
        text = phase.name.text
        if text in seen:
            notes = [Note("the first is here", seen[text].span)]
            context.reporter.error("DL0102", f"the phase `{text}` is defined twice", phase.name.span, notes=notes)
        seen.setdefault(text, phase.name)
        if not any(isinstance(c, syntax.Minimize) for c in phase.body):
            hint = "write minimize ... over Model with AdamW[1e-3] in it"
            context.reporter.error("DL0501", f"the phase {text} minimizes nothing", phase.name.span, hint=hint)


def repeat_of(context: Context, phase: syntax.Phase, frame: Frame) -> int:
    """How often a phase is executed in turn."""
    found = 1
    for option in phase.options:
        if option.name.text != "repeat":
            hint = did_you_mean(option.name.text, ("repeat",)) or "the option is `repeat`"
            context.reporter.error("DL0103", f"a phase has no option `{option.name.text}`", option.name.span, hint=hint)
            continue
        value = context.evaluate(option.value, frame)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_REPEATED:
            found = value
        elif not isinstance(value, Poison):
            what = f"`repeat` is a whole number from 1 to {MOST_REPEATED:,}, not {describe(value)}"
            context.reporter.error("DL0508", what, option.value.span)
    return found


def clauses_for(train: syntax.Train, part: Part) -> list[syntax.Clause]:
    """The clauses that a program evaluates, in order: a phase's own, behind what it uses of those outside.

    Metrics outside of phases are measured by the last phase.
    """
    if part.phase is None:
        return [c for c in train.clauses if isinstance(c, syntax.Assign | syntax.Minimize | syntax.Metric)]
    own: list[syntax.Clause] = list(part.phase.body)
    if part.last:
        own += [c for c in train.clauses if isinstance(c, syntax.Metric)]
    wanted = mentions(own)
    bindings = [c for c in train.clauses if isinstance(c, syntax.Assign)]
    chosen: list[syntax.Assign] = []
    growing = True
    while growing:  # a name may be bound in several statements, each of which mentions others
        found = [c for c in bindings if any(t.text in wanted for t in c.targets)]
        growing = len(found) > len(chosen)
        chosen = found
        wanted |= mentions(chosen)
    return [*chosen, *own]


def moved_models(context: Context, unit: Unit, train: syntax.Train) -> set[str]:
    """The paths of the models that stand behind some `over`."""
    found = set()
    for clause in minimizes(train):
        for group in clause.groups:
            for target in group.targets:
                if isinstance(target, syntax.Path):
                    try:
                        with context.reporter.muted():
                            found.add(model_path(find_model(context, unit, [p.text for p in target.parts], target.span)))
                    except Refused:
                        continue
    return found


def averages(clauses: Sequence[syntax.Minimize]) -> bool:
    """Whether some `minimize` keeps averages of what it moves."""
    return any(o.name.text == "ema" for c in clauses for g in c.groups for o in g.options)
