"""What the twins compare: networks, optimizers, their inputs, and dslc's side of it.

Everything that is exchanged is a dictionary of arrays by name:

| name | content |
|---|---|
| `step0/image`, `step0/label`, ... | the batches of three training steps, the last one smaller |
| `start/PATH` | parameters and running statistics before the first step |
| `step0/mask0`, ... | what dropout keeps, by step and draw, from the reference of the generator |
| `infer` | the model's result for the first batch, `training` false |
| `logits`, `loss` | of the first training step; logits are what the loss compares with the labels |
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
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.module import Module, Port, PortKind, Program, Role
from dslc.ir.philox import philox_bits, uniform
from dslc.ir.types import DType
from dslc.options import Options
from dslc.runtime.cache import Cache
from dslc.runtime.executable import Executable
from tests.twins import loops, shallow, transformers

FOLDER = Path(__file__).parent
ZOO = FOLDER.parent.parent / "models"
Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

TOTAL = 10  # steps of the run, for schedules
OPTIMIZERS = {
    "sgd": "SGD[0.05]",
    "momentum": "SGD[0.05, momentum = 0.9]",
    "gentle": "SGD[1e-3, momentum = 0.9]",  # deep networks, whose larger steps magnify the last bits of f64 past 1e-9, or leave f32
    "nesterov": "SGD[0.05, momentum = 0.9, nesterov = true, decay = 1e-3]",
    "rmsprop": "RMSProp[1e-3, momentum = 0.5]",
    "adam": "Adam[2e-3]",
    "adamw": "AdamW[cosine[2e-3, warmup = 2]]",
}
LOSSES = ("focal", "cross_entropy", "binary_cross_entropy_with_logits", "mse", "ctc_loss")
# Not an optimizer: it leaves the gradient where the parameter was.
GRADIENT = "optimizer Gradient(p: float[*L], g: float[*L], step: i64[]) -> float[*L] {\n  return g\n}\n"


@dataclass(frozen=True)
class Case:
    """A network. `narrow` and `full` are sizes: dims of its source, and of its data.

    A network of the zoo is narrow through its static parameters: `block` makes it, as in `model Narrow = BLOCK`; without one it is
    only compared in full, and one that is small as it is has its own name there. Where a network is of several models, `extra` holds the sources of one around them, narrow and full.
    `labelled` models take the labels too and have no loss.
    """

    model: str
    file: str
    narrow: Mapping[str, int]
    optimizers: tuple[str, ...] = ("adamw",)
    full: Mapping[str, int] = field(default_factory=lambda: {"S": 28})
    labelled: bool = False
    zoo: bool = False
    block: str = ""
    extra: tuple[str, str] = ("", "")
    data: str = "image: f32[N, 1, {S}, {S}], label: i64[N]"
    loss: str = "cross_entropy({model}(image), label)"
    batches: tuple[int, int, int] = (7, 7, 4)
    full_batches: tuple[int, int, int] = (64, 64, 33)
    vanishing: str = "nothing"  # a regular expression: names of tensors that are 0 but for rounding
    stored: int = 2  # draws whose f64 results are stored
    full_draws: int = 24
    shallow: bool = False  # a network of the zoo that is compared draw by draw, like those of this folder

    def name(self, full: bool) -> str:
        """The model's name in the source."""
        return "Around" if self.extra[0] else "Narrow" if self._made and not full else self.model

    def source(self, full: bool) -> str:
        """The network, and for a narrow one of the zoo the model it makes."""
        text = (self.folder / self.file).read_text(encoding="utf-8")
        if self._made and not full:
            return f"{text}model Narrow = {self.block}\n"
        return text + self.extra[full]

    @property
    def _made(self) -> bool:
        """Whether the narrow network is another than the full one."""
        return self.block not in ("", self.model)

    @property
    def folder(self) -> Path:
        return ZOO if self.zoo else FOLDER

    @property
    def deep(self) -> bool:
        """Whether it adds up so much that in most draws rounding decides the sign of some sum."""
        return self.zoo and not self.shallow

    @property
    def has_narrow(self) -> bool:
        return not self.zoo or bool(self.block or self.extra[0])


