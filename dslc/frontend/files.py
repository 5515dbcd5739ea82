"""Files: the parsed root file, what it imports, and the library that is in scope everywhere.

An import's path is looked for in the importing file's folder, then in the library; it never leads outside both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from dslc.diagnostics import Diagnostic, Note, Span
from dslc.frontend import syntax
from dslc.frontend.parse import parse
from dslc.frontend.report import Reporter, did_you_mean
from dslc.options import resource

LIBRARY_FILES = ("layers.dl", "vision.dl", "optimizers.dl", "schedules.dl", "metrics.dl", "sequences.dl", "recurrent.dl", "attention.dl")
MAX_FILES = 200
MAX_BYTES = 1 << 20

Named = syntax.Const | syntax.Block | syntax.Model | syntax.Instance | syntax.Optimizer


@dataclass(eq=False, slots=True)
class Unit:
    """One file: its tree and its names. `alias` is the path from the root file's names to it, empty for the root."""

    file: str
    tree: syntax.File
    alias: str = ""
    folder: Path | None = None
    library: bool = False
    items: dict[str, Named] = field(default_factory=dict)
    dims: dict[str, syntax.Dim] = field(default_factory=dict)
    recipes: dict[str, syntax.Train] = field(default_factory=dict)
    imports: dict[str, Unit | None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def names(self) -> Iterator[str]:
        yield from self.items
        yield from self.dims
        yield from self.imports


@cache
def _library_tree(text: str, file: str) -> syntax.File:
    """A library file's tree, parsed once a process: trees are immutable."""
    tree, errors = parse(text, file)
    assert not errors, f"{file}: {errors[0].message} at {errors[0].span}"
    return tree


class Files:
    """Loads files once and keeps their texts for carets."""

    def __init__(self, reporter: Reporter):
        self.reporter = reporter
        self.sources: dict[str, str] = {}
        self.units: dict[str, Unit] = {}
        self._open: list[str] = []
        self.library: dict[str, tuple[Unit, Named]] = {}
        for name in LIBRARY_FILES:
            unit = self._library_unit(name)
            self.library |= {item: (unit, declared) for item, declared in unit.items.items()}

    def _library_unit(self, name: str) -> Unit:
        path = resource("std") / name
        file = f"std/{name}"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        tree = _library_tree(text, file)
        self.sources[file] = text
        self.reporter.library.add(file)
        unit = Unit(file, tree, folder=path.parent, library=True)
        self.units[str(path)] = unit
        self._declare(unit)
        return unit

    def root(self, text: str, file: str, folder: Path | None) -> Unit:
        """The file that is checked or compiled. Syntax errors go to the reporter; items that parsed are there."""
        tree, errors = parse(text, file)
        self.sources[file] = text
        self._report(errors)
        unit = Unit(file, tree, folder=folder)
        if folder is not None:
            self._open.append(str((folder / Path(file).name).resolve()))
        self._declare(unit)
        return unit

    def _report(self, errors: list[Diagnostic]) -> None:
        for error in errors:
            self.reporter.error(error.code, error.message, error.span, notes=error.notes, hint=error.hint)

    def _declare(self, unit: Unit) -> None:
        """Fills the unit's tables; a name defined twice is an error."""
        places: dict[str, Span] = {}
        for item in unit.tree.items:
            match item:
                case syntax.Block() | syntax.Model() | syntax.Optimizer():
                    name = item.signature.name
                    if self._fresh(name, places):
                        unit.items[name.text] = item
                case syntax.Instance() | syntax.Const():
                    if self._fresh(item.name, places):
                        unit.items[item.name.text] = item
                case syntax.Dims():
                    for dim in item.dims:
                        if self._fresh(dim.name, places):
                            unit.dims[dim.name.text] = dim
                case syntax.Train():
                    if item.name.text in unit.recipes:
                        first = unit.recipes[item.name.text].name.span
                        self._twice(item.name, first)
                    else:
                        unit.recipes[item.name.text] = item
                case syntax.Import():
                    self._import(unit, item, places)

    def _fresh(self, name: syntax.Name, places: dict[str, Span]) -> bool:
        if name.text in places:
            self._twice(name, places[name.text])
            return False
        places[name.text] = name.span
        return True

    def _twice(self, name: syntax.Name, first: Span) -> None:
        self.reporter.error(
            "DL0102", f"`{name.text}` is defined twice", name.span, notes=[Note("first defined here", first)], hint="rename one of them"
        )

    def _import(self, unit: Unit, item: syntax.Import, places: dict[str, Span]) -> None:
        name = item.name or syntax.Name(Path(item.path.value).stem, span=item.path.span)
        if not self._fresh(name, places):
            return
        alias = f"{unit.alias}.{name.text}" if unit.alias else name.text
        unit.imports[name.text] = self._load(unit, item.path, alias)

    def _load(self, unit: Unit, path: syntax.Str, alias: str) -> Unit | None:
        """The imported unit, or None after an error."""
        if unit.folder is not None and str((unit.folder / path.value).resolve()) in self._open:
            self.reporter.error("DL0106", f'"{path.value}" imports itself', path.span, hint="move what both need into a third file")
            return None
        found = self._find(unit, path)
        if found is None:
            return None
        place, file, library = found
        key = str(place)
        if key in self.units:
            return self.units[key]
        if len(self.units) >= MAX_FILES:
            self.reporter.error("DL0104", f'cannot import "{path.value}": {MAX_FILES} files are imported already', path.span)
            return None
        try:
            if place.stat().st_size > MAX_BYTES:
                raise OSError("it is larger than 1 MiB")
            text = place.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
            self.reporter.error("DL0104", f'cannot read "{path.value}": {why}', path.span)
            return None
        tree, errors = parse(text, file)
        self.sources[file] = text
        self._report(errors)
        imported = Unit(file, tree, alias=alias, folder=place.parent, library=library)
        self.units[key] = imported
        if library:
            self.reporter.library.add(file)
        self._open.append(key)
        self._declare(imported)
        self._open.pop()
        return imported

    def _find(self, unit: Unit, path: syntax.Str) -> tuple[Path, str, bool] | None:
        text = path.value
        library = resource("std").resolve()
        wanted = Path(text)
        if not text or wanted.is_absolute() or "\\" in text or "\0" in text or ".." in wanted.parts or len(text) > 1000:
            self._escapes(path)
            return None
        if unit.folder is not None:
            folder = unit.folder.resolve()
            place = (folder / wanted).resolve()
            if place.is_file():
                if not place.is_relative_to(folder) and not place.is_relative_to(library):
                    self._escapes(path)
                    return None
                return place, str(Path(unit.file).parent / wanted) if not unit.library else f"std/{text}", unit.library
        inside = Path(*wanted.parts[1:]) if wanted.parts[:1] == ("std",) else wanted
        place = (library / inside).resolve()
        if place.is_file() and place.is_relative_to(library):
            return place, f"std/{inside}", True
        nearby = [p.name for p in unit.folder.glob("*.dl")] if unit.folder is not None and unit.folder.is_dir() else []
        shipped = [f"std/{p.name}" for p in library.glob("*.dl")]
        hint = did_you_mean(text, nearby + shipped) or "paths are looked for in the folder of this file, then in the library"
        self.reporter.error("DL0104", f'there is no file "{text[:200]}"', path.span, hint=hint)
        return None

    def _escapes(self, path: syntax.Str) -> None:
        self.reporter.error(
            "DL0105",
            f'"{path.value[:200]}" leads outside the folder of this file and the library',
            path.span,
            hint='imports are relative paths below the folder of the importing file, or library files such as "std/vision.dl"',
        )
