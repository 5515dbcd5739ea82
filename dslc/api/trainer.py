"""Training from Python: a recipe of a `.dl` file on its data, or on arrays of the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, TypeVar

from dslc.api import weights as files
from dslc.api.compilation import Progress, Ready, obtain, options_of, request_of, versions
from dslc.api.copies import Copies
from dslc.api.loading import load_files
from dslc.api.program import SAVED, initialise
from dslc.api.sources import Source
from dslc.data import DataSet, Field
from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.plan import PASSING, ExecutablePlan, MemoryReport, PortPlan, memory_report
from dslc.ir.recipe import AVERAGE, Recipe
from dslc.runtime.convert import Array
from dslc.runtime.executable import Executable
from dslc.runtime.executable import Program as RuntimeProgram
from dslc.training import EpochReport, Fit, Observer, RunInfo, checkpoint_path, open_recipe_data
from dslc.training.cycle import Cycle
from dslc.training.evaluation import PythonMetric, python_metrics
from dslc.training.finite import LARGEST_COPY, Trouble

if TYPE_CHECKING:
    from dslc.api.stages import Stages
    from dslc.backends.cpu.tuning import Tuned

TRAIN, UPDATE, EVALUATE = "train", "update", "evaluate"
T = TypeVar("T")
Tracer = Callable[[str, "Mapping[str, Array] | None", Mapping[str, float | int]], "Trouble | None"]
_HOW_TO_SET = 'training begins with the weights of a file: `load Net from "net.safetensors"` in the recipe'
_COUNTER = "counter"  # a program's name for the number of the step


class Trainer:
    """A compiled recipe with its data: iterate over its epochs, or `fit()` it.

    `source` and `recipe` are as in `dslc.compile`; `recipe` may be left out where there is only one. `data` takes the place of the data
    that the recipe names: arrays by field, a tuple of arrays in the order of the fields, an iterable of examples, or one of these for
    each of "train" and "test". `epochs`, `steps`, `batch`, `seed` and `settings` (learning rates by name) take the place of the recipe's;
    none of them recompiles anything. The file that the recipe saves goes to `folder`, the current one if None; with `resume` training
    goes on from there. `observers` watch (see `dslc.training`), or are made for the recipe by a function; nothing is printed.
    `metrics` are functions by name: each is called after an evaluation with arrays over the whole test split, and gives a number. Its
    parameters are names in the recipe, of data or of tensors with a row for each example: `metrics={"mAP": lambda boxes, label: ...}`.
    `verify` checks every pass and every kernel against the interpreter first; `tune` measures tiles, as in `dslc.compile`. With `check` NaN
    and infinities stop training with a report of the operation that made them (DL0726), for which a copy is kept of what training changes;
    `replay` is the command that the report names for making the step again.

    Errors: DiagnosticError with everything that is wrong with the source, DL07xx for data and settings.
    """

    def __init__(
        self,
        source: Source | Path | str,
        recipe: str | None = None,
        data: object = None,
        *,
        data_folders: Sequence[Path | str] = (),
        folder: Path | str | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        batch: int | None = None,
        seed: int | None = None,
        settings: Mapping[str, float | int] | None = None,
        resume: bool = False,
        save: bool = True,
        dims: Mapping[str, int] | None = None,
        precision: str | None = None,
        threads: int | None = None,
        width: int | None = None,
        cache: Path | str | bool = True,
        observers: Sequence[Observer] | Callable[[Recipe], Sequence[Observer]] = (),
        log_every: int = 100,
        metrics: Mapping[str, Callable[..., Any]] | None = None,
        verify: bool = False,
        tune: bool = False,
        check: bool = True,
        replay: str = "",
        progress: Progress | None = None,
        tuned: Callable[[Tuned], None] | None = None,
    ):
        if save and folder is not None and not Path(folder).is_dir():  # not only after compiling
            raise DiagnosticError(
                Diagnostic("DL0725", f"there is no folder {folder} to write to", hint="give a folder that exists and may be written")
            )
        options = replace(options_of(None, precision, threads, width, cache), verify=verify, tune=tune)
        hooks = python_metrics(metrics or {})
        collect = tuple(sorted({name for hook in hooks for name in hook.arguments}))
        request = replace(request_of(source, recipe, True, dims, options), collect=collect)
        self._ready = obtain(request, cache is not False, progress, tuned)
        written = self._ready.signature.recipe
        assert written is not None, "a module with a recipe"
        changed = written.override(epochs=epochs, steps=steps, batch=batch, seed=seed, settings=settings)
        self.recipe: Recipe = changed if save else replace(changed, save=None, best=None)
        folders = [*map(Path, data_folders), *options.data]
        self.data: DataSet = _data(self.recipe, folders, data, request.source)
        within_budget(self.recipe, self._ready.plan, self.data.train.count)
        self._executable = self._ready.executable(options.threads)
        initialise(self._executable, self.recipe.seed)
        place = checkpoint_path(self.recipe, Path(folder) if folder is not None else Path.cwd())
        if self.recipe.loads and not (resume and place is not None and place.exists()):
            _with_source(request.source, lambda: load_files(self._executable, self._ready.artifact.graph, self.recipe, folders))
            begin_averages(self._executable)
        self._own: dict[str, float | int] = {}  # settings of `train_on`
        self._cycle = Cycle(self.recipe)
        self._source = request.source
        self._program = CompiledRecipe(self._executable, self.recipe, collect, self._trace)
        info = RunInfo(self._ready.artifact.source, self._executable.threads, tuple(sorted(versions().items())), replay)
        self._fit = Fit(
            self.recipe,
            self._program,
            self.data,
            folder=Path(folder) if folder is not None else None,
            resume=resume,
            info=info,
            observers=observers(self.recipe) if callable(observers) else observers,
            log_every=log_every,
            metrics=_unlike(hooks, self.recipe),
            check=check,
            room=self._room(),
        )
        self.data = self._fit.data  # without what is held out for validation

    def __iter__(self) -> Iterator[EpochReport]:
        """One report an epoch."""
        return iter(self._fit)

    def fit(self) -> tuple[EpochReport, ...]:
        """Train to the end of the recipe; the reports of all epochs."""
        return self._fit.run()

    def replay(self, step: int) -> Mapping[str, float]:
        """Makes step number `step` again, from 1: its metrics, or DL0726 with the operation where NaN or an infinity begins.

        It begins where a failed run of this folder ended, at the checkpoint, or here, whichever is nearest before; the run stands there then.
        """
        return self._fit.replay(step)

    def _trace(self, name: str, batch: Mapping[str, Array] | None, settings: Mapping[str, float | int]) -> Trouble | None:
        """The first operation of a call of the program `name` that goes wrong."""
        from dslc.api.trace import trace
        from dslc.compiler import transform
        from dslc.ir.module_text import parse_module

        module = self._ready.compiled.module if self._ready.compiled is not None else parse_module(self._ready.artifact.graph)
        program = module.programs[name]
        sources = {**module.sources, self._source.file: self._source.text}
        return trace(program, transform(program, {})[0].graph, self._executable.view, batch or {}, settings, sources)

    def _room(self) -> int:
        """Bytes that a copy of what training changes may take."""
        if self.recipe.budget is None:
            return LARGEST_COPY
        return min(LARGEST_COPY, self.recipe.budget - most_memory(self.recipe, self._ready.plan, self.data.train.count))

    def train_on(self, /, **batch: Array) -> Mapping[str, SupportsFloat]:
        """One update on a batch of the caller's: the recipe's data and its position stay as they are. Returns loss and metrics.

        Phases take turns.
        """
        if not self._own:
            self._own = {**self._fit.settings, "step": 0}
        now = self._cycle.at(int(self._own["step"]))
        program = self._program.phase(now.name) if now.name else self._program
        metrics = program.step(batch, self._own)
        if now.accumulate > 1:
            program.update(self._own)
        self._own["step"] += 1
        return metrics

    @property
    def history(self) -> Sequence[EpochReport]:
        """The epochs so far."""
        return self._fit.history

    @property
    def step(self) -> int:
        """Updates so far."""
        return self._fit.step

    @property
    def finished(self) -> bool:
        """Whether the recipe is at its end."""
        return self._fit.finished

    @property
    def path(self) -> Path | None:
        """The checkpoint that the recipe saves."""
        return self._fit.path

    @property
    def threads(self) -> int:
        """Into how many shares the work is cut."""
        return self._executable.threads

    @property
    def cached(self) -> bool:
        """Whether nothing had to be compiled, not even parsed."""
        return self._ready.compiled is None

    @property
    def compiled_kernels(self) -> int:
        """Kernels that were compiled now."""
        return len(self._ready.compiled.built) if self._ready.compiled is not None else 0

    @property
    def weights(self) -> Mapping[str, Array]:
        """Copies of the parameters and states by path: `program.load_weights(trainer.weights)`."""
        return Copies({name: self._executable.get(name) for role in SAVED for name in self._executable.names(role)}, _HOW_TO_SET)

    @property
    def averaged_weights(self) -> Mapping[str, Array]:
        """The same with the moving averages of the parameters, where the recipe says `ema`: what `weights = "ema"` exports."""
        averages = {name.removeprefix(AVERAGE): name for name in self._executable.names("ema")}
        return Copies({name: self._executable.get(averages.get(name, name)) for name in self.weights}, _HOW_TO_SET)

    def save_weights(self, path: Path | str, *, ema: bool = False) -> None:
        """Write the weights, or the averaged ones, and the data's description as a safetensors file."""
        files.write_weights(path, self.averaged_weights if ema else self.weights, self.data.description.to_json())

    def memory(self) -> MemoryReport:
        """Exact bytes that a training step takes at the recipe's batch; with phases, of the one that takes most."""
        batch = min(self.recipe.batch, self.data.train.count)
        return max((self._executable.memory(name, batch) for name in training_programs(self.recipe)), key=lambda report: report.total)

    def flops(self, batch: int = 1) -> int:
        """Floating-point operations of a training step; with phases, of a whole cycle."""
        total = 0
        for name, phase in zip(training_programs(self.recipe), self._cycle.phases, strict=True):
            fixed, each = self._ready.signature.flops.get(name, (0, 0))
            total += phase.repeat * (fixed + batch * each)
        return total

    @property
    def program(self) -> CompiledRecipe:
        """The training and the evaluation program, for a loop of one's own: `trainer.program.step(batch, settings)`."""
        return self._program

    @property
    def ready(self) -> Ready:
        """The compiled module, for inspection."""
        return self._ready

    @property
    def stages(self) -> Stages:
        """Every stage of the compiler for this recipe."""
        from dslc.api.stages import Stages

        return Stages.of(self._ready.artifact.graph, self._ready.compiled, self._ready.plan)

    def __repr__(self) -> str:
        count = sum(a.size for a in self.weights.values())
        return f"<dslc.Trainer {self.recipe.name} on {self.data.name}: step {self.step}, {count:,} weights>"


