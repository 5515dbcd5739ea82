"""Trains the compiled `digits` in a process that a test kills: `digits_victim.py FOLDER SLEEP [STAGE COUNT]`.

Goes on from the checkpoint in FOLDER, where there is one. SLEEP is in milliseconds a step. At the COUNT-th time of STAGE of saving
it kills itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dslc
from dslc.ir.recipe import SavePlan
from dslc.training import Fit
from dslc.training.log import JsonLog

EVERY = 20  # steps between checkpoints
EPOCHS = 20
STEPS = EPOCHS * 45


class Slow:
    """The program, with a pause a step."""

    def __init__(self, program: Any, seconds: float):
        self.program, self.seconds = program, seconds
        self.inputs, self.max_batch = program.inputs, program.max_batch
        self.evaluate, self.state, self.load_state = program.evaluate, program.state, program.load_state

    def step(self, batch: Mapping[str, Any], settings: Mapping[str, float | int]) -> Mapping[str, Any]:
        if self.seconds:
            time.sleep(self.seconds)
        return self.program.step(batch, settings)


def main() -> None:
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2]) / 1000
    stage, left = (sys.argv[3], [int(sys.argv[4])]) if len(sys.argv) > 3 else ("", [0])

    def fault(name: str) -> None:
        if name == stage:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    trainer = dslc.Trainer("digits", epochs=EPOCHS, save=False)
    recipe = replace(trainer.recipe, save=SavePlan("a.safetensors", every_steps=EVERY))
    log = JsonLog(folder / "log.jsonl", append=True)
    program = Slow(trainer.program, seconds)
    fit = Fit(recipe, program, trainer.data, folder=folder, resume=True, observers=[log], log_every=1, fault=fault)
    print("ready", fit.step, flush=True)
    fit.run()


if __name__ == "__main__":
    main()
