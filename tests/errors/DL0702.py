from pathlib import Path

from dslc.data import Field, open_data

open_data("mnist", [Field("image", "f32", (784,))], folders=[Path("nowhere")])
# expected
# error[DL0702]: the data set 'mnist' is not on this machine (looked in nowhere, nowhere/mnist)
#       = help: give the folder that holds train-images-idx3-ubyte.gz and its three companions with --data FOLDER
