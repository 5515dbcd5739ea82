"""dslc as a contender in a comparison of networks: prints `ready`, then answers each line it reads with the median of its calls.

    python contender.py CASE MODE BATCH          # a key of CASES; inference or training

A comparison starts one process a contender and lets them take turns: a line on standard input asks for about a third of a
second of calls, the answer is their median in milliseconds. Arrays go in and out through the public API. A training step is
cross entropy with AdamW at a constant rate.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dslc
from dslc.api.sources import Source

BLOCK_S = 0.35
MODELS = Path(__file__).parent.parent.parent / "models"


@dataclass(frozen=True)
class Case:
    """A model of the zoo, the shape of an example, and the number of classes; every element of a result's example is one."""

    file: str
    model: str
    shape: tuple[int, ...]
    classes: int


CASES = {
    "mlp": Case("mlp.dl", "MLP", (1, 28, 28), 10),
    "lenet": Case("lenet.dl", "LeNet", (1, 28, 28), 10),
    "alexnet": Case("alexnet.dl", "AlexNetSingle", (3, 224, 224), 1000),
    "resnet18": Case("resnet.dl", "ResNet18", (3, 224, 224), 1000),
    "resnet50": Case("resnet.dl", "ResNet50", (3, 224, 224), 1000),
    "vgg16": Case("vgg.dl", "VGG16", (3, 224, 224), 1000),
    "mobilenet-v2": Case("mobilenet.dl", "MobileNetV2", (3, 224, 224), 1000),
    "unet": Case("unet.dl", "UNet", (1, 128, 128), 16384),
}


def source(case: Case) -> Source:
    """The model's file with a recipe that trains it the way the contest asks."""
    image = ", ".join(map(str, case.shape))
    recipe = (
        f'train contest {{\n  data image: f32[N, {image}], label: i64[N] from "npz:contest.npz"\n'
        f"  minimize cross_entropy(flatten({case.model}(image)), label) over {case.model} with AdamW[1e-3]\n}}\n"
    )
    path = MODELS / case.file
    return Source(path.read_text(encoding="utf-8") + recipe, case.file, path.parent)


def make_call(name: str, mode: str, batch: int) -> Callable[[], Any]:
    """One call of the network: inference on a batch, or a training step."""
    case = CASES[name]
    rng = np.random.default_rng(0)
    image = rng.standard_normal((batch, *case.shape)).astype(np.float32)
    if mode == "inference":
        net = dslc.compile(source(case), model=case.model, threads=2)
        return lambda: net(image=image)
    label = rng.integers(0, case.classes, batch)
    trainer = dslc.Trainer(source(case), recipe="contest", data={"train": (image, label)}, batch=batch, threads=2, save=False)
    return lambda: trainer.train_on(image=image, label=label)


def main() -> None:
    name, mode, batch = sys.argv[1:]
    call = make_call(name, mode, int(batch))
    for _ in range(3):
        call()
    print("ready", flush=True)
    for _ in sys.stdin:
        times: list[float] = []
        begin = time.perf_counter()
        while time.perf_counter() - begin < BLOCK_S or len(times) < 3:
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        print(statistics.median(times) * 1e3, flush=True)


if __name__ == "__main__":
    main()
