"""Loads and stores of lane vectors: contiguous, partial, broadcast, strided, gathered.

Positions count elements from a pointer. Nothing needs alignment beyond the element's own. A partial access touches the first
n lanes' elements and no other byte; the other lanes of a partial load are zero. A strided access touches only the elements
it names, never those between them, so threads may work on interleaved data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from dslc.backends.cpu.lanes import (
    I1,
    I8,
    I32,
    I64,
    POINTER,
    Element,
    ElementPointer,
    LaneType,
    Typing,
    constant,
    declare,
    define_intrinsic,
    llvm_suffix,
    splat,
)

Codegen = Callable[[Any, ir.IRBuilder, Any, list[ir.Value]], Any]


def first_lanes(b: ir.IRBuilder, n: ir.Value, width: int) -> ir.Value:
    """The mask of lanes 0 .. n-1."""
    index = ir.VectorType(I32, width)
    return b.icmp_unsigned("<", ir.Constant(index, list(range(width))), splat(b, b.trunc(n, I32), width))


def lanes_between(b: ir.IRBuilder, first: ir.Value, stop: ir.Value, width: int) -> ir.Value:
    """The mask of lanes first .. stop-1, of numbers that fit 32 bits."""
    lanes = ir.Constant(ir.VectorType(I32, width), list(range(width)))
    below = b.icmp_signed("<", lanes, splat(b, b.trunc(first, I32), width))
    return b.and_(b.not_(below), b.icmp_signed("<", lanes, splat(b, b.trunc(stop, I32), width)))


class Memory:
    """Emitters for one element type and width. `mask` arguments are <W x i1> values or None for all lanes."""

    def __init__(self, element: Element, width: int) -> None:
        self.element = element
        self.width = width
        self.stored = ir.VectorType(element.memory, width)
        self.mask_type = ir.VectorType(I1, width)

    def from_memory(self, b: ir.IRBuilder, v: ir.Value) -> ir.Value:
        return b.icmp_unsigned("!=", v, constant(self.stored, 0)) if self.element.kind == "b" else v

    def to_memory(self, b: ir.IRBuilder, v: ir.Value) -> ir.Value:
        return b.zext(v, self.stored) if self.element.kind == "b" else v

    def address(self, b: ir.IRBuilder, p: ir.Value, i: ir.Value) -> ir.Value:
        pointer = b.gep(p, [i], source_etype=self.element.memory)
        pointer.type = POINTER  # llvmlite types a gep by its base, here a typed pointer
        return pointer

    def addresses(self, b: ir.IRBuilder, base: ir.Value, indices: ir.Value) -> ir.Value:
        pointers = self.address(b, base, indices)
        pointers.type = ir.VectorType(POINTER, self.width)
        return pointers

    def zero(self, t: ir.VectorType) -> ir.Constant:
        return ir.Constant(t, None)

    def load(self, b: ir.IRBuilder, at: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """The vector at an address, still in its memory type."""
        if mask is None:
            return b.load(at, typ=self.stored, align=self.element.size)
        t = mask.type
        stored = ir.VectorType(self.element.memory, t.count)
        load = declare(b.module, f"llvm.masked.load.{llvm_suffix(stored)}.p0", stored, [POINTER, I32, t, stored])
        return b.call(load, [at, ir.Constant(I32, self.element.size), mask, self.zero(stored)])

    def store(self, b: ir.IRBuilder, at: ir.Value, v: ir.Value, mask: ir.Value | None = None) -> None:
        if mask is None:
            b.store(v, at, align=self.element.size)
            return
        void = ir.VoidType()
        store = declare(b.module, f"llvm.masked.store.{llvm_suffix(v.type)}.p0", void, [v.type, POINTER, I32, mask.type])
        b.call(store, [v, at, ir.Constant(I32, self.element.size), mask])

    def gather(self, b: ir.IRBuilder, base: ir.Value, indices: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        addresses = self.addresses(b, base, indices)
        kind = f"{llvm_suffix(self.stored)}.{llvm_suffix(addresses.type)}"
        mask = mask if mask is not None else constant(self.mask_type, 1)
        gather = declare(b.module, f"llvm.masked.gather.{kind}", self.stored, [addresses.type, I32, self.mask_type, self.stored])
        return b.call(gather, [addresses, ir.Constant(I32, self.element.size), mask, self.zero(self.stored)])

    def scatter(self, b: ir.IRBuilder, base: ir.Value, indices: ir.Value, v: ir.Value, mask: ir.Value | None = None) -> None:
        addresses = self.addresses(b, base, indices)
        kind = f"{llvm_suffix(self.stored)}.{llvm_suffix(addresses.type)}"
        mask = mask if mask is not None else constant(self.mask_type, 1)
        scatter = declare(b.module, f"llvm.masked.scatter.{kind}", ir.VoidType(), [self.stored, addresses.type, I32, self.mask_type])
        b.call(scatter, [v, addresses, ir.Constant(I32, self.element.size), mask])

    def strided_indices(self, b: ir.IRBuilder, stride: ir.Value) -> ir.Value:
        steps = ir.VectorType(I64, self.width)
        if isinstance(stride, ir.Constant):
            return ir.Constant(steps, [lane * stride.constant for lane in range(self.width)])
        return b.mul(ir.Constant(steps, list(range(self.width))), splat(b, stride, self.width))

    def even_positions(self, b: ir.IRBuilder, mask: ir.Value | None) -> ir.Value:
        """The mask over 2W-1 contiguous elements, padded to 2W, whose even positions are the lanes of `mask`."""
        w = self.width
        if mask is None:
            return ir.Constant(ir.VectorType(I1, 2 * w), [1, 0] * w)
        order = [lane // 2 if lane % 2 == 0 else w for lane in range(2 * w)]
        return b.shuffle_vector(mask, constant(self.mask_type, 0), ir.Constant(ir.VectorType(I32, 2 * w), order))

    def load_strided(self, b: ir.IRBuilder, at: ir.Value, stride: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        known = stride.constant if isinstance(stride, ir.Constant) else None
        w = self.width
        if known == 1:
            return self.load(b, at, mask)
        if known == 2 and mask is None:
            # elements 0 .. W-1 and W-1 .. 2W-2: together exactly the 2W-1 that are spanned
            low, high = self.load(b, at), self.load(b, self.address(b, at, ir.Constant(I64, w - 1)))
            order = [2 * lane if 2 * lane < w else w + 2 * lane - (w - 1) for lane in range(w)]
            return b.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, w), order))
        if known == 2:
            both = self.load(b, at, self.even_positions(b, mask))
            order = [2 * lane for lane in range(w)]
            return b.shuffle_vector(both, self.zero(both.type), ir.Constant(ir.VectorType(I32, w), order))
        return self.gather(b, at, self.strided_indices(b, stride), mask)

    def store_pair(self, b: ir.IRBuilder, at: ir.Value, v: ir.Value, other: ir.Value, n: ir.Value | None = None) -> None:
        """Lanes of v and of other in turn, all or the first n of both."""
        w = self.width
        order = [lane // 2 + w * (lane % 2) for lane in range(2 * w)]
        mixed = b.shuffle_vector(v, other, ir.Constant(ir.VectorType(I32, 2 * w), order))
        self.store(b, at, mixed, None if n is None else first_lanes(b, b.shl(n, ir.Constant(n.type, 1)), 2 * w))

    def store_strided(self, b: ir.IRBuilder, at: ir.Value, stride: ir.Value, v: ir.Value, mask: ir.Value | None = None) -> None:
        known = stride.constant if isinstance(stride, ir.Constant) else None
        w = self.width
        if known == 1:
            self.store(b, at, v, mask)
        elif known == 2:
            spread = [lane // 2 for lane in range(2 * w)]  # odd positions are masked off
            both = b.shuffle_vector(v, self.zero(v.type), ir.Constant(ir.VectorType(I32, 2 * w), spread))
            self.store(b, at, both, self.even_positions(b, mask))
        else:
            self.scatter(b, at, self.strided_indices(b, stride), v, mask)


def memory_functions(element: Element, width: int) -> dict[str, Any]:
    """The intrinsics vload_f32, vstore_f32, ... of one element type at one width."""
    memory = Memory(element, width)
    lanes, pointer, index, count = LaneType(element.name, width), ElementPointer(element.name), types.intp, types.intp
    offsets = LaneType("i64", width)
    made: dict[str, Any] = {}

    def define(
        stem: str, result: types.Type, arguments: tuple[types.Type, ...], emit: Callable[..., Any], doc: str, stride: int = -1
    ) -> None:
        name = f"{stem}_{element.name}"

        def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> Any:
            if stride >= 0 and isinstance(sig.args[stride], types.IntegerLiteral):
                args = [*args[:stride], ir.Constant(I64, sig.args[stride].literal_value), *args[stride + 1 :]]
            value = emit(b, *args)
            return context.get_dummy_value() if result == types.void else value

        def typing(typingctx: Any, *given: types.Type) -> Typing:
            # lanes and pointers must match; integers are converted, and a literal stride is kept to choose the code
            for have, want in zip(given, arguments, strict=True):
                if have != want and not (isinstance(want, types.Integer) and isinstance(have, types.Integer)):
                    return None
            wanted = list(arguments)
            if stride >= 0 and isinstance(given[stride], types.IntegerLiteral):
                wanted[stride] = given[stride]
            return result(*wanted), codegen

        options = {"prefer_literal": True} if stride >= 0 else {}
        made[name] = define_intrinsic(name, len(arguments), typing, doc, **options)

    def place(b: ir.IRBuilder, p: ir.Value, i: ir.Value) -> ir.Value:
        return memory.address(b, p, i)

    def mask(b: ir.IRBuilder, n: ir.Value) -> ir.Value:
        return first_lanes(b, n, width)

    def out(b: ir.IRBuilder, v: ir.Value) -> ir.Value:
        return memory.from_memory(b, v)

    def into(b: ir.IRBuilder, v: ir.Value) -> ir.Value:
        return memory.to_memory(b, v)

    def broadcast(b: ir.IRBuilder, p: ir.Value, i: ir.Value) -> ir.Value:
        return out(b, splat(b, b.load(place(b, p, i), typ=element.memory, align=element.size), width))

    define("vload", lanes, (pointer, index), lambda b, p, i: out(b, memory.load(b, place(b, p, i))), "Elements i .. i+W-1.")
    define(
        "vload_part",
        lanes,
        (pointer, index, count),
        lambda b, p, i, n: out(b, memory.load(b, place(b, p, i), mask(b, n))),
        "Elements i .. i+n-1, 0 <= n <= W; the other lanes are zero.",
    )
    define(
        "vload_between",
        lanes,
        (pointer, index, count, count),
        lambda b, p, i, first, stop: out(b, memory.load(b, place(b, p, i), lanes_between(b, first, stop, width))),
        "Elements i+first .. i+stop-1 in lanes first .. stop-1; the other lanes are zero, and what lies there is not touched.",
    )
    define(
        "vstore",
        types.void,
        (pointer, index, lanes),
        lambda b, p, i, v: memory.store(b, place(b, p, i), into(b, v)),
        "Elements i .. i+W-1 = v.",
    )
    define(
        "vstore_part",
        types.void,
        (pointer, index, lanes, count),
        lambda b, p, i, v, n: memory.store(b, place(b, p, i), into(b, v), mask(b, n)),
        "Elements i .. i+n-1 = the first n lanes of v.",
    )
    define(
        "vstore_last",
        types.void,
        (pointer, index, lanes, count),
        lambda b, p, i, v, n: memory.store(b, place(b, p, i), into(b, v), b.not_(mask(b, b.sub(ir.Constant(I64, width), n)))),
        "Elements i+W-n .. i+W-1 = the last n lanes of v.",
    )
    define("vbroadcast", lanes, (pointer, index), broadcast, "All lanes = element i.")
    define(
        "vload_stride",
        lanes,
        (pointer, index, index),
        lambda b, p, i, s: out(b, memory.load_strided(b, place(b, p, i), s)),
        "Lane l = element i + l*s.",
        stride=2,
    )
    define(
        "vload_stride_part",
        lanes,
        (pointer, index, index, count),
        lambda b, p, i, s, n: out(b, memory.load_strided(b, place(b, p, i), s, mask(b, n))),
        "The first n lanes of vload_stride; the others are zero.",
        stride=2,
    )
    define(
        "vstore_stride",
        types.void,
        (pointer, index, index, lanes),
        lambda b, p, i, s, v: memory.store_strided(b, place(b, p, i), s, into(b, v)),
        "Element i + l*s = lane l; s is not 0.",
        stride=2,
    )
    define(
        "vstore_stride_part",
        types.void,
        (pointer, index, index, lanes, count),
        lambda b, p, i, s, v, n: memory.store_strided(b, place(b, p, i), s, into(b, v), mask(b, n)),
        "The first n lanes of vstore_stride.",
        stride=2,
    )
    define(
        "vload_stride_between",
        lanes,
        (pointer, index, index, count, count),
        lambda b, p, i, s, first, stop: out(b, memory.load_strided(b, place(b, p, i), s, lanes_between(b, first, stop, width))),
        "Lanes first .. stop-1 of vload_stride; the others are zero, and what lies there is not touched.",
        stride=2,
    )
    define(
        "vstore_pair",
        types.void,
        (pointer, index, lanes, lanes),
        lambda b, p, i, v, other: memory.store_pair(b, place(b, p, i), into(b, v), into(b, other)),
        "Elements i + 2l and i + 2l + 1 = lane l of the two.",
    )
    define(
        "vstore_pair_part",
        types.void,
        (pointer, index, lanes, lanes, count),
        lambda b, p, i, v, other, n: memory.store_pair(b, place(b, p, i), into(b, v), into(b, other), n),
        "The first n lanes of vstore_pair.",
    )
    define(
        "vgather",
        lanes,
        (pointer, offsets),
        lambda b, p, iv: out(b, memory.gather(b, p, iv)),
        "Lane l = the element whose index is lane l of the i64 vector.",
    )
    define(
        "vgather_part",
        lanes,
        (pointer, offsets, count),
        lambda b, p, iv, n: out(b, memory.gather(b, p, iv, mask(b, n))),
        "The first n lanes of vgather; the others are zero.",
    )

    def scalar_load(b: ir.IRBuilder, p: ir.Value, i: ir.Value) -> ir.Value:
        return b.load(place(b, p, i), typ=I8 if element.kind == "b" else element.memory, align=element.size)

    def scalar_store(b: ir.IRBuilder, p: ir.Value, i: ir.Value, x: ir.Value) -> None:
        b.store(x, place(b, p, i), align=element.size)

    if element.kind in "fiu" and isinstance(element.register, type(element.memory)):
        define("load", element.scalar, (pointer, index), scalar_load, "Element i as a plain number.")
        define("store", types.void, (pointer, index, element.scalar), scalar_store, "Element i = a plain number.")
    return made
