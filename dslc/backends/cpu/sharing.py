"""How the threads share the loops of a kernel: each walks its part of a range, which never changes what is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dslc.ir.loops import For, Stmt, Store


@dataclass(frozen=True, slots=True)
class Shares:
    """Names of this thread's number and of how many threads there are."""

    number: str
    count: str

    def of(self, extent: str) -> str:
        """This thread's part of range(extent)."""
        return f"{self.number} * {factor(extent)} // {self.count}, ({self.number} + 1) * {factor(extent)} // {self.count}"


THREADS = Shares("thread", "threads")
OUTER, INNER = Shares("outer", "outers"), Shares("inner", "inners")


def few_examples(extent: str) -> list[str]:
    """Names for a loop over examples and the loops inside it: the threads share the examples where there are enough of them, else
    the rows of each."""
    names = ", ".join((OUTER.number, OUTER.count, INNER.number, INNER.count))
    return [f"{names} = (thread, threads, 0, 1) if {factor(extent)} >= threads else (0, 1, thread, threads)"]


def splits_inside(stmt: For) -> bool:
    """Whether the loops inside one over a run-time number of examples can be shared instead: rows of one value, cut or whole."""
    inner = stmt.body
    if isinstance(stmt.extent, int) or not all(isinstance(s, For) and s.kind == "serial" for s in inner):
        return False
    written = [frozenset(_buffers(s)) for s in inner]
    return bool(written) and all(buffers == written[0] for buffers in written) and all(_only_stores(s) for s in inner)


def _buffers(stmt: Stmt) -> Iterator[int]:
    if isinstance(stmt, Store):
        yield stmt.buffer
    elif isinstance(stmt, For):
        for inner in stmt.body:
            yield from _buffers(inner)


def _only_stores(stmt: Stmt) -> bool:
    return isinstance(stmt, Store) or (isinstance(stmt, For) and all(_only_stores(inner) for inner in stmt.body))


def factor(text: str) -> str:
    return text if text.isidentifier() or text.isdigit() else f"({text})"
