import numpy as np

from dslc.training.checkpoint import check_fit

check_fit({"Net.w": np.zeros(3), "Net.old": np.zeros(1)}, {"Net.w": np.zeros((3, 2)), "Net.b": np.zeros(2)}, "net.safetensors")
# expected
# error[DL0724]: net.safetensors does not fit this program; missing: Net.b; left over: Net.old; different: Net.w is f64[3] in the file and f64[3, 2] in the program
#       = help: it was written for another version of the model or optimizer: train anew, or take its weights with a `load` statement
