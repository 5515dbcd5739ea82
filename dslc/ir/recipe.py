"""A training recipe as data: what the `train` item says about data, duration, and saving.

What is computed (forward pass, gradients, updates, metrics) is in the programs of the module; this is what the loop around them needs.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dslc.diagnostics import Diagnostic, DiagnosticError, Span
from dslc.ir.types import DType

LARGEST_SEED = 2**63 - 1

DATA_OPTIONS = (
    *("test", "normalize", "fit", "columns", "count", "seed"),
    *("level", "vocabulary", "rows", "stride", "documents", "bucket"),
)
"""What may stand behind the `with` of a `data` statement beside `augment`; `dslc.data.settings` says what each means."""

DataOption = bool | int | float | str | tuple[str, ...]
MOST_ACCUMULATED = 1_000_000
MOST_REPEATED = 10_000
AVERAGE = "ema/"
"""Before the path of a parameter: its moving average."""
COLLECTED = "collected/"
"""Before the name of a tensor that an evaluation gives for metrics in Python."""


STATISTICS = "statistics/"
"""Before the name of what a training program says about gradients, parameters and activations."""


@dataclass(frozen=True, slots=True)
class RecipeField:
    """A name that a `data` statement declares; `shape` is that of one example, all sizes bound."""

    name: str
    dtype: DType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SavePlan:
    """`save M as "f" with every = 1`: the file, and how often. At least the end of training is saved."""

    path: str
    every_epochs: int | None = None
    every_steps: int | None = None
    every_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A metric by which epochs are told from each other: `accuracy` is better when it is larger, `-loss` when it is smaller."""

    metric: str
    larger: bool = True


@dataclass(frozen=True, slots=True)
class BestPlan:
    """`save "f" with best = accuracy`: the file keeps the checkpoint of the best epoch."""

    path: str
    judged: Judged


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """`load M from "f" with rename = .., fresh = .., layout = ..`: `model` is the path of M, the rest as in `match_weights`."""

    model: str
    file: str
    rename: tuple[tuple[str, str | None], ...] = ()
    fresh: tuple[str, ...] = ()
    layout: str | None = None
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """`phase name[repeat = 5] { }`: `repeat` steps in turn, each of `accumulate` batches. Its programs are `train.name` and `update.name`."""

    name: str
    repeat: int = 1
    accumulate: int = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """One `train` item. Without `epochs` and `steps` it trains one epoch; with both it ends at whichever comes first.

    `validate`: the test examples are evaluated after every so many epochs, and after the last; 0 means never. With `validation` that
    share of the training examples is held out and evaluated instead, the test examples after the last epoch alone. `patience`:
    training ends when so many evaluations in a row were not better by `monitor`. `best` keeps the best epoch.
    A step takes `accumulate` batches, the last one of an epoch those that are left. With `phases` a step is one execution of one of
    them, in the order of the cycle, and `accumulate` is each one's own. `totals` are the metrics that are counted over an
    evaluation and are not means over its examples. `loads` are the files that parameters begin with. `ema`: whether averages are kept.
    `budget` is the most bytes that training may take. `settings` are run-time values such as learning rates that a user may set by name without recompilation.
    `base` is the folder of the `.dl` file, for data files; `span` is where the data source is named.
    """

    name: str
    source: str
    fields: tuple[RecipeField, ...]
    epochs: int | None = None
    steps: int | None = None
    batch: int = 32
    seed: int = 0
    validate: int = 1
    validation: float | None = None
    patience: int | None = None
    monitor: Judged | None = None
    accumulate: int = 1
    phases: tuple[PhasePlan, ...] = ()
    ema: bool = False
    metrics: tuple[str, ...] = ()
    totals: tuple[str, ...] = ()
    loads: tuple[LoadPlan, ...] = ()
    augment: tuple[str, ...] = ()
    data_options: tuple[tuple[str, DataOption], ...] = ()
    settings: tuple[tuple[str, float | int], ...] = ()
    save: SavePlan | None = None
    best: BestPlan | None = None
    statistics: bool = False
    budget: int | None = None
    base: Path = Path()
    span: Span | None = None

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("epochs", self.epochs, 1, 10**9),
            ("steps", self.steps, 1, 10**15),
            ("batch", self.batch, 1, 2**31 - 1),
            ("seed", self.seed, 0, LARGEST_SEED),
            ("validate", self.validate, 0, 10**9),
            ("accumulate", self.accumulate, 1, MOST_ACCUMULATED),
        ):
            if value is not None and not low <= value <= high:
                raise _refused(f"the recipe '{self.name}' sets {name} to {value}", f"{name} is a whole number from {low} to {high}")
        plan = self.save
        if plan is not None:
            for name, every in (("every", plan.every_epochs), ("every_steps", plan.every_steps), ("every_seconds", plan.every_seconds)):
                if every is not None and not every > 0:
                    raise _refused(f"the recipe '{self.name}' saves with {name} = {every}", f"{name} is positive")

    def override(
        self,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        batch: int | None = None,
        seed: int | None = None,
        settings: Mapping[str, float | int] | None = None,
    ) -> Recipe:
        """The recipe with the given values in place of the file's: `--epochs --steps --batch --seed --set lr=...`."""
        known = dict(self.settings)
        for name in settings or {}:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known) or 'none'}"
                raise _refused(f"the recipe '{self.name}' has no setting '{name}'", hint)
        return replace(
            self,
            epochs=self.epochs if epochs is None else epochs,
            steps=self.steps if steps is None else steps,
            batch=self.batch if batch is None else batch,
            seed=self.seed if seed is None else seed,
            settings=tuple({**known, **(settings or {})}.items()),
        )


def _refused(what: str, hint: str) -> DiagnosticError:
    return DiagnosticError(Diagnostic("DL0720", what, hint=hint))
