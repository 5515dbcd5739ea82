"""The training loop: batches in, steps, metrics, evaluation, checkpoints, and a position from which the same bits follow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from time import perf_counter
from typing import SupportsFloat

from dslc.data import Batches, DataSet, Field, from_python, open_data
from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.recipe import STATISTICS, Recipe
from dslc.training import checkpoint
from dslc.training.checkpoint import Checkpoint, RunState, StageHook
from dslc.training.cycle import Cycle, Step
from dslc.training.evaluation import Evaluation, Measured, PythonMetric, Tally
from dslc.training.finite import LARGEST_COPY, FiniteWatch, NotFinite, Position
from dslc.training.interrupt import Interrupted, InterruptGuard
from dslc.training.judge import exhausted, hold_out, is_best
from dslc.training.protocol import EpochReport, Observer, RunInfo, RunReport, TrainingProgram
from dslc.training.replay import diagnosis, replayed
from dslc.training.watch import Watch

_NEVER = 2**62


_Result = tuple[Mapping[str, SupportsFloat], int, bool, str]
"""What a batch gave, its examples, whether it was the last of its step, and the name of its loss."""


def open_recipe_data(recipe: Recipe, *, folders: Sequence[Path] = (), given: object = None) -> DataSet:
    """The data of a recipe: what the caller `given`s (see `dslc.data.arrays`), else the source that the recipe names."""
    fields = [Field(f.name, f.dtype.value, f.shape) for f in recipe.fields]
    if given is not None:
        return from_python(given, fields, options=dict(recipe.data_options))
    return open_data(recipe.source, fields, options=dict(recipe.data_options), folders=folders, base=recipe.base, span=recipe.span)


def checkpoint_path(recipe: Recipe, folder: Path) -> Path | None:
    """Where the recipe saves: a name within `folder`, which is not the text's to choose. Error: DL0728 for a name that leads out."""
    return _inside(recipe, recipe.save.path, folder) if recipe.save is not None else None


def _inside(recipe: Recipe, path: str, folder: Path) -> Path:
    name = PurePath(path)
    if not name.name or name.is_absolute() or ".." in name.parts or "\0" in path:
        raise _refused("DL0728", f"the recipe '{recipe.name}' saves to '{path}'", "a recipe saves within the folder of the run")
    return folder / name