def _zoo(model: str, file: str, block: str, size: int, optimizers: tuple[str, ...], channels: int = 3, **rest: Any) -> Case:
    """A network of the zoo: its narrow one takes images of `size` pixels, its full one of 224 unless told otherwise."""
    image = f"image: f32[N, {channels}, {{H}}, {{W}}]"
    given = {"full": {"H": 224, "W": 224}, "data": f"{image}, label: i64[N]", "full_batches": (2, 3, 1), "zoo": True, "stored": 1, **rest}
    return Case(model, file, {"H": size, "W": size}, optimizers, block=block, **given)


_INVERTED = "[[1, 3, 1, 1], [6, 5, 2, 2], [3, 7, 1, 2]]"
# The bias of a linear bottleneck meets nothing but 1 x 1 convolutions and batch normalisation, which takes it away: no gradient.
# Normalisation over few images of a deep network magnifies every rounding error; and a ReLU6 has two edges at which rounding decides.
_BOTTLENECKS: dict[str, Any] = {"vanishing": r"gradient/.*\.project_norm\.bias", "full_draws": 16, "full_batches": (8, 8, 5)}
_SMALL: dict[str, Any] = {"full": {"H": 28, "W": 28}, "full_batches": (8, 8, 5), "full_draws": 8}
_MASKS: dict[str, Any] = {
    "data": "image: f32[N, 1, {H}, {W}], mask: f32[N, 1, {H}, {W}]",
    "loss": "binary_cross_entropy_with_logits({model}(image), mask)",
    "channels": 1,
    "full_draws": 3,
}


def _autoencoder(channels: int, code: int, size: int) -> str:
    return (
        f"model Around(image: f32[N, 1, {size}, {size}]) -> f32[N, 1, {size}, {size}] {{\n"
        f"  code = Encode[{channels}, {code}](image) as encoder\n  return Decode[{channels}, {size}, {size}](code) as decoder\n}}\n"
    )


def _vae(hidden: int, latent: int, size: int) -> str:
    return (
        f"model Around(image: f32[N, 1, {size}, {size}], noise: f32[N, {latent}])\n"
        f"    -> (logits: f32[N, 1, {size}, {size}], m: f32[N, {latent}], s: f32[N, {latent}]) {{\n"
        f"  m, s = Encode[{hidden}, {latent}](image) as encoder\n"
        f"  return Decode[{hidden}, {size}, {size}](reparameterised(m, s, noise)) as decoder, m, s\n}}\n"
    )


_PLACED = """block placed(corner: f32[N, K, 2], extent: f32[N, K, 2]) -> f32[N, K, 4] {
  return concat[axis = 2](40.0 * corner, 40.0 * corner + 8.0 + 16.0 * extent)
}
block cost[Model](image: f32[N, 3, 64, 64], corner: f32[N, K, 2], extent: f32[N, K, 2], kinds: i64[N, K]) -> f32[] {
  logits, boxes = Model(image)
  return detection_loss(logits, boxes, placed(corner, extent), kinds)
}
model Around = Net[CHANNELS]
"""
_DETECTOR: dict[str, Any] = {
    "extra": (_PLACED.replace("CHANNELS", "[3, 4, 5]"), _PLACED.replace("CHANNELS", "[16, 32, 64]")),
    "full": {},
    "data": "image: f32[N, 3, 64, 64], corner: f32[N, 4, 2], extent: f32[N, 4, 2], kinds: i64[N, 4]",
    "loss": "cost[{model}](image, corner, extent, kinds)",
    "full_draws": 4,
}
_AUTOENCODER: dict[str, Any] = {
    "extra": (_autoencoder(3, 5, 8), _autoencoder(16, 32, 28)),
    "full": {"H": 28, "W": 28},
    "shallow": True,
    "data": "image: f32[N, 1, {H}, {W}]",
    "loss": "binary_cross_entropy_with_logits({model}(image), image)",
    "full_draws": 8,
    "full_batches": (64, 64, 33),
}
_VAE: dict[str, Any] = {
    "extra": (_vae(9, 3, 6), _vae(400, 20, 28)),
    "full": {"H": 28, "W": 28, "L": 20},
    "shallow": True,
    "data": "image: f32[N, 1, {H}, {W}], noise: f32[N, {L}]",
    "loss": "surprise({model}(image, noise).logits, image) + divergence({model}(image, noise).m, {model}(image, noise).s)",
    "full_draws": 8,
    "full_batches": (64, 64, 33),
}


