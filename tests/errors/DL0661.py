from dslc.ir.plan import ExecutablePlan
from dslc.runtime.executable import Executable

Executable(ExecutablePlan((), features=("+amx-quantum",)), {})
# expected
# error[DL0661]: this program was compiled for a CPU with amx-quantum, which this one lacks
#       = help: compile it again on this machine
