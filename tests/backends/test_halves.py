"""f16 and bf16: conversions to the bit, programs that store them, and what `precision bf16` keeps in f32."""

from __future__ import annotations

import struct
from pathlib import Path

import lane_kernels
import numpy as np
import pytest
from lane_kernels import WIDTHS, load

import dslc
from dslc.diagnostics import DiagnosticError
from dslc.ir.halves import bf16_bits, bf16_values
from dslc.ir.types import DType

Array = np.ndarray


def convert(x: Array, source: str, target: str, result: type, width: int) -> Array:
    """Elements of one type, given as they lie in memory, as those of another."""
    padded = np.concatenate([x, np.zeros(-len(x) % 16, x.dtype)])
    out = np.zeros(len(padded), result)
    text = f"""
def kernel(row, thread, threads, batch):
    x, y = ptr_{source}(arg(row, 0)), ptr_{target}(arg(row, 1))
    for i in range(0, batch, W):
        vstore_{target}(y, i, to_{target}(vload_{source}(x, i)))
"""
    load(text, width)([padded, out], batch=len(padded))
    return out[: len(x)]


def nan_free(bits: Array, mantissa: int, exponent: int) -> Array:
    return (bits & (exponent | mantissa)) <= exponent


def hard_numbers() -> Array:
    """f32 of every sign, exponent and last bits, ties among them, subnormals, infinities and NaN."""
    rng = np.random.default_rng(0)
    high = np.arange(1 << 16, dtype=np.uint32) << 16
    low = np.concatenate([[0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], rng.integers(0, 1 << 16, 2)]).astype(np.uint32)
    mixed = [(high[:, None] | low).reshape(-1)]
    fine = np.arange(0x33000000 >> 10, 0x47900000 >> 10, dtype=np.uint32) << 10  # the whole range of f16, with its ties
    mixed += [fine, fine | 0x1000, fine | 0x1001, fine | 0x80000FFF]
    return np.concatenate(mixed).view(np.float32)


@np.errstate(all="ignore")
def reference_bf16(x: Array) -> Array:
    """Rounded to nearest even by comparing distances in exact arithmetic; not the bit trick of the code."""
    low = (x.view(np.uint32) >> 16).astype(np.uint32)
    exact = x.astype(np.float64)
    below, above = (low << 16).view(np.float32).astype(np.float64), ((low + 1) << 16).view(np.float32).astype(np.float64)
    largest = (low & 0x7FFF) == 0x7F7F  # its upper neighbour is as far as if the exponent went on
    above = np.where(largest, np.copysign(2.0**128, exact), above)
    up, down = np.abs(above - exact), np.abs(exact - below)
    return np.where((up < down) | ((up == down) & (low & 1 == 1)), low + 1, low).astype(np.uint16)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_bf16_and_f16_is_the_f32_that_equals_it(width: int) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    assert (convert(bits, "bf16", "f32", np.float32, width).view(np.uint32) == bits.astype(np.uint32) << 16).all()
    got, want = convert(bits, "f16", "f32", np.float32, width), bits.view(np.float16).astype(np.float32)
    assert lane_kernels.same(got, want)
    for name in ("f16", "bf16"):  # there and back
        back = convert(convert(bits, name, "f64", np.float64, width), "f64", name, np.uint16, width)
        quiet = {"f16": 0x0200, "bf16": 0x0040}[name]
        number = nan_free(bits, *{"f16": (0x03FF, 0x7C00), "bf16": (0x007F, 0x7F80)}[name])
        assert (back == np.where(number, bits, bits | quiet)).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_f32_is_rounded_to_nearest_even(width: int) -> None:
    x = hard_numbers()
    nan = np.isnan(x)
    with np.errstate(all="ignore"):
        f16 = x.astype(np.float16)
    assert lane_kernels.same(convert(x, "f32", "f16", np.uint16, width).view(np.float16), f16)
    bf16 = convert(x, "f32", "bf16", np.uint16, width)
    assert (bf16[~nan] == reference_bf16(x)[~nan]).all() and np.isnan(bf16_values(bf16[nan])).all()
    assert (bf16 == bf16_bits(x)).all()


