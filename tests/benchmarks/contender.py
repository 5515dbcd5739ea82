"""dslc as a contender in a comparison of networks: prints `ready`, then answers each line it reads with the median of its calls.

    python contender.py CASE MODE BATCH          # mlp or lenet; inference or training

A comparison starts one process a contender and lets them take turns: a line on standard input asks for about a third of a
second of calls, the answer is their median in milliseconds. Arrays go in and out through the public API.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import dslc

BLOCK_S = 0.35
MODELS = {"mlp": "MLP", "lenet": "LeNet"}


def make_call(case: str, mode: str, batch: int) -> Callable[[], Any]:
    """One call of the network: inference on a batch, or a training step with AdamW."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((batch, 1, 28, 28)).astype(np.float32)
    if mode == "inference":
        net = dslc.compile(case, model=MODELS[case], threads=2)
        return lambda: net(image=image)
    label = rng.integers(0, 10, batch)
    trainer = dslc.Trainer(case, recipe=case, data={"train": (image, label)}, batch=batch, threads=2, save=False)
    return lambda: trainer.train_on(image=image, label=label)


def main() -> None:
    case, mode, batch = sys.argv[1:]
    call = make_call(case, mode, int(batch))
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
