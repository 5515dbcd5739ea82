import sys
from pathlib import Path
from unittest.mock import patch

from dslc.training.plot import CurvePlot

with patch.dict(sys.modules, {"matplotlib": None}):
    CurvePlot(Path("curves.png"))
# expected
# error[DL0729]: a PNG of the curves needs matplotlib
#       = help: `pip install dslc[plot]`, or write an .svg, which needs nothing
