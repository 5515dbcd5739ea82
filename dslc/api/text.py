"""A graph as the text of a model: one statement for each operation, which parsed again gives the same operations."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.dims import DimExpr
from dslc.ir.graph import Op, Value
from dslc.ir.module import Buffer, Module, PortKind, Program, Role
from dslc.ir.operator import OPERATORS
from dslc.ir.scan import ScanParts, is_scan, parts
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
    body += _Statements(names, reserved, free).of(program.graph.ops)
    body += [f"update {names_of} = {names[value]}" for names_of, value in updates]
    body.append("return " + ", ".join(names[v] for v in program.graph.outputs))
    head = f"dim {program.batch} <= {program.bound}\n\n" if program.batch else ""
    signature = f"model {_name(module.name, reserved)}({', '.join(inputs)}) -> ({', '.join(results)})"
    return format_source(f"{head}{signature} {{\n" + "\n".join(body) + "\n}\n")


class _Statements:
    """Operations as statements. `names` are those of values; the seed and the counter of random numbers have none."""

    def __init__(self, names: dict[Value, str], reserved: frozenset[str], free: Iterator[str]):
        self.names, self.reserved, self.free = names, reserved, free

    def of(self, ops: Sequence[Op]) -> list[str]:
        lines = []
        for op in ops:
            if op.kind == "identity":
                self.names[op.output] = self.names[op.inputs[0]]
                continue
            text = self._scan(op) if is_scan(op) else _operation(op, self.names, self.reserved)
            targets = [self.names.setdefault(v, next(self.free)) for v in _results(op)]
            lines.append(f"{', '.join(targets)} = {text}")
        return lines

    def _scan(self, op: Op) -> str:
        scan = parts(op)
        settings = _settings(scan)
        outer, self.names = self.names, dict(self.names)
        self.names |= {inside: outer[value] for value, inside in zip(scan.captures, scan.captured, strict=True) if value in outer}
        ops = _without_counters(scan, self.names)
        uses_index = not scan.slices or any(scan.index in o.inputs for o in ops) or scan.index in scan.body.outputs
        walked = ([scan.index] if uses_index else []) + list(scan.slices)
        sources = ([f"0..{_value(scan.length)}"] if uses_index else []) + [outer[v] for v in scan.sequences]
        targets = [self.names.setdefault(v, next(self.free)) for v in walked]
        carries = [self.names.setdefault(v, next(self.free)) for v in scan.carries]
        lines = self.of(ops)
        if scan.yields:
            lines.append("yield " + ", ".join(self.names[v] for v in scan.yields))
        if carries:
            lines.append(f"{', '.join(carries)} = {', '.join(self.names[v] for v in scan.after)}")
            lines.append(f"return {', '.join(carries)}")
        carried = ", ".join(f"{name} = {outer[v]}" for name, v in zip(carries, scan.initial, strict=True))
        self.names = outer
        source = sources[0] if len(sources) == 1 else f"zip({', '.join(sources)})"
        head = f"scan[{', '.join(settings)}] {', '.join(targets)} in {source}" + (f" carry {carried}" if carried else "")
        return head + " {\n" + "\n".join(lines) + "\n}"


def _results(op: Op) -> tuple[Value, ...]:
    """In the order of the language: what a scan stacks, then what it carries to the end."""
    if not is_scan(op):
        return op.outputs
    scan = parts(op)
    return (*scan.stacked, *scan.final)


def _settings(scan: ScanParts) -> list[str]:
    """One axis for all that is walked and stacked, counted from the front or from the end."""
    fronts = {*scan.elements, *scan.stacks}
    ends = {a - v.type.rank for a, v in zip((*scan.elements, *scan.stacks), (*scan.sequences, *scan.stacked), strict=True)}
    if len(fronts) > 1 and len(ends) > 1:
        raise _refused("a scan along several axes has no spelling in the language", "move one of them with transpose")
    settings = [] if not fronts else [f"axis = {(fronts if len(fronts) == 1 else ends).pop()}"]
    return [*settings, *(f"{name} = true" for name in ("reverse", "recompute") if getattr(scan, name))]


def _without_counters(scan: ScanParts, names: Mapping[Value, str]) -> list[Op]:
    """The body without what random numbers are keyed by, `counter * length + index`: the language makes it itself."""
    made = {v: op for op in scan.body.ops for v in op.outputs}
    hidden: set[Value] = set()
    for op in scan.body.ops:
        product = made.get(op.inputs[0]) if op.kind == "add" and op.inputs[1] == scan.index else None
        if product is not None and product.kind == "mul" and product.inputs[0] in scan.captured and product.inputs[0] not in names:
            hidden |= {op.output, product.output}
            if [o for o in scan.body.ops if product.inputs[1] in o.inputs] == [product]:
                hidden.add(product.inputs[1])
    return [op for op in scan.body.ops if hidden.isdisjoint(op.outputs)]


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
