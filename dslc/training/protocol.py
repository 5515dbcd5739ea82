"""What the training loop asks of a compiled program, and what it tells those who watch it.

The loop knows nothing of graphs and kernels: anything with these methods can be trained, and the tests use a model in NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, SupportsFloat

from dslc.data import Field
from dslc.data.description import Array
from dslc.ir.recipe import PhasePlan


class PhaseProgram(Protocol):
    """The steps of one phase; see `TrainingProgram` for the methods. Its loss is called "PHASE.loss"."""

    def step(self, batch: Mapping[str, Array], settings: Mapping[str, float | int]) -> Mapping[str, SupportsFloat]: ...

    def update(self, settings: Mapping[str, float | int]) -> None: ...


class TrainingProgram(Protocol):
    """A model with its optimizer, compiled for one recipe.

    It may also have `trace(phase, batch, settings)`, which tells of the step that `step` would make (of `update` where `batch` is None)
    the first operation that makes NaN or an infinity of numbers (`dslc.training.finite.Trouble`), or None. It changes nothing.
    """

    @property
    def inputs(self) -> Sequence[Field]:
        """The data fields that `step` and `evaluate` read; only these are put into batches."""
        ...

    @property
    def max_batch(self) -> int | None:
        """The largest batch that the program takes; None where there is no bound."""
        ...

    def step(self, batch: Mapping[str, Array], settings: Mapping[str, float | int]) -> Mapping[str, SupportsFloat]:
        """One update. Returns "loss" and the recipe's metrics, each the mean over the batch, and what it has of "statistics/...".

        `batch` holds `[n, *field.shape]` arrays that are overwritten after the call. `settings` has the recipe's settings and
        "seed", "step" (updates before this one, from 0) and "total" (updates of the whole run, for schedules); it is one dictionary
        for all steps, changed between them.
        The results may be lazy: they are read with `float` some steps later, so they must not alias memory that a later step writes.
        Where the recipe accumulates, this only adds the batch's gradients to those of the step.
        """
        ...

    def update(self, settings: Mapping[str, float | int]) -> None:
        """The update, after the batches of a step. Called only where the recipe accumulates."""
        ...

    def phase(self, name: str) -> PhaseProgram:
        """The steps of a phase. Called only where the recipe has phases, instead of `step` and `update`; each has a "NAME.total"."""
        ...

    def evaluate(self, batch: Mapping[str, Array], settings: Mapping[str, float | int]) -> Mapping[str, Any]:
        """The same names with `training` false. `settings` has the "seed", and as "step" a number that no batch of training has and no other of
        this evaluation: random numbers follow from both. Of the recipe's `totals` it gives what they are of all batches since `reset`, a number or
        an array; "collected/NAME" is a tensor for metrics in Python. Changes nothing else."""
        ...

    def reset(self) -> None:
        """Forget what `evaluate` has counted and gradients that no update took. Called only where the recipe accumulates or has totals."""
        ...

    def state(self) -> Mapping[str, Array]:
        """Everything that lasts from step to step. Parameters and block states have their paths (`LeNet.head.w`) as names, all else
        a name with a slash (`optimizer/LeNet.head.w.m`). The arrays may be views: they are read before the next step."""
        ...

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Sets what `state` names; the names, types and shapes have been checked to be the same."""
        ...


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Who trains: for the log and the checkpoints. `source_digest` identifies the `.dl` source with its imports; `replay` is the command that
    makes a step of this run again, but for its number."""

    source_digest: str = ""
    threads: int = 1
    versions: tuple[tuple[str, str], ...] = ()
    replay: str = ""


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch, counted from 1. Metrics are means over examples; `test_metrics` is empty where nothing was evaluated. `test_tables` are
    metrics that are no single number, such as a confusion matrix, as nested lists. The same of examples that the recipe holds out for
    validation are `validation_metrics` and `validation_tables`.

    `seconds` is the time of the training steps with the making of batches, without evaluation and saving. `waits` counts the steps
    that had to wait for a batch that a thread was still making, since the last resumption, and `waited` the seconds of it.
    """

    epoch: int
    step: int
    metrics: Mapping[str, float]
    test_metrics: Mapping[str, float]
    seconds: float
    examples_per_second: float
    waits: int = 0
    waited: float = 0.0
    test_tables: Mapping[str, Any] = field(default_factory=dict)
    validation_metrics: Mapping[str, float] = field(default_factory=dict)
    validation_tables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepReport:
    """The state within an epoch. `metrics` are means over the epoch so far, or, in `logged`, over the steps since the last record; so are
    `statistics`, which only records have, of a recipe that wants them."""

    epoch: int
    step: int
    total: int
    examples: int
    metrics: Mapping[str, float]
    examples_per_second: float
    seconds_left: float
    statistics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunReport:
    """What is about to be trained. `resumed` is the step that a checkpoint was at, None for a fresh start."""

    recipe: str
    data: str
    examples: int
    test_examples: int
    data_bytes: int
    unit: str
    epochs: int
    steps: int
    batch: int
    seed: int
    settings: Mapping[str, float | int]
    info: RunInfo
    resumed: int | None
    history: Sequence[EpochReport]
    accumulate: int = 1
    phases: Sequence[PhasePlan] = ()
    validation_examples: int = 0


class Observer:
    """Watches a run; every method does nothing unless a subclass says otherwise."""

    def started(self, run: RunReport) -> None:
        """Before the first step."""

    def note(self, text: str) -> None:
        """Something that the user should know."""

    def progress(self, report: StepReport) -> None:
        """About ten times a second."""

    def logged(self, report: StepReport) -> None:
        """After every `log_every` steps."""

    def epoch(self, report: EpochReport) -> None:
        """After an epoch and its evaluation."""

    def saved(self, path: Path, step: int, seconds: float) -> None:
        """After a checkpoint is in place."""

    def finished(self, outcome: str, step: int) -> None:
        """At the end, once: "finished", "interrupted" or "failed"."""
