"""A graph as the text of a model: one statement for each operation, which parsed again gives the same operations."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.dims import DimExpr
from dslc.ir.graph import Op, Value
from dslc.ir.module import Buffer, Module, PortKind, Program, Role
from dslc.ir.operator import OPERATORS
from dslc.ir.types import DType, TensorType

_INFINITY = "(1e308 * 10.0)"  # static arithmetic that leaves the range of floats
_WORDS = {"and": "and", "or": "or"}  # operators that are reserved words stand between their operands
_EXACT = 2**53


def model_text(module: Module, program: Program, updates: Sequence[tuple[str, Value]] = ()) -> str:
    """The text of a model with one program; `updates` are states and what they become in training.

    DL0807 where something has no spelling: a constant array, an operator of the compiler's own, a name that the language does not take.
    """
    from dslc.frontend.format import format_source
    from dslc.frontend.lex import reserved_words

    reserved = reserved_words()
    names: dict[Value, str] = {}
    taken: set[str] = {"N"}
    inputs, body = [], []
    for value, port in zip(program.graph.inputs, program.inputs, strict=True):
        if port.kind in (PortKind.SEED, PortKind.COUNTER):
            continue
        text = _name(port.name.removeprefix(f"{module.name}."), reserved | set(OPERATORS))
        names[value] = text
        taken.add(text)
        if port.kind == PortKind.INPUT:
            inputs.append(f"{text}: {_type(value.type)}")
        else:
            body.append(_buffer(text, module.buffers[port.name]))
    results = [f"{_name(port.name, reserved)}: {_type(v.type)}" for port, v in zip(program.outputs, program.graph.outputs, strict=True)]
    free = (text for i in range(10**9) if (text := f"t{i}") not in taken)
    for op in program.graph.ops:
        if op.kind == "identity":
            names[op.output] = names[op.inputs[0]]
            continue
        targets = [names.setdefault(v, next(free)) for v in op.outputs]
        body.append(f"{', '.join(targets)} = {_operation(op, names, reserved)}")
    body += [f"update {names_of} = {names[value]}" for names_of, value in updates]
    body.append("return " + ", ".join(names[v] for v in program.graph.outputs))
    head = f"dim {program.batch} <= {program.bound}\n\n" if program.batch else ""
    signature = f"model {_name(module.name, reserved)}({', '.join(inputs)}) -> ({', '.join(results)})"
    return format_source(f"{head}{signature} {{\n" + "\n".join(body) + "\n}\n")


def _operation(op: Op, names: Mapping[Value, str], reserved: Iterable[str]) -> str:
    operator = OPERATORS[op.kind]
    if operator.internal or op.regions:
        what = "a constant array" if op.kind == "constant" else f"the operator {op.kind}"
        hint = "make it a parameter, and give its values with load_weights" if op.kind == "constant" else "it is the compiler's own"
        raise _refused(f"{what} has no spelling in the language", hint)
    kinds = operator.inputs if len(operator.inputs) == len(op.inputs) and operator.draw else ("",) * len(op.inputs)
    if any(kind in ("seed", "counter") and v in names for kind, v in zip(kinds, op.inputs, strict=True)):
        raise _refused(f"{op.kind} draws with a seed of its own", "a file has one seed, which is given when it runs")
    inputs = [names[v] for kind, v in zip(kinds, op.inputs, strict=True) if kind not in ("seed", "counter")]
    if op.kind in _WORDS:
        return f" {_WORDS[op.kind]} ".join(inputs)
    if op.kind == "not":
        return f"not {inputs[0]}"
    attrs = ", ".join(_attributes(op, reserved))
    brackets = f"[{attrs}]" if attrs else ""
    takes = any(name not in ("seed", "counter") for name in operator.inputs)
    return f"{op.kind}{brackets}" + (f"({', '.join(inputs)})" if takes or not brackets else "")


def _attributes(op: Op, reserved: Iterable[str]) -> Iterable[str]:
    """By name; those up to one whose name is a reserved word, by position."""
    declared = OPERATORS[op.kind].attrs
    positional = max((i for i, name in enumerate(declared) if name in reserved), default=-1)
    for i, name in enumerate(declared):
        value = op.attr(name)
        if name == "stream":
            continue
        if name == "sizes" and isinstance(value, tuple):  # of rearrange: h = 4
            yield from (f"{axis} = {_value(size)}" for axis, size in value)
        else:
            text = _value(float(value) if declared[name].kind == "float" and _small(value) else value)
            yield text if i <= positional else f"{name} = {text}"


def _small(value: Any) -> bool:
    if not isinstance(value, int | float):
        return False
    if isinstance(value, int) and abs(value) > _EXACT:
        raise _refused(f"the number {value} has no spelling here", "a tensor is filled with a float, exact up to 2^53")
    return True


def _value(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case DType():
            return value.value
        case str():
            return f'"{value}"'
        case float():
            return _float(value)
        case int() | DimExpr():
            return str(value)
        case tuple():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            raise _refused(f"{type(value).__name__} has no spelling in the language", "")


def _float(value: float) -> str:
    if math.isnan(value):
        return f"{_INFINITY} - {_INFINITY}"
    if math.isinf(value):
        return _INFINITY if value > 0 else f"-{_INFINITY}"
    return repr(value)


def _type(type_: TensorType) -> str:
    return f"{type_.dtype.value}[{', '.join(map(str, type_.shape))}]"


def _buffer(name: str, buffer: Buffer) -> str:
    word = "param" if buffer.role == Role.PARAMETER else "state"
    settings = dict(buffer.initial.settings)
    if buffer.initial.kind == "constant":
        start = f"= {_value(settings.get('value', 0.0))}"
    else:
        given = ", ".join(f"{k} = {_value(v)}" for k, v in settings.items())
        start = f"~ {buffer.initial.kind}" + (f"[{given}]" if given else "")
    return f"{word} {name}: {_type(buffer.type)} {start}"


def _name(text: str, reserved: Iterable[str]) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z_0-9]{0,254}", text) or text in reserved:
        raise _refused(f"{text[:80]!r} is no name in the language", "use letters, digits and _, and no word that is reserved")
    return text


def _refused(message: str, hint: str) -> DiagnosticError:
    return DiagnosticError(Diagnostic("DL0807", message, hint=hint))
