"""What the CUDA back end hands on: a kernel's source with its launch shape, and the launches of a whole program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.plan import PersistentPlan, ProgramPlan
from dslc.ir.types import DType

BATCH = "batch"
LARGEST_GRID = 65535  # blocks along one axis; kernels walk on by the size of the grid, so fewer blocks only take longer


@dataclass(frozen=True, slots=True)
class Launch:
    """Blocks (x, y) of the grid, in the batch, and threads (x, y) of a block. No result depends on either."""

    grid: tuple[Dim, Dim]
    block: tuple[int, int]

    def at(self, batch: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Grid and block for a batch."""
        x, y = (max(1, min(LARGEST_GRID, dims.evaluate(d, {BATCH: batch}))) for d in self.grid)
        return (x, y), self.block


@dataclass(frozen=True, slots=True)
class CudaKernel:
    """One kernel as Numba CUDA source: `text` defines `kernel(p0, p1, ..., batch)` and the device functions it calls.

    `buffers` are the element types of the one-dimensional arrays p0, p1, ...
    """

    text: str
    buffers: tuple[DType, ...]
    launch: Launch

    @property
    def key(self) -> str:
        """Equal for equal kernels."""
        return sha256(f"{self.text}\n{self.launch}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class CudaProgram:
    """The kernels of a program by key, and the plan of its memory and steps; a step's `kernel` is a key.

    `plan` is the same as the CPU's: one arena at constant offsets (times the batch for the part that grows with it). Steps run in order on
    one stream, so its barriers say nothing here. `packed` are the buffers that its prologue fills.
    """

    kernels: Mapping[str, CudaKernel]
    plan: ProgramPlan
    packed: tuple[PersistentPlan, ...]

    @property
    def name(self) -> str:
        return self.plan.name


@dataclass(frozen=True, slots=True)
class Figures:
    """What the assembler says of a kernel: registers a thread, shared memory, stack and spilled bytes."""

    registers: int
    shared: int
    stack: int
    spills: int
