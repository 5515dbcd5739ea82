"""Recurrent layers: what other libraries do in one call is found among loops by what an iteration computes.

| kind of the new operation | an iteration, with a = x w_in + b_in and b = h w_h + b_h cut into gates |
|---|---|
| lstm | c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c) of i, f, g, o = a + b |
| gru | h = (1 - z) n + z h, n = tanh(a3 + r b3), r, z = sigmoid(a1 + b1), sigmoid(a2 + b2) |
| rnn_tanh, rnn_relu | h = tanh(a + b), relu(a + b) |

Inputs: x, the first h (and c), w_in, w_h and no biases or one of each. Results: the last h (and c), and where the loop stacks it every h.
Attributes: `axis` of the iterations in x and in what is stacked, `reverse`. An iteration is the formula where it gives the same for random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from dslc.interpret import evaluate
from dslc.ir.graph import Op, Value, sorted_attrs
from dslc.ir.scan import ScanParts, is_scan, parts
from dslc.ops.shapes import ints
from dslc.transforms.expand import expand_composites

Array = np.ndarray[Any, Any]
Cell = Callable[[Array, Array, Sequence[Array]], Sequence[Array]]
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
MOST_CAPTURES = 4


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _lstm(a: Array, b: Array, states: Sequence[Array]) -> Sequence[Array]:
    i, f, g, o = np.split(a + b, 4, axis=1)
    c = _sigmoid(f) * states[1] + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _gru(a: Array, b: Array, states: Sequence[Array]) -> Sequence[Array]:
    (ar, az, an), (br, bz, bn) = np.split(a, 3, axis=1), np.split(b, 3, axis=1)
    z = _sigmoid(az + bz)
    return ((1 - z) * np.tanh(an + _sigmoid(ar + br) * bn) + z * states[0],)


_CELLS: tuple[tuple[str, int, int, Cell], ...] = (  # kind, gates, states
    ("lstm", 4, 2, _lstm),
    ("gru", 3, 1, _gru),
    ("rnn_tanh", 1, 1, lambda a, b, states: (np.tanh(a + b),)),
    ("rnn_relu", 1, 1, lambda a, b, states: (np.maximum(a + b, 0),)),
)


def as_layer(op: Op) -> Op:
    """A loop as the recurrent layer that it is; `op` itself where it is none."""
    if not is_scan(op):
        return op
    it = parts(op)
    stacks = list(zip(it.yields, it.stacks, strict=True))
    if len(it.sequences) != 1 or it.slices[0].type.rank != 2 or not it.carries or stacks not in ([], [(it.after[0], it.elements[0])]):
        return op
    if not 2 <= len(it.captured) <= MOST_CAPTURES or len(it.captured) == 3:
        return op
    for kind, gates, states, cell in _CELLS:
        weights = _weights(it, gates, cell) if states == len(it.carries) else None
        if weights is not None:
            attrs = sorted_attrs({"axis": it.elements[0], "reverse": it.reverse})
            return Op(kind, (it.sequences[0], *it.initial, *weights), attrs, op.outputs, span=op.span)
    return op


def _weights(it: ScanParts, gates: int, cell: Cell) -> tuple[Value, ...] | None:
    """The captures in the order of a layer's weights, if the body is the cell."""
    (x,), (h, *_) = it.slices, it.carries
    inputs, width = x.type.shape[1], h.type.shape[1]
    wide = gates * width
    expected = [(inputs, wide), (width, wide), (wide,), (wide,)][: len(it.captured)]
    rng = np.random.default_rng(0)
    given = {v: rng.standard_normal(ints(v.type.shape)) / 4 for v in (x, *it.carries, *it.captured)}
    made: list[Array] | None = None
    for order in permutations(range(len(it.captured))):
        weights = [it.captured[n] for n in order]
        if [v.type.shape for v in weights] != expected:
            continue
        if made is None:
            values = evaluate(expand_composites(it.body), [np.asarray(0), *(given[v] for v in it.body.inputs[1:])], wide=True)
            made = [values[v] for v in it.after]
        w_in, w_h, *biases = (given[v] for v in weights)
        b_in, b_h = biases or (0.0, 0.0)
        wanted = cell(given[x] @ w_in + b_in, given[h] @ w_h + b_h, [given[v] for v in it.carries])
        if all(np.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(made, wanted, strict=True)):
            return tuple(it.captures[n] for n in order)
    return None
