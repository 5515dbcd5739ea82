"""The front end: `.dl` text to a syntax tree, and the tree to typed programs.

`check` finds everything wrong with a file, `elaborate` makes the programs of one model or recipe. Whoever starts the pipeline
imports `dslc.ops` first, which fills the registry of operators.
"""

from dslc.frontend.check import CheckResult as CheckResult
from dslc.frontend.check import check as check
from dslc.frontend.elaborate import Elaborated as Elaborated
from dslc.frontend.elaborate import elaborate as elaborate
