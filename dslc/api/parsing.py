"""`parse`: source text as an object with what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dslc.api.sources import Source, find_source
from dslc.diagnostics import Diagnostic, DiagnosticError

if TYPE_CHECKING:
    from dslc.api.program import Program
    from dslc.api.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Parsed:
    """A checked source. `diagnostics` has errors and warnings in the order of the source; an erroneous source cannot be compiled."""

    source: Source
    diagnostics: tuple[Diagnostic, ...]
    models: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """Without the warnings."""
        return tuple(d for d in self.diagnostics if d.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def render(self) -> str:
        """All diagnostics with the source lines and carets."""
        return DiagnosticError(*self.diagnostics, sources=self.texts).render()

    def compile(self, model: str | None = None, **options: Any) -> Program:
        """`dslc.compile` of this source."""
        from dslc.api.compilation import compile as compile_source

        return compile_source(self.source, model, **options)

    def trainer(self, recipe: str | None = None, **options: Any) -> Trainer:
        """`dslc.Trainer` of this source."""
        from dslc.api.trainer import Trainer

        return Trainer(self.source, recipe, **options)


def parse(text: str, file: str = "<string>", *, folder: Path | None = None, dims: Mapping[str, int] | None = None) -> Parsed:
    """Check source text, its sizes left open but for `dims`. `folder` is where imports are looked for. Never raises for what it says."""
    return check_source(Source(text, file, folder), dims)


def check_source(source: Source | Path | str, dims: Mapping[str, int] | None = None, precision: str | None = None) -> Parsed:
    """The same for a file or a name of the zoo. DL0801 where there is none."""
    from dslc.frontend import check
    from dslc.ops import register_operators

    register_operators()
    found = find_source(source)
    result = check(found.text, found.file, folder=found.folder, dims=dims, precision=precision)
    return Parsed(found, tuple(result.diagnostics), tuple(result.models), tuple(result.recipes), {**result.sources, found.file: found.text})
