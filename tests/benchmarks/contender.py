"""dslc as a contender in a comparison of networks: prints `ready`, then answers each line it reads with the median of its calls.

    python contender.py CASE MODE BATCH          # a key of CASES; inference or training

A comparison starts one process a contender and lets them take turns: a line on standard input asks for about a third of a
second of calls, the answer is their median in milliseconds. Arrays go in and out through the public API. A training step is
cross entropy with AdamW at a constant rate.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dslc
from dslc.api.measure import timed_block
from dslc.api.sources import Source
from dslc.runtime.serve import serve

BLOCK_S = 0.35
MODELS = Path(__file__).parent.parent.parent / "models"


@dataclass(frozen=True)
class Case:
    """A model of the zoo, the shape of an example, and the number of classes; every element of a result's example is one.

    A network that the zoo has only in other sizes is made by `source`, text behind that of the file. Where `symbols` is not 0 an example
    is of so many symbols, and each place of the result has a class of its own.
    """

    file: str
    model: str
    shape: tuple[int, ...]
    classes: int
    source: str = ""
    symbols: int = 0


def _gpt(sizes: str, symbols: int) -> Case:
    """Logits of each place of 128 symbols."""
    source = (
        f"model Net = Transformer[{sizes}, 128, tied = false]\n"
        f"model Contest(image: i64[N, 128]) -> f32[N, 128, {symbols}] {{\n  return Net(image, 0.0).logits\n}}\n"
    )
    return Case("gpt.dl", "Contest", (128,), symbols, source, symbols)


_LAST_STEP = """block LastStep[D: int](image: f32[N, 64, 64]) -> f32[N, 10] {
  _, h, _ = LSTM[D](image) as cell
  return h |> Dense[10] as head
}
model Contest = LastStep[256]
"""


CASES = {
    "mlp": Case("mlp.dl", "MLP", (1, 28, 28), 10),
    "lenet": Case("lenet.dl", "LeNet", (1, 28, 28), 10),
    "alexnet": Case("alexnet.dl", "AlexNetSingle", (3, 224, 224), 1000),
    "resnet18": Case("resnet.dl", "ResNet18", (3, 224, 224), 1000),
    "resnet50": Case("resnet.dl", "ResNet50", (3, 224, 224), 1000),
    "vgg16": Case("vgg.dl", "VGG16", (3, 224, 224), 1000),
    "mobilenet-v2": Case("mobilenet.dl", "MobileNetV2", (3, 224, 224), 1000),
    "unet": Case("unet.dl", "UNet", (1, 128, 128), 16384),
    "lstm": Case("rnn.dl", "Contest", (64, 64), 10, _LAST_STEP),
    "gpt": _gpt("96, 256, 4, 8", 96),
    "gpt2-small": _gpt("50257, 768, 12, 12", 50257),
}


def source(case: Case) -> Source:
    """The model's file with a recipe that trains it the way the contest asks."""
    image = ", ".join(map(str, case.shape))
    given = f"image: i64[N, {image}], label: i64[N, {image}]" if case.symbols else f"image: f32[N, {image}], label: i64[N]"
    logits = f"transpose[0, 2, 1]({case.model}(image))" if case.symbols else f"flatten({case.model}(image))"
    moved = "Net" if case.symbols else case.model
    recipe = (
        f'train contest {{\n  data {given} from "npz:contest.npz"\n'
        f"  minimize cross_entropy({logits}, label) over {moved} with AdamW[1e-3]\n}}\n"
    )
    path = MODELS / case.file
    return Source(path.read_text(encoding="utf-8") + case.source + recipe, case.file, path.parent)


def make_call(name: str, mode: str, batch: int) -> Callable[[], Any]:
    """One call of the network: inference on a batch, or a training step."""
    case = CASES[name]
    rng = np.random.default_rng(0)
    shape = (batch, *case.shape)
    image = rng.integers(0, case.symbols, shape) if case.symbols else rng.standard_normal(shape).astype(np.float32)
    if mode == "inference":
        net = dslc.compile(source(case), model=case.model, threads=2)
        return lambda: net(image=image)
    label = rng.integers(0, case.classes, shape if case.symbols else batch)
    trainer = dslc.Trainer(source(case), recipe="contest", data={"train": (image, label)}, batch=batch, threads=2, save=False)
    return lambda: trainer.train_on(image=image, label=label)


def main() -> None:
    name, mode, batch = sys.argv[1:]
    call = make_call(name, mode, int(batch))
    for _ in range(3):
        call()
    serve(lambda _: str(statistics.median(timed_block(call, BLOCK_S)) * 1e3), sys.stdout, "ready")


if __name__ == "__main__":
    main()
