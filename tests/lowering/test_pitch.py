"""Rows that lie a large power of two apart are padded where products sum over them, and what is computed stays the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import dslc
from dslc import compiler
from dslc.backends.cpu.build import Workers
from dslc.compiler import transform
from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.types import DType
from dslc.lowering.layout import channels_last, row_major
from dslc.lowering.pitch import padded_pixels, padded_rows
from dslc.transforms.autodiff import gradients
from tests.backends.small_programs import small
from tests.training.small_recipes import DATA, bits, recipe, trained

N = dims.name("N")
CROWDED, LOOSE = 512, 500  # elements of a row: 2 KiB, and not


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as pool:
        yield pool


def layers(b: Builder, x: Value, first: Value, second: Value) -> tuple[Value, ...]:
    hidden = b.tanh(b.matmul(x, first))
    y = b.matmul(hidden, second)
    return y, *gradients(b, b.sum(b.mul(y, y)), (first, second))


@pytest.mark.parametrize(("width", "padded"), [(CROWDED, True), (LOOSE, False)])
def test_what_gradients_of_weights_sum_over_is_padded(width: int, padded: bool) -> None:
    made = small([(DType.F32, (N, 24)), (DType.F32, (24, width)), (DType.F32, (width, 8))], layers, batch=True)
    graph = transform(made.program, {})[0].graph
    pitches = {layout.pitch for op in graph.ops for v in op.outputs if (layout := padded_rows(graph.uses(), v)) is not None}
    assert pitches == ({width + 16} if padded else set())


def test_what_leaves_the_program_is_dense() -> None:
    made = small([(DType.F32, (N, 24)), (DType.F32, (24, CROWDED))], lambda b, x, w: (b.tanh(b.matmul(x, w)),), batch=True)
    graph = transform(made.program, {})[0].graph
    assert all(padded_rows(graph.uses(), v) is None for op in graph.ops for v in op.outputs)


def test_gradients_through_padded_rows(workers: Workers) -> None:
    made = small([(DType.F32, (N, 24)), (DType.F32, (24, CROWDED)), (DType.F32, (CROWDED, 8))], layers, batch=True)
    rng = np.random.default_rng(1)
    for batch in (1, 5, 8):
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((batch, 24), (24, CROWDED), (CROWDED, 8))]
        got, want = made.run(workers, arrays), made.interpreted(arrays)
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, rtol=3e-5, atol=3e-5 * abs(array).max())


WIDE = """
dim N <= 256
model Net(x: f32[N, 6]) -> f32[N, 3] {
  h = x |> Dense[64, tanh] as body
  param w: f32[64, 512] ~ normal[std = 0.1]
  param loose: f32[64, 500] ~ normal[std = 0.1]
  y = Dense[3](concat[axis = 1](relu(h @ w), relu(h @ loose))) as head
  return y
}
"""
STEPS = recipe("AdamW[1e-2], clip = 1.0, ema = 0.9", model=WIDE)


def pitches(trainer: dslc.Trainer) -> dict[str, int]:
    return {p.name: p.pitch for p in trainer._executable.plan.persistent if p.pitch}


def test_parameters_that_are_trained_are_padded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In memory alone: whoever reads or saves them sees dense arrays with the same bits."""
    padded = trained(STEPS, width=8, threads=2)
    assert pitches(padded) == {"Net.w": 528}
    monkeypatch.setattr(compiler, "padded_parameters", lambda programs, parameters: {})
    dense = trained(STEPS)
    assert pitches(dense) == {} and bits(padded) == bits(dense)
    assert padded.weights["Net.w"].flags.c_contiguous
    for name, trainer in (("padded", padded), ("dense", dense)):
        trainer.save_weights(tmp_path / name)
    files = [load_file(tmp_path / name) for name in ("padded", "dense")]
    assert all(files[0][name].tobytes() == array.tobytes() for name, array in files[1].items()) and files[0].keys() == files[1].keys()


@pytest.mark.parametrize(
    "reader",
    [
        "mean(gather(w, iota[64, dtype = i64]))",  # rows of a table
        "mean(reshape[32768](w))",
        "mean(flip[axis = 1](2.0 * w))",  # behind what goes element by element
    ],
)
def test_what_a_program_needs_dense_is_dense(reader: str) -> None:
    assert pitches(dslc.Trainer(STEPS.replace("return y\n", f"return y + {reader}\n"), data=DATA, save=False)) == {}


def test_what_is_only_read_is_dense() -> None:
    net = dslc.compile(WIDE)
    assert not any(p.pitch for p in net._executable.plan.persistent)


# ---- pixels of images


@pytest.mark.parametrize(
    ("channels", "width", "step", "padded"),
    [(512, 7, 1, True), (512, 14, 1, False), (512, 14, 2, True), (496, 7, 1, False), (256, 7, 1, False), (256, 14, 2, True), (2048, 7, 1, True)],
)
def test_pixels_of_many_channels_are_padded(channels: int, width: int, step: int, padded: bool) -> None:
    layout = channels_last((N, channels, 7, width), ((0, 0), (0, 0), (1, 1), (1, 1)))
    found = padded_pixels(layout, DType.F32, step)
    pixel = channels + 16 if padded else channels
    assert found.strides == (9 * (width + 2) * pixel, 1, (width + 2) * pixel, pixel)
    assert padded_pixels(found, DType.F32, step) == found


def test_a_row_is_no_image() -> None:
    layout = row_major((CROWDED,))
    assert padded_pixels(layout, DType.F32, 1) == layout


def test_half_as_many_bytes_are_not_crowded() -> None:
    layout = channels_last((N, 512, 7, 7))
    assert padded_pixels(layout, DType.F16, 1) == layout


def test_convolutions_of_padded_pixels(workers: Workers) -> None:
    def net(b: Builder, x: Value, first: Value, second: Value) -> tuple[Value, ...]:
        hidden = b.relu(b.conv2d(x, first, padding=1))
        y = b.conv2d(hidden, second, stride=2, padding=1)
        return y, b.mul(hidden, hidden), *gradients(b, b.sum(b.mul(y, y)), (first, second))

    made = small([(DType.F32, (N, 16, 6, 5)), (DType.F32, (CROWDED, 16, 3, 3)), (DType.F32, (16, CROWDED, 3, 3))], net, batch=True)
    rng = np.random.default_rng(2)
    for batch in (1, 3):
        shapes = ((batch, 16, 6, 5), (CROWDED, 16, 3, 3), (16, CROWDED, 3, 3))
        arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
        got, want = made.run(workers, arrays), made.interpreted(arrays)
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-4 * abs(array).max())
