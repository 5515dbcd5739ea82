"""What the values of a loop's body depend on, and the same values around the loop: one for all iterations, or all of them stacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from math import prod

from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.graph import Op, Value
from dslc.ir.types import DType, TensorType
from dslc.transforms.lifting import Lifted, can_lift, lift
from dslc.transforms.loop_parts import Loop

TYPICAL = 64  # what a symbolic size counts as when bytes are compared
LARGER = 32  # how many times its operand a product may be that is made for all iterations at once


class Depends(IntEnum):
    """What a value of the body depends on."""

    NOTHING = 0  # that changes from iteration to iteration
    ELEMENTS = 1  # and the index: known for all iterations before the loop runs
    CARRIES = 2


@dataclass(frozen=True, slots=True)
class All:
    """A value in all iterations: what the loop must stack for it, and the tensor of them all behind the loop."""

    stacks: tuple[Value, ...]
    build: Callable[[], Lifted]


@dataclass(frozen=True, slots=True)
class Joined:
    """The parts of a concat, their axis, and the element type to which the whole is converted."""

    parts: tuple[Value, ...]
    axis: int
    dtype: DType


class View:
    """A loop as it is now. After operations of the body have changed, a new one is made."""

    def __init__(self, loop: Loop):
        self.loop, self.outside = loop, loop.outside
        self.made: dict[Value, Op] = loop.producers()
        self.uses = Counter(v for op in loop.ops for v in op.inputs)
        self.uses += Counter((*(c.after for c in loop.carried), *(y.inner for y in loop.yielded)))
        self.depends: dict[Value, Depends] = dict.fromkeys(loop.captured, Depends.NOTHING)
        self.depends |= dict.fromkeys((c.before for c in loop.carried), Depends.CARRIES)
        self.depends |= dict.fromkeys((loop.index, *(w.inner for w in loop.walked)), Depends.ELEMENTS)
        for op in loop.ops:
            self.depends |= dict.fromkeys(op.outputs, max((self.depends[v] for v in op.inputs), default=Depends.NOTHING))
        self._outer: dict[Value, Value] = {}
        self._lifted: dict[Value, Lifted] = {}

    def fixed(self, value: Value) -> bool:
        """Whether all iterations have the same value."""
        return self.depends[value] == Depends.NOTHING

    def varying(self, op: Op) -> list[bool]:
        return [not self.fixed(v) for v in op.inputs]

    def outer(self, value: Value) -> Value:
        """A fixed value of the body, around the loop."""
        if value in self.loop.captured:
            return self.loop.captured[value]
        if value not in self._outer:
            op = self.made[value]
            outputs = tuple(self.outside.value(v.type) for v in op.outputs)
            self.outside.ops.append(replace(op, inputs=tuple(map(self.outer, op.inputs)), outputs=outputs))
            self._outer |= zip(op.outputs, outputs, strict=True)
        return self._outer[value]

    def liftable(self, value: Value) -> bool:
        """Whether a value can be computed for all iterations at once."""
        if self.fixed(value) or value == self.loop.index or any(w.inner == value for w in self.loop.walked):
            return True
        if self.depends[value] == Depends.CARRIES:
            return False
        op, varying = self.made[value], self.varying(self.made[value])
        largest = max(_bytes(v.type) for v, varies in zip(op.inputs, varying, strict=True) if varies)
        if op.kind == "dot_general" and _bytes(value.type) > LARGER * largest:
            return False  # the loop may be there to hold a large product for one iteration alone
        return can_lift(op, varying) and all(map(self.liftable, op.inputs))

    def lifted(self, value: Value) -> Lifted:
        """A liftable value for all iterations at once."""
        if self.fixed(value):
            return Lifted(self.outer(value), None)
        if value not in self._lifted:
            self._lifted[value] = self._lift(value)
        return self._lifted[value]

    def _lift(self, value: Value) -> Lifted:
        for w in self.loop.walked:
            if w.inner == value:
                return Lifted(w.outer, w.axis)
        if value == self.loop.index:
            return Lifted(self.outside.apply("iota", size=self.loop.length, dtype=value.type.dtype), 0)
        op = self.made[value]
        return lift(self.outside, op, [self.lifted(v) for v in op.inputs], self.loop.length)

    def all(self, value: Value) -> All:
        """What it takes to have a varying value of every iteration behind the loop."""
        if self.liftable(value):
            return All((), lambda: self.lifted(value))
        op = self.made.get(value)
        if op is not None and op.kind == "cast" and op.inputs[0].type.dtype.half and self.loop.at_hand(value) is None:
            narrow = self.all(op.inputs[0])  # takes half of the memory
            return All(narrow.stacks, lambda: lift(self.outside, op, [narrow.build()], self.loop.length))
        return All((value,), lambda: Lifted(*self.loop.stacked(value)))

    def along(self, start: Value, ops: Sequence[Op]) -> Lifted:
        """What a chain of operations makes of a stacked value; their other operands are fixed."""
        at = Lifted(*self.loop.stacked(start))
        for op in ops:
            operands = [Lifted(self.outer(v), None) if self.fixed(v) else at for v in op.inputs]
            at = lift(self.outside, op, operands, self.loop.length)
        return at

    def joined(self, value: Value) -> Joined | None:
        """The parts of a value that is a concat, converted or not."""
        op = self.made.get(value)
        if op is not None and op.kind == "cast":
            op = self.made.get(op.inputs[0])
        if op is None or op.kind != "concat":
            return None
        return Joined(op.inputs, op.attr("axis") % value.type.rank, value.type.dtype)

    def at_hand(self, values: Sequence[Value]) -> bool:
        """Whether nothing more must be stacked to have these of every iteration."""
        return all(self.liftable(v) or self.loop.at_hand(v) is not None for v in values)

    def affordable(self, stacks: Sequence[Value], saved: Value, worth: int) -> bool:
        """Whether what must be stacked anew has at most `worth` times the bytes of what it saves."""
        new = {v for v in stacks if self.loop.at_hand(v) is None}
        return sum(_bytes(v.type) for v in new) <= worth * _bytes(saved.type)


def fixed_side(view: View, op: Op) -> int | None:
    """The operand of a product that is fixed where the other one varies."""
    varying = view.varying(op)
    return varying.index(False) if sum(varying) == 1 else None


def free_axes(product: Op, side: int) -> list[int]:
    """The axes of an operand of a dot_general that its result has too, but those of the batch."""
    taken = (*product.attr("contract")[side], *product.attr("batch")[side])
    return [axis for axis in range(product.inputs[side].type.rank) if axis not in taken]


def first_free(product: Op, side: int) -> int:
    """The axis of a dot_general's result at which the free axes of an operand begin."""
    return len(product.attr("batch")[0]) + (len(free_axes(product, 0)) if side else 0)


def _bytes(type: TensorType) -> int:
    return type.dtype.size * prod(dims.evaluate(size, dict.fromkeys(dims.names(size), TYPICAL)) for size in type.shape)


def apply(b: Builder, kind: str, *inputs: Value, **attrs: object) -> Value:
    """One operation with one result."""
    result = b.apply(kind, *inputs, **attrs)
    assert isinstance(result, Value)
    return result
