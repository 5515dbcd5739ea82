"""Values inside a model, for `dslc run --dump`: the model is compiled again with more results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from dslc.api.program import Program
from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.graph import Value
from dslc.ir.module import Module, Port, PortKind
from dslc.options import Options

_MOST = 200


def value_names(module: Module) -> dict[str, Value]:
    """Every value by the place of its operation in the source and its kind, `5:30.matmul`; further ones of a place have `[1]`, ..."""
    (program,) = module.programs.values()
    found: dict[str, Value] = {}
    for op in program.graph.ops:
        if not op.inputs:
            continue
        place = f"{op.span.line}:{op.span.column}." if op.span else ""
        for value in op.outputs:
            name = base = f"{place}{op.kind}"
            number = 0
            while name in found:
                number += 1
                name = f"{base}[{number}]"
            found[name] = value
    return found


def with_intermediates(program: Program, pattern: str, options: Options) -> tuple[Program, tuple[str, ...]]:
    """The program with the values that match `pattern` (`*` is the wildcard) as further results, and their names. DL0809 for none."""
    from dslc.api.compilation import compile_graph

    module = program.module
    chosen = dict(_matching(value_names(module), pattern))
    if not chosen or len(chosen) > _MOST:
        known = list(value_names(module))
        what = "matches nothing" if not chosen else f"matches {len(chosen)} values, at most {_MOST} are saved"
        raise DiagnosticError(
            Diagnostic("DL0809", f"{pattern[:80]!r} {what}", hint=f"there are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}")
        )
    (inside,) = module.programs.values()
    ports = tuple(Port(PortKind.RESULT, name) for name in chosen)
    graph = replace(inside.graph, outputs=(*inside.graph.outputs, *chosen.values()))
    wider = replace(inside, graph=graph, outputs=(*inside.outputs, *ports))
    made = compile_graph(replace(module, programs={wider.name: wider}), options)
    made.load_weights(program.weights)
    return made, tuple(chosen)


def _matching(names: dict[str, Value], pattern: str) -> Iterator[tuple[str, Any]]:
    escaped = pattern.replace("[", "[[]").replace("?", "[?]")
    for name, value in names.items():
        if fnmatchcase(name, escaped) or name.split(".")[-1] == pattern:
            yield name, value
