"""The training loop, checkpoints, the log, progress and curves."""

from __future__ import annotations

from dslc.training.fit import Fit, checkpoint_path, open_recipe_data
from dslc.training.interrupt import Interrupted
from dslc.training.protocol import EpochReport, Observer, RunInfo, RunReport, StepReport, TrainingProgram

__all__ = [
    "EpochReport",
    "Fit",
    "Interrupted",
    "Observer",
    "RunInfo",
    "RunReport",
    "StepReport",
    "TrainingProgram",
    "checkpoint_path",
    "open_recipe_data",
]
