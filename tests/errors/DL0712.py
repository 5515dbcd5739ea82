from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from dslc.data import Field, open_data

with TemporaryDirectory() as folder, chdir(folder):
    Path("pets").mkdir()
    Path("pets/cat.png").write_bytes(b"")
    open_data("images:pets/", [Field("image", "f32", (3, 32, 32)), Field("label", "i64")], base=Path())
# expected
# error[DL0712]: pets has no subfolders
#       = help: put the images of each class into a subfolder of the class's name
