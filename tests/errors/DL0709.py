import numpy as np

from dslc.data import Field, from_python

from_python((np.ones(3),), [Field("x", "f32"), Field("y", "i64")])
# expected
# error[DL0709]: the training data: a tuple of 1 arrays for the 2 fields 'x', 'y'
#       = help: give one array a field, in the recipe's order; a list or generator is read as examples
