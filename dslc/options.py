"""Options of a compilation and of the process, and where the files that come with dslc are.

This is the only module that reads the environment; everything else is passed an `Options`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dslc.diagnostics import Diagnostic, DiagnosticError

VECTOR_WIDTHS = (16, 8, 4)
TARGETS = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may set for a whole process or one compilation. None means: decide from the machine or the file."""

    target: str = "cpu"
    width: int | None = None  # SIMD lanes: 16 (AVX-512), 8 (AVX2) or 4 (128 bit)
    threads: int | None = None
    precision: str | None = None  # "f64" reads f32 and float alike as f64, for checking
    verify: bool = False  # check every pass against the interpreter
    tune: bool = False  # measure tiles instead of choosing them by rule
    order: str = "fixed"  # of sums; "free" gives up the same bits, for measuring what they cost
    cache: Path | None = None  # the folder of compiled object code
    data: tuple[Path, ...] = ()  # folders to look for data sets in, before the usual ones
    color: bool = True

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise _refused(f"the target is {self.target!r}", f"it is one of {', '.join(TARGETS)}")
        if self.width is not None and self.width not in VECTOR_WIDTHS:
            raise _refused(f"the vector width is {self.width} lanes", "it is 16, 8 or 4")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise _refused(f"the number of threads is {self.threads}", "it is between 1 and 1024")
        if self.precision not in (None, "f32", "f64"):
            raise _refused(f"the precision is {self.precision!r}", "it is f32 or f64; a file's own `precision` item says more")


def from_environment(environment: Mapping[str, str] | None = None) -> Options:
    """The options that the environment asks for: DSLC_THREADS, DSLC_WIDTH, DSLC_CACHE, DSLC_DATA (a path list), NO_COLOR."""
    env = os.environ if environment is None else environment
    return Options(
        threads=_number(env, "DSLC_THREADS"),
        width=_number(env, "DSLC_WIDTH"),
        cache=Path(env["DSLC_CACHE"]).expanduser() if env.get("DSLC_CACHE") else None,
        data=tuple(Path(p).expanduser() for p in env.get("DSLC_DATA", "").split(os.pathsep) if p),
        color=not env.get("NO_COLOR"),
    )


def resource(name: str) -> Path:
    """The path of `grammars/...`, `models/...` or `std/...` as they come with dslc.

    An installed wheel has these folders inside the package, a checkout beside it. The package is looked at first: beside an
    installed package stand other people's.
    """
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.exists() else package.parent / name


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _refused(f"the environment variable {name} is {text[:40]!r}", "it takes a whole number")
    return int(text)


def _refused(what: str, hint: str) -> DiagnosticError:
    return DiagnosticError(Diagnostic("DL0901", what, hint=hint))
