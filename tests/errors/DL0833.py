import tempfile
from pathlib import Path

from dslc.api.contest import ended

with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "torch.log").write_text("MemoryError: 12 GiB are not there\n")
    raise ended(Path(folder), "torch")
# expected
# error[DL0833]: the contender torch ended early: MemoryError: 12 GiB are not there
