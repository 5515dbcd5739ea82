import numpy as np

from dslc.data import Field, from_python
from dslc.ir.recipe import Recipe, RecipeField
from dslc.ir.types import DType
from dslc.training import Fit


class Program:
    inputs = (Field("x", "f32"),)
    max_batch = None

    def step(self, batch, settings):
        return {"loss": float("nan")}

    def state(self):
        return {}

    def load_state(self, state):
        pass


recipe = Recipe("t", "python", (RecipeField("x", DType.F32, ()),))
Fit(recipe, Program(), from_python((np.ones(100),), [Field("x", "f32")])).run()
# expected
# error[DL0726]: the loss is nan at step 1 (epoch 1)
#       = note: the run stands before step 1
#       = help: `trainer.replay(1)` makes that step again; lower the learning rate, clip the gradients (`clip = 1.0`), or look for a division by zero or log of zero
