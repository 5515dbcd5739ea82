import numpy as np

from dslc.data import Field, from_python
from dslc.ir.recipe import Recipe, RecipeField
from dslc.ir.types import DType
from dslc.training import Fit


class Program:
    inputs = (Field("x", "f32"),)
    max_batch = None

    def state(self):
        return {}


recipe = Recipe("t", "python", (RecipeField("x", DType.F32, ()),))
Fit(recipe, Program(), from_python((np.ones(100),), [Field("x", "f32")])).replay(5)
# expected
# error[DL0732]: there is no step 5 to replay
#       = help: the run has the steps 1 to 4
