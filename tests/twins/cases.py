"""What the twins compare: networks, optimizers, their inputs, and dslc's side of it.

Everything that is exchanged is a dictionary of arrays by name:

| name | content |
|---|---|
| `step0/image`, `step0/label`, ... | the batches of three training steps, the last one smaller |
| `start/PATH` | parameters and running statistics before the first step |
| `step0/mask0`, ... | what dropout keeps, by step and draw, from the reference of the generator |
| `infer` | the model's result for the first batch, `training` false |
| `logits`, `loss` | of the first training step |
| `gradient/PATH` | of the first training step |
| `statistics/PATH` | running statistics after the first step |
| `OPTIMIZER/PATH`, `OPTIMIZER/loss` | parameters and running statistics after three steps, the loss of the third |
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dslc.compiler import compile_module
from dslc.frontend.elaborate import elaborate
from dslc.ir.graph import Value
from dslc.ir.module import Module, Port, PortKind, Program, Role
from dslc.ir.philox import philox_bits, uniform
from dslc.options import Options
from dslc.runtime.cache import Cache
from dslc.runtime.executable import Executable

FOLDER = Path(__file__).parent
Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

TOTAL = 10  # steps of the run, for schedules
OPTIMIZERS = {
    "sgd": "SGD[0.05]",
    "momentum": "SGD[0.05, momentum = 0.9]",
    "nesterov": "SGD[0.05, momentum = 0.9, nesterov = true, decay = 1e-3]",
    "rmsprop": "RMSProp[1e-3, momentum = 0.5]",
    "adam": "Adam[2e-3]",
    "adamw": "AdamW[cosine[2e-3, warmup = 2]]",
}
# Not an optimizer: it leaves the gradient where the parameter was.
GRADIENT = "optimizer Gradient(p: float[*L], g: float[*L], step: i64[]) -> float[*L] {\n  return g\n}\n"


@dataclass(frozen=True)
class Case:
    """A network. `full` and `narrow` bind the sizes of the source; `labelled` models take the labels too and have no loss."""

    model: str
    file: str
    narrow: Mapping[str, int]
    optimizers: tuple[str, ...] = ("adamw",)
    full: Mapping[str, int] = field(default_factory=lambda: {"S": 28})
    labelled: bool = False


_LENET = {"S": 16, "A": 3, "B": 5, "D": 13, "E": 11}
CASES = {
    case.model: case
    for case in (
        Case("Logistic", "mlp.dl", {"S": 8, "D": 4}, ("sgd", "adamw"), {"S": 8, "D": 4}),
        Case("MLP", "mlp.dl", {"S": 5, "D": 19}, tuple(OPTIMIZERS)),
        Case("MLPDrop", "mlp.dl", {"S": 5, "D": 19}, ("nesterov", "adamw")),
        Case("LeNet", "lenet.dl", _LENET, ("momentum", "adamw")),
        Case("LeNetNorm", "lenet.dl", _LENET, ("momentum", "adamw")),
        Case("Saliency", "lenet.dl", _LENET, (), labelled=True),
        Case("Slope", "lenet.dl", _LENET, (), labelled=True),
    )
}


def relative_error(found: Array, expected: Array) -> float:
    """max |found - expected| over max |expected|."""
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())


def sizes(case: Case, full: bool) -> Mapping[str, int]:
    return case.full if full else case.narrow


def batches(full: bool) -> tuple[int, ...]:
    return (64, 64, 33) if full else (7, 7, 4)


def inputs(case: Case, full: bool, draw: int) -> Arrays:
    """Data, initial parameters and dropout's masks of one draw; every floating number is one of f32.

    They come from the generator of dslc's own random operators, which no version of NumPy changes.
    """
    made: Arrays = {}
    s = sizes(case, full)["S"]
    program = train_program(case, full, None) if not case.labelled else None
    for step, batch in enumerate(batches(full)):
        made[f"step{step}/image"] = _uniform(case, draw, f"image{step}", (batch, 1, s, s))
        made[f"step{step}/label"] = np.floor(10 * _uniform(case, draw, f"label{step}", (batch,)).astype(np.float64)).astype(np.int64)
        for number, (shape, rate) in enumerate(_drops(program, batch)):
            drawn = uniform(philox_bits(seed(draw), number, step + 1, _positions(shape)), np.float32)
            made[f"step{step}/mask{number}"] = drawn >= np.float32(rate)
    for path, shape in sorted(_buffers(case, full).items()):
        low, high = _range(path, shape)
        made[f"start/{path}"] = (low + (high - low) * _uniform(case, draw, path, shape).astype(np.float64)).astype(np.float32)
    return made


def seed(draw: int) -> int:
    """The seed of a draw's dropout; above 2^32, so that both words of the key count."""
    return 7 + draw + (5 << 32)


def _uniform(case: Case, draw: int, name: str, shape: tuple[int, ...]) -> Array:
    key = int.from_bytes(hashlib.sha256(f"{case.model} {name}".encode()).digest()[:8], "little")
    return uniform(philox_bits(key, draw, 0, _positions(shape)), np.float32)


def _positions(shape: tuple[int, ...]) -> Array:
    return np.arange(math.prod(shape)).reshape(shape)


