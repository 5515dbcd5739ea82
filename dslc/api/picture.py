"""A picture of a graph: boxes in layers from top to bottom, as a small self-contained SVG, and one of a memory plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from dslc.api.stages import lives
from dslc.ir.graph import Op, Value
from dslc.ir.module import Module, PortKind, Program
from dslc.ir.plan import ProgramPlan

_GAP_X, _GAP_Y, _BOX, _CHARACTER, _MARGIN = 24, 30, 34, 6.6, 16
_COLORS = {"input": "#d7ead9", "op": "#e4ecf7", "contraction": "#fbe3c8", "output": "#d7ead9"}
_HEAVY = ("matmul", "dot_general", "einsum", "conv2d")
_MOST = 400  # boxes; a larger picture would not be looked at


@dataclass(slots=True)
class _Box:
    """One operation, input or result, with its place in the picture."""

    title: str
    detail: str
    kind: str
    layer: int = 0
    x: float = 0.0
    width: float = 0.0


def graph_svg(module: Module, program: str | None = None) -> str:
    """The graph of a program of the module (its first one). Parameters stand in the box of the operation that reads them."""
    chosen = module.programs[program] if program else next(iter(module.programs.values()))
    boxes, edges = _boxes(chosen)
    if len(boxes) > _MOST:
        text = f"{module.name}: {len(boxes):,} operations, too many to draw"
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="480" height="40"><text x="10" y="25">{escape(text)}</text></svg>'
    layers = _place(boxes, edges)
    width = max((b.x + b.width for b in boxes), default=0.0) + _MARGIN
    height = len(layers) * (_BOX + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        'font-family="sans-serif" font-size="11">',
        f"<title>{escape(module.name)}</title>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
    ]
    parts += [_edge(boxes[a], boxes[b]) for a, b in edges]
    parts += [line for box in boxes for line in _drawn(box)]
    return "\n".join([*parts, "</svg>", ""])


def _boxes(program: Program) -> tuple[list[_Box], list[tuple[int, int]]]:
    graph = program.graph
    boxes: list[_Box] = []
    made: dict[Value, int] = {}
    inside: dict[Value, str] = {}
    for value, port in zip(graph.inputs, program.inputs, strict=True):
        if port.kind == PortKind.INPUT:
            made[value] = len(boxes)
            boxes.append(_Box(port.name, str(value.type), "input"))
        else:
            inside[value] = ".".join(port.name.split(".")[-2:])
    edges = []
    for op in graph.ops:
        if not op.inputs:
            inside.update(dict.fromkeys(op.outputs, op.kind))
            continue
        number = len(boxes)
        boxes.append(_Box(_title(op, inside), ", ".join(str(v.type) for v in op.outputs), "contraction" if op.kind in _HEAVY else "op"))
        edges += [(made[v], number) for v in dict.fromkeys(op.inputs) if v in made]
        made.update(dict.fromkeys(op.outputs, number))
    for value, port in zip(graph.outputs, program.outputs, strict=True):
        if port.kind != PortKind.BUFFER and value in made:
            edges.append((made[value], len(boxes)))
            boxes.append(_Box(port.name, str(value.type), "output"))
    return boxes, edges


def _title(op: Op, inside: dict[Value, str]) -> str:
    named = [inside[v] for v in op.inputs if v in inside and inside[v] not in ("full", "constant")]
    return f"{op.kind} {', '.join(named)}" if named else op.kind


def _place(boxes: list[_Box], edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Layers by longest path; within a layer by the mean place of what a box reads, which untangles most crossings."""
    before: dict[int, list[int]] = {}
    for a, b in edges:  # in definition order, so that what is read has its layer
        before.setdefault(b, []).append(a)
    for number, box in enumerate(boxes):
        box.layer = 1 + max((boxes[a].layer for a in before.get(number, ())), default=-1)
        box.width = max(len(box.title), len(box.detail)) * _CHARACTER + 16
    layers: list[list[int]] = [[] for _ in range(1 + max((b.layer for b in boxes), default=-1))]
    for number, box in enumerate(boxes):
        layers[box.layer].append(number)
    total = max((sum(boxes[n].width + _GAP_X for n in layer) for layer in layers), default=0.0)
    for layer in layers:
        layer.sort(key=lambda n: _middle([boxes[a] for a in before.get(n, ())]))
        x = _MARGIN + (total - sum(boxes[n].width + _GAP_X for n in layer)) / 2
        for number in layer:
            boxes[number].x = x
            x += boxes[number].width + _GAP_X
    return layers


def _middle(boxes: Sequence[_Box]) -> float:
    return sum(b.x + b.width / 2 for b in boxes) / len(boxes) if boxes else 0.0


def _y(layer: int) -> float:
    return _MARGIN + layer * (_BOX + _GAP_Y)


def _edge(a: _Box, b: _Box) -> str:
    x0, y0, x1, y1 = a.x + a.width / 2, _y(a.layer) + _BOX, b.x + b.width / 2, _y(b.layer)
    bend = (y1 - y0) / 2
    return (
        f'<path d="M{x0:.1f} {y0:.1f} C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}" fill="none" stroke="#8795a8"/>'
    )


def _drawn(box: _Box) -> list[str]:
    y = _y(box.layer)
    middle = box.x + box.width / 2
    return [
        f'<rect x="{box.x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{_BOX}" rx="5" fill="{_COLORS[box.kind]}" stroke="#8795a8"/>',
        f'<text x="{middle:.1f}" y="{y + 14:.1f}" text-anchor="middle">{escape(box.title)}</text>',
        f'<text x="{middle:.1f}" y="{y + 27:.1f}" text-anchor="middle" fill="#5b6675" font-size="10">{escape(box.detail)}</text>',
    ]


def memory_svg(plan: ProgramPlan, batch: int = 1) -> str:
    """The arena over the steps: a box a buffer, from its first step to its last, as high as its bytes at this batch."""
    width, height, left, top = 900.0, 420.0, 90.0, 30.0
    total = max(plan.arena_bytes(batch), 1)
    steps = max(len(plan.steps), 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + left + _MARGIN:.0f}" height="{height + top + 2 * _MARGIN:.0f}" '
        'font-family="sans-serif" font-size="10">',
        f"<title>{escape(plan.name)}: {total:,} bytes at a batch of {batch}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="18" font-size="12">{escape(plan.name)}: {total:,} bytes at a batch of {batch}, {steps} steps</text>',
    ]
    start = {"fixed": 0, "batch": plan.fixed_bytes}
    for life in lives(plan):
        b = life.buffer
        factor = batch if b.region == "batch" else 1
        y = top + (start[b.region] + b.offset * factor) / total * height
        x = left + life.first / steps * width
        w, h = (life.last - life.first + 1) / steps * width, max(b.nbytes * factor / total * height, 0.5)
        hue = (sum(map(ord, b.name)) * 47) % 360
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="hsl({hue} 55% 80%)" stroke="#667">'
            f"<title>{escape(b.name)}: {b.nbytes * factor:,} bytes, steps {life.first} to {life.last}</title></rect>"
        )
        if h > 12 and w > 40:
            parts.append(f'<text x="{x + 3:.1f}" y="{y + h / 2 + 3:.1f}">{escape(b.name)} {b.nbytes * factor:,}</text>')
    parts += [f'<text x="4" y="{top + height * share:.0f}">{int(total * share):,}</text>' for share in (0.02, 0.5, 1.0)]
    return "\n".join([*parts, "</svg>", ""])