@pytest.mark.parametrize("width", WIDTHS)
@np.errstate(all="ignore")
def test_f64_is_rounded_once(width: int) -> None:
    """Numbers a little beside a tie, which f32 takes for the tie."""
    halves = np.arange(1, 1 << 16, 7, dtype=np.uint16)
    ties16 = (halves.view(np.float16).astype(np.float64) + (halves + np.uint16(1)).view(np.float16).astype(np.float64)) / 2
    tiesb = (bf16_values(halves).astype(np.float64) + bf16_values(halves + np.uint16(1)).astype(np.float64)) / 2
    for name, ties in (("f16", ties16), ("bf16", tiesb)):
        ties = ties[np.isfinite(ties)]
        x = np.concatenate([ties, ties * (1 + 1e-12), ties * (1 - 1e-12), [1e300, -1e300, np.inf, np.nan, 1e-300, -0.0]])
        got = convert(x, "f64", name, np.uint16, width)
        want = x.astype(np.float16).view(np.uint16) if name == "f16" else bf16_bits(x)
        assert (got == want)[~np.isnan(x)].all()
        count = len(ties)
        assert (got[count : 2 * count] != got[2 * count : 3 * count]).all(), "both sides of a tie differ"


@pytest.mark.parametrize("width", WIDTHS)
def test_integers(width: int) -> None:
    x = np.array([0, 1, -1, 256, 257, 259, 65519, 65520, -70000, 2**31 - 1, -(2**31), 2049, 2051], np.int32)
    with np.errstate(over="ignore"):
        assert (convert(x, "i32", "f16", np.uint16, width).view(np.float16) == x.astype(np.float16)).all()
    assert (convert(x, "i32", "bf16", np.uint16, width) == bf16_bits(x)).all()
    bits = bf16_bits(np.array([0.5, -1.5, 300, 1e30, np.nan, -np.inf, 127.5, -0.0]))
    assert (convert(bits, "bf16", "u8", np.uint8, width) == [0, 0, 255, 255, 0, 0, 127, 0]).all()
    assert (convert(bits, "bf16", "i8", np.int8, width) == [0, -1, 127, 127, 0, -128, 127, 0]).all()


# ----------------------------------------------------------------------------------------------------- programs

MOVES = """
model Mix(x: bf16[N, 37], y: f16[N, 37]) -> (a: bf16[N, 37], b: f16[N, 37], c: f32[N, 37], d: bf16[37, N]) given N <= 8 {
  return x * 2.0 + 1.1, y * y, tanh(x) + y, transpose(x)
}
"""


def rounded(x: Array) -> Array:
    return bf16_values(bf16_bits(x))


def test_every_operation_rounds_once() -> None:
    """Also at every width: numbers of 16 bits are widened, computed with in f32 and rounded."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 37)).astype(np.float32), rng.normal(size=(3, 37)).astype(np.float16)
    exact = rounded(x)
    for width in WIDTHS:
        got = dslc.compile(MOVES, dims={"N": 3}, width=width)(x=x, y=y)
        np.testing.assert_array_equal(got["a"], rounded(rounded(exact * 2) + rounded(np.float32(1.1))))
        assert got["b"].dtype == np.float16 and got["a"].dtype == np.float32
        np.testing.assert_array_equal(got["b"], (y.astype(np.float32) ** 2).astype(np.float16))
        np.testing.assert_allclose(got["c"], rounded(np.tanh(exact)) + y, atol=2**-8)
        np.testing.assert_array_equal(got["d"], exact.T)


NET = """
precision bf16, norm = f32, loss = f32
dim N <= 64
model Net(x: float[N, 3, 8, 8]) -> float[N, 10] {
  return x |> Conv2D[8, 3, padding = 1] |> BatchNorm |> relu |> MaxPool2D[2] |> flatten |> LayerNorm |> Dense[32, gelu] |> Dense[10]
}
train t {
  data x: float[N, 3, 8, 8], label: i64[N] from "arrays"
  logits = Net(x)
  minimize cross_entropy(logits, label) over Net with AdamW[1e-2]
  metric accuracy = mean(argmax[axis = 1](logits) == label)
  epochs 2  batch 16  seed 1
}
"""
IMAGES = np.random.default_rng(1).normal(size=(5, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_a_network(precision: str) -> None:
    """Near f32; the same bits at every width and number of threads; right by the compiler's own check."""
    text = NET.replace("precision bf16", f"precision {precision}")
    net, exact = dslc.compile(text, verify=True), dslc.compile(NET.partition("\n")[0].join(["", ""]) + NET.partition("loss = f32")[2])
    want = exact(x=IMAGES)
    got = net(x=IMAGES)
    assert 0 < np.abs(got.astype(np.float32) - want).max() < 0.05 * np.abs(want).max()
    assert all(w.dtype == np.float32 for w in net.weights.values())
    for width, threads in ((8, 1), (4, 2)):
        np.testing.assert_array_equal(dslc.compile(text, width=width, threads=threads)(x=IMAGES), got)