def _range(path: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Values of no symmetry: biases are not 0, scales not 1, and running statistics not what they start with."""
    if path.endswith(("running_var", "scale")):
        return 0.5, 1.5
    if len(shape) == 1:
        return -0.2, 0.2
    bound = math.sqrt(6 / math.prod(shape[1:] if len(shape) == 4 else shape[:1]))
    return -bound, bound


# ---- dslc's side --------------------------------------------------------------------------------------------------


def train_program(case: Case, full: bool, precision: str | None, optimizer: str = "Gradient") -> Module:
    """The recipe that trains the case's model with an optimizer; its training program also gives the logits."""
    rate = OPTIMIZERS.get(optimizer, optimizer)
    recipe = (
        f'train twin {{\n  data image: f32[N, 1, S, S], label: i64[N] from "digits"\n'
        f"  minimize cross_entropy({case.model}(image), label) over {case.model} with {rate}\n  epochs 1  batch 64\n}}\n"
    )
    text = (FOLDER / case.file).read_text(encoding="utf-8") + GRADIENT + recipe
    module = elaborate(text, case.file, recipe="twin", dims=sizes(case, full), precision=precision).module
    program = module.programs["train"]
    loss = next(op for op in program.graph.ops if op.kind == "cross_entropy")
    return replace(module, programs={"train": with_result(program, loss.inputs[0], "logits")})


def infer_program(case: Case, full: bool, precision: str | None) -> Module:
    text = (FOLDER / case.file).read_text(encoding="utf-8")
    return elaborate(text, case.file, model=case.model, dims=sizes(case, full), precision=precision).module


def with_result(program: Program, value: Value, name: str) -> Program:
    """The program with one of its intermediate values as a further result."""
    graph = replace(program.graph, outputs=(*program.graph.outputs, value))
    return replace(program, graph=graph, outputs=(*program.outputs, Port(PortKind.RESULT, name)))


def _drops(program: Module | None, batch: int) -> list[tuple[tuple[int, ...], float]]:
    """Shape and rate of each dropout, in the order of their streams."""
    if program is None:
        return []
    ops = [op for op in program.programs["train"].graph.ops if op.kind == "dropout"]
    assert [op.attr("stream") for op in ops] == list(range(len(ops)))
    return [((batch, *(int(n) for n in op.output.type.shape[1:])), op.attr("rate")) for op in ops]


def _buffers(case: Case, full: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters and states, by path."""
    module = infer_program(case, full, None) if case.labelled else train_program(case, full, None)
    kept = (Role.PARAMETER, Role.STATE)
    return {p: tuple(int(n) for n in b.type.shape) for p, b in module.buffers.items() if b.role in kept}


class Runner:
    """A compiled module with the start values of one draw."""

    def __init__(self, module: Module, program: str, given: Arrays, draw: int, cache: Path | None, width: int | None = None):
        compiled = compile_module(module, Options(width=width), cache=Cache(cache) if cache else None)
        constants = {c.name: np.frombuffer(compiled.constants[c.name], c.dtype).reshape(c.shape) for c in compiled.plan.constants}
        self.executable = Executable(compiled.plan, compiled.objects, constants, threads=2)
        self.program = self.executable.program(program)
        self.given, self.seed = given, seed(draw)
        self.kept = [p for p in self.executable.names() if f"start/{p}" in given]

    def reset(self, given: Arrays, draw: int) -> None:
        """Another draw: its start values, optimizer states at 0."""
        self.given, self.seed = given, seed(draw)
        for path in self.executable.names():
            buffer = self.executable.get(path)
            self.executable.set(path, given[f"start/{path}"].astype(buffer.dtype) if path in self.kept else np.zeros_like(buffer))

    def step(self, number: int) -> Arrays:
        ports = self.program.plan.inputs
        data = {p.name: self.given[f"step{number}/{p.name}"] for p in ports}
        data = {n: a.astype(np.float64) if a.dtype == np.float32 and _wide(ports, n) else a for n, a in data.items()}
        known = {"seed": self.seed, "total": TOTAL}
        return self.program(data, {p.name: known[p.name] for p in self.program.plan.settings if p.name in known})

    def buffers(self) -> Arrays:
        return {path: self.executable.get(path) for path in self.kept}


def _wide(ports: Any, name: str) -> bool:
    return any(p.name == name and p.dtype == "f64" for p in ports)


def results(
    case: Case, full: bool, precision: str | None, draws: list[Arrays], cache: Path | None = None, width: int | None = None
) -> list[Arrays]:
    """What dslc computes for each draw."""
    found: list[Arrays] = [{} for _ in draws]
    runner = Runner(infer_program(case, full, precision), "infer", draws[0], 0, cache, width)
    for draw, given in enumerate(draws):
        runner.reset(given, draw)
        (found[draw]["infer"],) = runner.step(0).values()
    if case.labelled:
        return found
    for optimizer in ("Gradient", *case.optimizers):
        runner = Runner(train_program(case, full, precision, optimizer), "train", draws[0], 0, cache, width)
        for draw, given in enumerate(draws):
            runner.reset(given, draw)
            if optimizer == "Gradient":
                first = runner.step(0)
                found[draw] |= {"logits": first["logits"], "loss": first["loss"]}
                for path, array in runner.buffers().items():
                    found[draw][f"{'statistics' if '.running_' in path else 'gradient'}/{path}"] = array
                continue
            for step in range(3):
                last = runner.step(step)
            found[draw] |= {f"{optimizer}/{p}": a for p, a in runner.buffers().items()} | {f"{optimizer}/loss": last["loss"]}
    return found
