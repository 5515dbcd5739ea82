import numpy as np

import dslc

net = dslc.compile("model Scale(x: f32[4]) -> f32[4] { param gain: f32[4] = 1  return gain * x }", threads=1)
net.load_weights({"scale": np.ones(4)}, rename=[("scales", "gain")])
# expected
# error[DL0806]: `rename` has "scales", and no tensor there is called so
#       = help: there are `scale`
