"""Steps made again: from a state that was whole to the step that failed, and that one operation by operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dslc.data.description import Array
from dslc.diagnostics import Diagnostic, DiagnosticError, Note
from dslc.training import checkpoint
from dslc.training.evaluation import Tally
from dslc.training.finite import NotFinite, Position, Trouble, copied, first_not_finite

if TYPE_CHECKING:
    from dslc.training.fit import Fit

Batch = tuple[Mapping[str, Array], int]
Trace = Callable[[str, Mapping[str, Array] | None, Mapping[str, float | int]], Trouble | None]
"""`TrainingProgram.trace`, which a program need not have."""

_HINT = "lower the learning rate, clip the gradients (`clip = 1.0`), or look for a division by zero or log of zero"


@dataclass(frozen=True, slots=True)
class _Failed:
    """A step, from 1, of an epoch, from 1: what came out of it and which operation began it, if that could be told."""

    step: int
    epoch: int
    what: str
    trouble: Trouble | None


def diagnosis(fit: Fit, lost: NotFinite) -> DiagnosticError:
    """DL0726 for a run that met NaN or an infinity; the run then stands before the step that failed, if that could be found."""
    saved = fit.saved
    failed = _search(fit, lost)
    note = f"the run stands before step {failed.step}"
    if failed.trouble is not None or fit.position.step == failed.step - 1:
        place = fit.leave_replay()
        note += f", and so does {place}" if place is not None else ""
    else:
        note = ""
    for observer in fit.observers:
        observer.note(f"{failed.what} at step {failed.step:,}" + (f": {failed.trouble.message}" if failed.trouble else ""))
    return _refused(fit, failed, note, saved)


def replayed(fit: Fit, step: int) -> Mapping[str, float]:
    """See `Fit.replay`."""
    if not 1 <= step <= fit.total:
        raise DiagnosticError(
            Diagnostic("DL0732", f"there is no step {step:,} to replay", hint=f"the run has the steps 1 to {fit.total:,}")
        )
    _go_back(fit, step - 1)
    for at, parts in _walk(fit, step):
        before = copied(fit.program.state(), {}) if at.step == step else {}
        where = fit.position
        results, what = _make(fit, parts)
        if at.step == step:
            if what is None:
                fit.place(at)
                return results
            fit.program.load_state(before)
            fit.place(where)
            raise _refused(fit, _Failed(step, where.epoch + 1, what, _trace(fit, parts)))
        if what is not None:
            fit.place(where)
            raise _refused(fit, _Failed(at.step, where.epoch + 1, what, None), f"step {step:,} comes after it")
        fit.place(at)
    raise AssertionError("the walk ends at the step")


def _go_back(fit: Fit, step: int) -> None:
    """Stands at `step` steps or nearest before: here, where a failed run ended, or at the checkpoint."""
    starts: list[tuple[int, checkpoint.Checkpoint | None]] = []
    if fit.position.step <= step:
        starts.append((fit.position.step, None))
    for path in (fit.replay_path, fit.path):
        if path is not None and path.exists():
            loaded = checkpoint.load(path)
            if loaded.run.step <= step and loaded.run.source_digest == fit.info.source_digest:
                fit.check_run(loaded, path)
                starts.append((loaded.run.step, loaded))
    if not starts:
        what = f"the run is at step {fit.position.step:,}, and there is no checkpoint of one before step {step + 1:,}"
        raise DiagnosticError(Diagnostic("DL0732", what, hint="replay it without --resume: from the beginning"))
    _, loaded_from = max(starts, key=lambda start: start[0])
    if loaded_from is not None:
        run = loaded_from.run
        fit.program.load_state(loaded_from.tensors)
        fit.place(Position(run.epoch, run.example, run.step), run.history)


def _search(fit: Fit, lost: NotFinite) -> _Failed:
    """The first step since the last copy after which something is not finite."""
    kept = fit.finite.kept()
    failed = _Failed(lost.step, fit.position.epoch + 1, lost.what, None)
    if kept is None:
        return failed
    start, state = kept
    fit.program.load_state(state)
    fit.place(start)
    before: dict[str, Array] = {}
    for at, parts in _walk(fit, lost.step):
        before = copied(fit.program.state(), before)
        where = fit.position
        _, what = _make(fit, parts)
        if what is not None:
            fit.program.load_state(before)
            fit.place(where)
            return _Failed(at.step, where.epoch + 1, what, _trace(fit, parts))
        fit.place(at)
    return failed  # another kernel, other data: the steps are not the same any more


def _walk(fit: Fit, last: int) -> Iterator[tuple[Position, list[Batch]]]:
    """The batches of every step from where the run stands up to step number `last`, and the position behind the step."""
    at = fit.position
    epoch, example, step = at.epoch, at.example, at.step
    while step < last:
        parts: list[Batch] = []
        for batch, count in fit.batches.shuffled(fit.recipe.seed, epoch, example):
            example += count
            parts.append(({name: array.copy() for name, array in batch.items()}, count))
            if len(parts) == fit.cycle.at(step).accumulate or example == fit.batches.count:
                step += 1
                yield Position(epoch, example, step), parts
                parts = []
                if step >= last:
                    return
        epoch, example = epoch + 1, 0


def _make(fit: Fit, parts: list[Batch]) -> tuple[dict[str, float], str | None]:
    """Makes the step that is next; its metrics, and what is not finite after it."""
    step = fit.position.step
    kind = fit.kinds[fit.cycle.at(step).name]
    settings = {**fit.settings, "step": step}
    tally = Tally()
    wrong = None
    for batch, count in parts:
        results = kind.step(batch, settings)
        tally.add(results, count)
        loss = float(results[kind.loss])
        if not math.isfinite(loss) and wrong is None:
            wrong = f"the loss{f' of {kind.phase}' if kind.phase else ''} is {loss}"
    if kind.accumulate > 1:
        kind.update(settings)
    return tally.means(), wrong or first_not_finite(fit.program.state())


def _trace(fit: Fit, parts: list[Batch]) -> Trouble | None:
    """The operation of the next step that is the first to go wrong; the run stands before that step, and after as before."""
    trace: Trace | None = getattr(fit.program, "trace", None)
    if trace is None:
        return None
    step = fit.position.step
    kind = fit.kinds[fit.cycle.at(step).name]
    settings = {**fit.settings, "step": step}
    before = copied(fit.program.state(), {})
    try:
        for batch, _ in parts:
            found = trace(kind.phase, batch, settings)
            if found is not None or kind.accumulate == 1:
                return found
            kind.step(batch, settings)
        return trace(kind.phase, None, settings)
    finally:
        fit.program.load_state(before)


def _refused(fit: Fit, failed: _Failed, note: str = "", saved: Path | None = None) -> DiagnosticError:
    trouble = failed.trouble
    message = f"{failed.what} at step {failed.step} (epoch {failed.epoch})"
    message += f": {trouble.message}" if trouble is not None else ""
    notes = [*(trouble.notes if trouble is not None else ()), *([Note(note)] if note else [])]
    notes += [Note(f"the checkpoint of an earlier step is in {saved}")] if saved is not None else []
    again = f"`{fit.info.replay} {failed.step}`" if fit.info.replay else f"`trainer.replay({failed.step})`"
    sources: dict[str, Any] = dict(trouble.sources or {}) if trouble is not None else {}
    hint = f"{again} makes that step again; {_HINT}"
    return DiagnosticError(
        Diagnostic("DL0726", message, trouble.span if trouble is not None else None, tuple(notes), hint), sources=sources
    )
