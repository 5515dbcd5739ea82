"""Comparing a program with the same network in PyTorch and ONNX Runtime.

The peers' network is a translation of the graph (`dslc.interchange`), with the same weights and inputs. Every contender is a process of
its own; they take turns of a third of a second, so that no pool of threads disturbs another, and so do kernels that reach the limits
of the machine. Results of the first call are compared before anything is timed.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dslc.api.compilation import Progress, elaborate, load, obtain, request_of
from dslc.api.compilation import compile as compile_source
from dslc.api.measure import random_inputs
from dslc.api.sources import Source, find_source, split_name
from dslc.api.trainer import Trainer
from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.module import PortKind
from dslc.ir.module_text import print_module
from dslc.options import Options, from_environment

if TYPE_CHECKING:
    from dslc.ir.graph import Graph, Op
    from dslc.ir.module import Program as IRProgram

PEERS = {"torch": ("torch", "torch channels-last"), "torch.compile": ("torch compile",), "onnxruntime": ("onnxruntime",)}
PACKAGES = {"torch": ("torch",), "torch.compile": ("torch",), "onnxruntime": ("onnxruntime", "onnx")}
SHOWN = 65536  # elements of a parameter that are compared
RECIPE = "compared"


@dataclass(frozen=True, slots=True)
class Task:
    """What all contenders do; with weights, inputs and the module's text it is all that a folder holds."""

    text: str
    file: str
    base: str | None
    name: str | None
    artifact: str
    training: bool
    batch: int
    threads: int
    dims: dict[str, int]
    precision: str | None
    width: int | None
    settings: dict[str, float | int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        (folder / "task.json").write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> Task:
        return Task(**json.loads((folder / "task.json").read_text(encoding="utf-8")))

    def source(self) -> Source:
        """The text that is compiled."""
        return Source(self.text, self.file, Path(self.base) if self.base else None)

    def options(self) -> Options:
        """Those of the environment with what was asked for."""
        return replace(from_environment(), threads=self.threads, width=self.width)

    def program(self, folder: Path) -> IRProgram:
        """The bound program that peers translate."""
        from dslc.interchange.torch_network import bound
        from dslc.ir.module_text import parse_module
        from dslc.ops import register_operators

        register_operators()
        programs = parse_module((folder / "module.json").read_text(encoding="utf-8")).programs
        return bound(programs["train"] if self.training else next(iter(programs.values())), self.batch)


@dataclass(frozen=True, slots=True)
class Standing:
    """A contender: the median of its medians, and how far its first results were from dslc's (None where numbers are drawn)."""

    name: str
    milliseconds: float
    error: float | None
    rounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All contenders of one program. `weights` are the bytes of its parameters; limits are medians too."""

    name: str
    training: bool
    batch: int
    threads: int
    flops: int
    weights: int
    gflops: float
    gbytes: float
    copied: float
    standings: tuple[Standing, ...]

    @property
    def ratio(self) -> float:
        """Best peer / dslc: above 1, dslc is faster."""
        mine, *peers = self.standings
        return min(p.milliseconds for p in peers) / mine.milliseconds

    def shares(self, milliseconds: float) -> tuple[float, float]:
        """What part of the time arithmetic at the limit takes, and reading the weights once at the limit."""
        return self.flops / self.gflops / 1e6 / milliseconds, self.weights / self.gbytes / 1e6 / milliseconds

    def as_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        rows = [
            {**asdict(s), "arithmetic_share": self.shares(s.milliseconds)[0], "weights_share": self.shares(s.milliseconds)[1]}
            for s in self.standings
        ]
        return {**asdict(self), "standings": rows, "best_peer_over_dslc": self.ratio}


def limit_line(c: Comparison) -> str:
    """The machine's limits in words."""
    return f"{c.gflops:.0f} GFLOP/s in registers, {c.gbytes:.1f} GB/s read from memory, {c.copied:.1f} GB/s copied"


def wanted(names: str, training: bool) -> tuple[str, ...]:
    """The contenders beside dslc, of a list with commas. DL0831 for one that does not train, DL0832 where a package is missing."""
    found: list[str] = []
    for name in dict.fromkeys(part.strip() for part in names.split(",") if part.strip()):
        if name not in PEERS:
            raise DiagnosticError(Diagnostic("DL0832", f"there is no peer {name[:40]!r}", hint=f"there are {', '.join(PEERS)}"))
        if training and name != "torch":
            raise DiagnosticError(Diagnostic("DL0831", f"{name} is not compared in training", hint="training is compared with torch"))
        missing = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
        if missing:
            what = f"to compare with {name}, {' and '.join(missing)} must be installed"
            raise DiagnosticError(Diagnostic("DL0832", what, hint=f"pip install {' '.join(missing)}"))
        found += PEERS[name]
    if not found:
        raise DiagnosticError(Diagnostic("DL0832", "no peer is named", hint=f"there are {', '.join(PEERS)}"))
    return tuple(found)


def against(
    file: str, peers: Sequence[str], *, training: bool, batch: int | None, dims: Mapping[str, int], options: Options, rounds: int = 5,
    progress: Progress | None = None,
) -> Comparison:  # fmt: skip
    """Compare what `file` names, FILE[:NAME], with these contenders; in training a recipe, or a model, which gets a recipe of its own."""
    path, name = split_name(file)
    source = Source("", "") if path.endswith(".dlc") else find_source(path)
    if training:
        return _training(source, name, peers, batch, dims, options, rounds, progress)
    if path.endswith(".dlc"):
        program = load(path, threads=options.threads)
    else:
        program = compile_source(
            source, name, dims=dims, precision=options.precision, threads=options.threads, width=options.width, progress=progress
        )
    count = batch or 1
    task = _task(source, name, str(Path(path).resolve()) if path.endswith(".dlc") else "", False, count, program.threads, dims, options)
    inputs = random_inputs(program.runtime.plan, count)
    size = sum(a.nbytes for a in program.parameters.values())
    module = print_module(program.module)
    return compare(task, program.name, module, program.weights, inputs, program.flops(count), size, peers, rounds, _texts(source))


def _training(
    source: Source, name: str | None, peers: Sequence[str], batch: int | None, dims: Mapping[str, int], options: Options, rounds: int,
    progress: Progress | None,
) -> Comparison:  # fmt: skip
    source, recipe = _recipe(source, name, dims, options)
    ready = obtain(request_of(source, recipe, True, dims, options), progress=progress)
    assert ready.signature.recipe is not None, "a module with a recipe"
    count = batch or ready.signature.recipe.batch
    data = random_inputs(ready.plan.program("train"), count)
    trainer = Trainer(
        source, recipe, {"train": data}, batch=count, save=False, dims=dims, precision=options.precision, threads=options.threads,
        width=options.width,
    )  # fmt: skip
    settings = {**dict(trainer.recipe.settings), "seed": 0, "step": 0, "total": 1000}
    task = replace(_task(source, recipe, "", True, count, trainer.threads, dims, options), settings=settings)
    weights = trainer.weights
    size = sum(array.nbytes for array in weights.values())
    flops = trainer.flops(count)
    return compare(task, name or trainer.recipe.name, ready.artifact.graph, weights, data, flops, size, peers, rounds, _texts(source))


def _recipe(source: Source, name: str | None, dims: Mapping[str, int], options: Options) -> tuple[Source, str | None]:
    """The source and its recipe `name`; a model is given one: cross entropy over its flattened result, AdamW at a constant rate."""
    from dslc.frontend.elaborate import load as load_file
    from dslc.ops import register_operators

    register_operators()
    loaded = load_file(source.text, source.file, source.folder)
    if name is None or name in loaded.recipes or loaded.reporter.failed:
        return source, name
    (program,) = elaborate(request_of(source, name, False, dims, options)).module.programs.values()
    inputs = {p.name: v.type for p, v in zip(program.inputs, program.graph.inputs, strict=True) if p.kind == PortKind.INPUT}
    fields = ", ".join(f"{n}: {t.dtype.value}[{', '.join(['N', *map(str, t.shape[1:])])}]" for n, t in inputs.items())
    text = (
        f'\ntrain {RECIPE} {{\n  data {fields}, target: i64[N] from "npz:none.npz"\n'
        f"  minimize cross_entropy(flatten({name}({', '.join(inputs)})), target) over {name} with AdamW[1e-3]\n}}\n"
    )
    return Source(source.text + text, source.file, source.folder), RECIPE


def _task(
    source: Source, name: str | None, artifact: str, training: bool, batch: int, threads: int, dims: Mapping[str, int], options: Options
) -> Task:
    base = str(source.folder) if source.folder else None
    return Task(source.text, source.file, base, name, artifact, training, batch, threads, dict(dims), options.precision, options.width)


def _texts(source: Source) -> dict[str, str]:
    return {source.file: source.text}


def compare(
    task: Task, name: str, module: str, arrays: Mapping[str, Any], inputs: Mapping[str, Any], flops: int, weights: int,
    peers: Sequence[str], rounds: int, sources: Mapping[str, str],
) -> Comparison:  # fmt: skip
    """Everyone prepares, the results are compared, then all take turns. DL0830, DL0831, DL0833."""
    with tempfile.TemporaryDirectory(prefix="dslc-") as place:
        folder = Path(place)
        task.write(folder)
        (folder / "module.json").write_text(module, encoding="utf-8")
        np.savez(folder / "weights.npz", **arrays)
        np.savez(folder / "inputs.npz", **inputs)
        kinds = ["dslc", *peers, "limits"]
        running: dict[str, subprocess.Popen[str]] = {}
        try:
            for kind in kinds:  # one after the other: preparing takes all processors
                running[kind] = _start(folder, kind, sources)
            answers: dict[str, list[str]] = {kind: [] for kind in kinds}
            for _ in range(rounds):
                for kind in kinds:
                    answers[kind].append(_ask(folder, kind, running[kind]))
            errors = _errors(folder, task, peers)
        finally:
            for process in running.values():
                process.kill()
                process.communicate()
    limits = [json.loads(line) for line in answers.pop("limits")]
    standings = []
    for kind, lines in answers.items():
        times = tuple(float(line) for line in lines)
        standings.append(Standing(kind, statistics.median(times), errors.get(kind), times))
    median = {key: statistics.median(limit[key] for limit in limits) for key in ("gflops", "gbytes", "copied")}
    return Comparison(name, task.training, task.batch, task.threads, flops, weights, **median, standings=tuple(standings))


def _start(folder: Path, kind: str, sources: Mapping[str, str]) -> subprocess.Popen[str]:
    with (folder / f"{kind}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dslc.api.contender", str(folder), kind],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
        )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "ready":
            return process
    process.wait()
    refused = folder / f"{kind}.refused"
    if refused.exists():
        diagnostics, texts = pickle.loads(refused.read_bytes())  # written by our own process into our own folder
        raise DiagnosticError(*diagnostics, sources={**sources, **texts})
    raise ended(folder, kind)


