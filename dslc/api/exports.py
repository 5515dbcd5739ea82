"""The `export` items of a source: what `dslc compile` writes where it is not told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from dslc.api.sources import Source
from dslc.diagnostics import Diagnostic, DiagnosticError


@dataclass(frozen=True, slots=True)
class Export:
    """A model, the name of its artifact within the folder of the run, and what is fixed. `ema`: it takes the averaged weights."""

    model: str
    file: str
    dims: Mapping[str, int]
    precision: str | None
    ema: bool = False


def exports_of(source: Source) -> list[Export]:
    """In the order of the source. Raises DiagnosticError where it does not parse, DL0821 for a file outside the folder."""
    from dslc.frontend import syntax
    from dslc.frontend.elaborate import load
    from dslc.frontend.programs import Request, new_context
    from dslc.frontend.scope import Frame
    from dslc.ops import register_operators

    register_operators()
    loaded = load(source.text, source.file, source.folder)
    if loaded.reporter.failed:
        raise loaded.refuse()
    context = new_context(loaded.files, loaded.reporter, loaded.unit, "export", Request())
    found = []
    for item in loaded.unit.tree.items:
        if not isinstance(item, syntax.Export):
            continue
        path = PurePath(item.target.value)
        if not path.name or path.is_absolute() or ".." in path.parts or "\0" in item.target.value:
            what = f'"{item.target.value[:100]}" is no file within the folder of the run'
            hint = 'write a name such as "net.dlc", and choose the folder with -o'
            raise DiagnosticError(Diagnostic("DL0821", what, item.target.span, hint=hint), sources=loaded.files.sources)
        values = {o.name.text: context.evaluate(o.value, Frame(loaded.unit, "export")) for o in item.options}
        if loaded.reporter.failed:
            raise loaded.refuse()
        sizes = {name: v for name, v in values.items() if isinstance(v, int) and not isinstance(v, bool)}
        precision = values.get("precision")
        kind = precision if isinstance(precision, str) else None
        found.append(Export(item.model.text, item.target.value, sizes, kind, values.get("weights") == "ema"))
    return found
