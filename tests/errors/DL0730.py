from dslc.api.trainer import within_budget
from dslc.ir.plan import BufferPlan, ExecutablePlan, PersistentPlan, PortPlan, ProgramPlan, batch_times
from dslc.ir.recipe import Recipe

image = (batch_times(), 784)
step = ProgramPlan(
    "train",
    (BufferPlan("image", "f32", image, "input", 0, 3136),),
    (),
    inputs=(PortPlan("image", "f32", image, 0),),
    outputs=(),
    batch_bound=256,
)
plan = ExecutablePlan((step,), (PersistentPlan("Net.w", "f32", (784, 10), "parameter"),))
within_budget(Recipe("net", "mnist", (), batch=64, budget=64 << 10), plan, 60_000)
# expected
# error[DL0730]: a step of 'net' at batch 64 takes 232,064 bytes; the budget is 65,536
#       = help: train with a smaller batch, or raise `budget`
