from pathlib import Path

from dslc.data import Field, open_data

open_data("csv:../secret.csv", [Field("x", "f32"), Field("y", "i64")], base=Path("models"))
# expected
# error[DL0705]: '../secret.csv' leads out of models
#       = help: data files lie in the folder of the .dl file or in one given with --data
