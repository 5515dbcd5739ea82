"""Loops as other libraries run them: recurrent layers as theirs, others as their own loops, against dslc's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dslc
from dslc.interchange.recurrent import RECURRENT
from dslc.interchange.torch_network import bound, inference, translated
from dslc.interchange.torch_operators import NAME, TABLE
from dslc.interpret import interpret
from dslc.ir.module import PortKind, Program
from tests.frontend.from_text import made

Array = np.ndarray[Any, Any]
LAYERS = {
    "LSTM[5](x).out": ["lstm"],
    "LSTM[5, layers = 2, bidirectional = true](x).h": ["lstm"] * 4,
    'LSTM[5, form = "keras", forget = 1.0](x).c': ["scan"],
    "GRU[5](x).out": ["gru"],
    'GRU[5, form = "keras"](x).h': ["scan"],
    "RNN[5](x).out": ["rnn_tanh"],
    "RNN[5, relu, bidirectional = true](x).out": ["rnn_relu"] * 2,
}
SEQUENCE = "f32[N, 4, 3]"
LOOPS = {
    "no layer of theirs": (
        f"({SEQUENCE}, f32[N, 3])",
        "return scan[axis = 1, reverse = true] v in x carry h = zeros[N, 3] { h = 0.5 * h + v  yield h  return h }",
    ),
    "numbers, no carries": ("f32[4, N, 3]", "return scan t in 0..4 { yield x[:, t] * (1.0 + t) }"),
    "a loop in a loop": (
        SEQUENCE,
        """
        return scan[axis = 1] v in x carry h = zeros[N, 3] {
          h = scan k in 0..2 carry h = h { h = tanh(h + v) * (1.0 + k)  return h }
          yield h * 2.0
        }""",
    ),
}


def layer(block: str) -> str:
    """A model of one layer."""
    width = 10 if "bidirectional" in block else 5
    return model(f"f32[N, 4, {width}]" if block.endswith(".out") else f"f32[N, {width}]", f"return {block}")


def model(result: str, body: str) -> str:
    return f"dim N <= 8\nmodel M(x: {SEQUENCE}) -> {result} {{ {body} }}"


TEXTS = {block: layer(block) for block in LAYERS} | {name: model(*parts) for name, parts in LOOPS.items()}


def program(text: str) -> tuple[Program, dict[str, Array], dict[str, Array]]:
    """A bound program, its weights and its input."""
    elaborated = made(text)
    rng = np.random.default_rng(0)
    weights = {path: rng.standard_normal(b.type.shape).astype(np.float32) for path, b in elaborated.module.buffers.items()}
    return bound(elaborated.module.programs["infer"], 2), weights, {"x": rng.standard_normal((2, 4, 3)).astype(np.float32)}


def reference(program: Program, weights: dict[str, Array], inputs: dict[str, Array]) -> list[Array]:
    found = {**weights, **inputs}
    assert all(port.kind in (PortKind.INPUT, PortKind.BUFFER) for port in program.inputs)
    return interpret(program.graph, [found[port.name] for port in program.inputs])


@pytest.mark.parametrize("block", LAYERS)
def test_layers_are_found(block: str) -> None:
    net, _, _ = program(layer(block))
    kinds = [op.kind for op in translated(net.graph, TABLE, NAME).ops]
    assert [kind for kind in kinds if kind in (*RECURRENT, "scan")] == LAYERS[block]


def test_products_with_a_bias_are_found_beside_loops_and_in_them() -> None:
    loop = "scan[axis = 1] v in x carry h = zeros[N, 3] { h = step(v - h)  return h }"
    text = model("f32[N, 2]", f"param step = Dense[3, relu]  return Dense[2]({loop})")
    graph = translated(program(text)[0].graph, TABLE, NAME)
    (scan,) = (op for op in graph.ops if op.kind == "scan")
    assert "linear" in {op.kind for op in graph.ops} and "linear" in {op.kind for op in scan.regions[0].ops}


@pytest.mark.parametrize("which", TEXTS)
def test_torch(which: str) -> None:
    torch = pytest.importorskip("torch")
    net, weights, inputs = program(TEXTS[which])
    found = inference(torch, net, weights, inputs, False)()
    for value, wanted in zip(found.values(), reference(net, weights, inputs), strict=True):
        np.testing.assert_allclose(value.numpy(), wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("which", TEXTS)
def test_onnx(which: str) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from dslc.interchange.onnx_export import export

    net, weights, inputs = program(TEXTS[which])
    session = runtime.InferenceSession(export(net, weights), providers=["CPUExecutionProvider"])
    for value, wanted in zip(session.run(None, inputs), reference(net, weights, inputs), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.peer
@pytest.mark.parametrize("length", [8, 512])
def test_a_step_of_an_lstm_is_that_of_pytorch(length: int) -> None:
    """Weights after a step of plain descent, in f64, of one that reads the last state and all of them."""
    torch = pytest.importorskip("torch")
    text = f"""
      dim N <= 8
      block Reader[D: int](x: f32[N, {length}, 3]) -> f32[N, D] {{ y, h, c = LSTM[D](x) as cell  return h + c * mean[axis = 1](y) }}
      model Net = Reader[5]
      train t {{
        data x: f32[N, {length}, 3], wanted: f32[N, 5] from "npz:none.npz"
        minimize mse(Net(x), wanted) over Net with SGD[1.0]
        epochs 1  batch 4
      }}"""
    rng = np.random.default_rng(0)
    x, wanted = rng.standard_normal((4, length, 3)), rng.standard_normal((4, 5))
    trainer = dslc.Trainer(text, data=(x, wanted), precision="f64", save=False)
    names = {"w_in": "weight_ih_l0", "w_h": "weight_hh_l0", "b_in": "bias_ih_l0", "b_h": "bias_hh_l0"}
    layer = torch.nn.LSTM(3, 5, batch_first=True).double()
    for name, array in trainer.weights.items():
        getattr(layer, names[name.split(".")[-1]]).data = torch.from_numpy(array.T.copy())
    y, (h, c) = layer(torch.from_numpy(x))
    torch.nn.functional.mse_loss(h[0] + c[0] * y.mean(1), torch.from_numpy(wanted)).backward()
    trainer.train_on(x=x, wanted=wanted)
    for name, array in trainer.weights.items():
        parameter = getattr(layer, names[name.split(".")[-1]])
        np.testing.assert_allclose(array.T, (parameter - parameter.grad).detach().numpy(), rtol=1e-9, atol=1e-12)
