from dslc.backends.cuda.target import no_compiler
from dslc.diagnostics import DiagnosticError

raise DiagnosticError(no_compiler())
# expected
# error[DL0812]: the CUDA compiler is not installed
#       = help: pip install 'dslc[cuda]' brings it; it needs no GPU
