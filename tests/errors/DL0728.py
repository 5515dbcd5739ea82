from pathlib import Path

from dslc.ir.recipe import Recipe, SavePlan
from dslc.training import checkpoint_path

checkpoint_path(Recipe("lenet", "digits", (), save=SavePlan("../lenet.safetensors")), Path())
# expected
# error[DL0728]: the recipe 'lenet' saves to '../lenet.safetensors'
#       = help: a recipe saves within the folder of the run
