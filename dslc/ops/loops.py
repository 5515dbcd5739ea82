"""The loop at run time: `scan`. What its parts mean is told in `ir/scan.py`."""

from __future__ import annotations

from dslc.ir.dims import Dim
from dslc.ir.graph import Graph
from dslc.ir.operator import Attr, Operator, operator
from dslc.ir.scan import result_types
from dslc.ir.types import TensorType


@operator
class Scan(Operator):
    """One run of the body for each element of sequences walked in step, with values carried from each to the next."""

    family = "loop"
    inputs = ("*operands",)
    attrs = {
        "length": Attr("dim", doc="how many iterations"),
        "reverse": Attr("bool", False, "from the last element to the first"),
        "recompute": Attr("bool", False, "the gradient stores carries alone and computes the rest again"),
        "elements": Attr("ints", (), "the axis of each sequence that is walked"),
        "yields": Attr("ints", (), "the axis along which each yield is stacked"),
        "carries": Attr("int", 0, "how many values are carried"),
    }
    meta = True
    internal = True
    regions = 1

    def infer(
        self,
        *operands: TensorType,
        regions: tuple[Graph, ...],
        length: Dim,
        reverse: bool,
        recompute: bool,
        elements: tuple[int, ...],
        yields: tuple[int, ...],
        carries: int,
    ) -> tuple[TensorType, ...]:
        (body,) = regions
        return result_types(operands, body, length, elements, yields, carries)
