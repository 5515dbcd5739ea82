"""`dslc doctor`."""

from __future__ import annotations

import platform
import sys
from typing import Any

import click

from dslc.cli.output import json_option, print_json


@click.command("doctor")
@json_option
def command(as_json: bool) -> int:
    """What this machine offers: versions, processor, threads, cache, data sets; compiles and runs one kernel to be sure.

    Example: dslc doctor
    """
    report = examine()
    if as_json:
        print_json(report)
    else:
        for name, value in report.items():
            print(f"{name:14s}{', '.join(map(str, value)) if isinstance(value, list) else value}")
    return 0 if report["compiles"] is True else 1


def examine() -> dict[str, Any]:
    """Everything that a report of a defect should say about a machine."""
    from importlib.metadata import PackageNotFoundError, version

    import dslc
    from dslc.options import from_environment
    from dslc.runtime.cache import Cache
    from dslc.runtime.loader import host_features
    from dslc.runtime.pool import available_cpus, thread_count
    from dslc.training.log import cpu_name

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    options = from_environment()
    cache = Cache(options.cache)
    features = host_features()
    widest = 16 if "avx512f" in features else 8 if "avx2" in features else 4
    return {
        "dslc": dslc.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        **{name: installed(name) for name in ("numpy", "numba", "llvmlite", "safetensors")},
        "processor": cpu_name(),
        "vector lanes": options.width or widest,
        "features": sorted(f for f in features if f.startswith(("avx", "fma", "neon", "sve"))),
        "processors": available_cpus(),
        "threads": thread_count(options.threads),
        "cache": str(cache.folder) if cache.problem is None else f"none: {cache.problem}",
        "data sets": _data_sets(options.data),
        "compiles": _compiles(),
    }


def _data_sets(folders: Any) -> list[str]:
    from dslc.data import Field, open_data
    from dslc.diagnostics import DiagnosticError

    found = []
    for name, side in (("digits", 8), ("mnist", 28), ("fashion-mnist", 28)):
        try:
            open_data(name, [Field("label", "i64")] if side == 28 else [Field("image", "f32", (1, 8, 8))], folders=folders)
        except DiagnosticError:
            continue
        found.append(name)
    return found


def _compiles() -> bool | str:
    """Whether a kernel compiled here gives the right numbers; else what happened."""
    import numpy as np

    from dslc.api.compilation import compile as compile_source
    from dslc.diagnostics import DiagnosticError

    text = "model Check(x: f32[64]) -> f32[64] { return 2 * x + 1 }\n"
    x = np.arange(64, dtype=np.float32)
    try:
        result = compile_source(text)(x=x)
    except (DiagnosticError, RuntimeError, OSError) as error:
        print(str(error), file=sys.stderr)
        return f"no: {type(error).__name__}"
    return bool((result == 2 * x + 1).all()) or "no: the result is wrong"
