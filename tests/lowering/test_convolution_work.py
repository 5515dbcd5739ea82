"""What convolution and pooling do after lowering: no products with zeros, lanes over channels, no conditions away from borders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dslc.compiler import transform
from dslc.ir.builder import Builder
from dslc.ir.dims import name
from dslc.ir.graph import Value
from dslc.ir.loops import ClampedLoad, For, Load, LoopProgram, Select, Stmt, Store
from dslc.ir.module import Port, PortKind, Program
from dslc.ir.types import DType
from dslc.lowering.contraction import Contraction
from dslc.lowering.indices import walk
from dslc.lowering.lower import lower
from dslc.lowering.steps import Lowered
from dslc.lowering.tiling import plan
from dslc.transforms.autodiff import gradients

N = name("N")


def lowered(make: Callable[..., tuple[Value, ...]], image: tuple[Any, ...], *weights: tuple[int, ...]) -> Lowered:
    """A program of an image and weights, which are buffers."""
    b = Builder()
    values = [b.input(DType.F32, *shape) for shape in (image, *weights)]
    outs = make(b, *values)
    ports = tuple(Port(PortKind.BUFFER if n else PortKind.INPUT, f"x{n}") for n in range(len(values)))
    results = tuple(Port(PortKind.RESULT, f"y{n}") for n in range(len(outs)))
    return lower(transform(Program("p", b.graph(*outs), ports, results, "N", 64), {})[0])


def contractions(program: Lowered, label: str) -> list[Contraction]:
    return [s.program for s in program.steps if s.label == label and isinstance(s.program, Contraction)]


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (7, 2, 3), (2, 2, 0), (4, 2, 1), (5, 3, 2)])
def test_the_gradient_of_a_strided_convolution_multiplies_no_zeros_between_elements(kernel: int, stride: int, padding: int) -> None:
    """Each window's elements are multiplied once: what is beyond the convolution's own products is the halo's."""
    size, channels = 24, 16
    windows = (size + 2 * padding - kernel) // stride + 1

    def train(b: Builder, x: Value, w0: Value, w: Value) -> tuple[Value, ...]:
        y = b.conv2d(b.conv2d(x, w0), w, stride=stride, padding=padding)
        return gradients(b, b.sum(b.mul(y, y)), (w0,))

    parts = contractions(
        lowered(train, (N, channels, size, size), (channels, channels, 1, 1), (channels, channels, kernel, kernel)), "conv2d_input_grad"
    )
    assert len(parts) == stride * stride
    forward = 2 * channels * channels * (windows * kernel) ** 2
    # Along each axis every element of the result meets kernel / stride elements, rounded up or down by its phase.
    met = sum(len([k for k in range(kernel) if (h + padding - k) % stride == 0]) for h in range(size))
    assert sum(part.flops() for part in parts) == 2 * channels * channels * met**2
    assert sum(part.flops() for part in parts) < 1.3 * forward


def test_a_shortcut_of_one_by_one_joins_the_first_phase() -> None:
    def train(b: Builder, x: Value, w0: Value, w: Value, shortcut: Value) -> tuple[Value, ...]:
        h = b.relu(b.conv2d(x, w0))
        y = b.add(b.conv2d(h, w, stride=2, padding=1), b.conv2d(h, shortcut, stride=2))
        return gradients(b, b.sum(b.mul(y, y)), (w0,))

    program = lowered(train, (N, 16, 8, 8), (16, 16, 1, 1), (16, 16, 3, 3), (16, 16, 1, 1))
    small, *parts = sorted(contractions(program, "conv2d_input_grad"), key=lambda c: len(c.buffers) > 3)
    assert len(small.buffers) == 3 and [len(c.buffers) for c in parts] == [5, 4, 4, 4], "the mask, and in one phase the shortcut"


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_lanes_run_over_channels(stride: int) -> None:
    def train(b: Builder, x: Value, w0: Value, w: Value) -> tuple[Value, ...]:
        h = b.relu(b.conv2d(x, w0))
        y = b.clip(b.conv2d(h, w, stride=stride, padding=1, groups=32), low=0.0, high=6.0)
        y = b.conv2d(y, w0)
        return gradients(b, b.sum(b.mul(y, y)), (w0, w))

    program = lowered(train, (N, 32, 14, 14), (32, 32, 1, 1), (32, 1, 3, 3))
    found = [c for label in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad") for c in contractions(program, label)]
    depthwise = [c for c in found if any(a.a == 1 and a.b and a.c is not None for a in c.axes)]
    assert len(depthwise) == (3 if stride == 1 else 6)
    for width in (16, 8, 4):
        for c in depthwise:
            s = plan(c, width)
            assert s.paired and s.lanes is not None and s.lanes.axis.a == 1 and s.lanes.axis.extent == 32


def innermost(statements: tuple[Stmt, ...], points: int = 1) -> Iterator[tuple[int, Store]]:
    """(iterations, store) of every store; the batch counts as one."""
    for s in statements:
        if isinstance(s, For):
            yield from innermost(s.body, points * (s.extent if isinstance(s.extent, int) else 1))
        else:
            assert isinstance(s, Store)
            yield points, s


def test_windows_away_from_the_border_have_no_conditions() -> None:
    def pool(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
        return (b.conv2d(b.max_pool2d(b.conv2d(x, w), window=3, stride=2, padding=1), w),)

    program = lowered(pool, (N, 16, 32, 32), (16, 16, 1, 1))
    (kernel,) = (s.program for s in program.steps if s.label == "max_pool2d")
    assert isinstance(kernel, LoopProgram)
    stores = list(innermost(kernel.body))
    free = sum(points for points, s in stores if not any(isinstance(e, Select) for e in walk(s.value)))
    assert sum(points for points, _ in stores) == 16 * 16 * 16 and free == 16 * 16 * 16


def test_the_gradient_of_overlapping_windows_finds_each_maximum_once() -> None:
    def train(b: Builder, x: Value, w: Value) -> tuple[Value, ...]:
        y = b.conv2d(b.max_pool2d(b.conv2d(x, w), window=3, stride=2, padding=1), w)
        return gradients(b, b.sum(b.mul(y, y)), (w,))

    program = lowered(train, (N, 16, 32, 32), (16, 16, 1, 1))
    (kernel,) = (s.program for s in program.steps if "max_pool2d_scatter" in s.label)
    assert isinstance(kernel, LoopProgram)
    places = [b for b, dtype in enumerate(kernel.buffers) if dtype == DType.U8]
    stores = list(innermost(kernel.body))
    assert len(places) == 1 and sum(points for points, s in stores if s.buffer in places) == 16 * 16 * 16, "once a window"
    read = {e.buffer for _, s in stores if s.buffer not in places for e in walk(s.value) if isinstance(e, Load | ClampedLoad)}
    assert len(read) == 2 and read > set(places), "the places and dy, not the image"
