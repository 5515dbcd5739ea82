"""A program as PyTorch runs it: the same graph with PyTorch's functions, for inference and, by its autograd, for training.

Idioms are found first, so that PyTorch does in one call what it has a call for: recurrent layers too. The graph becomes a Python function
without any loop over operators; other loops are loops in Python. Weights of a `linear` lie as PyTorch's own layers keep them, [out, in].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dslc.interchange.torch_shapes  # noqa: F401  (fills the table)
from dslc.interchange.idioms import find_idioms
from dslc.interchange.recurrent import RECURRENT, as_layer
from dslc.interchange.refusal import refused
from dslc.interchange.torch_operators import NAME, TABLE, entry
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.module import PortKind, Program
from dslc.ir.scan import KIND, parts
from dslc.ops.shapes import ints
from dslc.transforms.bind import bind
from dslc.transforms.expand import expand_composites
from dslc.transforms.regions import in_regions

GRAD = "grad"


def translated(graph: Graph, table: Mapping[str, Any], library: str, others: Sequence[str] = ()) -> Graph:
    """A bound graph of operators that are in `table` or among `others`; DL0830 for one that is not and has no expansion that is."""
    known = frozenset((*table, *others))
    layers = (in_regions(as_layer(op), lambda region: translated(region, table, library, others)) for op in graph.ops)
    result = expand_composites(find_idioms(Graph(graph.inputs, tuple(layers), graph.outputs)), keep=known, routines=True)
    for op in result.ops:
        if op.kind not in known:
            raise refused(op, library)
    return result


def bound(program: Program, batch: int) -> Program:
    """The program with its batch fixed."""
    sizes = {program.batch: batch} if program.batch is not None else {}
    graph = bind(program.graph, sizes) if sizes else program.graph
    return Program(program.name, graph, program.inputs, program.outputs)


@dataclass(frozen=True, slots=True)
class Function:
    """`call(*values of inputs)` gives the values of `outputs`; `known` are those that depend on nothing that changes."""

    call: Callable[..., tuple[Any, ...]]
    source: str


def function(torch: Any, graph: Graph, fixed: Mapping[Value, Any], inputs: Sequence[Value], outputs: Sequence[Value]) -> Function:
    """The graph as Python. What depends on `fixed` values alone is computed now; other values are forgotten after their last use."""
    known = dict(fixed)
    names: dict[str, Any] = {}
    lines: list[str] = []
    ops = []
    for op in graph.ops:
        run = _gradients(torch) if op.kind == GRAD else TABLE[op.kind](torch, op)
        draws = op.kind.startswith("random") or op.kind in ("dropout", "bernoulli")
        if op.kind == GRAD or draws or not all(value in known for value in op.inputs):
            ops.append((op, run))
            continue
        with torch.no_grad():
            made = run(*(known[value] for value in op.inputs))
        known |= dict(zip(op.outputs, made if len(op.outputs) > 1 else (made,), strict=True))
    last: dict[Value, int] = {value: number for number, (op, _) in enumerate(ops) for value in op.inputs}
    for number, (op, run) in enumerate(ops):
        names[f"f{number}"] = run
        for value in op.inputs:
            if value in known:
                names[f"k{value.id}"] = known[value]
        arguments = ", ".join(_name(value, known) for value in op.inputs)
        lines.append(
            f"    {', '.join(_name(v, {}) for v in op.outputs)}{',' if len(op.outputs) > 1 or op.kind == GRAD else ''} = f{number}({arguments})"
        )
        over = [_name(v, {}) for v in dict.fromkeys(op.inputs) if last[v] == number and v not in known and v not in outputs]
        if over:
            lines.append(f"    del {', '.join(over)}")
    names |= {f"k{value.id}": known[value] for value in outputs if value in known}
    results = "".join(f"{_name(value, known)}, " for value in outputs)
    source = "\n".join([f"def run({', '.join(_name(v, {}) for v in inputs)}):", *lines, f"    return ({results})"])
    exec(compile(source, "<network>", "exec"), names)
    return Function(names["run"], source)


@entry(KIND)
def _scan(torch: Any, op: Op) -> Callable[..., Any]:
    it = parts(op)
    body = function(torch, it.body, {}, it.body.inputs, it.body.outputs).call
    walked, carried, (count,) = len(it.sequences), len(it.carries), ints((it.length,))
    order = range(count - 1, -1, -1) if it.reverse else range(count)
    indices = torch.arange(count).unbind(0)

    def run(*inputs: Any) -> Any:
        elements = [x.unbind(axis) for x, axis in zip(inputs[:walked], it.elements, strict=True)]
        carries, captures = inputs[walked : walked + carried], inputs[walked + carried :]
        stacks: list[list[Any]] = [[None] * count for _ in it.yields]
        for index in order:
            made = body(indices[index], *(x[index] for x in elements), *carries, *captures)
            carries = made[:carried]
            for stack, value in zip(stacks, made[carried:], strict=True):
                stack[index] = value
        results = (*carries, *(torch.stack(stack, axis) for stack, axis in zip(stacks, it.stacks, strict=True)))
        return results if len(results) > 1 else results[0]

    return run


def _name(value: Value, known: Mapping[Value, Any]) -> str:
    return f"{'k' if value in known else 'v'}{value.id}"


def _gradients(torch: Any) -> Callable[..., Any]:
    return lambda loss, *xs: torch.autograd.grad(loss, xs)


class Weights:
    """The buffers of a program as tensors, each in the memory layout that PyTorch's own layers would give it."""

    def __init__(self, torch: Any, program: Program, graph: Graph, arrays: Mapping[str, Any], channels_last: bool):
        uses = graph.uses()
        self.leaves: dict[str, Any] = {}
        self.views: dict[Value, Any] = {}
        for port, value in zip(program.inputs, graph.inputs, strict=True):
            if port.kind != PortKind.BUFFER or value not in uses:
                continue
            tensor = torch.from_numpy(arrays[port.name].copy())
            if value.type.rank == 4 and channels_last:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            if value.type.rank == 2 and uses.get(value) and all(_right(op, value) for op in uses[value] if op.kind != GRAD):
                tensor = tensor.t().contiguous().t()
            self.leaves[port.name] = tensor
            self.views[value] = tensor

    def array(self, path: str) -> Any:
        """The present numbers of a buffer, laid out as the program has them."""
        return self.leaves[path].detach().contiguous().numpy()


