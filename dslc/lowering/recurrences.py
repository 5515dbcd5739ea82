"""Recurrences become kernels: loops over the other axes, lanes along one of them, and the steps in order inside."""

from __future__ import annotations

from dslc.ir import dims
from dslc.ir.graph import Value
from dslc.ir.loops import Carried, Expr, LoopProgram, Store, var
from dslc.lowering.fuse import Nest, index_of
from dslc.lowering.indices import substitute
from dslc.lowering.kernels import argument, canonical, resolver
from dslc.lowering.schedule import SMALL_WORK, nest_of, schedule_recurrence
from dslc.lowering.steps import Lowering, Step


def recurrence_step(state: Lowering, nest: Nest) -> Step:
    """The kernel of one recurrence. Every element depends on its own steps alone, so bits depend neither on lanes nor on threads."""
    it = nest.recurrence
    assert it is not None
    shape, layout = nest.value.type.shape, state.places[nest.value].layout
    scan, extent = nest.index[it.axis], shape[it.axis]
    turned = {scan: extent - 1 - var(scan)} if it.reverse and extent != 1 else {}
    args: list[Value] = []
    resolved, named = resolver(state, nest, it.expressions, args)

    def change(e: Expr) -> Expr:
        return resolved(substitute(e, turned))

    address = named(dims.substitute(layout.address(index_of(nest.index, shape)), turned))
    value = change(it.value)
    carries = tuple(Carried(c.name, change(c.initial), change(c.next)) for c in it.carries)
    store = Store(argument(args, nest.value), address, value)
    axes = tuple((n, named(e)) for n, e in zip(nest.index, shape, strict=True) if n != scan)
    loops = schedule_recurrence(store, carries, (scan, named(extent)), axes, state.bound)
    serial = loops.work < SMALL_WORK or not loops.loops
    program = canonical(LoopProgram(tuple(v.type.dtype for v in args), nest_of(loops, parallel=not serial), serial))
    reads = frozenset(args) - {nest.value}
    return Step(program, tuple(args), reads, frozenset({nest.value}), serial, nest.label, nest.span)
