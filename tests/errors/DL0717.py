import sys
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from dslc.data.coding import read_coding

with TemporaryDirectory() as folder, chdir(folder), patch.dict(sys.modules, {"tokenizers": None}):
    Path("tokenizer.json").write_text("{}")
    read_coding(Path("tokenizer.json"))
# expected
# error[DL0717]: tokenizer.json is read by the library 'tokenizers', which is not installed
#       = help: pip install 'dslc[text]'
