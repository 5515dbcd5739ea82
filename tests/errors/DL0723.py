from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.numpy import save_file

from dslc.training import checkpoint

with TemporaryDirectory() as folder, chdir(folder):
    save_file({"fc.weight": np.zeros(3)}, "net.safetensors")
    checkpoint.load(Path("net.safetensors"))
# expected
# error[DL0723]: net.safetensors holds tensors but is no checkpoint of dslc
#       = help: weights from elsewhere are read by a `load` statement or by --weights