def _right(op: Op, value: Value) -> bool:
    """Whether `value` is the weight of a product."""
    if op.kind in RECURRENT:
        return value not in op.inputs[:1]
    return op.kind in ("linear", "matmul") and op.inputs[1] == value and value not in op.inputs[:1]


def tensors(torch: Any, program: Program, inputs: Mapping[str, Any], channels_last: bool) -> dict[str, Any]:
    """The arrays that a caller gives, as tensors."""
    found = {}
    for port in program.inputs:
        if port.kind == PortKind.INPUT:
            tensor = torch.from_numpy(inputs[port.name].copy())
            found[port.name] = tensor.contiguous(memory_format=torch.channels_last) if channels_last and tensor.dim() == 4 else tensor
    return found


def other_values(torch: Any, program: Program, settings: Mapping[str, Any]) -> dict[Value, Any]:
    """Settings, seeds and counters as 0-d tensors."""
    from dslc.interchange.torch_operators import dtype_of

    found = {}
    for port, value in zip(program.inputs, program.graph.inputs, strict=True):
        if port.kind not in (PortKind.INPUT, PortKind.BUFFER):
            number = settings.get(port.name, port.default or 0)
            found[value] = torch.tensor(number, dtype=dtype_of(torch, value.type.dtype))
    return found


def inference(
    torch: Any, program: Program, arrays: Mapping[str, Any], inputs: Mapping[str, Any], channels_last: bool, compiled: bool = False
) -> Callable[[], dict[str, Any]]:
    """A call of a bound program on these inputs; gives the results by name as tensors."""
    graph = translated(program.graph, TABLE, NAME)
    weights = Weights(torch, program, graph, arrays, channels_last)
    given = tensors(torch, program, inputs, channels_last)
    free = [v for v, port in zip(graph.inputs, program.inputs, strict=True) if port.kind == PortKind.INPUT]
    values = [given[port.name] for port in program.inputs if port.kind == PortKind.INPUT]
    results = [(port.name, v) for port, v in zip(program.outputs, graph.outputs, strict=True) if port.kind != PortKind.BUFFER]
    call = function(torch, graph, weights.views | other_values(torch, program, {}), free, [v for _, v in results]).call
    if compiled:
        call = torch.compile(call)
    names = [name for name, _ in results]

    def run() -> dict[str, Any]:
        with torch.inference_mode(not compiled), torch.no_grad():
            return dict(zip(names, call(*values), strict=True))

    return run
