from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from dslc.data import Field, open_data

with TemporaryDirectory() as folder, chdir(folder):
    Path("train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 9, 1, 2, 3]))
    Path("train-images-idx3-ubyte").write_bytes(b"")
    open_data("mnist", [Field("label", "i64")], folders=[Path()])
# expected
# error[DL0703]: train-labels-idx1-ubyte ends after 3 of 9 elements
#       = help: fetch the file again