def graph_of(text: str) -> list[tuple[str, str]]:
    """Each operation with the element type of its result."""
    from dslc.frontend import elaborate

    (program,) = elaborate(text, "p.dl", model="M").module.programs.values()
    return [(op.kind, op.outputs[0].type.dtype.value) for op in program.graph.ops]


def test_families_stay_in_f32() -> None:
    body = "\nmodel M(x: float[3, 8]) -> float[3, 8] { y = softmax[axis = 1](x)  return LayerNorm(y) }"
    plain = graph_of("precision bf16" + body)
    own = graph_of("precision bf16, softmax = f32, norm = f32" + body)
    rounds = [sum(kind == "cast" and dtype == "bf16" for kind, dtype in ops) for ops in (plain, own)]
    assert rounds[1] < rounds[0] and ("softmax", "f32") in own
    assert ("bf16" in {d for k, d in plain if k == "cast"}) and ("cast", "bf16") in own, "activations between are bf16"


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_gradients_flow_through_conversions(kind: str) -> None:
    text = f"""
model M(x: {kind}[4, 8], w: f32[8, 3]) -> f32[8, 3] {{
  loss = sum(tanh(x @ cast[{kind}](w)))
  return grad[w](loss)
}}
"""
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(4, 8)).astype(np.float16).astype(np.float32), rng.normal(size=(8, 3)).astype(np.float32)
    got = dslc.compile(text)(x=x, w=w)
    np.testing.assert_allclose(got, x.T @ (1 - np.tanh(x @ w) ** 2), atol=0.06)


# ----------------------------------------------------------------------------------------------------- arrays and files


def test_arrays_of_other_types_are_taken() -> None:
    net = dslc.compile("model M(x: bf16[4]) -> bf16[4] { return x }")
    values = np.array([1, 1.00390625, 1.01171875, -3e38], np.float64)
    np.testing.assert_array_equal(net(x=values), rounded(values.astype(np.float32)))
    ml_dtypes = pytest.importorskip("ml_dtypes")
    np.testing.assert_array_equal(net(x=values.astype(ml_dtypes.bfloat16)), rounded(values))


def test_weights_in_files_of_16_bits(tmp_path: Path) -> None:
    """A safetensors file with F16 and BF16 tensors, written by hand: NumPy has no bf16."""
    net = dslc.compile("precision bf16\nmodel M(x: float[1, 4]) -> float[1, 3] { return Dense[3](x) }")
    weight, bias = np.arange(12, dtype=np.float16).reshape(4, 3) / 8, np.array([1.0, -2.5, 3.140625], np.float32)
    weights = {name.rsplit(".", 1)[1]: name for name in net.weights}
    assert set(weights) == {"w", "b"}
    body = weight.tobytes() + bf16_bits(bias).tobytes()
    header = f'{{"{weights["w"]}":{{"dtype":"F16","shape":[4,3],"data_offsets":[0,24]}},'
    header += f'"{weights["b"]}":{{"dtype":"BF16","shape":[3],"data_offsets":[24,30]}}}}'
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + body)
    net.load_weights(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(net.weights[weights["w"]], weight.astype(np.float32))
    np.testing.assert_array_equal(net.weights[weights["b"]], bias)
    net.save_weights(tmp_path / "again.safetensors")
    other = dslc.compile("precision bf16\nmodel M(x: float[1, 4]) -> float[1, 3] { return Dense[3](x) }", seed=5)
    other.load_weights(tmp_path / "again.safetensors")
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(net(x=x), other(x=x))


def test_cuda_refuses_them() -> None:
    from dslc.api.cuda import cuda_code

    with pytest.raises(DiagnosticError, match="DL0810") as raised:
        cuda_code("model M(x: f16[4]) -> f16[4] { return x * x }")
    assert "f16" in str(raised.value.diagnostics[0].message)


def test_types_in_python() -> None:
    assert [d.value for d in DType if d.half] == ["f16", "bf16"] and DType.BF16.size == 2 and DType.BF16.numpy == np.float32
