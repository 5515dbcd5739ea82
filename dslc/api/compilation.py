"""`compile` and `load`: from a source or an artifact to a `Program`, by the shortest way that is right.

A compiled module is found in the cache without parsing anything: a first key, of the source text, what is asked of it and the
versions, leads to the list of imported files; a second key, with these files' digests, to the plan and its object code. Only where
that fails are the front end and the compiler imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite
import numpy as np

import dslc
from dslc.api.program import Program
from dslc.api.signature import Signature
from dslc.api.sources import Source, find_source
from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir import plan_text
from dslc.ir.plan import ExecutablePlan
from dslc.options import Options, from_environment, resource
from dslc.runtime import artifact as artifacts
from dslc.runtime.artifact import Artifact
from dslc.runtime.cache import Cache
from dslc.runtime.convert import DTYPES, Array
from dslc.runtime.executable import Executable
from dslc.runtime.pool import thread_count

if TYPE_CHECKING:
    from dslc.backends.cpu.tuning import Tuned
    from dslc.compiler import Compiled
    from dslc.frontend.elaborate import Elaborated
    from dslc.ir.module import Module

Progress = Callable[[str, float], None]
"""Called with the key of each kernel that is compiled and the seconds that it took."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compiled: a model of the source, or a recipe (`training`); without a name, its only one.

    `collect` names tensors of a recipe that its evaluation gives besides the metrics.
    """

    source: Source
    name: str | None
    training: bool
    dims: tuple[tuple[str, int], ...]
    options: Options
    collect: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """A compiled module: what runs it, what it says about itself, and, where it was compiled now, every stage."""

    artifact: Artifact
    plan: ExecutablePlan
    objects: Mapping[str, bytes]
    signature: Signature
    cache: Cache | None
    compiled: Compiled | None = None
    seconds: float = 0.0

    def executable(self, threads: int | None) -> Executable:
        """The programs with memory of their own."""
        return Executable(self.plan, self.objects, self.artifact.constants, threads, self.cache)


def compile(
    source: Source | Path | str,
    model: str | None = None,
    *,
    target: str | None = None,
    dims: Mapping[str, int] | None = None,
    precision: str | None = None,
    threads: int | None = None,
    width: int | None = None,
    cache: Path | str | bool = True,
    seed: int = 0,
    verify: bool = False,
    tune: bool = False,
    progress: Progress | None = None,
    tuned: Callable[[Tuned], None] | None = None,
) -> Program:
    """Compile a model and return it ready to be called, with its initial values.

    `source` is a path, the name of a network that comes with dslc, or text; `model` may be left out where there is only one.
    `dims` fixes sizes by name. `precision="f64"` computes in f64 throughout, for checking. `threads` and `width` (16, 8 or 4 lanes)
    change the speed, never the bits. `cache` is a folder, or False for none. `seed` is that of the initial values. `verify` checks
    every pass and every kernel against the interpreter. `tune` measures tiles of every contraction on this machine, takes the fastest and
    keeps the choice in the cache for every later compilation with as many threads; the bits stay the same. `tuned` hears of each.

    Raises DiagnosticError with everything that is wrong with the source.
    """
    options = replace(options_of(target, precision, threads, width, cache), verify=verify, tune=tune)
    request = request_of(source, model, False, dims, options)
    ready = obtain(request, cache is not False, progress, tuned)
    return Program(ready.executable(request.options.threads), ready.signature, ready.artifact, seed=seed, compiled=ready.compiled)


def load(path: Path | str, *, trust: bool = False, threads: int | None = None, cache: Path | str | bool = True) -> Program:
    """A program from an artifact (`.dlc`) with its weights.

    Code in the file is run only with `trust=True`. Otherwise what this user's cache knows is run, and else the graph in the file is
    compiled here. Errors: DL0663, DL0664.
    """
    options = options_of(None, None, threads, None, cache)
    store = cache_of(options) if cache is not False else None
    found = artifacts.load(path)
    signature = Signature.from_json(found.signature)
    objects = artifacts.executable_parts(found, path, store, trust)
    if objects is not None:
        ready = Ready(found, found.executable_plan(), objects, signature, store)
        if trust and store is not None:
            artifacts.approve(store, found, objects)
    else:
        ready = compile_text(found, signature, options, store)
    program = Program(ready.executable(options.threads), ready.signature, ready.artifact, compiled=ready.compiled)
    program.load_weights(dict(artifacts.weights(path)))
    return program


def compile_graph(module: Module, options: Options, seed: int = 0) -> Program:
    """A program from a module that was built, not written."""
    from dslc.api.figures import program_flops
    from dslc.compiler import compile_module
    from dslc.ir.module_text import print_module
    from dslc.ir.verify import verify_module

    store = cache_of(options)
    compiled = compile_module(verify_module(module), options, cache=store)
    signature = Signature(module.name, "", {name: program_flops(p.lowered) for name, p in compiled.programs.items()})
    made = Artifact(plan_text.dumps(compiled.plan), print_module(module), "", versions(), signature.to_json(), constants=_arrays(compiled))
    ready = Ready(made, compiled.plan, compiled.objects, signature, store, compiled)
    return Program(ready.executable(options.threads), signature, made, seed=seed, compiled=compiled)


def options_of(target: str | None, precision: str | None, threads: int | None, width: int | None, cache: Path | str | bool) -> Options:
    """The environment's options with what the caller says in their place."""
    options = from_environment()
    folder = options.cache if isinstance(cache, bool) else Path(cache)
    return replace(
        options,
        target=target or options.target,
        precision=precision or options.precision,
        threads=options.threads if threads is None else threads,
        width=options.width if width is None else width,
        cache=folder,
    )


