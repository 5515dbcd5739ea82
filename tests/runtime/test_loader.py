"""Object code is checked before it is linked, linked once, and freed."""

from __future__ import annotations

import ctypes
import gc
import weakref

import pytest
from kernels import HEAD, SOURCES, kernel_library, kernel_object

from dslc.diagnostics import DiagnosticError
from dslc.runtime import loader
from dslc.runtime.loader import LoadError, check_features, load_object, load_objects, missing_features, read_symbols
from dslc.runtime.pool import build_object

CALLS_TILE = HEAD.format(name="caller") + " {\n  %v = call i32 @tile(i32 41)\n  ret i32 %v\n}\ndeclare i32 @tile(i32)\n"
TILE = "define i32 @tile(i32 %x) {\n  %y = add i32 %x, 1\n  ret i32 %y\n}\n"
CALLS_SYSTEM = HEAD.format(name="evil") + " {\n  %v = call i32 @system(ptr null)\n  ret i32 %v\n}\ndeclare i32 @system(ptr)\n"
CLEARS = (
    HEAD.format(name="clear")
    + " {\n  %p = inttoptr i64 %row to ptr\n  call void @llvm.memset.p0.i64(ptr %p, i8 0, i64 %batch, i1 false)\n  ret i32 0\n}\n"
    + "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)\n"
)


def run(address: int, row: int = 0, batch: int = 0) -> int:
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4)
    return kind(address)(None, None, row, 0, 1, batch)


def test_symbols() -> None:
    symbols = read_symbols(build_object(CALLS_TILE))
    assert symbols.defined == ("caller",)
    assert symbols.undefined == ("tile",)


def test_same_bytes_are_linked_once() -> None:
    first, second = load_object(kernel_object("nothing")), load_object(bytes(bytearray(kernel_object("nothing"))))
    assert first is second
    assert run(first.addresses["nothing"]) == 0


def test_unused_code_is_freed() -> None:
    gc.collect()
    library = load_object(build_object(SOURCES["nothing"].replace("nothing", "lonely")))
    gone = weakref.ref(library)
    before = loader.loaded_count()
    del library
    gc.collect()
    assert gone() is None
    assert loader.loaded_count() == before - 1


def test_objects_that_need_others() -> None:
    objects = {"k": build_object(CALLS_TILE), "t": build_object(TILE)}
    libraries = load_objects(objects, {"k": ("t",)})
    assert run(libraries["k"].addresses["caller"]) == 42
    kernel = libraries["k"]
    del libraries
    gc.collect()
    assert run(kernel.addresses["caller"]) == 42, "what it calls lives as long"


def test_needs_that_cannot_be_met() -> None:
    objects = {"k": build_object(CALLS_TILE), "t": build_object(TILE)}
    with pytest.raises(LoadError, match="missing"):
        load_objects(objects, {"k": ("x",)})
    with pytest.raises(LoadError, match="needs itself"):
        load_objects(objects, {"k": ("t",), "t": ("k",)})


def test_undefined_symbols_are_refused() -> None:
    with pytest.raises(LoadError, match="calls tile"):
        load_object(build_object(CALLS_TILE))
    with pytest.raises(LoadError, match="calls system"):
        load_object(build_object(CALLS_SYSTEM))


def test_memory_functions_are_allowed() -> None:
    block = (ctypes.c_uint8 * 5000)(*[7] * 5000)
    library = load_object(build_object(CLEARS))
    run(library.addresses["clear"], ctypes.addressof(block), 4999)
    assert not any(block[:4999])
    assert block[4999] == 7


@pytest.mark.parametrize("cut", [0, 3, 17, 63, 64, 300, -200, -1])
def test_truncated_objects_are_refused(cut: int) -> None:
    with pytest.raises(LoadError):
        load_object(kernel_object("add_one")[:cut])


def test_other_files_are_refused() -> None:
    code = bytearray(kernel_object("nothing"))
    code[18] ^= 0xFF  # the machine
    for hostile in (b"MZ" + bytes(200), b"\x7fELF\x01\x01" + bytes(200), bytes(code)):
        with pytest.raises(LoadError):
            load_object(hostile)


def test_random_damage_is_survived() -> None:
    """Damage to headers and symbols gives an error or a library; it never ends the process."""
    code = kernel_object("count")
    for at in range(64):
        hostile = bytearray(code)
        hostile[at] ^= 0xFF
        try:
            read_symbols(bytes(hostile))
        except LoadError:
            continue


def test_cpu_features() -> None:
    there = sorted(loader.host_features())[:3]
    assert missing_features([f"+{f}" for f in there]) == ()
    assert missing_features(["-no-such-feature", "", *there]) == ()
    assert missing_features(["+quantum", *there]) == ("quantum",)
    check_features(there)
    with pytest.raises(DiagnosticError, match=r"DL0661.*quantum"):
        check_features(["+quantum"])


def test_kernels_of_the_tests_load() -> None:
    assert all(kernel_library(name).addresses[name] for name in SOURCES)
