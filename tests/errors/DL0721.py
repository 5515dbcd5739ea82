from pathlib import Path

from dslc.training import checkpoint

checkpoint.load(Path("nowhere.safetensors"))
# expected
# error[DL0721]: there is no checkpoint nowhere.safetensors
#       = help: train without --resume to begin one
