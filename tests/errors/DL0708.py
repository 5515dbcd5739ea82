from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from dslc.data import Field, open_data

with TemporaryDirectory() as folder, chdir(folder):
    Path("t.csv").write_text("x,label\n0.5,1\n")
    open_data("csv:t.csv", [Field("x", "f32"), Field("y", "i64")], base=Path())
# expected
# error[DL0708]: t.csv does not have a column 'y' for the field 'y'
#       = help: its columns are 'x', 'label'
