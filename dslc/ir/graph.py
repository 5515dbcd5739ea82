"""The Graph: frozen data in definition order. Transforms are functions Graph -> Graph and never mutate."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dslc.diagnostics import Span
from dslc.ir.types import TensorType

Attrs = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor. `id` is unique within its graph."""

    id: int
    type: TensorType

    def __str__(self) -> str:
        return f"%{self.id}"


@dataclass(frozen=True, slots=True)
class Op:
    """One application of the operator named `kind`. Attributes are sorted by name and hashable."""

    kind: str
    inputs: tuple[Value, ...]
    attrs: Attrs
    outputs: tuple[Value, ...]
    regions: tuple[Graph, ...] = ()
    span: Span | None = None

    @property
    def output(self) -> Value:
        """The only result."""
        (value,) = self.outputs
        return value

    def attr(self, name: str) -> Any:
        return dict(self.attrs)[name]

    def with_inputs(self, inputs: tuple[Value, ...]) -> Op:
        return replace(self, inputs=inputs)


@dataclass(frozen=True, slots=True)
class Graph:
    """A pure function from `inputs` to `outputs`; `ops` stand in definition order."""

    inputs: tuple[Value, ...]
    ops: tuple[Op, ...]
    outputs: tuple[Value, ...]

    def producers(self) -> dict[Value, Op]:
        return {value: op for op in self.ops for value in op.outputs}

    def uses(self) -> dict[Value, list[Op]]:
        found: dict[Value, list[Op]] = {}
        for op in self.ops:
            for value in dict.fromkeys(op.inputs):
                found.setdefault(value, []).append(op)
        return found

    def next_id(self) -> int:
        return 1 + max((v.id for v in self.values()), default=-1)

    def values(self) -> Iterable[Value]:
        yield from self.inputs
        for op in self.ops:
            yield from op.outputs


def sorted_attrs(attrs: Mapping[str, Any]) -> Attrs:
    return tuple(sorted(attrs.items()))


@dataclass(frozen=True, slots=True)
class ConstantData:
    """The bytes of a constant tensor, so that it can be an attribute: hashable and comparable."""

    type: TensorType
    data: bytes

    def __repr__(self) -> str:
        return f"constant<{self.type}>"
