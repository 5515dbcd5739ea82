"""The house: imports point down only, rooms of one floor do not import each other, and private calls live in one file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dslc"

FLOORS = {
    "cli": 7,
    "__main__": 7,
    "api": 6,
    "compiler": 5,
    "training": 5,
    "interchange": 5,
    "backends": 4,
    "verify": 4,
    "frontend": 3,
    "ops": 3,
    "transforms": 3,
    "lowering": 3,
    "runtime": 3,
    "interpret": 3,
    "ir": 2,
    "data": 2,
    "diagnostics": 1,
    "options": 1,
    "explain": 1,
}
"""The floor of every room: a folder or a module of the package."""

# `options` refuses what it cannot take with a Diagnostic; the texts of `explain` are reached through one. Nothing else crosses a floor.
SAME_FLOOR = {("__main__", "cli"), ("options", "diagnostics"), ("explain", "diagnostics"), ("data", "ir")}

NATIVE = "backends/cpu/native.py"
# llvmlite's stable parts: the binding that links object code, and its version. Numba's: what a worker must know of it.
PUBLIC = {
    "llvmlite": {"binding", "__version__"},
    "llvmlite.binding": set(),
    "llvmlite.ir": set(),
    "numba": {"__version__", "types", "njit", "cuda"},
    "numba.extending": {"intrinsic", "overload", "models", "register_model", "lower_builtin", "type_callable"},
    "numba.types": set(),
    "numba.cuda": set(),
}


def files() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, str | None, int]]:
    """(module, name taken from it, line) of every import, those inside functions and `if TYPE_CHECKING` included."""
    package = ("dslc", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            for alias in node.names:
                yield module, alias.name, node.lineno


def rooms_imported(path: Path) -> Iterator[tuple[str, int]]:
    for module, name, line in imports(path):
        parts = module.split(".")
        if parts[0] != "dslc":
            continue
        if len(parts) > 1:
            yield parts[1], line
        elif name is not None and name != "__version__":
            yield name, line


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return  # the package's face looks at the API
    wrong = []
    for there, line in rooms_imported(path):
        assert there in FLOORS, f"{path}:{line} imports dslc.{there}, which has no floor"
        if there == here or (here, there) in SAME_FLOOR:
            continue
        if FLOORS[there] >= FLOORS[here]:
            wrong.append(f"line {line}: {here} (floor {FLOORS[here]}) imports {there} (floor {FLOORS[there]})")
    assert wrong == []


def test_every_room_is_there() -> None:
    rooms = {room(p) for p in files()} - {"__init__"}
    assert rooms <= set(FLOORS), f"give {sorted(rooms - set(FLOORS))} a floor"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_private_parts_of_numba_and_llvmlite_stay_in_one_file(path: Path) -> None:
    if path.relative_to(PACKAGE).as_posix() == NATIVE:
        return
    wrong = []
    for module, name, line in imports(path):
        if module.split(".")[0] not in ("numba", "llvmlite"):
            continue
        if module not in PUBLIC or (name is not None and PUBLIC[module] and name not in PUBLIC[module] | {"ir"}):
            wrong.append(f"line {line}: {module}{f'.{name}' if name else ''}")
    text = path.read_text(encoding="utf-8")
    wrong += [f"{m[0]}" for m in re.finditer(r"\b(?:numba|llvm|llvmlite)(?:\.\w+)*\._(?!_)\w+", text)]
    assert wrong == []


LIGHT = {
    "runtime": ("numba", "lark"),
    "data": ("numba", "lark"),
    "training": ("numba", "lark"),
    "diagnostics": ("numpy",),
    "options": ("numpy",),
}


@pytest.mark.parametrize("path", [p for p in files() if room(p) in LIGHT], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_must_start_fast_imports_nothing_heavy(path: Path) -> None:
    heavy = [f"line {line}: {module}" for module, _, line in imports(path) if module.split(".")[0] in LIGHT[room(path)]]
    assert heavy == []


def test_only_options_reads_the_environment() -> None:
    readers = set()
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            reads = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and isinstance(node.value, ast.Name)
            if reads and isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                readers.add(path.relative_to(PACKAGE).as_posix())
    assert readers <= {"options.py", "backends/cpu/build.py"}  # build.py hands its own environment on to its workers


LIMIT = 500


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short(path: Path) -> None:
    """About 500 lines are one idea. A longer file says why in its docstring, with the word "long" in it."""
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    reason = ast.get_docstring(ast.parse(text)) or ""
    assert lines <= LIMIT or re.search(r"\blong(er)?\b", reason, re.IGNORECASE), f"{lines} lines, without a reason at the top"


def test_names_of_test_files_differ() -> None:
    """pytest imports test files by their bare names."""
    names = [p.name for p in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
