from dslc.diagnostics import Span
from dslc.interchange.refusal import refused
from dslc.ir.graph import Op

raise refused(Op("non_max_suppression", (), (), (), span=Span("net.dl", 2, 10, 2, 19)), "ONNX")
# expected
# net.dl:2:10: error[DL0830]: the operator non_max_suppression has no translation to ONNX
#       = help: compare a network without it, or leave this library out of --against
