"""The order of definition of tensors whose names are known and whose order a file has lost.

A safetensors file keeps its tensors sorted by name, not as the network defined them. Much of the order can be told: the tensors of one
module stand together, its own before those of the modules inside; `weight`, `bias`, `running_mean`, `running_var` come in this order;
names that differ only in numbers (`layer1`, `layer2`) count up; and modules whose members have the same names have them in the same order.
What remains is the order of neighbours with other names, and there the shapes that the program expects decide - or they do not, which is
`Ambiguous`: nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Shape = tuple[int, ...]

_LEAVES = ("weight", "bias", "running_mean", "running_var")
_DEPTH = 64
_WORK = 200_000  # steps of the search; a network of thousands of tensors takes a few for each


class Ambiguous(Exception):
    """Two tensors fit at one position, and the rest fits behind either; or the search was given up there."""

    def __init__(self, position: int, first: str, second: str):
        super().__init__(position, first, second)
        self.position, self.first, self.second = position, first, second


@dataclass(slots=True)
class _Module:
    """A name and what stands below it: one tensor, or members in two phases, its own tensors and the modules inside."""

    tensor: str | None = None
    own: dict[str, _Module] = field(default_factory=dict)
    inside: dict[str, _Module] = field(default_factory=dict)
    phases: tuple[_Phase, ...] = ()


@dataclass(frozen=True, slots=True)
class _Phase:
    """Members in queues: within a queue the order is known. `names` tells phases whose members have the same names."""

    names: int
    queues: tuple[tuple[_Module, ...], ...]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A phase on its way: `order` are the numbers of the queues whose heads were taken."""

    phase: _Phase
    order: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Agenda:
    """What is still to come, the nearest first."""

    head: _Module | _Begun
    rest: _Agenda | None


@dataclass(frozen=True, slots=True)
class _Placed:
    """The tensors that have their place, the last first."""

    name: str
    before: _Placed | None
    count: int


def definition_order(names: Mapping[str, str], found: Mapping[str, Shape], wanted: Sequence[Shape]) -> list[str] | None:
    """The tensors in the one order of definition that has the shapes `wanted`, or None where there is none.

    `names` maps dotted names to the keys of `found`. Raises Ambiguous where there are several orders, or too many to look at.
    """
    if len(names) != len(wanted):
        return None
    solutions: list[list[str]] = []
    states: list[tuple[_Agenda | None, _Placed | None, Mapping[int, tuple[int, ...]]]] = [(_Agenda(_tree(names), None), None, {})]
    for _ in range(_WORK):
        if not states:
            return solutions[0] if solutions else None
        agenda, placed, orders = states.pop()
        if agenda is None:
            solutions.append(_listed(placed))
            if len(solutions) == 2:
                raise _between(*solutions)
            continue
        at, head, rest = placed.count if placed else 0, agenda.head, agenda.rest
        if isinstance(head, _Begun):
            states += [(after, placed, known) for after, known in _go_on(head, rest, orders)]
        elif head.tensor is None:
            for phase in reversed(head.phases):
                if len(phase.queues) == 1:
                    for member in reversed(phase.queues[0]):
                        rest = _Agenda(member, rest)
                else:
                    rest = _Agenda(_Begun(phase), rest)
            states.append((rest, placed, orders))
        elif found[head.tensor] == wanted[at]:
            states.append((rest, _Placed(head.tensor, placed, at + 1), orders))
    left = sorted(set(names.values()) - set(_listed(placed))) or list(names.values())
    raise Ambiguous(min(at, len(wanted) - 1), left[0], left[-1])


def _go_on(
    begun: _Begun, rest: _Agenda | None, orders: Mapping[int, tuple[int, ...]]
) -> list[tuple[_Agenda | None, Mapping[int, tuple[int, ...]]]]:
    """The ways to take one more member, the preferred last; `orders` are those of other phases with the same names."""
    phase, order = begun.phase, begun.order
    known = orders.get(phase.names)
    if len(order) == sum(map(len, phase.queues)):
        return [(rest, {**orders, phase.names: order})] if known is None or known == order else []
    choices = range(len(phase.queues)) if known is None else [known[len(order)]]
    taken = [order.count(q) for q in range(len(phase.queues))]
    return [
        (_Agenda(phase.queues[q][taken[q]], _Agenda(_Begun(phase, (*order, q)), rest)), orders)
        for q in reversed(choices)
        if taken[q] < len(phase.queues[q])
    ]


def _listed(placed: _Placed | None) -> list[str]:
    found = []
    while placed is not None:
        found.append(placed.name)
        placed = placed.before
    return found[::-1]


def _between(a: Sequence[str], b: Sequence[str]) -> Ambiguous:
    position = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    return Ambiguous(position, a[position], b[position])


def _tree(names: Mapping[str, str]) -> _Module:
    root = _Module()
    for name, key in names.items():
        *path, last = name.split(".", _DEPTH)
        module = root
        for part in path:
            module = module.inside.setdefault(part, _Module())
        module.own[last] = _Module(key)
    _finish(root, {})
    return root


def _finish(module: _Module, classes: dict[tuple[str, ...], int]) -> None:
    for below in module.inside.values():
        _finish(below, classes)
    phases = ((("", *module.own), _queues(module.own, own=True)), (module.inside, _queues(module.inside, own=False)))
    module.phases = tuple(_Phase(classes.setdefault(tuple(sorted(names)), len(classes)), queues) for names, queues in phases if queues)


def _queues(members: Mapping[str, _Module], own: bool) -> tuple[tuple[_Module, ...], ...]:
    """Members whose order among each other is known, by what their names have in common."""
    queues: dict[str, list[tuple[tuple[int, ...], _Module]]] = {}
    for name, module in members.items():
        key, rank = re.sub(r"[0-9]+", "#", name), tuple(int(n[:18]) for n in re.findall(r"[0-9]+", name))
        if own and name in _LEAVES:
            key, rank = ".", (_LEAVES.index(name),)
        queues.setdefault(key, []).append((rank, module))
    return tuple(tuple(m for _, m in sorted(queues[key], key=lambda pair: pair[0])) for key in sorted(queues))
