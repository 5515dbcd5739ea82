import numpy as np

import dslc

net = dslc.compile("model Scale(x: f32[4]) -> f32[4] { param gain: f32[4] = 1  return gain * x }", threads=1)
net.weights["Scale.gain"] = np.zeros(4)
# expected
# error[DL0822]: 'Scale.gain' cannot be set: these are copies of the weights
#       = help: program.load_weights(program.weights | {path: array}) sets a weight
