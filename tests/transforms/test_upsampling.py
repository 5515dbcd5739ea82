"""Convolutions of doubled images: the same numbers without the doubled image, gradients too, and no other convolution is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dslc.backends.cpu.build import Workers
from dslc.compiler import transform
from dslc.frontend import elaborate
from dslc.interpret import interpret
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim, evaluate, name
from dslc.ir.graph import Graph, Value
from dslc.ir.module import Port, PortKind, Program
from dslc.ir.types import DType
from dslc.ir.verify import verify
from dslc.lowering.contraction import Contraction
from dslc.lowering.lower import lower
from dslc.lowering.plan import prologue_steps
from dslc.transforms.upsampling import fold_upsampling
from tests.backends.small_programs import small

RNG = np.random.default_rng(3)
Make = Callable[..., Value]


def graph_of(make: Callable[..., Any], *shapes: tuple[Dim, ...], dtype: DType = DType.F64) -> Graph:
    b = Builder()
    made = make(b, *(b.input(dtype, *shape) for shape in shapes))
    return b.graph(*(made if isinstance(made, tuple) else (made,)))


def folded(graph: Graph) -> Graph:
    return verify(fold_upsampling(graph))


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def arrays(graph: Graph) -> list[np.ndarray[Any, Any]]:
    return [RNG.normal(size=sizes(v.type.shape)) for v in graph.inputs]


def sizes(shape: tuple[Dim, ...]) -> list[int]:
    """A batch of 2."""
    return [evaluate(extent, {"N": 2}) for extent in shape]


def agree(one: Graph, other: Graph) -> None:
    given = arrays(one)
    for found, wanted in zip(interpret(one, given), interpret(other, given), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@st.composite
def geometries(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], list[tuple[int, int]]]:
    """Sizes of the small image, how often each element stands in the large one, the kernel and the padding, an entry for each axis."""
    rank = draw(st.integers(1, 3))
    kernel = draw(st.lists(st.integers(2, 4), min_size=rank, max_size=rank))
    times = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank).filter(lambda t: max(t) == 2))
    padding = [(draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernel]
    size = [draw(st.integers(-(-max(1, k - sum(p)) // n), 5)) for k, n, p in zip(kernel, times, padding, strict=True)]
    return size, times, kernel, padding


@settings(max_examples=40, deadline=None)
@given(geometries(), st.booleans())
def test_every_kernel_padding_and_size(geometry: tuple[list[int], list[int], list[int], list[tuple[int, int]]], by_scale: bool) -> None:
    size, times, kernel, padding = geometry
    how = {"scale": tuple(map(float, times))} if by_scale else {"size": tuple(n * s for n, s in zip(times, size, strict=True))}

    def make(b: Builder, x: Value, w: Value) -> Value:
        value: Value = b.apply(f"conv{len(size)}d", b.resize(x, **how), w, padding=tuple(padding))
        return value

    graph = graph_of(make, (2, 9, *size), (8, 9, *kernel))
    assert f"conv_transpose{len(size)}d" in kinds(folded(graph)) and "resize" not in kinds(folded(graph))
    agree(folded(graph), graph)


def doubled(b: Builder, x: Value) -> Value:
    value: Value = b.resize(x, scale=2)
    return value


JOINED: dict[str, tuple[Make, int]] = {  # of x[2, 8, 3, 5], s[2, 3, 6, 10] and t[2, 9, 3, 5]; and how many images are left
    "in front": (lambda b, x, s, t: b.concat(doubled(b, x), s, axis=1), 1),
    "behind": (lambda b, x, s, t: b.concat(s, doubled(b, x), axis=1), 1),
    "both": (lambda b, x, s, t: b.concat(doubled(b, t), doubled(b, x), axis=-3), 0),
    "three": (lambda b, x, s, t: b.concat(doubled(b, t), s, doubled(b, x), axis=1), 1),
    "twice the same": (lambda b, x, s, t: b.concat(*[doubled(b, x)] * 2, s, axis=1), 1),
    "one of few channels": (lambda b, x, s, t: b.concat(doubled(b, x), doubled(b, b.avg_pool2d(s, window=2)), axis=1), 1),
}


@pytest.mark.parametrize("case", JOINED)
def test_joined_images_are_convolved_one_by_one(case: str) -> None:
    join, left = JOINED[case]
    b = Builder()
    images = [b.input(DType.F64, *shape) for shape in ((2, 8, 3, 5), (2, 3, 6, 10), (2, 9, 3, 5))]
    image = join(b, *images)
    w = b.input(DType.F64, 8, image.type.shape[1], 3, 3)
    graph = b.graph(b.relu(b.conv2d(image, w, padding=1)))
    after = folded(graph)
    found = kinds(after)
    assert "concat" not in found and found.count("conv2d") == left and found.count("resize") == (case == "one of few channels")
    assert left == 0 or found.index("conv2d") > max(n for n, kind in enumerate(found) if kind == "conv_transpose2d")
    agree(after, graph)


UNTOUCHED: dict[str, tuple[Make, tuple[int, ...], tuple[int, ...]]] = {
    "bilinear": (lambda b, x, w: b.conv2d(b.resize(x, scale=2, mode="bilinear"), w), (1, 8, 4, 4), (8, 8, 3, 3)),
    "three times": (lambda b, x, w: b.conv2d(b.resize(x, scale=3), w), (1, 8, 4, 4), (8, 8, 3, 3)),
    "other steps": (lambda b, x, w: b.conv2d(b.resize(x, scale=2.1), w), (1, 8, 4, 4), (8, 8, 3, 3)),
    "as large": (lambda b, x, w: b.conv2d(b.resize(x, scale=1), w), (1, 8, 4, 4), (8, 8, 3, 3)),
    "stride": (lambda b, x, w: b.conv2d(b.resize(x, scale=2), w, stride=(1, 2)), (1, 8, 4, 4), (8, 8, 3, 3)),
    "dilation": (lambda b, x, w: b.conv2d(b.resize(x, scale=2), w, dilation=2), (1, 8, 4, 4), (8, 8, 3, 3)),
    "groups": (lambda b, x, w: b.conv2d(b.resize(x, scale=2), w, groups=2), (1, 16, 4, 4), (8, 8, 3, 3)),
    "one element": (lambda b, x, w: b.conv2d(b.resize(x, scale=2), w), (1, 8, 4, 4), (8, 8, 1, 1)),
    "windows outside": (lambda b, x, w: b.conv2d(b.resize(x, scale=2), w, padding=3), (1, 8, 4, 4), (8, 8, 3, 3)),
    "few channels in": (lambda b, x, w: b.conv2d(b.resize(x, scale=2), w), (1, 7, 4, 4), (8, 7, 3, 3)),
    "few channels out": (lambda b, x, w: b.conv2d(b.resize(x, scale=2), w), (1, 8, 4, 4), (7, 8, 3, 3)),
    "joined in rows": (lambda b, x, w: b.conv2d(b.concat(*[b.resize(x, scale=2)] * 2, axis=2), w), (1, 8, 4, 4), (8, 8, 3, 3)),
}


@pytest.mark.parametrize("case", UNTOUCHED)
def test_other_convolutions_stay(case: str) -> None:
    graph = graph_of(*UNTOUCHED[case])
    assert fold_upsampling(graph) == graph


@pytest.mark.parametrize("dtype", [DType.I32, DType.F16])
def test_other_element_types_stay(dtype: DType) -> None:
    graph = graph_of(lambda b, x, w: b.conv2d(doubled(b, x), w), (1, 8, 4, 4), (8, 8, 3, 3), dtype=dtype)
    assert fold_upsampling(graph) == graph


def loss_of(b: Builder, x: Value, s: Value, w: Value) -> tuple[Value, Value, Value]:
    """A loss, and the doubled and the joined image on the way to it."""
    large = doubled(b, b.tanh(x))
    both = b.concat(large, s, axis=1)
    return b.sum(b.sin(b.conv2d(both, w, padding=1))), large, both


SHAPES = ((2, 8, 3, 4), (2, 3, 6, 8), (8, 11, 3, 3))


def test_programs_with_gradients_stay() -> None:
    def make(b: Builder, *given: Value) -> tuple[Value, ...]:
        loss = loss_of(b, *given)[0]
        return (loss, *b.grad(loss, *given))

    graph = graph_of(make, *SHAPES)
    assert fold_upsampling(graph) is graph
    assert fold_upsampling(graph_of(lambda b, *given: loss_of(b, *given)[0], *SHAPES)) is not graph


def test_four_ninths_of_the_products_and_weights_summed_once() -> None:
    b = Builder()
    values = [b.input(DType.F32, *shape) for shape in ((name("N"), 16, 24, 24), (16, 16, 1, 1), (32, 16, 3, 3))]
    x, first, w = values
    result = b.relu(b.conv2d(doubled(b, b.conv2d(x, first)), w, padding=1))
    ports = tuple(Port(PortKind.BUFFER if n else PortKind.INPUT, f"x{n}") for n in range(3))
    program = transform(Program("p", b.graph(result), ports, (Port(PortKind.RESULT, "y"),), "N", 64), {})[0]
    lowered = lower(program)
    parts = [s.program for s in lowered.steps if s.label == "conv2d_input_grad" and isinstance(s.program, Contraction)]
    assert sum(c.flops(1) for c in parts) == 4 * 2 * 16 * 32 * 48 * 48
    early = prologue_steps(lowered)
    late = [step for number, step in enumerate(lowered.steps) if number not in early]
    labels = {step.label.removesuffix(" border") for step in late}
    assert early and labels == {"conv2d", "conv2d_input_grad"}, "no copies, no sums of weights"


NET = """dim N <= 4
block Net(x: float[N, C, H, W]) -> float[N, 8, 2 * H, 2 * W] {
  skip = x |> Conv2D[3, 3, padding = 1]
  small = skip |> MaxPool2D[2] |> Conv2D[8, 3, padding = 1] |> tanh
  large = concat[axis = 1](Upsample2D(small), skip) |> Conv2D[8, 3, padding = 1] |> tanh
  return large |> Upsample2D |> Conv2D[8, 3, padding = 1]
}
model Grow = Net
train grow {
  data x: f32[N, 1, 4, 6], y: f32[N, 8, 8, 12] from "npz:pairs.npz"
  minimize mse(Grow(x), y) over Grow with SGD[1e-3]
  epochs 1  batch 2
}
"""


def test_recipes_evaluate_what_is_folded() -> None:
    module = elaborate(NET, recipe="grow").module
    for program, folded in (("train", 0), ("evaluate", 2)):
        stages = transform(module.programs[program], {}, module.buffers)[1]
        after = next(s.graph for s in stages if s.name == "upsampling")
        assert kinds(after).count("conv_transpose2d") == folded and kinds(after).count("resize") == 2 - folded


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as pool:
        yield pool


def test_kernels_compute_it_with_the_same_bits_at_any_width(workers: Workers) -> None:
    def make(b: Builder, x: Value, s: Value, w: Value) -> Value:
        value: Value = b.relu(b.conv2d(b.concat(doubled(b, x), s, axis=1), w, padding=1))
        return value

    shapes = ((name("N"), 8, 5, 7), (name("N"), 3, 10, 14), (9, 11, 3, 3))
    made = small([(DType.F32, shape) for shape in shapes], make, batch=True)
    given = [RNG.normal(size=sizes(shape)).astype(np.float32) for shape in shapes]
    found = made.run(workers, given, width=16, threads=2)["y0"]
    wanted = made.interpreted([a.astype(np.float64) for a in given])["y0"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())
    np.testing.assert_array_equal(made.run(workers, given, width=4, threads=3)["y0"], found)
