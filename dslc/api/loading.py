"""The `load` clauses of a recipe: parameters begin with those of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dslc.api import weights as files
from dslc.api.program import SAVED
from dslc.data.places import find_file
from dslc.data.renaming import linear_weights, match_weights
from dslc.diagnostics import DiagnosticError
from dslc.ir.module_text import parse_module
from dslc.ir.recipe import LoadPlan, Recipe
from dslc.runtime.convert import Array
from dslc.runtime.executable import Executable


def load_files(executable: Executable, graph: str, recipe: Recipe, folders: Sequence[Path]) -> None:
    """Carry out the recipe's `load` clauses, all of them checked before the first number moves.

    `graph` is the text of the compiled module; `folders` are searched first, then that of the `.dl` file, and nothing leads out of them.
    Errors: DL0702, DL0705 and DL0802 for the file, DL0804 and DL0806 for what does not fit.
    """
    found = [_tensors(executable, graph, load, [*folders, recipe.base]) for load in recipe.loads]
    for tensors in found:
        for path, tensor in tensors.items():
            executable.set(path, tensor)


def _tensors(executable: Executable, graph: str, load: LoadPlan, folders: Sequence[Path]) -> dict[str, Array]:
    try:
        place = find_file(load.file, folders)
        source = files.read_weights(place)
    except DiagnosticError as error:
        placed = (replace(d, span=d.span or load.span) for d in error.diagnostics)
        raise DiagnosticError(*placed, sources=error.sources) from error.__cause__
    wanted = {p.name: p.shape for p in executable.plan.persistent if p.role in SAVED and p.name.startswith(f"{load.model}.")}
    given = source.tensors if load.rename else source.of_models({load.model.partition(".")[0]})
    plan = match_weights(
        wanted,
        {name: tensor.shape for name, tensor in given.items()},
        load.rename,
        load.fresh,
        load.layout,
        model=load.model,
        linear=linear_weights(parse_module(graph)) if load.layout is not None else None,
        where=f"the weights in {place}",
        span=load.span,
    )
    return plan.assemble(given)
