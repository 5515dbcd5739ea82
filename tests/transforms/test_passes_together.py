"""The passes in the compiler's order on a training step: verified after each, the same numbers after all."""

from __future__ import annotations

import numpy as np

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.dims import name
from dslc.ir.graph import Graph, Value
from dslc.ir.text import parse_graph, print_graph
from dslc.ir.types import DType
from dslc.ir.verify import Stage, verify
from dslc.transforms.autodiff import differentiate
from dslc.transforms.bind import bind
from dslc.transforms.constant_folding import constant_folding
from dslc.transforms.cse import cse
from dslc.transforms.dead_code import dead_code
from dslc.transforms.expand import expand_composites
from dslc.transforms.simplify import simplify

F64, I64 = DType.F64, DType.I64


def training_step() -> Graph:
    """A small convolutional network with pooling and dropout, its loss, and one step of gradient descent."""
    b = Builder()
    size = name("H")
    x, label = b.input(F64, name("N"), 1, size, size), b.input(I64, name("N"))
    seed, counter = b.input(I64), b.input(I64)
    kernels = [b.input(F64, 3, 1, 3, 3), b.input(F64, 4, 3, 3, 3)]
    h = b.max_pool2d(b.relu(b.conv2d(x, kernels[0], padding=1)), window=2)
    h = b.max_pool2d(b.relu(b.conv2d(h, kernels[1], stride=2, padding=1)), window=3, stride=2, padding=1)
    h = b.dropout(b.reshape(h, shape=(name("N"), 4 * h.type.shape[2] * h.type.shape[3])), seed, counter, rate=0.25, stream=1)
    weights: list[Value] = [*kernels, b.input(F64, h.type.shape[1], 5), b.input(F64, 5)]
    loss = b.cross_entropy(b.add(b.matmul(h, weights[2]), weights[3]), label)
    slopes = b.grad(loss, *weights)
    updated = [b.sub(w, b.mul(g, b.scalar(0.1, F64))) for w, g in zip(weights, slopes, strict=True)]
    return b.graph(loss, *updated)


def inputs() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape) * 0.3 for shape in ((3, 1, 3, 3), (4, 3, 3, 3), (16, 5), (5,))]
    image, label = rng.standard_normal((7, 1, 12, 12)), rng.integers(0, 5, 7)
    return [image, label, np.int64(1), np.int64(2), *weights]


def test_a_training_step_keeps_its_numbers_through_every_pass() -> None:
    unbound = verify(training_step())
    graph = verify(bind(unbound, {"H": 12}), Stage(names=frozenset({"N"})))
    graph = verify(differentiate(graph), Stage(names=frozenset({"N"}), differentiated=True))
    wanted = interpret(graph, inputs())
    last = Stage(names=frozenset({"N"}), differentiated=True, expanded=True)
    graph = verify(expand_composites(graph), last)
    count = len(graph.ops)
    for change in (simplify, constant_folding, cse, dead_code):
        graph = verify(change(graph), last)
        for before, after in zip(wanted, interpret(graph, inputs()), strict=True):
            np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-14)
    assert len(graph.ops) < count
    kinds = [op.kind for op in graph.ops]
    assert kinds.count("dropout") == 2 and kinds.count("dot_general") == 3 and kinds.count("conv2d_weight_grad") == 2
    assert kinds.count("conv2d_input_grad") == 1 and "transpose" not in kinds  # the image needs no gradient
    assert parse_graph(print_graph(graph)) == graph


def test_the_step_goes_down_the_gradient() -> None:
    graph = differentiate(bind(training_step(), {"H": 12}))
    arrays = inputs()
    losses = []
    for _ in range(20):
        loss, *weights = interpret(graph, arrays)
        losses.append(float(loss))
        arrays[4:] = weights
    assert losses[-1] < 0.8 * losses[0]
