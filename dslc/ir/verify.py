"""The verifier: what every Graph and Module must satisfy, and what a stage of the compiler adds.

A failure is a bug of the compiler, never of a user's file; the message names the operation and the rule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dslc.ir.dims import DimExpr, names
from dslc.ir.graph import ConstantData, Graph, Op, Value
from dslc.ir.module import Module, PortKind, Program
from dslc.ir.operator import OPERATORS, Operator, TypeFailure, infer_types
from dslc.ir.text import print_op
from dslc.ir.types import DType, TensorType


class VerificationError(Exception):
    """A graph that breaks a rule."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What holds after a point of the pipeline.

    `names`: the only names that sizes may contain (None: any). `differentiated`: no `grad` is left. `expanded`: no composite
    operator is left but those of `whole`, which the back end implements itself.
    """

    names: frozenset[str] | None = None
    differentiated: bool = False
    expanded: bool = False
    whole: frozenset[str] = frozenset()


ELABORATED = Stage()


def verify(graph: Graph, stage: Stage = ELABORATED) -> Graph:
    """`graph` itself; VerificationError where it breaks a rule of every graph or of the stage."""
    defined: dict[int, Value] = {}
    for value in graph.inputs:
        _define(value, defined, stage)
    for op in graph.ops:
        try:
            _check_op(op, defined, stage)
        except VerificationError as error:
            raise VerificationError(f"{error}: {_line(op)}") from None
    for value in graph.outputs:
        _check_defined(value, defined)
    return graph


def _line(op: Op) -> str:
    """The operation as text; constants by their type, which is enough to find them."""
    attrs = tuple((name, value.type if isinstance(value, ConstantData) else value) for name, value in op.attrs)
    try:
        return print_op(replace(op, attrs=attrs))
    except TypeError:  # an attribute of a class that no graph may hold
        return print_op(replace(op, attrs=())) + f" with {attrs}"


def _check_op(op: Op, defined: dict[int, Value], stage: Stage) -> None:
    for value in op.inputs:
        _check_defined(value, defined)
    operator = OPERATORS.get(op.kind)
    if operator is None:
        raise VerificationError(f"there is no operator {op.kind}")
    given = [name for name, _ in op.attrs]
    if given != sorted(operator.attrs):
        raise VerificationError(f"the attributes are {given}, not {sorted(operator.attrs)}")
    try:
        hash(op.attrs)
    except TypeError as error:
        raise VerificationError(str(error)) from None
    _check_names(op.attrs, stage)
    _check_stage(op, operator, stage)
    for region in op.regions:
        verify(region, stage)
    _check_types(op)
    for value in op.outputs:
        _define(value, defined, stage)


def _check_defined(value: Value, defined: dict[int, Value]) -> None:
    known = defined.get(value.id)
    if known is None:
        raise VerificationError(f"{value}: {value.type} is not defined before its use")
    if known != value:
        raise VerificationError(f"{value} is {known.type}, not {value.type}")


def _define(value: Value, defined: dict[int, Value], stage: Stage) -> None:
    if value.id in defined:
        raise VerificationError(f"{value} is defined twice")
    _check_names(value.type.shape, stage)
    for extent in value.type.shape:
        if isinstance(extent, int) and extent < 0:
            raise VerificationError(f"{value}: {value.type} has a negative size")
    defined[value.id] = value


def _check_types(op: Op) -> None:
    try:
        types = infer_types(op.kind, (v.type for v in op.inputs), dict(op.attrs), op.regions)
    except TypeFailure as failure:
        raise VerificationError(str(failure)) from None
    if types != tuple(v.type for v in op.outputs):
        raise VerificationError(f"the result is {', '.join(map(str, types))}")


def _check_stage(op: Op, operator: Operator, stage: Stage) -> None:
    if stage.differentiated and op.kind == "grad":
        raise VerificationError("a gradient is left after differentiation")
    composite = operator.has("expand") and not (operator.has("body") or operator.has("routine"))
    if stage.expanded and composite and op.kind not in stage.whole:
        raise VerificationError("a composite is left after expansion")


def _check_names(value: Any, stage: Stage) -> None:
    if stage.names is None:
        return
    if isinstance(value, tuple):
        for part in value:
            _check_names(part, stage)
    elif isinstance(value, TensorType):
        _check_names(value.shape, stage)
    elif isinstance(value, DimExpr) and not names(value) <= stage.names:
        left = ", ".join(sorted(names(value) - stage.names))
        raise VerificationError(f"the size {value} has the name {left}, which should be bound")


def verify_module(module: Module, stage: Stage = ELABORATED) -> Module:
    """`module` itself, with every program verified against the table of buffers."""
    for program in module.programs.values():
        try:
            _check_program(program, module, stage)
        except VerificationError as error:
            raise VerificationError(f"program {program.name}: {error}") from None
    return module


def _check_program(program: Program, module: Module, stage: Stage) -> None:
    graph = verify(program.graph, stage)
    written: set[str] = set()
    for what, ports, values in (("input", program.inputs, graph.inputs), ("output", program.outputs, graph.outputs)):
        if len(ports) != len(values):
            raise VerificationError(f"{len(ports)} {what} ports for {len(values)} {what}s of the graph")
        for port, value in zip(ports, values, strict=True):
            if port.kind is PortKind.BUFFER:
                if port.name not in module.buffers:
                    raise VerificationError(f"there is no buffer {port.name}")
                if module.buffers[port.name].type != value.type:
                    raise VerificationError(f"the buffer {port.name} is {module.buffers[port.name].type}, the {what} {value.type}")
                if what == "output" and port.name in written:
                    raise VerificationError(f"the buffer {port.name} is updated twice")
                if what == "output":
                    written.add(port.name)
            elif port.kind in (PortKind.SEED, PortKind.COUNTER) and value.type != TensorType(DType.I64):
                raise VerificationError(f"the {port.kind.value} is {value.type}, not i64[]")
    if (program.batch is None) != (program.bound is None):
        raise VerificationError("a symbolic batch needs a bound, and a bound a batch")