def request_of(source: Source | Path | str, name: str | None, training: bool, dims: Mapping[str, int] | None, options: Options) -> Request:
    """The request, with the source read."""
    return Request(find_source(source), name, training, tuple(sorted((dims or {}).items())), options)


def cache_of(options: Options) -> Cache | None:
    """The user's cache, or None where there is none to use."""
    store = Cache(options.cache)
    return None if store.problem else store


def obtain(
    request: Request, use_cache: bool = True, progress: Progress | None = None, tuned: Callable[[Tuned], None] | None = None
) -> Ready:
    """The compiled module that is asked for, from the cache or compiled now. One whose tiles were measured comes first."""
    store = cache_of(request.options) if use_cache else None
    if store is not None and not request.options.verify and not request.options.tune:
        for measured in (True, False):
            known = _recall(store, _first_key(request, measured))
            if known is not None:
                found, objects = known
                return Ready(found, found.executable_plan(), objects, Signature.from_json(found.signature), store)
    return _compile(request, store, progress, tuned)


def elaborate(request: Request) -> Elaborated:
    """The typed programs, without compiling them."""
    from dslc.frontend.elaborate import elaborate as front
    from dslc.ops import register_operators

    register_operators()
    source, name = request.source, request.name
    if request.training:
        name = name or _only_recipe(source)
    return front(
        source.text,
        source.file,
        folder=source.folder,
        model=None if request.training else name,
        recipe=name if request.training else None,
        dims=dict(request.dims),
        precision=request.options.precision,
        collect=request.collect,
    )


def _only_recipe(source: Source) -> str:
    from dslc.frontend.elaborate import load as load_file
    from dslc.ops import register_operators

    register_operators()
    loaded = load_file(source.text, source.file, source.folder)
    if loaded.reporter.failed:
        raise loaded.refuse()
    if len(loaded.recipes) != 1:
        why = f"choose one of the recipes {', '.join(loaded.recipes)}" if loaded.recipes else f"{source.file} has no recipe"
        hint = f"name it behind the file: net.dl:{loaded.recipes[0]}" if loaded.recipes else "a recipe is an item `train name { ... }`"
        raise DiagnosticError(Diagnostic("DL0503", why, hint=hint))
    return loaded.recipes[0]


def _compile(request: Request, store: Cache | None, progress: Progress | None, tuned: Callable[[Tuned], None] | None) -> Ready:
    from dslc.backends.cpu.build import Workers
    from dslc.compiler import compile_module

    if request.options.target != "cpu":
        raise DiagnosticError(
            Diagnostic("DL0904", "programs run on the CPU only", hint="`dslc compile --target cuda` writes what the CUDA probe covers")
        )
    begin = time.perf_counter()
    with Workers() as workers:
        workers.start()  # importing Numba overlaps with the front end
        elaborated = elaborate(request)
        module = elaborated.module
        try:
            compiled = compile_module(module, request.options, cache=store, workers=workers, done=_reporting(progress), tuned=tuned)
        except DiagnosticError as error:
            raise DiagnosticError(*error.diagnostics, sources={**module.sources, **error.sources}) from error
    ready = _ready(compiled, module, request, elaborated, store, time.perf_counter() - begin)
    if store is not None:
        _remember(store, _first_key(request, compiled.measured), request.source, module, ready)
    return ready


def compile_text(found: Artifact, signature: Signature, options: Options, store: Cache | None) -> Ready:
    """The module that an artifact holds as text, compiled here. DL0663 where the text is none."""
    from dslc.compiler import compile_module
    from dslc.ir.module_text import parse_module
    from dslc.ir.text import TextError
    from dslc.ir.verify import VerificationError, verify_module

    begin = time.perf_counter()
    try:
        module = verify_module(parse_module(found.graph))
    except (TextError, VerificationError) as error:
        raise DiagnosticError(Diagnostic("DL0663", f"the artifact's graph is damaged: {error}")) from error
    compiled = compile_module(module, options, cache=store)
    parts = replace(found, plan=plan_text.dumps(compiled.plan), constants=_arrays(compiled), versions=versions())
    if store is not None:
        artifacts.approve(store, parts, compiled.objects)
    return Ready(parts, compiled.plan, compiled.objects, signature, store, compiled, time.perf_counter() - begin)