def _forecast(model: str, block: str) -> Case:
    data = "past: f32[N, 36], future: f32[N, 12]"
    return Case(model, "rnn.dl", {}, full={}, zoo=True, block=block, data=data, loss="mse({model}(past), future)", stored=1)


def _around(types: str, result: str, body: str) -> str:
    return f"model Around({types}) -> {result} {{\n  {body}\n}}\n"


_SPEECH: dict[str, Any] = {
    "extra": (
        _around("mels: f32[N, 6, 21]", "f32[N, 11, 5]", "return Listen[5, 4, 4](mels) as listen |> log_softmax"),
        _around("mels: f32[N, 40, 101]", "f32[N, 51, 11]", "return Listen[64, 48, 10](mels) as listen |> log_softmax"),
    ),
    "full": {"m": 40, "f": 101, "s": 51},
    "data": "mels: f32[N, {m}, {f}], says: i64[N, 3], frames: i64[N], count: i64[N]",
    "loss": "ctc_loss({model}(mels), 1 + says % 4, {s} - frames % 3, 1 + count % 3)",
    "full_draws": 4,
}
_BERT: dict[str, Any] = {
    "extra": (
        _around(
            "tokens: i64[N, 6]",
            "f32[N, 10]",
            "return mean[axis = 1](Bert[10, 8, 2, 2, 12, 7](tokens, tokens > 0) as bert) |> Dense[10] as head",
        ),
        _around(
            "tokens: i64[N, 64]",
            "f32[N, 10]",
            "return mean[axis = 1](Bert[4000, 96, 2, 4, 384, 128](tokens, tokens > 0) as bert) |> Dense[10] as head",
        ),
    ),
    "full": {"L": 64},
    "data": "tokens: i64[N, {L}], label: i64[N]",
    "loss": "cross_entropy({model}(tokens), label)",
    "vanishing": r"gradient/.*\.key\.b",  # what is added to all scores of a query alike
    "full_draws": 24,
}
_CRITIC: dict[str, Any] = {
    "extra": (
        _around("image: f32[N, 1, 8, 8]", "f32[N]", "return image |> Judge[3, false] as judge"),
        _around("image: f32[N, 1, 28, 28]", "f32[N]", "return image |> Judge[32, false] as judge"),
    ),
    "full": {"s": 28},
    "data": "image: f32[N, 1, {s}, {s}], fake: f32[N, 1, {s}, {s}], share: f32[N]",
    "loss": "10.0 * penalty[{model}](image, fake, share) + mean({model}(fake)) - mean({model}(image))",
    "vanishing": r"gradient/.*\.head\.b",  # the same for real and drawn pictures
    "full_draws": 3,
}
_DRAW: dict[str, Any] = {
    "extra": (
        _around("noise: f32[N, 5]", "f32[N, 1, 28, 28]", "return noise |> Draw[2] as draw"),
        _around("noise: f32[N, 64]", "f32[N, 1, 28, 28]", "return noise |> Draw[32] as draw"),
    ),
    "full": {"z": 64},
    "data": "noise: f32[N, {z}], image: f32[N, 1, 28, 28]",
    "loss": "mse({model}(noise), image)",
    "full_draws": 3,
}
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
        _zoo("AlexNet", "alexnet.dl", "TwoColumns[[4, 6, 6, 8, 4], hidden = 11, classes = 10]", 67, ("momentum",), full_draws=1),
        _zoo("AlexNetSingle", "alexnet.dl", "SingleColumn[[3, 5, 7, 6, 4], hidden = 11, classes = 10]", 67, ("adamw",), full_draws=1),
        _zoo("AlexNetSmall", "alexnet.dl", "", 28, ("adamw",), full={"H": 28, "W": 28}, channels=1, full_draws=24),
        _zoo("VGG16", "vgg.dl", "VGG[[2, 1, 1], [3, 5, 4], hidden = 11, classes = 10]", 32, ("gentle",), full_draws=1, full_batches=(8, 8, 5)),
        _zoo("ResNet18", "resnet.dl", "ResNet[Basic, [2, 1], C = 5, classes = 10]", 32, ("momentum",), full_draws=8, full_batches=(8, 8, 5)),
        _zoo("ResNet50", "resnet.dl", "ResNet[Bottleneck, [1, 2], C = 3, classes = 10]", 32, ("gentle",), full_draws=3, full_batches=(8, 8, 5)),
        _zoo("ResNet20", "resnet.dl", "SmallResNet[Basic, [1, 2], C = 5, size = 12]", 12, ("nesterov",), channels=1, **_SMALL),
        _zoo(
            "MobileNetV2", "mobilenet.dl", f"MobileNet[{_INVERTED}, first = 5, last = 19, classes = 10]", 32, ("momentum",), **_BOTTLENECKS
        ),
        _zoo("UNet", "unet.dl", "Net[3]", 20, ("adamw",), full={"H": 128, "W": 128}, **_MASKS),
        Case("FGSM", "adversarial.dl", {}, (), {}, labelled=True, zoo=True),
        replace(_zoo("Detector", "detector.dl", "", 64, ("adamw",), **_DETECTOR), narrow={}),
        _zoo("Autoencoder", "autoencoder.dl", "", 8, ("adamw",), **_AUTOENCODER),
        _forecast("Plain", "WithRNN[5]"),
        _forecast("Lstm", "WithLSTM[5]"),
        _forecast("Gru", "WithGRU[5]"),
        Case(
            "Rows",
            "rnn.dl",
            {"s": 8},
            full={"s": 8},
            zoo=True,
            block="ReadRows[5, 2]",
            data="image: f32[N, {s}, {s}], label: i64[N]",
            stored=1,
        ),
        Case("Critic", "gan.dl", {"s": 8}, ("momentum",), zoo=True, stored=1, **_CRITIC),
        Case("Draw", "gan.dl", {"z": 5}, ("adam",), zoo=True, stored=1, **_DRAW),
        Case("Speech", "speech.dl", {"m": 6, "f": 21, "s": 11}, zoo=True, stored=1, **_SPEECH),
        Case("Bert", "bert.dl", {"L": 6}, ("momentum",), zoo=True, stored=1, **_BERT),
        replace(_zoo("VAE", "vae.dl", "", 6, ("adamw",), **_VAE), narrow={"H": 6, "W": 6, "L": 3}),
        *(Case(**row) for row in (*transformers.ROWS, *loops.ROWS, *shallow.ROWS)),
    )
}


