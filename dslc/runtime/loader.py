"""Object code in memory: checked, linked with LLVM's JIT linker, freed when nobody uses it.

An object may define functions and read-only data and may call `memcpy`, `memmove`, `memset` and what the objects that it `needs`
define; any other undefined symbol is refused, so that no object reaches the C library by itself. The same bytes are linked once
a process. Object code runs with the process's rights: what may be loaded is decided in `cache.py` and `artifact.py`.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import platform
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import llvmlite.binding as llvm

from dslc.diagnostics import Diagnostic, DiagnosticError

ALLOWED = ("memcpy", "memmove", "memset")
_LINKER_MADE = {"_GLOBAL_OFFSET_TABLE_", ""}
_MACHINES = {"x86_64": 62, "amd64": 62, "aarch64": 183, "arm64": 183}


class LoadError(Exception):
    """Object code that this process cannot or must not load."""


@dataclass(frozen=True, slots=True)
class Symbols:
    """Names of global functions that an object defines, and names that it expects from elsewhere."""

    defined: tuple[str, ...]
    undefined: tuple[str, ...]


class Library:
    """Linked object code. Addresses are valid while the object lives; what it calls lives as long."""

    __slots__ = ("__weakref__", "_needs", "_tracker", "addresses", "name")

    def __init__(self, name: str, addresses: Mapping[str, int], tracker: Any, needs: Sequence[Library]):
        self.name = name
        self.addresses = addresses
        self._tracker = tracker
        self._needs = tuple(needs)


def read_symbols(code: bytes) -> Symbols:
    """The symbol table of a 64-bit little-endian ELF object for this machine; LoadError for anything else."""
    try:
        return _read_symbols(code)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise LoadError(f"damaged object code: {error}") from error


def _read_symbols(code: bytes) -> Symbols:
    if code[:6] != b"\x7fELF\x02\x01":
        raise LoadError("not a 64-bit ELF object")
    kind, machine = struct.unpack_from("<HH", code, 16)
    if kind != 1 or machine != _MACHINES.get(platform.machine().lower()):
        raise LoadError("object code for another machine")
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + i * size) for i in range(count)]
    defined, undefined = [], []
    for section in sections:
        if section[1] != 2:  # SHT_SYMTAB
            continue
        start, length, link = section[4], section[5], section[6]
        names = code[sections[link][4] : sections[link][4] + sections[link][5]]
        for at in range(start, start + length, 24):
            name_at, info, _, home, _, _ = struct.unpack_from("<IBBHQQ", code, at)
            if info >> 4 == 0:  # local
                continue
            name = names[name_at : names.index(b"\0", name_at)].decode("ascii")
            if home == 0:
                undefined.append(name)
            elif info & 15 == 2:  # a function
                defined.append(name)
    return Symbols(tuple(defined), tuple(undefined))


_lock = threading.RLock()
_loaded: WeakValueDictionary[tuple[object, ...], Library] = WeakValueDictionary()
_numbers = itertools.count()


@cache
def _linker() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_lljit_compiler(machine, use_jit_link=True)


@cache
def process_symbol(name: str) -> int:
    """Address of a C library function."""
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0


def load_object(code: bytes, needs: Sequence[Library] = (), imports: Iterable[str] = ALLOWED) -> Library:
    """Link an object; `imports` are the C library's functions that it may call. LoadError where it cannot be."""
    imports = tuple(imports)
    key = (hashlib.sha256(code).digest(), imports, *(n.name for n in needs))
    with _lock:
        library = _loaded.get(key)
        if library is None:
            library = _loaded[key] = _link(code, needs, imports)
        return library


def _link(code: bytes, needs: Sequence[Library], imports: Sequence[str]) -> Library:
    symbols = read_symbols(code)
    offered = {name for library in needs for name in library.addresses}
    unknown = [name for name in symbols.undefined if name not in offered and name not in imports and name not in _LINKER_MADE]
    if unknown:
        raise LoadError(f"object code calls {', '.join(sorted(unknown)[:5])}, which nothing that it may use defines")
    builder = llvm.JITLibraryBuilder()
    for library in needs:
        builder.add_jit_library(library.name)
    for name in symbols.undefined:
        if name not in offered and name in imports:
            builder.import_symbol(name, process_symbol(name))
    builder.add_object_img(code)
    for name in symbols.defined:
        builder.export_symbol(name)
    name = f"dslc{next(_numbers)}"
    try:
        tracker = builder.link(_linker(), name)
    except RuntimeError as error:
        raise LoadError(f"object code does not link: {error}") from error
    return Library(name, {symbol: tracker[symbol] for symbol in symbols.defined}, tracker, needs)


def load_objects(objects: Mapping[str, bytes], needs: Mapping[str, Sequence[str]] | None = None) -> dict[str, Library]:
    """Link several objects by key, those that others need first. LoadError for a missing key or a circle."""
    needs = needs or {}
    done: dict[str, Library] = {}

    def load(key: str, trail: tuple[str, ...]) -> Library:
        if key in done:
            return done[key]
        if key in trail:
            raise LoadError("object code that needs itself")
        if key not in objects:
            raise LoadError(f"object code {key[:16]} is missing")
        done[key] = load_object(objects[key], [load(k, (*trail, key)) for k in needs.get(key, ())])
        return done[key]

    for key in objects:
        load(key, ())
    return done


def loaded_count() -> int:
    """How many libraries are alive in this process."""
    return len(_loaded)


# ----------------------------------------------------------------------------------------------------- CPU features


@cache
def host_features() -> frozenset[str]:
    """LLVM's names of the features that this CPU and operating system offer, without the leading sign."""
    return frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)


def missing_features(features: Iterable[str]) -> tuple[str, ...]:
    """Those of `features` (each with or without a leading `+`; `-name` asks for nothing) that this CPU does not have."""
    wanted = (f.removeprefix("+") for f in features if f and not f.startswith("-"))
    return tuple(sorted(f for f in wanted if f not in host_features()))


def check_features(features: Iterable[str]) -> None:
    """Refuse code that this CPU cannot run, before any of it is loaded."""
    missing = missing_features(features)
    if missing:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        raise DiagnosticError(
            Diagnostic(
                "DL0661", f"this program was compiled for a CPU with {shown}, which this one lacks", hint="compile it again on this machine"
            )
        )