def _ask(folder: Path, kind: str, process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write("go\n")
        process.stdin.flush()
    except BrokenPipeError:
        raise ended(folder, kind) from None
    line = process.stdout.readline().strip()
    if not line:
        raise ended(folder, kind)
    return line


def ended(folder: Path, kind: str) -> DiagnosticError:
    """DL0833, with the last line of what the contender said."""
    words = (folder / f"{kind}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = words[-1][:300] if words else "it said nothing"
    return DiagnosticError(Diagnostic("DL0833", f"the contender {kind} ended early: {said}"))


def _errors(folder: Path, task: Task, peers: Sequence[str]) -> dict[str, float]:
    """How far each peer's first results are from dslc's: the largest error of a result as a share of its largest element; in training
    also the mean error of a parameter as a share of the step's mean move. Empty where the program draws random numbers."""
    draws = ("random", "dropout", "bernoulli", "categorical", "mixup", "cutout")
    if any(op.kind.startswith(draws) for op in _operations(task.program(folder).graph)):
        return {}
    right, before = dict(np.load(folder / "dslc.npz")), np.load(folder / "weights.npz")
    found = {}
    for kind in peers:
        other = dict(np.load(folder / f"{kind}.npz"))
        worst = 0.0
        for name, array in right.items():
            if name not in other:
                continue
            mine, theirs = array.astype(np.float64), other[name].astype(np.float64).reshape(array.shape)
            if name.startswith("weight "):
                start = before[name.removeprefix("weight ")].reshape(-1)[:SHOWN]
                error, scale = float(np.abs(mine - theirs).mean()), float(np.abs(mine - start).mean())
            else:
                error, scale = float(np.abs(mine - theirs).max(initial=0)), float(np.abs(mine).max(initial=0))
            worst = max(worst, error / scale if scale else error)
        found[kind] = worst
    return found


def _operations(graph: Graph) -> Iterator[Op]:
    """Those in the bodies of loops too."""
    for op in graph.ops:
        yield op
        for region in op.regions:
            yield from _operations(region)