def _data(recipe: Recipe, folders: Sequence[Path], given: object, source: Source) -> DataSet:
    return _with_source(source, lambda: open_recipe_data(recipe, folders=folders, given=given))


def _with_source(source: Source, action: Callable[[], T]) -> T:
    """What the action gives; the places of its errors are shown in the source."""
    try:
        return action()
    except DiagnosticError as error:
        raise DiagnosticError(*error.diagnostics, sources={**error.sources, source.file: source.text}) from error


def _unlike(hooks: Sequence[PythonMetric], recipe: Recipe) -> Sequence[PythonMetric]:
    """The hooks, if none has the name of a metric of the recipe (DL0731)."""
    for hook in hooks:
        if hook.name in recipe.metrics:
            what = f"the recipe '{recipe.name}' has a metric '{hook.name}' of its own"
            raise DiagnosticError(Diagnostic("DL0731", what, recipe.span, hint="give the one in Python another name"))
    return hooks


def begin_averages(executable: Executable) -> None:
    """Moving averages begin as the parameters do."""
    for name in executable.names("ema"):
        executable.view(name)[...] = executable.view(name.removeprefix(AVERAGE))
    executable.touch()


class CompiledSteps:
    """The programs that make steps of one kind: those of a phase, or of a recipe without any."""

    def __init__(self, train: RuntimeProgram, update: RuntimeProgram | None, inputs: Sequence[Field]):
        self.train, self._update = train, update
        self._inputs = _names(train.plan.inputs, inputs)
        self._settings = _settings(train)
        self._update_settings = _settings(update) if update is not None else ()

    def step(self, batch: Mapping[str, Array], settings: Mapping[str, float | int]) -> Mapping[str, SupportsFloat]:
        """One update, or, where the step accumulates, the gradients of one batch; the results are fresh 0-d arrays.

        Settings that are left out have the recipe's values.
        """
        names = self._inputs
        chosen = {mine: settings[theirs] for mine, theirs in self._settings if theirs in settings}
        return self.train(batch if names is None else {n: batch[n] for n in names}, chosen)

    def update(self, settings: Mapping[str, float | int]) -> None:
        """The update by the gradients that steps have added up."""
        assert self._update is not None, "a step that accumulates"
        self._update({}, {mine: settings[theirs] for mine, theirs in self._update_settings if theirs in settings})