def relative_error(found: Array, expected: Array) -> float:
    """max |found - expected| over max |expected|; the first alone where all that is expected is 0."""
    return float(np.abs(found.astype(np.float64) - expected).max() / (np.abs(expected).max() or 1.0))


def sizes(case: Case, full: bool) -> Mapping[str, int]:
    return case.full if full else case.narrow


def inputs(case: Case, full: bool, draw: int) -> Arrays:
    """Data, initial parameters and dropout's masks of one draw; every floating number is one of f32.

    They come from the generator of dslc's own random operators, which no version of NumPy changes.
    """
    made: Arrays = {}
    module = infer_program(case, full, None) if case.labelled else train_program(case, full, None)
    (program,) = module.programs.values()
    for step, batch in enumerate(case.full_batches if full else case.batches):
        for port, value in zip(program.inputs, program.graph.inputs, strict=True):
            if port.kind is PortKind.INPUT:
                drawn = _uniform(case, draw, f"{port.name}{step}", (batch, *_known(value.type.shape[1:])))
                whole = value.type.dtype.integer
                made[f"step{step}/{port.name}"] = np.floor(10 * drawn.astype(np.float64)).astype(np.int64) if whole else drawn
        for number, (shape, rate) in enumerate(_drops(program, batch)):
            drawn = uniform(philox_bits(seed(draw), number, step + 1, _positions(shape)), np.float32)
            made[f"step{step}/mask{number}"] = drawn >= np.float32(rate)
    for path, shape in sorted(_buffers(module).items()):
        low, high = _range(path, shape)
        made[f"start/{path}"] = (low + (high - low) * _uniform(case, draw, path, shape).astype(np.float64)).astype(np.float32)
    return made


