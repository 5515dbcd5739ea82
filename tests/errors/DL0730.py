import numpy as np

import dslc

text = """model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) }
train small {
  data x: f32[N, 4], y: i64[N] from "digits"
  minimize cross_entropy(M(x), y) over M with SGD[0.1]
  epochs 1  batch 8  budget 1KiB
}
"""
arrays = (np.zeros((16, 4), np.float32), np.zeros(16, np.int64))
dslc.Trainer(text, data=arrays, save=False, cache=False)
# expected
# <string>:3:37: error[DL0730]: a step of 'small' at batch 8 takes 2,380 bytes; the budget is 1,024
#       = help: train with a smaller batch, or raise `budget`
