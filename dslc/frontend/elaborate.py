"""From text to typed programs: `elaborate` for one model or recipe of a file.

`elaborate(text, file, model="LeNet")` gives a Module with the program `infer`; `recipe="lenet"` one with `train` and
`evaluate`, and the recipe as data. Errors are raised all together as one `DiagnosticError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.frontend import syntax
from dslc.frontend.files import Files, Unit
from dslc.frontend.phases import Shared, parts_of
from dslc.frontend.programs import Request, build_model, find_model, new_context
from dslc.frontend.recipes import Built, build_recipe, recipe_data
from dslc.frontend.report import Abandoned, NeedsSize, Refused, Reporter, did_you_mean, listed
from dslc.frontend.scope import Context
from dslc.ir.module import Buffer, Module, Program
from dslc.ir.operator import OPERATORS
from dslc.ir.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Elaborated:
    """A module, its recipe if it was made from one, and the warnings that came up."""

    module: Module
    recipe: Recipe | None
    warnings: tuple[Diagnostic, ...]


@dataclass(slots=True)
class Loaded:
    """A file with what it imports, before anything in it is elaborated."""

    reporter: Reporter
    files: Files
    unit: Unit

    @property
    def models(self) -> list[str]:
        return [n for n, i in self.unit.items.items() if isinstance(i, syntax.Model | syntax.Instance)]

    @property
    def recipes(self) -> list[str]:
        return list(self.unit.recipes)

    def refuse(self) -> DiagnosticError:
        return DiagnosticError(*self.reporter.diagnostics, sources=self.files.sources)


def load(text: str, file: str = "<string>", folder: Path | None = None) -> Loaded:
    """Parses a file and its imports; syntax errors are in the reporter."""
    assert OPERATORS, "whoever starts the pipeline imports dslc.ops"
    reporter = Reporter()
    files = Files(reporter)
    return Loaded(reporter, files, files.root(text, file, folder))


def elaborate(
    text: str,
    file: str = "<string>",
    *,
    folder: Path | None = None,
    model: str | None = None,
    recipe: str | None = None,
    dims: Mapping[str, int] | None = None,
    precision: str | None = None,
    collect: Sequence[str] = (),
) -> Elaborated:
    """The programs of one model or one recipe of a file; without names, of its only model.

    `collect` names tensors of the recipe that its evaluation gives besides the metrics. `dims` binds sizes by name; `precision="f64"` reads f32 and float alike as f64. Raises DiagnosticError.
    """
    loaded = load(text, file, folder)
    if loaded.reporter.failed:
        raise loaded.refuse()
    request = Request(dict(dims or {}), precision == "f64")
    _check_dims(loaded, request)
    try:
        if recipe is not None:
            return _recipe(loaded, recipe, request, collect)
        return _model(loaded, model, request)
    except (Refused, Abandoned):
        raise loaded.refuse() from None
    except NeedsSize as undecided:
        loaded.reporter.error(
            "DL0303",
            f"a static decision depends on {undecided}, which is only known at run time",
            loaded.unit.tree.span,
            hint="fix it with --dim",
        )
        raise loaded.refuse() from None
    except RecursionError:
        loaded.reporter.error("DL0311", "the file is nested too deeply", None)
        raise loaded.refuse() from None


def _check_dims(loaded: Loaded, request: Request) -> None:
    for name, size in request.sizes.items():
        if not isinstance(size, int) or not 1 <= size < 2**31:
            loaded.reporter.error("DL0217", f"the size {name} = {size} must be from 1 to 2^31 - 1", None)
    if loaded.reporter.failed:
        raise loaded.refuse()


def _check_used(loaded: Loaded, request: Request, context: Context) -> None:
    """A size that the program does not have is a misspelling."""
    known = {*context.bound, *loaded.unit.dims}
    for name in request.sizes:
        if name not in known:
            hint = did_you_mean(name, known) or (f"its sizes are {listed(sorted(known))}" if known else "it has none")
            loaded.reporter.error("DL0103", f"there is no size `{name[:80]}` to bind", None, hint=hint)
    if loaded.reporter.failed:
        raise loaded.refuse()


def _model(loaded: Loaded, name: str | None, request: Request) -> Elaborated:
    if name is None:
        if len(loaded.models) != 1:
            why = f"choose one of the models {listed(loaded.models)}" if loaded.models else "the file has no model"
            raise loaded.reporter.error("DL0503", why, None, hint="name it behind the file: net.dl:LeNet")
        name = loaded.models[0]
    context = new_context(loaded.files, loaded.reporter, loaded.unit, "infer", request)
    program = build_model(context, find_model(context, loaded.unit, name.split("."), None))
    if program is None or loaded.reporter.failed:
        raise loaded.refuse()
    _check_used(loaded, request, context)
    return Elaborated(_module(loaded, name, [(program, context)]), None, tuple(loaded.reporter.diagnostics))


def _recipe(loaded: Loaded, name: str, request: Request, collect: Sequence[str]) -> Elaborated:
    train = loaded.unit.recipes.get(name)
    if train is None:
        hint = did_you_mean(name, loaded.recipes) or (
            f"the recipes are {listed(loaded.recipes)}" if loaded.recipes else "the file has none"
        )
        raise loaded.reporter.error("DL0503", f"there is no recipe `{name}`", None, hint=hint)
    built: list[tuple[Program, Context]] = []
    results: list[Built] = []
    shared = Shared()
    for part in parts_of(train):
        context = new_context(loaded.files, loaded.reporter, loaded.unit, part.program, request)
        result = build_recipe(context, loaded.unit, train, part, shared, collect)
        if result.program is None or loaded.reporter.failed:
            raise loaded.refuse()
        results.append(result)
        built.append((result.program, context))
        if result.update is not None:
            built.append(result.update)
        _check_used(loaded, request, context)
    recipe = recipe_data(loaded.unit, train, results[:-1], results[-1])
    if loaded.reporter.failed:
        raise loaded.refuse()
    return Elaborated(_module(loaded, name, built), recipe, tuple(loaded.reporter.diagnostics))


def _module(loaded: Loaded, name: str, built: list[tuple[Program, Context]]) -> Module:
    buffers: dict[str, Buffer] = {}
    for _, context in built:
        for path, buffer in context.program.buffers.items():
            buffers.setdefault(path, buffer)
    digest = hashlib.sha256()
    for file, text in sorted(loaded.files.sources.items()):
        digest.update(f"{file}\0{len(text)}\0{text}\0".encode())
    return Module(name, {p.name: p for p, _ in built}, buffers, dict(loaded.files.sources), digest.hexdigest())
