"""Sums of the lanes of several vectors at once: what ends a contraction whose lanes run along the reduction.

Adding the lanes of 16 vectors one after the other takes 4 shuffles and 4 additions each; added together, in pairs whose halves
share a vector, about 2 shuffles and 1 addition each. Every sum is still that of the fixed tree of `reduce_add`, to the bit.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from dslc.backends.cpu.lanes import CANONICAL_LANES, Element, Lanes, LaneType, Typing, define_intrinsic

Combine = Callable[[Lanes, Lanes], Lanes]


def tree_functions(element: Element, width: int) -> dict[str, Any]:
    """`reduce_add_2_f32` ... : lane i of the result is the sum of the i-th of so many groups of 16 canonical lanes.

    `reduce_top_f32` does the same for the largest numbers of W groups, and is free to lose a NaN.
    """
    made = {f"reduce_add_{n}_{element.name}": _trees(f"reduce_add_{n}", n, element, width, operator.add) for n in range(2, width + 1)}
    return made | {f"reduce_top_{element.name}": _trees("reduce_top", width, element, width, larger)}


def larger(x: Lanes, y: Lanes) -> Lanes:
    """The larger of two; y where either is NaN. One instruction on x86."""
    return (x > y).where(x, y)


def _trees(name: str, groups: int, element: Element, width: int, combine: Combine) -> Any:
    lanes, parts = LaneType(element.name, width), CANONICAL_LANES // width

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        vectors = [Lanes(b, a) for a in args]
        level = [_fold(vectors[g * parts : (g + 1) * parts], combine) for g in range(groups)]
        half = width // 2
        while half:
            if len(level) % 2:
                level.append(level[-1])  # a neighbour for the last; its sums land behind the ones that are wanted
            level = [_halves(x, y, half, width, combine) for x, y in zip(level[::2], level[1::2], strict=True)]
            half //= 2
        return level[0].v

    def typing(typingctx: Any, *args: types.Type) -> Typing:
        return (lanes(*args), codegen) if all(a == lanes for a in args) else None

    return define_intrinsic(f"{name}_{element.name}", groups * parts, typing, tree_functions.__doc__ or "")


def _fold(vectors: list[Lanes], combine: Combine) -> Lanes:
    while len(vectors) > 1:
        middle = len(vectors) // 2
        vectors = [combine(x, y) for x, y in zip(vectors[:middle], vectors[middle:], strict=True)]
    return vectors[0]


def _halves(x: Lanes, y: Lanes, half: int, width: int, combine: Combine) -> Lanes:
    """x and y hold groups of 2 * half lanes; the result holds the groups of x, then of y, each half as wide: low and high lanes combined."""
    starts = [vector * width + group for vector in (0, 1) for group in range(0, width, 2 * half)]
    low = x.shuffle(y, [s + lane for s in starts for lane in range(half)])
    high = x.shuffle(y, [s + half + lane for s in starts for lane in range(half)])
    return combine(low, high)
