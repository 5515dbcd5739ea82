import numpy as np

from dslc.ir.plan import BufferPlan, ExecutablePlan, PersistentPlan, PortPlan, ProgramPlan, batch_times
from dslc.runtime.executable import Executable

image = (batch_times(), 1, 28, 28)
forward = ProgramPlan(
    "forward",
    (BufferPlan("image", "f32", image, "input", 0, 3136), BufferPlan("seed", "i64", (), "setting", 0, 8)),
    (),
    inputs=(PortPlan("image", "f32", image, 0),),
    outputs=(PortPlan("copy", "f32", image, 0),),
    settings=(PortPlan("seed", "i64", (), 1, 0),),
    batch_bound=256,
)
net = Executable(ExecutablePlan((forward,), (PersistentPlan("Net.w", "f32", (10, 3), "parameter"),)), {}, threads=1)
batch = np.zeros((2, 1, 28, 28), np.float32)
net.call("forward", {"image": batch[:0]})
# expected
# error[DL0653]: a batch of 0, program `forward` takes 1 to 256
#       = help: hand in at least one example
