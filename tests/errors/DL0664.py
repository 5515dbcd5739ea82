import contextlib
import json
import tempfile

import numpy as np
import safetensors.numpy

from dslc.runtime.artifact import load

with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
    safetensors.numpy.save_file({"w": np.zeros(3)}, "net.dlc", metadata={"dslc": json.dumps({"format": 7})})
    load("net.dlc")
# expected
# error[DL0664]: net.dlc has the format 7, this version of dslc reads 1
#       = help: update dslc
