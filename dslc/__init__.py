"""dslc: a declarative language for deep learning, compiled to native SIMD kernels.

    net = dslc.compile("lenet")                 # a file, a network that comes with dslc, or source text
    net.load_weights("lenet.safetensors")
    logits = net(image=batch)

    dslc.Trainer("lenet").fit()

Importing dslc imports nothing else; each name below is loaded at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dslc.api.build import Builder as Builder
    from dslc.api.compilation import compile as compile
    from dslc.api.compilation import load as load
    from dslc.api.parsing import Parsed as Parsed
    from dslc.api.parsing import parse as parse
    from dslc.api.program import Program as Program
    from dslc.api.trainer import Trainer as Trainer
    from dslc.diagnostics import Diagnostic as Diagnostic
    from dslc.diagnostics import DiagnosticError as DiagnosticError

_HOMES = {
    "Builder": "dslc.api.build",
    "Diagnostic": "dslc.diagnostics",
    "DiagnosticError": "dslc.diagnostics",
    "Parsed": "dslc.api.parsing",
    "Program": "dslc.api.program",
    "Trainer": "dslc.api.trainer",
    "compile": "dslc.api.compilation",
    "load": "dslc.api.compilation",
    "parse": "dslc.api.parsing",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dslc' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
