"""What kernels that work on blocks need beside vectors: memory of their own, strips of a matrix turned over, and cheap comparisons."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from dslc.backends.cpu.exponentials import exp_flushed
from dslc.backends.cpu.lanes import BYTES, I8, I64, Element, ElementPointer, Lanes, LaneType, Typing, call_formula, define_intrinsic
from dslc.backends.cpu.memory import Memory
from dslc.backends.cpu.trees import larger

LINE = 64


def block_functions(element: Element, width: int) -> dict[str, Any]:
    """`stack_T(n)`; for floating T `transpose_T(p, i, s, q, j, t)`, `vlarger_T(v, v)` and `vexp_flushed_T(v)`."""
    made = {f"stack_{element.name}": _stack(element)}
    if element.kind == "f":
        made[f"transpose_{element.name}"] = _transpose(element, width)
        made[f"vlarger_{element.name}"] = _function(element, width, "vlarger", 2)
        made[f"vexp_flushed_{element.name}"] = _function(element, width, "vexp_flushed", 1)
    return made


def _stack(element: Element) -> Any:
    """Uninitialised memory for n elements, a constant, on the stack of the function around; it starts a cache line."""

    def typing(typingctx: Any, n: types.Type) -> Typing:
        if not isinstance(n, types.IntegerLiteral):
            return None

        def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
            size = sig.args[0].literal_value * element.size
            with b.goto_entry_block():
                memory = b.alloca(ir.ArrayType(I8, size))
            memory.align = LINE
            return b.bitcast(memory, BYTES)

        return ElementPointer(element.name)(n), codegen

    return define_intrinsic(f"stack_{element.name}", 1, typing, _stack.__doc__ or "", prefer_literal=True)


COLUMNS = 4  # that a step of a transposition reads


def _transpose(element: Element, width: int) -> Any:
    """W rows of four elements turned over: row r of the source begins at p[i + r * s], row c of the result at q[j + c * t].

    Rows 4 l + n stand side by side in vector n, so that squares of four within a vector are all that is left to be turned.
    """
    memory, four, pointer = Memory(element, width), Memory(element, COLUMNS), ElementPointer(element.name)

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> Any:
        p, i, s, q, j, t = args

        def at(base: ir.Value, start: ir.Value, stride: ir.Value, row: int) -> ir.Value:
            return memory.address(b, base, b.add(start, b.mul(stride, ir.Constant(I64, row))))

        def side_by_side(parts: list[Lanes]) -> Lanes:
            while len(parts) > 1:
                parts = [x.shuffle(y, range(2 * x.width)) for x, y in zip(parts[::2], parts[1::2], strict=True)]
            return parts[0]

        pieces = [Lanes(b, four.load(b, at(p, i, s, r))) for r in range(width)]
        rows = [side_by_side(pieces[n::COLUMNS]) for n in range(COLUMNS)]
        for half in (1, 2):
            for r in range(COLUMNS):
                if not r & half:
                    rows[r], rows[r + half] = _exchanged(rows[r], rows[r + half], half)
        for r, row in enumerate(rows):
            memory.store(b, at(q, j, t, r), row.v)
        return context.get_dummy_value()

    def typing(typingctx: Any, *given: types.Type) -> Typing:
        if given[0] != pointer or given[3] != pointer or not all(isinstance(given[n], types.Integer) for n in (1, 2, 4, 5)):
            return None
        return types.void(pointer, types.intp, types.intp, pointer, types.intp, types.intp), codegen

    return define_intrinsic(f"transpose_{element.name}", 6, typing, _transpose.__doc__ or "")


def _exchanged(x: Lanes, y: Lanes, half: int) -> tuple[Lanes, Lanes]:
    """Two rows after squares of `half` lanes beside the diagonal have changed places."""
    w = x.width
    low = [lane if not lane & half else w + lane - half for lane in range(w)]
    high = [lane + half if not lane & half else w + lane for lane in range(w)]
    return x.shuffle(y, low), x.shuffle(y, high)


def _function(element: Element, width: int, name: str, arity: int) -> Any:
    lanes = LaneType(element.name, width)

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        if name == "vlarger":
            return larger(*(Lanes(b, a) for a in args)).v
        return call_formula(b, "exp_flushed", exp_flushed, args)

    def typing(typingctx: Any, *given: types.Type) -> Typing:
        return (lanes(*given), codegen) if all(g == lanes for g in given) else None

    return define_intrinsic(f"{name}_{element.name}", arity, typing, (larger if arity == 2 else exp_flushed).__doc__ or "")
