from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from dslc.data import Field, open_data

with TemporaryDirectory() as folder, chdir(folder):
    Path("pets/cat").mkdir(parents=True)
    Path("pets/cat/1.png").write_bytes(b"<html>404</html>")
    open_data("images:pets/", [Field("image", "f32", (3, 32, 32)), Field("label", "i64")], base=Path())
# expected
# error[DL0711]: pets/cat/1.png cannot be read as a picture: it is not a whole PNG or JPEG file
#       = help: replace the file, or remove it from the data
