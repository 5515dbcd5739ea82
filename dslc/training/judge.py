"""Which epoch is the best so far, and when it is time to stop: decided from the reports, so that a resumed run decides the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dslc.data import DataSet, Split
from dslc.data.splits import held_out
from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.recipe import Judged, Recipe
from dslc.training.protocol import EpochReport

_KEY = 0x76616C  # of the order in which examples are held out: not that of the test split


def value_of(report: EpochReport, judged: Judged) -> float | None:
    """The metric by which an epoch is judged, larger for better: on the validation examples, else the test examples, else in training.

    None where it was not measured in this epoch; NaN is worse than any number.
    """
    for metrics in (report.validation_metrics, report.test_metrics):
        if metrics:
            value = metrics.get(judged.metric)
            return None if value is None else _oriented(value, judged)
    return None


def _oriented(value: float, judged: Judged) -> float:
    return -math.inf if math.isnan(value) else value if judged.larger else -value


def values(history: Sequence[EpochReport], judged: Judged) -> list[tuple[int, float]]:
    """Epochs, from 1, and what they are judged by; where nothing is ever evaluated, what was measured in training."""
    found = [(r.epoch, v) for r in history if (v := value_of(r, judged)) is not None]
    if not found and not any(r.validation_metrics or r.test_metrics for r in history):
        found = [(r.epoch, _oriented(r.metrics[judged.metric], judged)) for r in history if judged.metric in r.metrics]
    return found


def is_best(history: Sequence[EpochReport], judged: Judged) -> bool:
    """Whether the last epoch is better than all before it."""
    found = values(history, judged)
    return bool(found) and found[-1][0] == history[-1].epoch and all(value < found[-1][1] for _, value in found[:-1])


def exhausted(history: Sequence[EpochReport], recipe: Recipe) -> bool:
    """Whether `patience` evaluations in a row were not better than the best one before."""
    if recipe.patience is None or recipe.monitor is None:
        return False
    found = [value for _, value in values(history, recipe.monitor)]
    return bool(found) and len(found) - 1 - found.index(max(found)) >= recipe.patience


def hold_out(data: DataSet, share: float | None) -> tuple[DataSet, Split | None]:
    """The data without `share` of their training examples, and these, for validation. Error: DL0710.

    Which examples they are depends on the data alone; where a field has class names, every class gives its share.
    """
    if share is None:
        return data, None
    count = data.train.count
    wanted = round(count * share)
    if not 1 <= wanted < count:
        what = f"`validate {share:g}` of {count} examples is {wanted}"
        raise DiagnosticError(Diagnostic("DL0710", what, hint="leave at least one example for each part"))
    classes = next((f.field.name for f in data.description.fields if f.classes and f.field.shape == ()), None)
    known = classes is not None and classes in data.train.arrays
    labels = data.train.arrays[classes].reshape(-1) if known and classes is not None else np.zeros(count, np.int64)
    held = held_out(labels, wanted, _KEY)
    return replace(data, train=data.train.pick(np.flatnonzero(~held))), data.train.pick(np.flatnonzero(held))