class Fit:
    """Trains `program` by `recipe` on `data`: iterate over its epochs, or `run()` it.

    The file that the recipe saves is in `folder`. With `resume` the run goes on from that file, if it is there, and ends with the
    same bits as an uninterrupted one. `metrics` are computed in Python after each evaluation. `fault` is called at the stages of saving, for
    tests that kill the process there. With `check` NaN and infinities stop training (see `dslc.training.finite`), for which a copy of at
    most `room` bytes is kept of what training changes.

    Errors: DL0721 to DL0728. Ctrl-C within an epoch saves and raises `Interrupted`.
    """

    def __init__(
        self,
        recipe: Recipe,
        program: TrainingProgram,
        data: DataSet,
        *,
        folder: Path | None = None,
        resume: bool = False,
        info: RunInfo | None = None,
        observers: Sequence[Observer] = (),
        log_every: int = 100,
        metrics: Sequence[PythonMetric] = (),
        fault: StageHook | None = None,
        check: bool = True,
        room: int = LARGEST_COPY,
    ):
        assert log_every >= 1, "steps between records"
        self.recipe = recipe
        self.program = program
        self.data, held = hold_out(data, recipe.validation if recipe.validate else None)
        data = self.data
        self.info = info or RunInfo()
        self.path = checkpoint_path(recipe, folder or Path.cwd())
        self.best_path = _inside(recipe, recipe.best.path, folder or Path.cwd()) if recipe.best is not None else None
        self.replay_path = folder / f"{recipe.name}.replay.safetensors" if folder is not None else None
        self.history: list[EpochReport] = []
        self.observers = tuple(observers)
        self._log_every = log_every
        self._hooks = tuple(metrics)
        self._fault = fault
        self._guard = InterruptGuard()
        self._announced = False

        if program.max_batch is not None and recipe.batch > program.max_batch:
            raise _refused(
                "DL0720",
                f"the batch of {recipe.batch} is larger than the program's bound of {program.max_batch}",
                f"train with at most {program.max_batch}, or raise the bound of the batch dimension",
            )
        described = [data.description[f.name] for f in program.inputs]
        self.batches = Batches(data.train, described, recipe.batch)
        self._test_batches = Batches(data.test, described, recipe.batch) if data.test and recipe.validate else None
        self._validation_batches = Batches(held, described, recipe.batch) if held is not None else None
        self.cycle = Cycle(recipe)
        batches = -(-data.train.count // recipe.batch)
        self._last_epoch = recipe.epochs or (1 if recipe.steps is None else _NEVER)
        self._last_step = recipe.steps or _NEVER
        self._total, self._epochs = self.cycle.length(batches, self._last_epoch, self._last_step)  # if the batch never changes
        self._settings: dict[str, float | int] = {**dict(recipe.settings), "seed": recipe.seed, "step": 0, "total": self._total}
        self._settings |= {f"{name}.total": count for name, count in self.cycle.executed(self._total).items() if name}

        self._epoch = 0  # epochs that are complete
        self._example = 0  # examples of the current epoch that are done
        self._step = 0  # updates in all
        self._seconds = 0.0  # of the current epoch
        self._tally = Tally()
        self._statistics = Tally()  # since the last record
        self._saved: tuple[int, int, int] | None = None  # the position of the checkpoint that is in place
        self._saved_time = perf_counter()
        self._fingerprint = ""
        self.finite = FiniteWatch(program.state, check, room)
        self._resumed = self._resume() if resume else None

    @property
    def total(self) -> int:
        """Updates of the whole run, for schedules."""
        return self._total

    @property
    def settings(self) -> Mapping[str, float | int]:
        """The settings of a step, with "seed" and "total"."""
        return self._settings

    @property
    def finished(self) -> bool:
        """Whether all epochs or steps of the recipe are done, or its patience is, and the last epoch is reported."""
        done = self._epoch >= self._last_epoch or (self._step >= self._last_step and self._example == 0)
        return done or (self._example == 0 and exhausted(self.history, self.recipe))

    @property
    def step(self) -> int:
        """Updates so far, those before a resumption included."""
        return self._step

    @property
    def position(self) -> Position:
        """Where the run stands."""
        return Position(self._epoch, self._example, self._step)

    def place(self, at: Position, history: Sequence[EpochReport] | None = None) -> None:
        """Stands elsewhere; whoever says so has set the program's state."""
        self._epoch, self._example, self._step = at.epoch, at.example, at.step
        self.history = list(self.history if history is None else history)[: at.epoch]
        self._tally, self._saved = Tally(), None

    @property
    def kinds(self) -> Mapping[str, Step]:
        """How a step of each phase is made."""
        return {phase.name: Step.of(self.program, phase) for phase in self.cycle.phases}

    def replay(self, step: int) -> Mapping[str, float]:
        """Makes step number `step` again, from 1, and looks at every operation if NaN or an infinity comes up; its metrics otherwise.

        It begins here, at a checkpoint or at what a failed run left, whichever is nearest before. Errors: DL0726, DL0732.
        """
        return replayed(self, step)

    def run(self) -> tuple[EpochReport, ...]:
        """Trains to the end and returns the reports of all epochs, those before a resumption included."""
        with self._guard:
            for _ in self:
                pass
        return tuple(self.history)

    def __iter__(self) -> Iterator[EpochReport]:
        while not self.finished:
            with self._guard:  # not while the caller has the report: then Ctrl-C is the caller's
                report = self._run_epoch()
            yield report

    def save(self) -> Path | None:
        """Writes a checkpoint of this moment, if the recipe saves; not during an epoch's iteration."""
        try:
            return self._save()
        except NotFinite as lost:
            raise diagnosis(self, lost) from None

    def _save(self) -> Path | None:
        position = self._epoch, self._example, self._step
        if self.path is None or self._saved == position:
            return self.path
        self._write(self.path)
        self._saved_time = perf_counter()
        self._saved = position
        return self.path

    def _write(self, path: Path) -> None:
        self._look()
        started = perf_counter()
        checkpoint.save(path, Checkpoint(self.program.state(), self._state(), self.data.description.to_json()), self._fault)
        for observer in self.observers:
            observer.saved(path, self._step, perf_counter() - started)

    def _run_epoch(self) -> EpochReport:
        outcome = "failed"
        try:
            self._announce()
            self._train()
            if self._last or self.finite.due(perf_counter()):
                self._look()
            report = self._evaluated()
            self.history.append(report)
            self._epoch, self._example, self._seconds, self._tally = self._epoch + 1, 0, 0.0, Tally()
            for observer in self.observers:
                observer.epoch(report)
            if self.best_path is not None and self.recipe.best is not None and is_best(self.history, self.recipe.best.judged):
                self._write(self.best_path)
            every = self.recipe.save.every_epochs if self.recipe.save else None
            if self.finished or (every is not None and self._epoch % every == 0):
                self._save()
            if self._guard.requested and not self.finished:
                self._stop()
            outcome = "finished"
        except Interrupted:
            outcome = "interrupted"
            raise
        except NotFinite as lost:
            raise diagnosis(self, lost) from None
        finally:
            if self.finished or outcome != "finished":
                for observer in self.observers:
                    observer.finished(outcome, self._step)
        return report

    def _train(self) -> None:
        """The steps of this epoch that are left. Results are read, and everything else is looked after, only now and then."""
        if self._step >= self._last_step:
            return
        program, settings, guard = self.program, self._settings, self._guard
        if self.finite.kept() is None:
            self.finite.keep(self.position)  # what a run begins with; if that is not finite, its first step shows it
        elif self.finite.copy_due(perf_counter()):
            self._look()  # a copy of what is already spoiled would hide the step that spoiled it
        pending: list[_Result] = []
        steps = [self.kinds[phase.name] for phase in self.cycle.order]
        examples, done, parts = self.batches.count, self._example, 0
        if any(it.accumulate > 1 for it in steps):
            program.reset()
        watch = Watch(self)
        step, due, alarm = self._step, watch.due, watch.alarm
        self.batches.waits, self.batches.waited = 0, 0.0
        with self.batches.ahead(self.batches.shuffled(self.recipe.seed, self._epoch, self._example)) as batches:
            for batch, count in batches:
                settings["step"] = step
                parts, done = parts + 1, done + count
                now = steps[step % len(steps)]
                whole = parts == now.accumulate or done == examples  # the last step of an epoch takes the batches that are left
                pending.append((now.step(batch, settings), count, whole, now.loss))
                if not whole:
                    continue
                if now.accumulate > 1:
                    now.update(settings)
                step, parts = step + 1, 0
                if step >= alarm or perf_counter() >= due or guard.requested:
                    self._drain(pending)
                    watch.look()
                    due, alarm = watch.due, watch.alarm
                    if step >= self._last_step:
                        break
        self._drain(pending)
        watch.stop()

    def _drain(self, pending: list[_Result]) -> None:
        """Reads the results of the steps since the last call and moves the position past them."""
        for metrics, count, whole, name in pending:
            self._step += whole
            self._example += count
            loss = float(metrics[name])
            if self.recipe.statistics:
                self._statistics.add({n.removeprefix(STATISTICS): v for n, v in metrics.items() if n.startswith(STATISTICS)}, count)
                metrics = {n: v for n, v in metrics.items() if not n.startswith(STATISTICS)}
            self._tally.add(metrics, count)
            if not math.isfinite(loss) and self.finite.enabled:
                what = f"the loss of {name.rpartition('.')[0]}" if self.recipe.phases else "the loss"
                raise NotFinite(f"{what} is {loss}", self._step + (not whole))
        pending.clear()

    def _look(self) -> None:
        """Raises NotFinite where the state holds NaN or an infinity; keeps a copy of it otherwise, if that is due."""
        if self.finite.enabled:
            found = self.finite.look()
            if found is not None:
                raise NotFinite(found, self._step)
            self.finite.keep(self.position)

    @property
    def _last(self) -> bool:
        """Whether the epoch that has just been trained is the last one."""
        return self._epoch + 1 >= self._last_epoch or self._step >= self._last_step

    def _evaluated(self) -> EpochReport:
        """The report of the epoch: with a validation split the test examples are left for the end."""
        due = self.recipe.validate and ((self._epoch + 1) % self.recipe.validate == 0 or self._last)
        none = Measured({}, {})
        if self._validation_batches is None:
            return self._report(self._evaluate(self._test_batches) if due else none, none)
        held = self._evaluate(self._validation_batches) if due else none
        report = self._report(none, held)
        if self._last or exhausted([*self.history, report], self.recipe):
            report = self._report(self._evaluate(self._test_batches), held)
        return report

    def _evaluate(self, examples: Batches | None) -> Measured:
        """What these examples give."""
        if examples is None:
            return Measured({}, {})
        evaluation = Evaluation(self.recipe.totals, self._hooks)
        if self.recipe.totals:
            self.program.reset()
        settings: dict[str, float | int] = {"seed": self.recipe.seed, "step": 0}
        with examples.ahead(examples.in_order()) as batches:
            for number, (batch, count) in enumerate(batches, 1):
                settings["step"] = -number  # training counts from 0 upwards: nothing is drawn that training draws
                evaluation.add(batch, self.program.evaluate(batch, settings), count)
                if self._guard.requested:
                    self._stop()
        return evaluation.measured()

    def _stop(self) -> None:
        """Saves and raises `Interrupted`."""
        raise Interrupted(self._step, self._save())

    def _report(self, test: Measured, held: Measured) -> EpochReport:
        speed = self._tally.count / self._seconds if self._seconds > 0 else 0.0
        waits, waited = self.batches.waits, round(self.batches.waited, 6)
        means = self._tally.means()
        return EpochReport(
            self._epoch + 1, self._step, means, test.metrics, self._seconds, speed, waits, waited, test.tables, held.metrics, held.tables
        )  # fmt: skip

    def _announce(self) -> None:
        if self._announced:
            return
        self._announced = True
        pictures = any(f.full is not None for f in self.data.description.fields)
        run = RunReport(
            recipe=self.recipe.name,
            data=self.data.name,
            examples=self.data.train.count,
            test_examples=self.data.test.count if self.data.test else 0,
            validation_examples=self._validation_batches.count if self._validation_batches else 0,
            data_bytes=self.data.nbytes,
            unit="images" if pictures else "examples",
            epochs=self._epochs,
            steps=self._total,
            batch=self.recipe.batch,
            seed=self.recipe.seed,
            settings=dict(self.recipe.settings),
            info=self.info,
            resumed=self._resumed,
            history=tuple(self.history),
            accumulate=self.recipe.accumulate,
            phases=self.recipe.phases,
        )
        for observer in self.observers:
            observer.started(run)
        if self._test_batches is None and self._validation_batches is None and (self._hooks or self.recipe.totals):
            names = ", ".join((*self.recipe.totals, *(hook.name for hook in self._hooks)))
            why = "validate is 0" if self.data.test else "there are no test examples"
            self._note(f"{names}: not computed, {why}")

    def _state(self) -> RunState:
        self._fingerprint = self._fingerprint or self.data.fingerprint()
        return RunState(
            epoch=self._epoch,
            example=self._example,
            step=self._step,
            seed=self.recipe.seed,
            batch=self.recipe.batch,
            data=self._fingerprint,
            source_digest=self.info.source_digest,
            sums=dict(self._tally.sums),
            counted=self._tally.count,
            counts={name: n for name, n in self._tally.counts.items() if n != self._tally.count},
            seconds=self._seconds,
            history=tuple(self.history),
        )

    def _resume(self) -> int | None:
        """Takes over the checkpoint's state and returns its step; None where there is no checkpoint yet."""
        if self.path is None:
            raise _refused(
                "DL0721", f"the recipe '{self.recipe.name}' saves nothing to resume from", 'add `save Model as "file.safetensors"`'
            )
        if not self.path.exists():
            self._note(f"there is no checkpoint {self.path} yet: training from the beginning")
            return None
        loaded = checkpoint.load(self.path)
        run = loaded.run
        self.check_run(loaded, self.path)
        if run.source_digest != self.info.source_digest:
            self._note(f"the source has changed since {self.path} was written; its parameters still fit")
        self.program.load_state(loaded.tensors)
        self._epoch, self._example, self._step, self._seconds = run.epoch, run.example, run.step, run.seconds
        self._tally = Tally(run.sums, run.counted, run.counts)
        self.history = list(run.history)
        self._saved = run.epoch, run.example, run.step
        return run.step

    def check_run(self, loaded: Checkpoint, path: Path) -> None:
        """Refuses a checkpoint of another run: DL0724, DL0727."""
        run = loaded.run
        if run.seed != self.recipe.seed:
            raise _refused(
                "DL0727",
                f"{path} was trained with seed {run.seed}, this run asks for {self.recipe.seed}",
                f"resume with --seed {run.seed}, or train anew without --resume",
            )
        if run.data != self.data.fingerprint():
            raise _refused("DL0727", f"{path} was trained on other data than '{self.data.name}'", "resume with the same data")
        checkpoint.check_fit(loaded.tensors, self.program.state(), str(path))

    def leave_replay(self) -> Path | None:
        """Writes where the run stands for a later `replay`; the folder of the run is known, or nothing is written."""
        if self.replay_path is not None:
            checkpoint.save(self.replay_path, Checkpoint(self.program.state(), self._state(), self.data.description.to_json()))
        return self.replay_path

    @property
    def saved(self) -> Path | None:
        """The checkpoint that this run has written or begun with."""
        return self.path if self._saved is not None else None

    def _note(self, text: str) -> None:
        for observer in self.observers:
            observer.note(text)


def _refused(code: str, message: str, hint: str) -> DiagnosticError:
    return DiagnosticError(Diagnostic(code, message, hint=hint))
