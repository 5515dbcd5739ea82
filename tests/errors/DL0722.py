from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from dslc.training import checkpoint
from dslc.training.checkpoint import Checkpoint, RunState

RUN = RunState(0, 0, 0, 7, 64, "", "", {}, 0, 0.0)

with TemporaryDirectory() as folder, chdir(folder):
    path = Path("net.safetensors")
    checkpoint.save(path, Checkpoint({"Net.w": np.zeros(3)}, RUN, ""))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    checkpoint.load(path)
# expected
# error[DL0722]: net.safetensors is damaged: its checksum does not fit its contents
#       = help: restore it from a copy, or train anew
