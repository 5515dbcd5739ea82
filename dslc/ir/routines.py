"""Routines: algorithms that no expression for one element describes (sorting, scattering, attention), which back ends implement by name."""

from __future__ import annotations

from dataclasses import dataclass

from dslc.ir.dims import Dim
from dslc.ir.types import DType, TensorType


@dataclass(frozen=True, slots=True)
class Routine:
    """One algorithm over whole buffers: the operands, the results and the scratch, each row-major and without gaps.

    One that is `strided` takes operands and results wherever constant strides walk them, densely along the last axis: then `strides` are,
    after lowering, the offset and the stride of each axis, in elements, of every operand and result.

    `sizes` and `settings` are what the algorithm is parametrised by; `scratch` are the types of further buffers that it needs, whose
    content means nothing before and after. After lowering, `buffers` has the element types of all arguments and sizes are in the batch.
    """

    name: str
    sizes: tuple[tuple[str, Dim], ...]
    settings: tuple[tuple[str, float | int | bool], ...] = ()
    scratch: tuple[TensorType, ...] = ()
    buffers: tuple[DType, ...] = ()
    serial: bool = False
    strided: bool = False
    strides: tuple[tuple[int, ...], ...] = ()

    def size(self, name: str) -> Dim:
        return dict(self.sizes)[name]

    def setting(self, name: str) -> float | int | bool:
        return dict(self.settings)[name]
