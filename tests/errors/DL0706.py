import numpy as np

from dslc.data import Field, from_python

from_python((np.ones(3), np.arange(2)), [Field("x", "f32"), Field("y", "i64")])
# expected
# error[DL0706]: the fields of the training data differ in their number of examples: 'x' has 3, 'y' has 2
#       = help: the first axis counts examples
