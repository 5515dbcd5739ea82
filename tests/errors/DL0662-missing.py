from dslc.ir.plan import ExecutablePlan, KernelPlan
from dslc.runtime.executable import Executable

Executable(ExecutablePlan((), kernels=(KernelPlan("kernel0", "ab" * 32, "kernel0"),)), {})
# expected
# error[DL0662]: the object code of kernel `kernel0` is missing
#       = help: compile the program again
