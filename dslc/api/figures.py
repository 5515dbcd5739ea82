"""How much arithmetic a compiled program does, counted on its loop programs: a multiply-add is two operations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.loops import ARITHMETIC, Binary, Expr, For, LoopProgram, Reduce, Scan, Stmt, Store, Unary
from dslc.ir.routines import Routine
from dslc.lowering.contraction import Contraction
from dslc.lowering.steps import Lowered, Step


def program_flops(lowered: Lowered) -> tuple[int, int]:
    """(fixed, an example): a call with batch n does fixed + n * an example operations."""
    runs = [math.prod(loop.length for loop in lowered.loops if loop.begin <= n < loop.end) for n in range(len(lowered.steps))]
    once, twice = (sum(times * step_flops(s, batch) for times, s in zip(runs, lowered.steps, strict=True)) for batch in (1, 2))
    return (2 * once - twice, twice - once) if lowered.source.batch else (once, 0)


def step_flops(step: Step, batch: int) -> int:
    """Floating-point operations of one kernel call; comparisons, moves and index arithmetic do not count."""
    if isinstance(step.program, Contraction):
        c = step.program
        results = 1
        for axis in c.outputs:
            results *= axis.size(batch)
        return c.flops(batch) + results * _operations(c.epilogue, batch)
    if isinstance(step.program, Routine):
        products = {"attention_forward": (1, 1), "attention_backward": (3, 2)}.get(step.program.name)
        return 0 if products is None else _attention(step.program, products, batch)  # others move, compare and add where data says
    return _statements(step.program.body, batch)


def _attention(routine: Routine, products: tuple[int, int], batch: int) -> int:
    """Attention's products, so many over the features of a key and of a value, of every query with the keys that it sees."""
    examples, heads, queries, keys, features, width = (
        _size(routine.size(name), batch) for name in ("examples", "heads", "queries", "keys", "features", "width")
    )
    ends = [keys - queries + t + 1 if routine.setting("causal") else keys for t in range(queries)]
    window = int(routine.setting("window")) or keys + queries
    pairs = sum(max(0, min(keys, end, at + window) - max(0, at - window + 1)) for t, end in enumerate(ends) for at in (keys - queries + t,))
    return 2 * examples * heads * pairs * (products[0] * features + products[1] * width)


def loop_flops(program: LoopProgram, batch: int) -> int:
    """The same of a loop program by itself."""
    return _statements(program.body, batch)


def _statements(body: Iterable[Stmt], batch: int) -> int:
    total = 0
    for statement in body:
        if isinstance(statement, For):
            total += _size(statement.extent, batch) * _statements(statement.body, batch)
        elif isinstance(statement, Store):
            total += _operations(statement.value, batch)
        elif isinstance(statement, Scan):
            carried = sum(_operations(c.next, batch) for c in statement.carries)
            total += _size(statement.extent, batch) * (_statements(statement.body, batch) + carried)
    return total


def _operations(e: Expr, batch: int) -> int:
    """A value that is used twice is computed once: equal parts of an expression count once."""
    return sum(_own(part, batch) for part in set(_outside_reductions(e)))


def _own(e: Expr, batch: int) -> int:
    if isinstance(e, Reduce):
        size = 1
        for _, extent in e.variables:
            size *= _size(extent, batch)
        return size * (_operations(e.body, batch) + (1 if e.op in ("add", "mul", "max", "min") and e.dtype.floating else 0))
    counts = e.dtype.floating and (isinstance(e, Unary) or (isinstance(e, Binary) and e.op in ARITHMETIC))
    return 1 if counts else 0


def _outside_reductions(e: Expr) -> Iterator[Expr]:
    yield e
    if isinstance(e, Reduce):
        return
    for name in ("x", "y", "condition", "at", "seed", "counter"):
        part = getattr(e, name, None)
        if isinstance(part, Expr):
            yield from _outside_reductions(part)


def _size(extent: Dim, batch: int) -> int:
    if isinstance(extent, int):
        return extent
    names: Mapping[str, int] = dict.fromkeys(dims.names(extent), batch)
    return int(dims.evaluate(extent, names))


def readable(count: float) -> str:
    """`1.2 M`: a count with three digits."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.3g}".rstrip(".") + " "


def readable_bytes(count: float) -> str:
    """`1.2 MiB`."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"
