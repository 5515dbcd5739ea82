"""What happens within an epoch beside steps: progress, records, checkpoints, Ctrl-C, and the look for NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from dslc.training.evaluation import Tally
from dslc.training.protocol import StepReport

if TYPE_CHECKING:
    from dslc.training.fit import Fit

_PROGRESS_SECONDS = 0.1
_MOST_PENDING = 64  # steps whose results are not yet read


class Watch:
    """Looks after what happens within an epoch beside steps: progress, records, checkpoints, Ctrl-C.

    `due` and `alarm` are the time and the step at which `look` is wanted next.
    """

    def __init__(self, fit: Fit):
        self._fit = fit
        self._plan = fit.recipe.save if fit.path else None
        self._before = fit._seconds
        self._lost = 0.0  # seconds in saving and reporting, which are no training time
        self._start = perf_counter()
        self._next_progress = self._start
        self._window = fit._tally.copy()
        self._window_seconds = self._before
        self._schedule(self._start)

    def look(self) -> None:
        """Everything that is due after the step just drained."""
        fit, now = self._fit, perf_counter()
        self.stop()
        if fit._step % fit._log_every == 0 and fit.observers:
            self._log()
        if fit.finite.due(now):
            fit._look()
        if now >= self._next_progress and fit.observers:
            self._next_progress = now + _PROGRESS_SECONDS
            report = self._step_report(fit._tally.means(), fit._tally.count / max(fit._seconds, 1e-9))
            for observer in fit.observers:
                observer.progress(report)
        if fit._guard.requested:
            fit._stop()
        if self._save_due(now):
            fit._save()
        self._lost += perf_counter() - now
        self._schedule(now)

    def stop(self) -> None:
        """Brings the epoch's seconds up to date."""
        self._fit._seconds = self._before + perf_counter() - self._start - self._lost

    def _schedule(self, now: float) -> None:
        fit, plan = self._fit, self._plan
        self.due = self._next_progress if fit.observers else math.inf
        steps = [_MOST_PENDING, *([fit._log_every] if fit.observers else [])]
        if plan is not None and plan.every_seconds is not None:
            self.due = min(self.due, fit._saved_time + plan.every_seconds)
        if plan is not None and plan.every_steps is not None:
            steps.append(plan.every_steps)
        self.alarm = min(fit._last_step, *((fit._step // n + 1) * n for n in steps))

    def _save_due(self, now: float) -> bool:
        fit, plan = self._fit, self._plan
        if plan is None:
            return False
        by_step = plan.every_steps is not None and fit._step % plan.every_steps == 0
        return by_step or (plan.every_seconds is not None and now - fit._saved_time >= plan.every_seconds)

    def _log(self) -> None:
        fit = self._fit
        seconds = max(fit._seconds - self._window_seconds, 1e-9)
        means = fit._tally.means_since(self._window)
        report = self._step_report(means, (fit._tally.count - self._window.count) / seconds)
        self._window, self._window_seconds = fit._tally.copy(), fit._seconds
        report, fit._statistics = replace(report, statistics=fit._statistics.means()), Tally()
        for observer in fit.observers:
            observer.logged(report)

    def _step_report(self, metrics: Mapping[str, float], speed: float) -> StepReport:
        fit = self._fit
        left = max(fit._total - fit._step, 0)
        seconds_a_step = fit.batches.batch * fit.cycle.batches / speed if speed > 0 else 0.0
        return StepReport(fit._epoch + 1, fit._step, fit._total, fit._example, metrics, speed, left * seconds_a_step)
