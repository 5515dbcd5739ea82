"""Trains the digits in a process that a test kills: `victim.py FOLDER EPOCHS SLEEP [STAGE COUNT]`.

Goes on from the checkpoint in FOLDER, where there is one. SLEEP is in milliseconds a step. At the COUNT-th time of STAGE of saving
it kills itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from softmax_regression import SoftmaxRegression, recipe

from dslc.ir.recipe import SavePlan
from dslc.training import Fit, Interrupted, open_recipe_data
from dslc.training.log import JsonLog

EVERY = 20  # steps between checkpoints


class Slow(SoftmaxRegression):
    def __init__(self, milliseconds: float):
        super().__init__()
        self.seconds = milliseconds / 1000

    def step(self, batch: Mapping[str, np.ndarray], settings: Mapping[str, float | int]) -> dict[str, float]:
        if self.seconds:
            time.sleep(self.seconds)
        return super().step(batch, settings)


def main() -> int:
    folder, epochs, milliseconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    stage, left = (sys.argv[4], [int(sys.argv[5])]) if len(sys.argv) > 4 else ("", [0])

    def fault(name: str) -> None:
        if name == stage:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    given = recipe(epochs=epochs, save=SavePlan("a.safetensors", every_steps=EVERY))
    log = JsonLog(folder / "log.jsonl", append=True)
    fit = Fit(given, Slow(milliseconds), open_recipe_data(given), folder=folder, resume=True, observers=[log], log_every=1, fault=fault)
    print("ready", fit.step, flush=True)
    try:
        fit.run()
    except Interrupted:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
