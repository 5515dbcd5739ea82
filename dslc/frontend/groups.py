"""`minimize`: its options, and which parameters move with which of its groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dslc.diagnostics import Note
from dslc.frontend import syntax
from dslc.frontend.calls import model_path
from dslc.frontend.files import Unit
from dslc.frontend.program import reaches
from dslc.frontend.programs import find_model
from dslc.frontend.report import Refused, did_you_mean, listed
from dslc.frontend.scope import Context, Frame
from dslc.frontend.values import Poison, Tensor, Value, describe
from dslc.ir.module import Role
from dslc.ir.patterns import fits
from dslc.ir.recipe import MOST_ACCUMULATED

OPTIONS = ("clip", "accumulate", "ema")


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for all groups: the largest norm of all gradients, the batches of a step, the decay of averaged parameters."""

    clip: float | None = None
    accumulate: int = 1
    ema: float | None = None


def minimize_options(context: Context, clause: syntax.Minimize, frame: Frame) -> Options:
    """The options behind the first group."""
    found: dict[str, float] = {}
    for index, group in enumerate(clause.groups):
        for option in group.options:
            name = option.name.text
            if name not in OPTIONS:
                hint = did_you_mean(name, OPTIONS) or f"the options are {listed(OPTIONS)}"
                context.reporter.error("DL0103", f"`minimize` has no option `{name}`", option.name.span, hint=hint)
            elif index > 0:
                context.reporter.error("DL0510", f"`{name}` holds for all groups: it stands in the first", option.name.span)
            else:
                value = context.evaluate(option.value, frame)
                if isinstance(value, Poison):
                    continue
                wrong = _wrong(name, value)
                if wrong is not None:
                    context.reporter.error("DL0508", f"`{name}` is {wrong}, not {describe(value)}", option.value.span)
                elif isinstance(value, int | float):
                    found[name] = value
    clip, ema = found.get("clip"), found.get("ema")
    return Options(None if clip is None else float(clip), int(found.get("accumulate", 1)), None if ema is None else float(ema))


def _wrong(name: str, value: Value) -> str | None:
    """What an option must be, where it is not."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0  # which is none of them
    match name:
        case "clip":
            return None if number > 0 else "a positive number"
        case "ema":
            return None if 0 < number < 1 else "a number between 0 and 1"
        case _:
            whole = isinstance(number, int) and 1 <= number <= MOST_ACCUMULATED
            return None if whole else f"a whole number from 1 to {MOST_ACCUMULATED:,}"


# --- groups --------------------------------------------------------------------------------------------------------------


def assign_groups(
    context: Context, unit: Unit, train: syntax.Train, clause: syntax.Minimize, loss: Tensor, moving: Collection[str] = ()
) -> dict[str, int]:
    """The number of the group of each parameter that moves: the last one that names it, unless it is frozen.

    `moving`: models that other phases move, of which no warning is due.
    """
    parameters = [p for p, b in context.program.buffers.items() if b.role == Role.PARAMETER]
    chosen: dict[str, int] = {}
    named_models: set[str] = set()
    for number, group in enumerate(clause.groups):
        for target in group.targets:
            if isinstance(target, syntax.Str):
                found = [p for p in parameters if fits(target.value, p)]
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
            chosen |= dict.fromkeys(found, number)
    for pattern in frozen_patterns(train):
        for path in [p for p in chosen if fits(pattern.value, p)]:
            chosen.pop(path)
    return _reached(context, clause, {p: chosen[p] for p in parameters if p in chosen}, loss, named_models, parameters, moving)


def frozen_patterns(train: syntax.Train) -> list[syntax.Str]:
    """What the recipe freezes."""
    return [pattern for c in train.clauses if isinstance(c, syntax.Freeze) for pattern in c.patterns]


def check_frozen(context: Context, train: syntax.Train, parameters: Collection[str]) -> None:
    """Warns of patterns that fit none of the parameters of the recipe."""
    for pattern in frozen_patterns(train):
        if not any(fits(pattern.value, p) for p in parameters):
            _no_match(context, pattern, sorted(parameters))


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
    context: Context, clause: syntax.Minimize, chosen: dict[str, int], loss: Tensor, models: set[str], parameters: Sequence[str],
    moving: Collection[str],
) -> dict[str, int]:  # fmt: skip
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
        - {m.split(".")[0] for m in (*models, *moving)}
    )
    if others and models and still:
        context.reporter.warning(
            "DL0522",
            f"the loss also depends on {listed(others)}, which this does not move",
            clause.span,
            hint="name it after `over`, or freeze it",
        )
    return still
