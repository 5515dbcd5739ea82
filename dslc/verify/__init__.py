"""`--verify`: every pass and every kernel against the interpreter, on small random inputs.

`check_pass`, called after every pass, names the one that breaks a rule of the graph or changes a result, and the line where it does.
`check_kernels` names the first compiled kernel whose result is not the interpreter's. Both raise DiagnosticError: DL0910 and DL0911.
An error that they find is one of dslc, never of the user's file.
"""

from __future__ import annotations

from dslc.verify.kernels import check_kernels
from dslc.verify.passes import check_pass

__all__ = ["check_kernels", "check_pass"]
