"""The layers of a model: what each call in the source comes to, with shape, parameters, arithmetic and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from dslc.api.figures import readable, readable_bytes
from dslc.diagnostics import Span
from dslc.ir import dims
from dslc.ir.graph import Op
from dslc.ir.loops import element, readers_of, var
from dslc.ir.module import Module, PortKind, Program, Role
from dslc.ir.operator import OPERATORS
from dslc.ir.scan import is_scan, parts
from dslc.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Layer:
    """One call in the source. `flops` and `bytes` (of the result) are for one example; `text` is how the source has it."""

    text: str
    place: str
    shape: str
    parameters: int
    flops: int
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return asdict(self)


def layers(module: Module, program: str | None = None) -> list[Layer]:
    """The layers of a program of the module (its first one), in the order of execution."""
    from dslc.ops import register_operators

    register_operators()
    chosen = module.programs[program] if program else next(iter(module.programs.values()))
    counts = _parameters(module, chosen)
    found = []
    for span, ops in _groups(chosen.graph.ops):
        result = ops[-1].outputs[0].type
        text = _source_text(span, module.sources) or " ".join(dict.fromkeys(op.kind for op in ops))
        flops = sum(_flops(op, chosen) for op in ops)
        used = {v.id for op in ops for v in op.inputs}
        parameters = sum(counts.pop(i) for i in sorted(used & counts.keys()))
        found.append(Layer(text, str(span or ""), str(result), parameters, flops, _bytes(result, chosen)))
    return found


def _parameters(module: Module, program: Program) -> dict[int, int]:
    """The number of elements of every parameter, by its value in the graph: each counts where it is first used."""
    found = {}
    for value, port in zip(program.graph.inputs, program.inputs, strict=True):
        if port.kind == PortKind.BUFFER and module.buffers[port.name].role == Role.PARAMETER:
            size = value.type.size
            assert isinstance(size, int)
            found[value.id] = size
    return found


def _groups(ops: Sequence[Op]) -> list[tuple[Span | None, list[Op]]]:
    """Operations in a row that come from one place in the source."""
    groups: list[tuple[Span | None, list[Op]]] = []
    for op in ops:
        if groups and groups[-1][0] == op.span:
            groups[-1][1].append(op)
        else:
            groups.append((op.span, [op]))
    return groups


def _source_text(span: Span | None, sources: Mapping[str, str]) -> str:
    if span is None or span.file not in sources:
        return ""
    lines = sources[span.file].splitlines()
    if span.line > len(lines):
        return ""
    end = span.end_column - 1 if span.end_line == span.line else len(lines[span.line - 1])
    text = lines[span.line - 1][span.column - 1 : end].strip()
    return text if len(text) <= 48 else text[:45] + "..."


def _flops(op: Op, program: Program) -> int:
    """Operations for one example: of a contraction exactly, else one for each step of the operator's definition."""
    from dslc.api.figures import _operations  # the same counting

    if is_scan(op):
        loop = parts(op)
        return _at_one(loop.length, program) * sum(_flops(inner, program) for inner in loop.body.ops)
    operator = OPERATORS[op.kind]
    types = tuple(v.type for v in op.inputs)
    attrs = dict(op.attrs)
    if operator.has("contraction"):
        made = operator.contraction(*types, **attrs)
        maps = made if isinstance(made, tuple) else (made,)
        return sum(2 * prod(_at_one(extent, program) for _, extent in part.axes) for part in maps)
    if (operator.has("body") or operator.has("recurrence")) and len(op.outputs) == 1:
        out = op.output.type
        readers = readers_of(op, element)
        index = tuple(var(f"p{n}") for n in range(out.rank))
        if operator.has("recurrence"):
            each = sum(_operations(c.next, 1) for c in operator.recurrence(index, *readers, **attrs).carries)
        else:
            each = _operations(operator.body(index, *readers, **attrs), 1)
        return _at_one(out.size, program) * each
    if operator.has("expand"):
        from dslc.ir.builder import Builder

        builder = Builder(op.inputs)
        operator.expand(builder, *op.inputs, **attrs)
        return sum(_flops(inner, program) for inner in builder.ops)
    return 0


def _at_one(extent: dims.Dim, program: Program) -> int:
    return extent if isinstance(extent, int) else int(dims.evaluate(extent, dict.fromkeys(dims.names(extent), 1)))


def _bytes(type_: TensorType, program: Program) -> int:
    return _at_one(type_.size, program) * type_.dtype.size


def table(rows: Sequence[Layer]) -> str:
    """The layers as aligned columns, with totals."""
    head = ("layer", "result", "parameters", "FLOP", "bytes", "where")
    body = [
        (
            r.text,
            r.shape,
            f"{r.parameters:,}" if r.parameters else "",
            readable(r.flops).strip() if r.flops else "",
            readable_bytes(r.bytes),
            r.place,
        )
        for r in rows
    ]
    total = ("total", "", f"{sum(r.parameters for r in rows):,}", readable(sum(r.flops for r in rows)).strip(), "", "")
    widths = [max(len(row[c]) for row in (head, *body, total)) for c in range(len(head))]
    right = (False, False, True, True, True, False)

    def line(row: Sequence[str]) -> str:
        return "  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(row, widths, right, strict=True)).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(head), rule, *map(line, body), rule, line(total)])