class CompiledRecipe:
    """The programs of a recipe as the training loop wants them (`dslc.training.TrainingProgram`)."""

    def __init__(self, executable: Executable, recipe: Recipe, collect: Sequence[str] = (), trace: Tracer | None = None):
        """`collect`: names that metrics in Python want; the data among them are put into batches too. `trace` looks into a program."""
        self._trace = trace
        self._executable = executable
        phases = Cycle(recipe).phases
        trained = [executable.program(name) for name in training_programs(recipe)]
        updates = [executable.program(_of(UPDATE, p.name)) if p.accumulate > 1 else None for p in phases]
        self._evaluate = executable.program(EVALUATE)
        fields = {f.name: Field(f.name, f.dtype.value, f.shape) for f in recipe.fields}
        programs = [*trained, self._evaluate]
        read = {p.name for program in programs for p in program.plan.inputs} | set(collect)
        self.inputs: Sequence[Field] = tuple(f for name, f in fields.items() if name in read)
        bounds = [p.plan.batch_bound for p in programs if p.plan.batch_bound is not None]
        self.max_batch: int | None = min(bounds, default=None)
        self._evaluate_inputs = _names(self._evaluate.plan.inputs, self.inputs)
        self._evaluate_settings = _settings(self._evaluate)
        self._steps = {p.name: CompiledSteps(t, u, self.inputs) for p, t, u in zip(phases, trained, updates, strict=True)}
        self._first = self._steps[phases[0].name]
        self.train = self._first.train
        self._keys = {p.name: _saved_name(p.name, p.role) for p in executable.plan.persistent if p.role not in PASSING}
        self._passing = tuple(p.name for p in executable.plan.persistent if p.role in ("gradient", "metric"))

    def step(self, batch: Mapping[str, Array], settings: Mapping[str, float | int]) -> Mapping[str, SupportsFloat]:
        """As in `CompiledSteps`; where there are phases, that of the first (see `phase`)."""
        return self._first.step(batch, settings)

    def update(self, settings: Mapping[str, float | int]) -> None:
        """As in `CompiledSteps`."""
        self._first.update(settings)

    def phase(self, name: str) -> CompiledSteps:
        """The steps of a phase."""
        return self._steps[name]

    def evaluate(self, batch: Mapping[str, Array], settings: Mapping[str, float | int] | None = None) -> Mapping[str, Any]:
        """The metrics with `training` false; those with a state are of all batches since `reset`. Where the recipe draws, the numbers
        follow from the `settings` "seed" and "step", each 0 where it is left out."""
        names = self._evaluate_inputs
        chosen = {mine: settings[theirs] for mine, theirs in self._evaluate_settings if theirs in settings} if settings else None
        return self._evaluate(batch if names is None else {n: batch[n] for n in names}, chosen)

    def trace(self, phase: str, batch: Mapping[str, Array] | None, settings: Mapping[str, float | int]) -> Trouble | None:
        """The first operation of the next step, or of its update where `batch` is None, that makes NaN or an infinity of numbers."""
        return self._trace(_of(TRAIN if batch is not None else UPDATE, phase), batch, settings) if self._trace is not None else None

    def reset(self) -> None:
        """Forget what metrics have counted, and gradients that no update took."""
        for name in self._passing:
            self._executable.view(name)[...] = 0

    def state(self) -> Mapping[str, Array]:
        """Views of every buffer that training changes, under their names in a checkpoint."""
        return {key: self._executable.view(name) for name, key in self._keys.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Fill them."""
        for name, key in self._keys.items():
            self._executable.view(name)[...] = state[key]
        self.reset()
        self._executable.touch()


def training_programs(recipe: Recipe) -> tuple[str, ...]:
    """The programs that take batches: one, or one a phase."""
    return tuple(_of(TRAIN, phase.name) for phase in Cycle(recipe).phases)


def _of(program: str, phase: str) -> str:
    return f"{program}.{phase}" if phase else program


def _names(ports: Sequence[PortPlan], fields: Sequence[Field]) -> tuple[str, ...] | None:
    """The inputs to pick from a batch, or None where it has just these."""
    wanted = tuple(p.name for p in ports)
    return None if {f.name for f in fields} == set(wanted) else wanted


def _saved_name(name: str, role: str) -> str:
    """Weights go by their path; all else has a slash in its name, so that who loads weights can tell."""
    return name if role in SAVED or name.startswith(f"{role}/") else f"{role}/{name}"


def _settings(program: RuntimeProgram) -> tuple[tuple[str, str], ...]:
    """A program's settings and their names in the training loop."""
    return tuple((p.name, "step" if p.name == _COUNTER else p.name) for p in program.plan.settings)


def within_budget(recipe: Recipe, plan: ExecutablePlan, examples: int) -> None:
    """Refuses a training step that would take more memory than the recipe's `budget`, before it is taken (DL0730)."""
    needed = most_memory(recipe, plan, examples)
    if recipe.budget is not None and needed > recipe.budget:
        what = f"a step of '{recipe.name}' at batch {recipe.batch} takes {needed:,} bytes; the budget is {recipe.budget:,}"
        raise DiagnosticError(Diagnostic("DL0730", what, recipe.span, hint="train with a smaller batch, or raise `budget`"))


def most_memory(recipe: Recipe, plan: ExecutablePlan, examples: int) -> int:
    """Bytes of the step that takes most."""
    steps = [memory_report(plan, name, min(recipe.batch, examples)).total for name in training_programs(recipe)]
    return max(steps + [memory_report(plan, p.name).total for p in plan.programs if p.name.partition(".")[0] == UPDATE])