def _ready(compiled: Compiled, module: Module, request: Request, elaborated: Elaborated, store: Cache | None, seconds: float) -> Ready:
    from dslc.api.figures import program_flops
    from dslc.ir.module_text import print_module

    flops = {name: program_flops(p.lowered) for name, p in compiled.programs.items()}
    signature = Signature(module.name, request.source.file, flops, elaborated.recipe)
    made = Artifact(
        plan=plan_text.dumps(compiled.plan),
        graph=print_module(module),
        source=module.digest,
        versions=versions(),
        signature=signature.to_json(),
        constants=_arrays(compiled),
    )
    return Ready(made, compiled.plan, compiled.objects, signature, store, compiled, seconds)


def _arrays(compiled: Compiled) -> dict[str, Array]:
    shapes = {c.name: (DTYPES[c.dtype], c.shape) for c in compiled.plan.constants}
    return {name: np.frombuffer(data, shapes[name][0]).reshape(shapes[name][1]) for name, data in compiled.constants.items()}


def _reporting(progress: Progress | None) -> Any:
    return None if progress is None else lambda key, built: progress(key, built.seconds)


def versions() -> dict[str, str]:
    """Of what a compiled program depends on; Numba's only where it is loaded already."""
    known = {"dslc": dslc.__version__, "numpy": np.__version__, "llvmlite": llvmlite.__version__}
    numba = sys.modules.get("numba")
    return known | ({"numba": numba.__version__} if numba is not None else {})


# ----------------------------------------------------------------------------------------- found without parsing


def _first_key(request: Request, measured: bool) -> str:
    """Of a module with planned tiles, or with tiles that were measured for this number of threads."""
    o = request.options
    said = {
        "text": hashlib.sha256(request.source.text.encode()).hexdigest(),
        "file": request.source.file,
        "folder": str(request.source.folder),
        "name": request.name,
        "training": request.training,
        "dims": request.dims,
        "collect": request.collect,
        "options": [o.target, o.width, o.precision, o.verify, o.order],
        "measured": thread_count(o.threads) if measured else None,
        "code": _code_stamp(),
        "operators": _own_operators(),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@cache
def _code_stamp() -> str:
    """Names the compiler itself: sizes and times of its files and of Numba's and llvmlite's version files, none of them imported."""
    entries: list[tuple[str, int, int]] = []
    folders = [Path(dslc.__file__).parent, resource("std"), resource("grammars")]
    for name in ("numba", "llvmlite"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            entries.append(_entry(str(Path(spec.origin).with_name("_version.py"))))
    for folder in dict.fromkeys(folders):
        entries += _entries(str(folder))
    return hashlib.sha256(json.dumps(sorted(entries)).encode()).hexdigest()


def _own_operators() -> list[tuple[str, int, int]]:
    """The files of operators that a program has added to those of dslc."""
    registry = sys.modules.get("dslc.ir.operator")
    if registry is None:
        return []
    homes = {type(o).__module__ for o in registry.OPERATORS.values() if not type(o).__module__.startswith("dslc.")}
    files = {getattr(sys.modules.get(home), "__file__", None) or f"<{home}>" for home in homes}
    return sorted(_entry(file) for file in files)


def _entries(folder: str) -> Iterable[tuple[str, int, int]]:
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith((".", "__pycache__")):
                    yield from _entries(entry.path)
            elif entry.name.endswith((".py", ".dl", ".lark")):
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime_ns


def _entry(path: str) -> tuple[str, int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 (hundreds of files at every start)
        return path, status.st_size, status.st_mtime_ns
    except OSError:
        return path, 0, 0


def _recall(store: Cache, first: str) -> tuple[Artifact, dict[str, bytes]] | None:
    listed = store.get("index", first)
    if listed is None:
        return None
    files = json.loads(listed)
    if any(_digest(path) != digest for path, digest in files):
        return None
    return artifacts.recall(store, _second_key(first, files))


def _remember(store: Cache, first: str, source: Source, module: Module, ready: Ready) -> None:
    """What the source imports, with digests, and the names under which a file could take the place of one of the library's."""
    files: list[tuple[str, str | None]] = []
    for name in sorted(module.sources):
        if name == source.file:
            continue
        if name.startswith("std/") and not Path(name).is_file():
            place = source.folder / name if source.folder else None
            files += [(str(place), None)] if place else []
        else:
            assert source.folder is not None, "text without a folder imports only the library"
            path = str(source.folder / os.path.relpath(name, Path(source.file).parent))
            files.append((path, _digest(path)))
    store.put("index", first, json.dumps(files).encode())
    artifacts.remember(store, _second_key(first, files), ready.artifact, ready.objects)


def _second_key(first: str, files: Iterable[Iterable[str | None]]) -> str:
    return hashlib.sha256(json.dumps([first, [list(f) for f in files]]).encode()).hexdigest()


def _digest(path: str) -> str | None:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None
