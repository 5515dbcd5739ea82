"""What a recipe does to each parameter behind its gradient, as a function that can be asked: `Update`.

The update of a parameter is the part of the training program between its gradient and its new value. An optimizer of another library
is the same if it moves parameters the same way; its settings are found by asking for the update of single numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dslc.interchange.refusal import untrainable
from dslc.interpret import Array, interpret
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.module import PortKind, Program
from dslc.ops.shapes import ints

GRAD = "grad"


@dataclass(frozen=True, slots=True)
class Update:
    """The update of the parameter `path`: its gradient is `gradient`, its states in the order of `states`.

    `signature` is equal for parameters that are moved in the same way.
    """

    path: str
    gradient: Value
    graph: Graph  # inputs: the parameter, its gradient, states, then scalars; outputs: the new parameter and states
    states: tuple[str, ...]
    scalars: tuple[float, ...]
    counters: tuple[int, ...]  # which of the scalars count steps
    signature: tuple[Any, ...]

    def __call__(self, p: float | Array, g: float | Array, states: Sequence[float | Array], step: int = 1) -> list[Array]:
        """The new parameter and states in step `step`, the first being 1; numbers stand for arrays full of them."""
        shape = ints(self.graph.inputs[0].type.shape)
        given = [np.broadcast_to(np.asarray(a, np.float32), shape) for a in (p, g, *states)]
        scalars = [step - 1 if n in self.counters else value for n, value in enumerate(self.scalars)]
        return interpret(self.graph, [*given, *(np.asarray(n) for n in scalars)])


def find_updates(program: Program, settings: Mapping[str, float | int]) -> tuple[Op, tuple[Update, ...]]:
    """The operation `grad` of a bound training program, and the update of each parameter that it moves. Errors: DL0831."""
    graph = program.graph
    ports = dict(zip(graph.inputs, program.inputs, strict=True))
    results = {port.name: value for port, value in zip(program.outputs, graph.outputs, strict=True) if port.kind == PortKind.BUFFER}
    grads = [op for op in graph.ops if op.kind == GRAD and all(v in ports and ports[v].name in results for v in op.inputs[1:])]
    if not grads:
        raise untrainable(
            "the recipe has no step that moves parameters by a gradient of its loss", hint="recipes with `accumulate` have none"
        )
    grad = grads[-1]
    updates = tuple(_update(program, ports, results, grad, n, settings) for n in range(len(grad.outputs)))
    expected = {update.path for update in updates} | {name for update in updates for name in update.states}
    for port, value in zip(program.outputs, graph.outputs, strict=True):
        if port.kind == PortKind.BUFFER and port.name not in expected and value.type.shape != () and "running" not in port.name:
            raise untrainable(f"the recipe also keeps {port.name}, which no optimizer of PyTorch does", grad.span)
    return grad, updates


def _update(
    program: Program, ports: Mapping[Value, Any], results: Mapping[str, Value], grad: Op, number: int, settings: Mapping[str, float | int]
) -> Update:
    parameter, gradient = grad.inputs[1 + number], grad.outputs[number]
    path = ports[parameter].name
    ops, leaves = _cone(program.graph, [results[path]], {gradient})
    states = [
        v for v in leaves if ports.get(v) is not None and ports[v].kind == PortKind.BUFFER and v.type == parameter.type and v != parameter
    ]
    names = tuple(ports[v].name for v in states)
    ops, leaves = _cone(program.graph, [results[path], *(results[name] for name in names if name in results)], {gradient})
    others = [v for v in leaves if v not in (parameter, gradient, *states)]
    if any(v.type.shape != () or v not in ports for v in others) or any(name not in results for name in names):
        hint = "clipping by the norm of all gradients is of this kind"
        raise untrainable(f"the update of {path} depends on more than its own gradient, which PyTorch's optimizers do not", grad.span, hint)
    inputs = (parameter, gradient, *states, *others)
    label = {value: str(position) for position, value in enumerate((parameter, gradient, *states))}
    label |= {value: ports[value].name for value in others}
    signature = []
    for op in ops:
        signature.append((op.kind, tuple(label[v] for v in op.inputs), tuple(a for a in op.attrs if a[0] != "shape")))
        label[op.outputs[0]] = f"v{len(signature)}"
    scalars = tuple(float(settings.get(ports[v].name, ports[v].default or 0)) for v in others)
    counters = tuple(n for n, v in enumerate(others) if ports[v].kind in (PortKind.BUFFER, PortKind.COUNTER))
    outputs = (results[path], *(results[name] for name in names))
    return Update(path, gradient, Graph(inputs, ops, outputs), names, scalars, counters, (*signature, scalars))


def _cone(graph: Graph, outputs: Sequence[Value], stop: set[Value]) -> tuple[tuple[Op, ...], list[Value]]:
    """The operations that `outputs` need, and the values that these begin with: inputs, and those in `stop`."""
    needed, leaves, ops = set(outputs), list[Value](), list[Op]()
    for op in reversed(graph.ops):
        if op.kind != GRAD and not needed.isdisjoint(op.outputs):
            ops.append(op)
            needed.update(op.inputs)
    made = {value for op in ops for value in op.outputs}
    for op in reversed(ops):
        leaves += [v for v in op.inputs if v not in made and v not in leaves]
    return tuple(reversed(ops)), leaves
