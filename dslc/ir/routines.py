"""Routines: algorithms that no expression for one element describes (sorting, scattering), which back ends implement by name."""

from __future__ import annotations

from dataclasses import dataclass

from dslc.ir.dims import Dim
from dslc.ir.types import DType, TensorType


@dataclass(frozen=True, slots=True)
class Routine:
    """One algorithm over whole buffers: the operands, the result and the scratch, each row-major and without gaps.

    `sizes` and `settings` are what the algorithm is parametrised by; `scratch` are the types of further buffers that it needs, whose
    content means nothing before and after. After lowering, `buffers` has the element types of all arguments and sizes are in the batch.
    """

    name: str
    sizes: tuple[tuple[str, Dim], ...]
    settings: tuple[tuple[str, float | int | bool], ...] = ()
    scratch: tuple[TensorType, ...] = ()
    buffers: tuple[DType, ...] = ()
    serial: bool = False

    def size(self, name: str) -> Dim:
        return dict(self.sizes)[name]

    def setting(self, name: str) -> float | int | bool:
        return dict(self.settings)[name]
