import numpy as np

import dslc

net = dslc.compile("model Scale(x: f32[4]) -> f32[4] { param gain: f32[4] = 1  param bias: f32[4] = 0  return gain * x + bias }", threads=1)
net.load_weights({"Scale.gain": np.ones(3), "Scale.offset": np.ones(4)})
# expected
# error[DL0804]: the weights do not fit: missing: `Scale.bias`; left over: `Scale.offset`; of another shape: `Scale.gain` is [3] there and [4] here
#       = help: is `Scale.offset` the former name of `Scale.bias`?
