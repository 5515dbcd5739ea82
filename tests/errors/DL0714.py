from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

from dslc.data import Field, open_data

with TemporaryDirectory() as folder, chdir(folder):
    Path("tones/high").mkdir(parents=True)
    Path("tones/high/1.wav").write_bytes(b"ID3")
    open_data("wav:tones/", [Field("sound", "f32", (16000,)), Field("label", "i64")], base=Path())
# expected
# error[DL0714]: tones/high/1.wav cannot be read as sound: it is no RIFF WAVE file
#       = help: give uncompressed WAVE files: PCM of 8, 16, 24 or 32 bits, or floats
