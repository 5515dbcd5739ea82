from dslc.ir.plan import ExecutablePlan, KernelPlan
from dslc.runtime.executable import Executable
from dslc.runtime.pool import build_object

code = build_object("declare i32 @system(ptr)\ndefine i32 @kernel0() { %s = call i32 @system(ptr null) ret i32 %s }")
Executable(ExecutablePlan((), kernels=(KernelPlan("kernel0", "ab", "kernel0"),)), {"ab": code})
# expected
# error[DL0662]: the object code cannot be used: object code calls system, which nothing that it may use defines
#       = help: compile the program again
