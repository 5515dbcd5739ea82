from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from dslc.data import Field, open_data

with TemporaryDirectory() as folder, chdir(folder):
    Path("t.csv").write_text("x,y\n0.5,1\n,0\n")
    open_data("csv:t.csv", [Field("x", "f32"), Field("y", "i64")], base=Path())
# expected
# error[DL0707]: t.csv, line 3: the value of 'x' is missing
#       = help: fill it in or remove the row
