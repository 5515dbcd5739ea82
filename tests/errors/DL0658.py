from dslc.ir.plan import ExecutablePlan, KernelPlan, ProgramPlan, StepPlan
from dslc.runtime.executable import Executable
from dslc.runtime.pool import build_object

code = build_object("define i32 @kernel0(ptr %r, ptr %e, i64 %row, i64 %thread, i64 %threads, i64 %batch) { ret i32 1 }")
step = StepPlan("kernel0", (), label="dot_general", span="net.dl:7:3")
plan = ExecutablePlan((ProgramPlan("forward", (), (step,)),), kernels=(KernelPlan("kernel0", "ab", "kernel0"),))
Executable(plan, {"ab": code}, threads=1).call("forward", {})
# expected
# error[DL0658]: step `dot_general` (net.dl:7:3) of program `forward` failed with status 1
