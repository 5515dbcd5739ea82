from pathlib import Path

from dslc.api.pictures import read_inputs
from dslc.ir.plan import PortPlan, batch_times

read_inputs([("image", Path("shoe.gif"))], [PortPlan("image", "f32", (batch_times(), 1, 28, 28), 0)], None)
# expected
# error[DL0808]: shoe.gif is neither an array nor a picture, sound or text
#       = help: give .npy, .npz, .png, .jpg, .jpeg, .wav, .txt
