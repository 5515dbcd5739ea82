from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from dslc.data import Field, open_data

with TemporaryDirectory() as folder, chdir(folder):
    Path("pets").mkdir()
    Path("pets/annotations.json").write_text('{"images": [], "annotations": [{"image_id": 1, "category_id": 1}], "categories": []}')
    open_data("coco:pets/", [Field("image", "f32", (3, 32, 32)), Field("boxes", "f32", (8, 4))], base=Path())
# expected
# error[DL0713]: pets/annotations.json: an annotation names the image 1, which the file does not have
#       = help: complete the file
