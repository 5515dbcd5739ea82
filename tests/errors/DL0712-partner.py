from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from dslc.data import Field, open_data

with TemporaryDirectory() as folder, chdir(folder):
    for name in ("images/a.png", "images/b.png", "masks/a.png"):
        Path("street", name).parent.mkdir(parents=True, exist_ok=True)
        Path("street", name).write_bytes(b"")
    open_data("pairs:street/", [Field("image", "f32", (3, 32, 32)), Field("mask", "i64", (32, 32))], base=Path())
# expected
# error[DL0712]: street/images/b.png has no partner in street/masks
#       = help: files belong together by their names without endings