def seed(draw: int) -> int:
    """The seed of a draw's dropout; above 2^32, so that both words of the key count."""
    return 7 + draw + (5 << 32)


def _uniform(case: Case, draw: int, name: str, shape: tuple[int, ...]) -> Array:
    key = int.from_bytes(hashlib.sha256(f"{case.model} {name}".encode()).digest()[:8], "little")
    return uniform(philox_bits(key, draw, 0, _positions(shape)), np.float32)


def _known(shape: tuple[Dim, ...]) -> tuple[int, ...]:
    """Sizes of which none depends on the batch."""
    assert all(isinstance(n, int) for n in shape)
    return tuple(n for n in shape if isinstance(n, int))


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


def _dims(case: Case, full: bool) -> Mapping[str, int]:
    """The sizes that are dims of the source; L and those in lower case are only ones of the data."""
    return {name: size for name, size in sizes(case, full).items() if name != "L" and name.isupper()}


def train_program(case: Case, full: bool, precision: str | None, optimizer: str = "Gradient") -> Module:
    """The recipe that trains the case's model with an optimizer; its training program also gives the logits."""
    rate, model = OPTIMIZERS.get(optimizer, optimizer), case.name(full)
    recipe = (
        f'train twin {{\n  data {case.data.format(**sizes(case, full))} from "npz:twin.npz"\n'
        f"  minimize {case.loss.format(model=model, **sizes(case, full))} over {model} with {rate}\n  epochs 1  batch 64\n}}\n"
    )
    text = case.source(full) + GRADIENT + recipe
    module = elaborate(text, case.file, folder=case.folder, recipe="twin", dims=_dims(case, full), precision=precision).module
    program = module.programs["train"]
    loss = next(op for op in program.graph.ops if op.kind in LOSSES)
    return replace(module, programs={"train": with_result(program, loss.inputs[0], "logits")})


def infer_program(case: Case, full: bool, precision: str | None) -> Module:
    return elaborate(
        case.source(full), case.file, folder=case.folder, model=case.name(full), dims=_dims(case, full), precision=precision
    ).module


def with_result(program: Program, value: Value, name: str) -> Program:
    """The program with one of its intermediate values as a further result."""
    graph = replace(program.graph, outputs=(*program.graph.outputs, value))
    return replace(program, graph=graph, outputs=(*program.outputs, Port(PortKind.RESULT, name)))


def _drops(program: Program, batch: int) -> list[tuple[tuple[int, ...], float]]:
    """Shape and rate of each dropout, in the order of their streams."""
    ops = [op for op in program.graph.ops if op.kind == "dropout"]
    assert [op.attr("stream") for op in ops] == list(range(len(ops)))
    return [((batch, *_known(op.output.type.shape[1:])), op.attr("rate")) for op in ops]


def _buffers(module: Module) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters and states, by path."""
    kept = (Role.PARAMETER, Role.STATE)
    return {p: _known(b.type.shape) for p, b in module.buffers.items() if b.role in kept}


class Runner:
    """A compiled module with the start values of one draw."""

    def __init__(self, module: Module, program: str, given: Arrays, draw: int, cache: Path | None, width: int | None = None):
        compiled = compile_module(module, Options(width=width), cache=Cache(cache) if cache else None)
        constants = {
            c.name: np.frombuffer(compiled.constants[c.name], DType(c.dtype).numpy).reshape(c.shape) for c in compiled.plan.constants
        }
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
        found[draw]["infer"] = next(iter(runner.step(0).values()))
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
