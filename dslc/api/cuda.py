"""`dslc compile --target cuda`: what the CUDA back end makes of a file. Nothing here runs; that needs a GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dslc.api.compilation import Request, elaborate
from dslc.api.sources import find_source
from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.plan import StepPlan
from dslc.options import Options

if TYPE_CHECKING:
    from dslc.backends.cuda.kernel import CudaKernel, CudaProgram


@dataclass(frozen=True, slots=True)
class CudaCode:
    """The programs of a model and of its recipe by name, with PTX by (kernel, compute capability) where the compiler is there."""

    programs: Mapping[str, CudaProgram]
    ptx: Mapping[tuple[str, tuple[int, int]], str]

    @property
    def kernels(self) -> dict[str, CudaKernel]:
        return {key: kernel for program in self.programs.values() for key, kernel in program.kernels.items()}

    def plan_json(self) -> dict[str, Any]:
        """Buffers and launches of every program; grids in terms of the batch."""
        return {name: _plan(program) for name, program in self.programs.items()}

    def write(self, folder: Path) -> list[Path]:
        """`plan.json`, a source for every kernel, and its PTX for each compute capability; the files. DL0803 where it cannot be."""
        files = {"plan.json": json.dumps(self.plan_json(), indent=1)}
        files |= {f"{key[:16]}.py": kernel.text for key, kernel in self.kernels.items()}
        files |= {f"{key[:16]}.sm_{major}{minor}.ptx": text for (key, (major, minor)), text in self.ptx.items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise DiagnosticError(
                Diagnostic("DL0803", f"{folder} cannot be written: {error.strerror or error}", hint="give a folder that may be written")
            ) from error
        return [folder / name for name in files]


def cuda_code(
    source: Path | str, name: str | None = None, *, dims: Mapping[str, int] | None = None, precision: str | None = None
) -> CudaCode:
    """Sources and launches for a model, or for the recipe called `name`; PTX too with the extra `dslc[cuda]`.

    Raises DiagnosticError with everything that the CUDA back end does not cover (DL0810).
    """
    from dslc import compiler
    from dslc.backends.cuda import device
    from dslc.frontend.elaborate import load

    found = find_source(source)
    training = name is not None and name in load(found.text, found.file, found.folder).recipes
    request = Request(found, name, training, tuple(sorted((dims or {}).items())), Options(target="cuda", precision=precision))
    programs = compiler.emit_cuda(elaborate(request).module)
    kernels = {key: kernel for program in programs.values() for key, kernel in program.kernels.items()}
    ptx: dict[tuple[str, tuple[int, int]], str] = {}
    if device.can_compile():
        ptx = {(key, cc): device.ptx(kernel, cc) for key, kernel in kernels.items() for cc in device.CAPABILITIES}
    return CudaCode(programs, ptx)


def _plan(program: CudaProgram) -> dict[str, Any]:
    plan = program.plan
    return {
        "arena": {"fixed_bytes": plan.fixed_bytes, "bytes_an_example": plan.batch_bytes},
        "buffers": [[b.name, b.dtype, b.region, b.offset, b.nbytes] for b in plan.buffers],
        "prologue": [_launch(program, step) for step in plan.prologue],
        "steps": [_launch(program, step) for step in plan.steps],
    }


def _launch(program: CudaProgram, step: StepPlan) -> dict[str, Any]:
    launch = program.kernels[step.kernel].launch
    return {
        "kernel": step.kernel[:16],
        "operators": step.label,
        "line": step.span,
        "grid": [str(d) for d in launch.grid],
        "block": list(launch.block),
        "buffers": [number for number, _ in step.args],
    }
