from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dslc.data import Field, from_python
from dslc.ir.recipe import Recipe, RecipeField, SavePlan
from dslc.ir.types import DType
from dslc.training import Fit, checkpoint
from dslc.training.checkpoint import Checkpoint, RunState


class Program:
    inputs = (Field("x", "f32"),)
    max_batch = None

    def step(self, batch, settings):
        return {"loss": float("nan")}

    def state(self):
        return {}


recipe = Recipe("t", "python", (RecipeField("x", DType.F32, ()),), save=SavePlan("net.safetensors"), seed=8)
with TemporaryDirectory() as folder, chdir(folder):
    checkpoint.save(Path("net.safetensors"), Checkpoint({}, RunState(0, 0, 0, 7, 32, "", "", {}, 0, 0.0), ""))
    Fit(recipe, Program(), from_python((np.ones(100),), [Field("x", "f32")]), folder=Path(), resume=True)
# expected
# error[DL0727]: net.safetensors was trained with seed 7, this run asks for 8
#       = help: resume with --seed 7, or train anew without --resume
