"""The text form of a Module: JSON around the text of its graphs, `parse_module(print_module(m))` equals m without its sources."""

from __future__ import annotations

import json
from typing import Any

from dslc.ir.graph import Graph
from dslc.ir.module import Buffer, Initial, Module, Port, PortKind, Program, Role
from dslc.ir.text import TextError, parse_graph, print_graph
from dslc.ir.types import DType, TensorType

VERSION = 1


def print_module(module: Module) -> str:
    """A module with bound buffers as text. The source texts are left out; `digest` says which they were."""
    return json.dumps(
        {
            "version": VERSION,
            "name": module.name,
            "digest": module.digest,
            "programs": [_print_program(p) for p in module.programs.values()],
            "buffers": [_print_buffer(b) for b in module.buffers.values()],
        },
        indent=1,
    )


def parse_module(text: str) -> Module:
    """The module that `print_module` wrote. TextError for anything else; the graphs' types are those written."""
    try:
        data = json.loads(text)
        if data["version"] != VERSION:
            raise TextError(f"version {data['version']!r} of the text of a module, this one is {VERSION}")
        programs = [_program(p) for p in data["programs"]]
        buffers = [_buffer(b) for b in data["buffers"]]
        return Module(str(data["name"]), {p.name: p for p in programs}, {b.path: b for b in buffers}, {}, str(data["digest"]))
    except TextError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TextError(f"not the text of a module: {type(error).__name__} {error}") from None


def _print_program(program: Program) -> dict[str, Any]:
    def ports(entries: tuple[Port, ...]) -> list[list[Any]]:
        return [[p.kind.value, p.name, p.default] for p in entries]

    return {
        "name": program.name,
        "inputs": ports(program.inputs),
        "outputs": ports(program.outputs),
        "batch": program.batch,
        "bound": program.bound,
        "graph": print_graph(program.graph).splitlines(),
    }


def _program(data: dict[str, Any]) -> Program:
    def ports(entries: list[list[Any]]) -> tuple[Port, ...]:
        return tuple(Port(PortKind(kind), str(name), default) for kind, name, default in entries)

    graph: Graph = parse_graph("\n".join(data["graph"]) + "\n")
    inputs, outputs = ports(data["inputs"]), ports(data["outputs"])
    if len(inputs) != len(graph.inputs) or len(outputs) != len(graph.outputs):
        raise TextError(f"program {data['name']!r} has a port too many or too few")
    bound = data["bound"]
    if bound is not None and not (isinstance(bound, int) and bound >= 1):
        raise TextError(f"program {data['name']!r} has the bound {bound!r}")
    return Program(str(data["name"]), graph, inputs, outputs, data["batch"], bound)


def _print_buffer(buffer: Buffer) -> dict[str, Any]:
    return {
        "path": buffer.path,
        "dtype": buffer.type.dtype.value,
        "shape": [int(n) for n in buffer.type.shape if isinstance(n, int)],
        "role": buffer.role.value,
        "initial": [buffer.initial.kind, [list(s) for s in buffer.initial.settings], buffer.initial.stream],
    }


def _buffer(data: dict[str, Any]) -> Buffer:
    kind, settings, stream = data["initial"]
    shape = tuple(int(n) for n in data["shape"])
    initial = Initial(str(kind), tuple((str(name), value) for name, value in settings), int(stream))
    return Buffer(str(data["path"]), TensorType(DType(data["dtype"]), shape), Role(data["role"]), initial)
