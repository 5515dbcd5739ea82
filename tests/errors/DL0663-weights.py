import contextlib
import tempfile

import numpy as np
import safetensors.numpy

from dslc.runtime.artifact import load

with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    safetensors.numpy.save_file({"w": np.zeros(3)}, "weights.safetensors")
    load("weights.safetensors")
# expected
# error[DL0663]: weights.safetensors is no artifact: it has no manifest
#       = help: make one with `dslc compile` or `Program.save`
