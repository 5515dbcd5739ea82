from dslc.backends.cuda.target import emit_program
from dslc.diagnostics import Span
from dslc.ir.dims import name
from dslc.ir.graph import Graph, Value
from dslc.ir.loops import Binary, Load, LoopProgram, Reduce, Store
from dslc.ir.module import Program
from dslc.ir.types import DType, TensorType
from dslc.lowering.layout import row_major
from dslc.lowering.steps import Lowered, Place, Step

# an operator whose sum over lanes contains another: sum over i of x[i] * (max over j of x[j])
source = "model Net(x: f32[8]) -> f32[] {\n  return peaked(x)\n}\n"
x, y = Value(0, TensorType(DType.F32, (8,))), Value(1, TensorType(DType.F32))
peak = Reduce("max", (("i1", 8),), Load(0, name("i1"), DType.F32), DType.F32, vector=True)
total = Reduce("add", (("i0", 8),), Binary("mul", Load(0, name("i0"), DType.F32), peak, DType.F32), DType.F32, vector=True)
body = LoopProgram((DType.F32, DType.F32), (Store(1, 0, total),), True)
step = Step(body, (x, y), frozenset({x}), frozenset({y}), True, "peaked", Span("net.dl", 2, 10, 2, 19))
places = {x: Place("input", "x", row_major((8,))), y: Place("output", "y", row_major(()))}
emit_program(Lowered(Program("infer", Graph((x,), (), (y,)), (), ()), (step,), places, {}, (y,), 1), {"net.dl": source})
# expected
# net.dl:2:10: error[DL0810]: peaked needs a sum over lanes inside another loop of the threads, which the CUDA back end does not cover
#     2 |   return peaked(x)
#       |          ^^^^^^^^^
#       = help: compile for the CPU: --target cpu
