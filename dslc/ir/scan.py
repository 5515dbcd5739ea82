"""The loop of the graph: one operation whose region is run once for each element of sequences, passing carried values on.

    inputs      (*sequences, *initial carries, *captures)
    body inputs (index: i64[], *slices, *carries, *captures)
    body outputs (*next carries, *yields)
    outputs     (*final carries, *stacked yields)

`index` is the element's place: it counts from 0, with `reverse` from `length - 1` down. A slice has its sequence's type without the axis that is
walked, a stacked yield its yield's type with `length` at its axis; a yield stands at the index of its iteration. Carries keep
their type. Without carries the iterations are independent. `recompute` asks that the gradient store carries alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.operator import TypeFailure
from dslc.ir.types import DType, TensorType

KIND = "scan"
INDEX = TensorType(DType.I64)


@dataclass(frozen=True, slots=True)
class ScanParts:
    """What each operand and result of a scan, and of its body, is for."""

    length: Dim
    reverse: bool
    recompute: bool
    elements: tuple[int, ...]  # the axis of each sequence that is walked
    stacks: tuple[int, ...]  # the axis along which each yield is stacked
    body: Graph

    sequences: tuple[Value, ...]  # operands
    initial: tuple[Value, ...]
    captures: tuple[Value, ...]

    index: Value  # inputs of the body
    slices: tuple[Value, ...]
    carries: tuple[Value, ...]
    captured: tuple[Value, ...]

    after: tuple[Value, ...]  # results of the body: the carries of the next iteration
    yields: tuple[Value, ...]

    final: tuple[Value, ...]  # results
    stacked: tuple[Value, ...]


def parts(op: Op) -> ScanParts:
    """The parts of a scan by name."""
    attrs = dict(op.attrs)
    (body,) = op.regions
    elements, stacks, carried = attrs["elements"], attrs["yields"], attrs["carries"]
    walked = len(elements)
    index, *rest = body.inputs
    return ScanParts(
        attrs["length"],
        attrs["reverse"],
        attrs["recompute"],
        elements,
        stacks,
        body,
        op.inputs[:walked],
        op.inputs[walked : walked + carried],
        op.inputs[walked + carried :],
        index,
        tuple(rest[:walked]),
        tuple(rest[walked : walked + carried]),
        tuple(rest[walked + carried :]),
        body.outputs[:carried],
        body.outputs[carried:],
        op.outputs[:carried],
        op.outputs[carried:],
    )


def is_scan(op: Op) -> bool:
    return op.kind == KIND


def build_scan(
    builder: Builder,
    body: Graph,
    *,
    length: Dim,
    sequences: Sequence[Value] = (),
    initial: Sequence[Value] = (),
    captures: Sequence[Value] = (),
    elements: Sequence[int] | None = None,
    yields: Sequence[int] | None = None,
    reverse: bool = False,
    recompute: bool = False,
) -> Op:
    """Appends a scan with `body`; axes that are not told are 0. Raises TypeFailure where the parts do not fit."""
    attrs = {
        "length": length,
        "reverse": reverse,
        "recompute": recompute,
        "elements": (0,) * len(sequences) if elements is None else tuple(elements),
        "yields": (0,) * (len(body.outputs) - len(initial)) if yields is None else tuple(yields),
        "carries": len(initial),
    }
    return builder.emit(KIND, (*sequences, *initial, *captures), attrs, (body,))


def free_values(ops: Sequence[Op], outputs: Sequence[Value], given: Sequence[Value]) -> list[Value]:
    """What operations and results use, and nothing here makes or is given: the captures of a body, in the order of use."""
    known, free = set(given), dict[Value, None]()
    for op in ops:
        free |= dict.fromkeys(v for v in op.inputs if v not in known)
        known.update(op.outputs)
    return list(free | dict.fromkeys(v for v in outputs if v not in known))


def without_axis(type: TensorType, axis: int) -> TensorType:
    """The type of one element of a sequence."""
    return type.with_shape((*type.shape[:axis], *type.shape[axis + 1 :]))


def stack_axis(type: TensorType) -> int:
    """Where the iterations stand best in a stack of such values: behind a run-time batch, so that steps in memory do not depend on it."""
    return 1 if type.shape and not isinstance(type.shape[0], int) else 0


def with_axis(type: TensorType, axis: int, length: Dim) -> TensorType:
    """The type of all of a yield."""
    return type.with_shape((*type.shape[:axis], length, *type.shape[axis:]))


def result_types(
    inputs: Sequence[TensorType], body: Graph, length: Dim, elements: tuple[int, ...], yields: tuple[int, ...], carries: int
) -> tuple[TensorType, ...]:
    """The types of a scan's results; TypeFailure where operands, body and attributes do not fit each other."""
    walked = len(elements)
    if carries < 0 or len(inputs) < walked + carries:
        raise TypeFailure(f"a scan of {walked} sequences and {carries} carries has {len(inputs)} operands")
    if len(body.inputs) != 1 + len(inputs):
        raise TypeFailure(f"the body of a scan with {len(inputs)} operands takes {len(body.inputs)} values, not {1 + len(inputs)}")
    if len(body.outputs) != carries + len(yields):
        raise TypeFailure(f"a scan of {carries} carries and {len(yields)} yields has a body with {len(body.outputs)} results")
    if body.inputs[0].type != INDEX:
        raise TypeFailure(f"the index of a scan is {body.inputs[0].type}, not {INDEX}")
    for position, (type, axis) in enumerate(zip(inputs, elements, strict=False)):
        if not 0 <= axis < type.rank:
            raise TypeFailure(f"a scan walks along axis {axis} of {type}, which has {type.rank} axes", inputs=(position,))
        if type.shape[axis] != length:
            raise TypeFailure(f"a scan of {length} elements walks along axis {axis} of {type}", inputs=(position,), axes=(axis,))
    expected = (*(without_axis(t, a) for t, a in zip(inputs, elements, strict=False)), *inputs[walked:])
    for position, (wanted, value) in enumerate(zip(expected, body.inputs[1:], strict=True)):
        if value.type != wanted:
            raise TypeFailure(f"the body of a scan takes {value.type} where its operand gives {wanted}", inputs=(position,))
    for position, value in enumerate(body.outputs[:carries], walked):
        if value.type != inputs[position]:
            raise TypeFailure(f"a carry is {inputs[position]} before and {value.type} after an iteration", inputs=(position,))
    stacked = []
    for axis, value in zip(yields, body.outputs[carries:], strict=True):
        if not 0 <= axis <= value.type.rank:
            raise TypeFailure(f"{value.type} cannot be stacked along axis {axis}")
        stacked.append(with_axis(value.type, axis, length))
    return (*inputs[walked : walked + carries], *stacked)
