"""Addresses: the argument words of a kernel, typed pointers, and lines of memory asked for ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dslc.backends.cpu.lanes import BYTES, I32, I64, POINTER, ElementPointer, Signature, Typing, declare, define_intrinsic


@intrinsic
def arg(typingctx: Any, row: types.Type, i: types.Type) -> Typing:
    """Argument word i (an address) of the kernel's row of int64 words."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Signature, args: list[ir.Value]) -> ir.Value:
        words = builder.inttoptr(args[0], POINTER)
        return builder.load(builder.gep(words, [args[1]], source_etype=I64), typ=I64, align=8)

    return types.uintp(types.uintp, types.intp), codegen


def pointer_to(element: str) -> Any:
    """The intrinsic that reads an address as a pointer to elements of one type."""

    def typing(typingctx: Any, address: types.Type) -> Typing:
        return ElementPointer(element)(types.uintp), lambda c, b, s, a: b.inttoptr(a[0], BYTES)

    return define_intrinsic(f"ptr_{element}", 1, typing, f"The address as a pointer to {element}.")


@intrinsic
def offset(typingctx: Any, p: types.Type, i: types.Type) -> Typing:
    """The pointer to element i of p."""
    if not isinstance(p, ElementPointer):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, sig: Signature, args: list[ir.Value]) -> ir.Value:
        return builder.gep(args[0], [args[1]], source_etype=sig.args[0].element.memory)

    return p(p, types.intp), codegen


def _prefetching(write: int) -> Callable[..., Typing]:
    """A hint about a cache line that will be read (0) or written (1)."""

    def typing(typingctx: Any, p: types.Type, i: types.Type) -> Typing:
        if not isinstance(p, ElementPointer):
            return None

        def codegen(context: Any, builder: ir.IRBuilder, sig: Signature, args: list[ir.Value]) -> Any:
            address = builder.gep(args[0], [args[1]], source_etype=sig.args[0].element.memory)
            function = declare(builder.module, "llvm.prefetch.p0", ir.VoidType(), [POINTER, I32, I32, I32])
            address.type = POINTER
            builder.call(function, [address, ir.Constant(I32, write), ir.Constant(I32, 2), ir.Constant(I32, 1)])  # level 2, data
            return context.get_dummy_value()

        return types.void(p, types.intp), codegen

    return typing


prefetch = define_intrinsic(
    "prefetch", 2, _prefetching(0), "Ask for the cache line of element i of p in the second-level cache; any address is harmless."
)
prefetch_write = define_intrinsic(
    "prefetch_write", 2, _prefetching(1), "The same for a line that will be written: no other core keeps it, and stores need not wait."
)


@intrinsic
def apart(typingctx: Any) -> Typing:
    """Nothing, but what is loaded after it is not what was loaded before it: two loads of the same address stay two."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Signature, args: list[ir.Value]) -> Any:
        builder.call(ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", side_effect=True), [])
        return context.get_dummy_value()

    return types.void(), codegen
