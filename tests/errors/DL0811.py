from dslc.backends.cuda.target import no_device
from dslc.diagnostics import DiagnosticError

raise DiagnosticError(no_device())
# expected
# error[DL0811]: there is no CUDA device to run on
#       = help: compile for the CPU (--target cpu), or run where a GPU and its driver are
