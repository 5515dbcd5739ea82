"""A recipe's training step as PyTorch takes it: the loss by the same graph, gradients by autograd, its own fused optimizer.

The optimizer is found by what the recipe's update does: its settings are read off the update of single numbers, and it is taken only
if it then moves random numbers as the recipe does, over several steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from dslc.interchange.refusal import untrainable
from dslc.interchange.torch_network import GRAD, Weights, function, other_values, tensors, translated
from dslc.interchange.torch_operators import NAME, TABLE
from dslc.interchange.updates import Update, find_updates
from dslc.ir.graph import Graph
from dslc.ir.module import PortKind, Program
from dslc.ops.shapes import ints

STEPS = 3
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Rule:
    """An optimizer of PyTorch, by name and settings."""

    name: str
    settings: tuple[tuple[str, Any], ...]

    def make(self, torch: Any, groups: Any) -> Any:
        return getattr(torch.optim, self.name)(groups, fused=True, **dict(self.settings))


def recognise(torch: Any, update: Update) -> Rule:
    """The optimizer that does the same; DL0831 where PyTorch has none."""
    candidates = {0: _plain, 1: _momentum, 2: _adam}.get(len(update.states))
    for rule in candidates(update) if candidates is not None else []:
        if _same(torch, update, rule):
            return rule
    raise untrainable(f"no optimizer of PyTorch is known that moves {update.path} as the recipe does", _span(update))


def _span(update: Update) -> Any:
    return update.graph.ops[-1].span if update.graph.ops else None


def _first(array: Any) -> float:
    return float(array.reshape(-1)[0])


def _asked(update: Update, p: float, g: float, states: Sequence[float], step: int = 1) -> list[float]:
    return [_first(a) for a in update(p, g, states, step)]


def _plain(update: Update) -> list[Rule]:
    rate = -_asked(update, 0.0, 1.0, ())[0]
    decay = (1 - _asked(update, 1.0, 0.0, ())[0]) / rate if rate else 0.0
    return [Rule("SGD", (("lr", rate), ("weight_decay", _tidy(decay))))]


def _momentum(update: Update) -> list[Rule]:
    momentum = _tidy(_asked(update, 0.0, 0.0, (1.0,))[1])
    move = -_asked(update, 0.0, 1.0, (0.0,))[0]
    rules = []
    for nesterov in (False, True):
        rate = move / (1 + momentum) if nesterov else move
        decay = (1 - _asked(update, 1.0, 0.0, (0.0,))[0]) / move if move else 0.0
        if momentum > 0 or not nesterov:
            settings = (("lr", rate), ("momentum", momentum), ("weight_decay", _tidy(decay)), ("nesterov", nesterov))
            rules.append(Rule("SGD", settings))
    return rules


def _adam(update: Update) -> list[Rule]:
    first = [_first(a) for a in update(0.0, -1.0, (0.0, 0.0))[1:]]
    if first[0] > 0:  # the average of squares comes first
        return []
    m, v = (_tidy(_asked(update, 0.0, 0.0, (1.0, 1.0))[n]) for n in (1, 2))
    rate = -_asked(update, 0.0, 1.0, (0.0, 0.0))[0]
    tiny = 1e-7
    moved = -_asked(update, 0.0, tiny, (0.0, 0.0))[0]
    eps = max(tiny * (rate / moved - 1), 0.0) if moved else 1e-8
    decay = _tidy((1 - _asked(update, 1.0, 0.0, (0.0, 0.0))[0]) / rate) if rate else 0.0
    common = (("lr", rate), ("betas", (m, v)), ("eps", _tidy(eps, 1)))
    return [Rule("AdamW", (*common, ("weight_decay", decay))), Rule("Adam", (*common, ("weight_decay", decay)))]


def _tidy(number: float, digits: int = 4) -> float:
    """Without the rounding of f32: 0.9, not 0.8999999761."""
    return float(f"{number:.{digits}g}")


def _same(torch: Any, update: Update, rule: Rule) -> bool:
    """Whether both move random numbers alike over some steps of the recipe's schedule."""
    shape = ints(update.graph.inputs[0].type.shape)
    rng = np.random.default_rng(0)
    p = rng.standard_normal(shape).astype(np.float32)
    states: list[Any] = [np.zeros(shape, np.float32) for _ in update.states]
    mine = torch.from_numpy(p.copy()).requires_grad_()
    optimizer = rule.make(torch, [mine])
    rate = dict(rule.settings)["lr"]
    begun = -_asked(update, 0.0, 1.0, [0.0] * len(states))[0]
    for step in range(1, STEPS + 1):
        now = -_asked(update, 0.0, 1.0, [0.0] * len(states), 1)[0] if not update.counters else _rate(update, step, begun, rate)
        g = rng.standard_normal(shape).astype(np.float32)
        for group in optimizer.param_groups:
            group["lr"] = now if update.counters else rate
        before = p
        p, *states = update(p, g, states, step)
        mine.grad = torch.from_numpy(g)
        optimizer.step()
        moved = np.abs(p - before).max() or 1.0
        if not np.allclose(p, mine.detach().numpy(), rtol=1e-6, atol=TOLERANCE * moved + 1e-7):
            return False
    return True


