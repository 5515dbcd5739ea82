"""What a run measures: means over examples, what metrics with a state count, and metrics in Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

import numpy as np

from dslc.data.description import Array
from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.recipe import COLLECTED

_PLAIN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Tally:
    """Sums of metrics weighted by examples, added up step by step so that the bits do not depend on when they are read.

    `count` are all examples, `counts` those that each metric has seen: a phase has metrics of its own.
    """

    __slots__ = ("count", "counts", "sums")

    def __init__(self, sums: Mapping[str, float] | None = None, count: int = 0, counts: Mapping[str, int] | None = None):
        self.sums = dict(sums or {})
        self.count = count
        self.counts = {name: (counts or {}).get(name, count) for name in self.sums}

    def add(self, metrics: Mapping[str, SupportsFloat], count: int) -> None:
        """Adds a batch of `count` examples."""
        sums, counts = self.sums, self.counts
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value) * count
            counts[name] = counts.get(name, 0) + count
        self.count += count

    def copy(self) -> Tally:
        """The sums so far."""
        return Tally(self.sums, self.count, self.counts)

    def means(self) -> dict[str, float]:
        """Means over the examples."""
        return {name: total / self.counts[name] for name, total in self.sums.items() if self.counts[name]}

    def means_since(self, before: Tally) -> dict[str, float]:
        """The means over the examples since an earlier state."""
        new = {name: count - before.counts.get(name, 0) for name, count in self.counts.items()}
        return {name: (total - before.sums.get(name, 0.0)) / new[name] for name, total in self.sums.items() if new[name] > 0}


@dataclass(frozen=True, slots=True)
class PythonMetric:
    """`function` is given the whole test split: for each of `arguments` an array with a row for each example."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]

    def value(self, arrays: Mapping[str, Array]) -> float:
        """Its value. Error: DL0731 where it is no number."""
        result = self.function(**{name: arrays[name] for name in self.arguments})
        try:
            return float(result)
        except (TypeError, ValueError):
            what = f"the metric '{self.name}' gave {type(result).__name__}, which is no number"
            raise _refused(what, "return a float; give several numbers as several metrics") from None


def python_metrics(given: Mapping[str, Callable[..., Any]]) -> tuple[PythonMetric, ...]:
    """Functions by the name of their metric; their parameters are names in the recipe. Error: DL0731 for what cannot be called so."""
    found = []
    for name, function in given.items():
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise _refused(f"the metric '{name}' is no function with named parameters", _HOW) from None
        wanted = [p for p in parameters if p.default is inspect.Parameter.empty]
        if not wanted or any(p.kind not in _PLAIN for p in wanted):
            raise _refused(f"the metric '{name}' does not name the tensors that it wants", _HOW)
        found.append(PythonMetric(name, function, tuple(p.name for p in wanted)))
    return tuple(found)


_HOW = "its parameters are names in the recipe: data, or tensors with a row for each example, as in def mAP(boxes, label)"


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of an evaluation: numbers by metric, and the tables of metrics that are no single number."""

    metrics: Mapping[str, float]
    tables: Mapping[str, Any]


class Evaluation:
    """One pass over the test examples: `add` every batch, then `measured`."""

    def __init__(self, totals: Sequence[str], hooks: Sequence[PythonMetric]):
        self._totals = frozenset(totals)
        self._hooks = hooks
        self._tally = Tally()
        self._last: dict[str, Any] = {}
        self._kept: dict[str, list[Array]] = {name: [] for hook in hooks for name in hook.arguments}

    def add(self, batch: Mapping[str, Array], results: Mapping[str, Any], count: int) -> None:
        """The results of a batch; arrays of `batch` may be overwritten afterwards."""
        means = {}
        for name, value in results.items():
            if name in self._totals:
                self._last[name] = value
            elif not name.startswith(COLLECTED):
                means[name] = value
        self._tally.add(means, count)
        for name, parts in self._kept.items():
            parts.append(results[COLLECTED + name] if COLLECTED + name in results else batch[name].copy())

    def measured(self) -> Measured:
        """What came out."""
        metrics = self._tally.means()
        tables: dict[str, Any] = {}
        for name, value in self._last.items():
            if np.ndim(value):
                tables[name] = np.asarray(value).tolist()
            else:
                metrics[name] = float(value)
        arrays = {name: np.concatenate(parts) for name, parts in self._kept.items()}
        return Measured(metrics | {hook.name: hook.value(arrays) for hook in self._hooks}, tables)


def _refused(message: str, hint: str) -> DiagnosticError:
    return DiagnosticError(Diagnostic("DL0731", message, hint=hint))
