"""What a loop stacks before each iteration and after it lies in memory once, in a stack with one element more.

    h[t - 1] for all t    elements 0 to T - 1 (of a loop that runs backwards 1 to T)
    h[t] for all t        elements 1 to T (0 to T - 1)

The loop writes the second; the one element that only the first has is what the carry starts as.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dslc.ir.graph import Value
from dslc.ir.scan import ScanParts, parts, with_axis
from dslc.lowering.fuse import Nest
from dslc.lowering.layout import row_major, strided
from dslc.lowering.steps import Lowering, Part, Place, located


@dataclass(frozen=True, slots=True)
class History:
    """A carry of which a loop stacks along one axis what it is `before` each iteration, and `after` it."""

    carry: Value  # in the body
    before: Value
    after: Value
    axis: int


def share_stacks(state: Lowering, nest: Nest) -> None:
    """Moves both stacks of a carry into one, where they have memory of the loop's own."""
    assert nest.loop is not None
    it = parts(nest.loop.op)
    assert isinstance(it.length, int)
    for history in _histories(it) if it.length > 1 else ():
        places = [state.places[v] for v in (history.before, history.after)]
        pitches = {place.layout.pitch for place in places}
        whole = state.new_value(Value(0, with_axis(history.carry.type, history.axis, it.length + 1)))
        layout = replace(row_major(whole.type.shape), pitch=min(pitches))
        step = layout.strides[history.axis]
        if any(place.region != "arena" or place.part is not None for place in places) or not isinstance(step, int):
            continue
        state.places[whole] = Place("arena", "", layout)
        later = 0 if it.reverse else step
        for value, offset in ((history.before, step - later), (history.after, later)):
            state.places[value] = Place("arena", "", strided(value.type.shape, layout.strides), Part(whole, offset))


def shared_stacks(state: Lowering, it: ScanParts) -> dict[Value, tuple[Value, Place]]:
    """The carries whose stacks share memory: the stack of what each is before iterations, and where that holds what the carry starts as."""
    found = {}
    for h in _histories(it):
        if located(state.places, h.before).value == located(state.places, h.after).value:
            layout = state.places[h.before].layout
            steps, step = (*layout.strides[: h.axis], *layout.strides[h.axis + 1 :]), layout.strides[h.axis]
            assert isinstance(it.length, int) and isinstance(step, int)
            part = Part(h.before, step * (it.length - 1) if it.reverse else 0)
            found[h.carry] = (h.before, Place("arena", "", strided(h.carry.type.shape, steps), part))
    return found


def _histories(it: ScanParts) -> Iterator[History]:
    stacks = {(made, axis): stacked for made, axis, stacked in zip(it.yields, it.stacks, it.stacked, strict=True)}
    for carry, after in zip(it.carries, it.after, strict=True):
        for (made, axis), before in stacks.items():
            if made == carry and (after, axis) in stacks:
                yield History(carry, before, stacks[after, axis], axis)
                break