def _rate(update: Update, step: int, begun: float, rate: float) -> float:
    """The learning rate in a step: by the shrinking of a parameter or by its move, compared with the first step's."""
    if len(update.states) == 2:  # the averages are those of a gradient that was always 1
        b = [_asked(update, 0.0, 0.0, (1.0, 1.0))[n] for n in (1, 2)]
        return -_asked(update, 0.0, 1.0, [(1 - x ** (step - 1)) for x in b], step)[0]
    return -_asked(update, 0.0, 1.0, [0.0] * len(update.states), step)[0] / (begun or 1.0) * rate


def training(
    torch: Any, program: Program, arrays: Mapping[str, Any], inputs: Mapping[str, Any], settings: Mapping[str, Any], channels_last: bool
) -> tuple[Callable[[], dict[str, Any]], Weights]:
    """A training step of a bound program on this batch, which gives its metrics, and the weights that it moves."""
    grad, updates = find_updates(program, settings)
    rules: dict[Any, Rule] = {}
    for update in sorted(updates, key=lambda u: prod(ints(u.graph.inputs[0].type.shape))):  # the smallest parameter of each kind is asked
        if update.signature not in rules:
            rules[update.signature] = recognise(torch, update)
    if len({rule.name for rule in rules.values()}) > 1:
        raise untrainable("parameters are moved by several optimizers", grad.span)
    results = [
        (port.name, v)
        for port, v in zip(program.outputs, program.graph.outputs, strict=True)
        if port.kind in (PortKind.RESULT, PortKind.METRIC)
    ]
    kept = [
        v for port, v in zip(program.outputs, program.graph.outputs, strict=True) if port.kind == PortKind.BUFFER and "running" in port.name
    ]
    forward = Graph(program.graph.inputs, program.graph.ops, (*(v for _, v in results), *grad.outputs, *kept))
    graph = translated(forward, TABLE, NAME, (GRAD,))
    weights = Weights(torch, program, graph, arrays, channels_last)
    moved = grad.inputs[1:]
    leaves = [weights.views[value].requires_grad_() for value in moved]
    given = tensors(torch, program, inputs, channels_last)
    free = [(port.name, v) for port, v in zip(program.inputs, graph.inputs, strict=True) if port.kind == PortKind.INPUT]
    fixed = {v: t for v, t in weights.views.items() if v not in moved} | other_values(torch, program, settings)
    call = function(torch, graph, fixed, [*moved, *(v for _, v in free)], graph.outputs).call
    values = [*leaves, *(given[name] for name, _ in free)]
    groups: dict[Rule, list[Any]] = {}
    for update, leaf in zip(updates, leaves, strict=True):
        groups.setdefault(rules[update.signature], []).append(leaf)
    first = next(iter(groups))
    optimizer = first.make(torch, [{"params": params, **dict(rule.settings)} for rule, params in groups.items()])
    names = [name for name, _ in results]

    def step() -> dict[str, Any]:
        made = call(*values)
        for leaf, gradient in zip(leaves, made[len(names) : len(names) + len(leaves)], strict=True):
            leaf.grad = gradient
        optimizer.step()
        return dict(zip(names, made, strict=False))

    return step, weights
