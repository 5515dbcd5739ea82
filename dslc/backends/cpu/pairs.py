"""Stores that fill each other's gaps: which two of a vector loop's may be done as one."""

from __future__ import annotations

from collections.abc import Iterator

from dslc.ir.loops import ClampedLoad, Load, LoadAt, Stmt, Store
from dslc.lowering.indices import coefficient, walk


def paired(body: tuple[Stmt, ...], variable: str) -> Iterator[Stmt | tuple[Store, Store]]:
    """The statements of a loop over lanes in order, pairs of such stores where the first of them stands."""
    waiting = list(body)
    while waiting:
        first = waiting.pop(0)
        second = partner(first, waiting, variable)
        if isinstance(first, Store) and second is not None:
            waiting.remove(second)
            yield first, second
        else:
            yield first


def partner(first: Stmt, later: list[Stmt], variable: str) -> Store | None:
    """The store of the elements between those of `first`, where it may be done with it: nothing depends on their order."""
    if not isinstance(first, Store) or coefficient(first.address, variable) != 2:
        return None
    written, read = {first.buffer}, set[int]()
    for other in later:
        if not isinstance(other, Store):
            return None
        loads = {e.buffer for e in walk(other.value) if isinstance(e, Load | ClampedLoad | LoadAt)}
        if other.buffer == first.buffer and other.address == first.address + 1:
            return other if not loads & written and other.buffer not in read else None
        written.add(other.buffer)
        read |= loads
    return None
