"""Each operator as nodes of ONNX: `TABLE[kind](net, op, *names)` adds nodes for the inputs of these names and gives the results' names.

Sizes are bound. What is not here but has an `expand` is written out with other operators first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dslc.interchange.recurrent import RECURRENT
from dslc.interchange.refusal import refused
from dslc.interchange.torch_operators import whole_scale
from dslc.ir.graph import Op
from dslc.ir.operator import OPERATORS
from dslc.ir.types import DType
from dslc.ops.shapes import ints, normal_axes, normal_axis
from dslc.ops.windows import several, sides

if TYPE_CHECKING:
    from dslc.interchange.onnx_export import Network

NAME = "ONNX"
Entry = Callable[..., Any]
TABLE: dict[str, Entry] = {}

_SAME = """
abs acos acosh add and asin asinh atan atanh ceil cos cosh eq erf exp floor ge gt identity isinf isnan le log lt matmul maximum minimum
mish mul neg not or pow reciprocal relu round selu sigmoid sign sin sinh softplus softsign sqrt sub tan tanh where xor div
"""


def entry(*kinds: str) -> Callable[[Entry], Entry]:
    """Enters what adds the nodes of these operators."""

    def keep(function: Entry) -> Entry:
        TABLE.update(dict.fromkeys(kinds, function))
        return function

    return keep


@entry(*_SAME.split())
def _same(net: Network, op: Op, *xs: str) -> str:
    name = OPERATORS[op.kind].onnx
    if op.kind == "div" and not op.output.type.dtype.floating:
        raise refused(op, NAME, "it divides whole numbers")
    assert name is not None
    return net.node(name, *xs)


@entry("stop_gradient")
def _through(net: Network, op: Op, x: str) -> str:
    return net.node("Identity", x)


@entry("ne")
def _ne(net: Network, op: Op, x: str, y: str) -> str:
    return net.node("Not", net.node("Equal", x, y))


@entry("rsqrt")
def _rsqrt(net: Network, op: Op, x: str) -> str:
    return net.node("Reciprocal", net.node("Sqrt", x))


@entry("square")
def _square(net: Network, op: Op, x: str) -> str:
    return net.node("Mul", x, x)


@entry("silu")
def _silu(net: Network, op: Op, x: str) -> str:
    return net.node("Mul", x, net.node("Sigmoid", x))


@entry("leaky_relu")
def _leaky_relu(net: Network, op: Op, x: str) -> str:
    return net.node("LeakyRelu", x, alpha=float(op.attr("slope")))


@entry("elu", "celu")
def _elu(net: Network, op: Op, x: str) -> str:
    return net.node(op.kind.capitalize(), x, alpha=float(op.attr("alpha")))


@entry("gelu")
def _gelu(net: Network, op: Op, x: str) -> str:
    return net.node("Gelu", x, approximate="tanh" if op.attr("approximate") else "none")


@entry("hard_swish")
def _hard_swish(net: Network, op: Op, x: str) -> str:
    return net.node("HardSwish", x)


@entry("hard_sigmoid")
def _hard_sigmoid(net: Network, op: Op, x: str) -> str:
    return net.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@entry("clip", "relu6", "hard_tanh")
def _clip(net: Network, op: Op, x: str) -> str:
    low, high = (0.0, 6.0) if op.kind == "relu6" else (op.attr("low"), op.attr("high"))
    dtype = op.output.type.dtype
    return net.node("Clip", x, *("" if bound is None else net.constant(bound, dtype) for bound in (low, high)))


@entry("cast")
def _cast(net: Network, op: Op, x: str) -> str:
    return net.node("Cast", x, to=net.type(op.attr("dtype")))


@entry("full", "zeros", "ones")
def _full(net: Network, op: Op) -> str:
    value = op.attr("value") if op.kind == "full" else float(op.kind == "ones")
    return net.constant(np.full(op.output.type.shape, value), op.output.type.dtype)


@entry("extent", "size")
def _extent(net: Network, op: Op, *xs: str) -> str:
    return net.constant(op.attr("size") if op.kind == "extent" else op.inputs[0].type.size, op.output.type.dtype)


@entry("iota")
def _iota(net: Network, op: Op) -> str:
    return net.constant(np.arange(op.attr("size")), op.output.type.dtype)


@entry("constant")
def _constant(net: Network, op: Op) -> str:
    data = op.attr("data")
    return net.constant(np.frombuffer(data.data, data.type.dtype.memory).reshape(data.type.shape), data.type.dtype)


# --------------------------------------------------------------------------------------- contractions and convolutions


@entry("linear")
def _linear(net: Network, op: Op, x: str, w: str, b: str) -> str:
    if op.inputs[0].type.rank == 2:
        return net.node("Gemm", x, w, b)
    return net.node("Add", net.node("MatMul", x, w), b)


@entry("einsum")
def _einsum(net: Network, op: Op, *xs: str) -> str:
    if "..." in op.attr("equation") and len({value.type.rank for value in op.inputs}) > 1:
        raise refused(op, NAME, "the dots stand for axes of different number")
    return net.node("Einsum", *xs, equation=op.attr("equation"))


def _pads(op: Op, rank: int) -> list[int]:
    around = sides(op.attr("padding"), rank)
    return [before for before, _ in around] + [after for _, after in around]


@entry("conv1d", "conv2d", "conv3d")
def _conv(net: Network, op: Op, *xs: str) -> str:
    rank = int(op.kind[4])
    return net.node(
        "Conv", *xs, pads=_pads(op, rank), group=op.attr("groups"),
        strides=several(op.attr("stride"), "stride", rank), dilations=several(op.attr("dilation"), "dilation", rank),
    )  # fmt: skip


@entry("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(net: Network, op: Op, *xs: str) -> str:
    rank = int(op.kind[14])
    return net.node(
        "ConvTranspose", *xs, pads=_pads(op, rank), group=op.attr("groups"),
        strides=several(op.attr("stride"), "stride", rank), dilations=several(op.attr("dilation"), "dilation", rank),
        output_padding=several(op.attr("output_padding"), "output_padding", rank, 0),
    )  # fmt: skip


# --------------------------------------------------------------------------------------------- pooling, images, norms


def _window(op: Op, rank: int) -> dict[str, Any]:
    if not op.output.type.dtype.floating:
        raise refused(op, NAME, "it pools whole numbers")
    window = several(op.attr("window"), "window", rank)
    stride = window if op.attr("stride") is None else several(op.attr("stride"), "stride", rank)
    return {"kernel_shape": window, "strides": stride, "pads": _pads(op, rank)}


@entry("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(net: Network, op: Op, x: str) -> str:
    return net.node("MaxPool", x, ceil_mode=int(op.attr("ceil_mode")), **_window(op, int(op.kind[8])))


@entry("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(net: Network, op: Op, x: str) -> str:
    return net.node("AveragePool", x, count_include_pad=int(op.attr("count_include_pad")), **_window(op, int(op.kind[8])))


@entry("global_avg_pool")
def _global_avg_pool(net: Network, op: Op, x: str) -> str:
    return net.reshape(net.node("GlobalAveragePool", x), op.output.type.shape)


@entry("resize")
def _resize(net: Network, op: Op, x: str) -> str:
    if not whole_scale(op):
        raise refused(op, NAME, "its scale gives no whole size")
    sizes = net.constant(np.array(op.output.type.shape), DType.I64)
    mode = op.attr("mode")
    if mode == "nearest":
        return net.node("Resize", x, "", "", sizes, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    form = "align_corners" if op.attr("align_corners") else "half_pixel"
    return net.node("Resize", x, "", "", sizes, mode={"bilinear": "linear", "bicubic": "cubic"}[mode], coordinate_transformation_mode=form)


@entry("batch_norm")
def _batch_norm(net: Network, op: Op, *xs: str) -> str:
    return net.node("BatchNormalization", *xs, epsilon=op.attr("eps"))


@entry("layer_norm")
def _layer_norm(net: Network, op: Op, *xs: str) -> str:
    return net.node("LayerNormalization", *xs, epsilon=op.attr("eps"))


@entry("local_response_norm")
def _local_response_norm(net: Network, op: Op, x: str) -> str:
    if op.output.type.rank != 4 or op.attr("size") % 2 == 0:
        raise refused(op, NAME, "ONNX Runtime takes images and windows of odd size")
    return net.node("LRN", x, size=op.attr("size"), alpha=op.attr("alpha"), beta=op.attr("beta"), bias=op.attr("k"))


@entry("softmax", "log_softmax")
def _softmax(net: Network, op: Op, x: str) -> str:
    return net.node({"softmax": "Softmax", "log_softmax": "LogSoftmax"}[op.kind], x, axis=op.attr("axis"))


# -------------------------------------------------------------------------------------------------- reductions, shapes


@entry("sum", "mean", "max", "min", "prod", "logsumexp", "norm")
def _reduction(net: Network, op: Op, x: str) -> str:
    axes = normal_axes(op.attr("axis"), op.inputs[0].type)
    name = OPERATORS[op.kind].onnx
    if op.inputs[0].type.dtype != op.output.type.dtype:
        x = net.node("Cast", x, to=net.type(op.output.type.dtype))
    if not axes and op.kind != "norm":
        return net.node("Identity", x)
    assert name is not None
    return net.node(name, x, net.constant(np.array(axes), DType.I64), keepdims=int(op.attr("keep")))


@entry("argmax", "argmin")
def _position(net: Network, op: Op, x: str) -> str:
    axis = op.attr("axis")
    if axis is None:
        x, axis = net.reshape(x, (-1,)), 0
    return net.reshape(net.node({"argmax": "ArgMax", "argmin": "ArgMin"}[op.kind], x, axis=axis, keepdims=1), op.output.type.shape)


@entry("cumsum")
def _cumsum(net: Network, op: Op, x: str) -> str:
    axis = net.constant(normal_axis(op.attr("axis"), op.inputs[0].type), DType.I64)
    if op.inputs[0].type.dtype != op.output.type.dtype:
        x = net.node("Cast", x, to=net.type(op.output.type.dtype))
    return net.node("CumSum", x, axis, exclusive=int(op.attr("exclusive")), reverse=int(op.attr("reverse")))


@entry("reshape", "flatten", "squeeze", "unsqueeze")
def _reshape(net: Network, op: Op, x: str) -> str:
    return net.reshape(x, op.output.type.shape)


@entry("transpose")
def _transpose(net: Network, op: Op, x: str) -> str:
    rank = op.output.type.rank
    if rank < 2:
        return net.node("Identity", x)
    axes = op.attr("axes") or tuple(reversed(range(rank)))
    return net.node("Transpose", x, perm=[axis % rank for axis in axes])


@entry("expand")
def _expand(net: Network, op: Op, x: str) -> str:
    return net.node("Expand", x, net.constant(np.array(op.attr("shape")), DType.I64))


@entry("concat")
def _concat(net: Network, op: Op, *xs: str) -> str:
    return net.node("Concat", *xs, axis=op.attr("axis"))


@entry("split")
def _split(net: Network, op: Op, x: str) -> list[str]:
    axis = normal_axis(op.attr("axis"), op.inputs[0].type)
    sizes = net.constant(np.array([value.type.shape[axis] for value in op.outputs]), DType.I64)
    return net.nodes("Split", (x, sizes), len(op.outputs), axis=axis)


@entry("tile")
def _tile(net: Network, op: Op, x: str) -> str:
    rank, old, times = op.output.type.rank, op.inputs[0].type.shape, op.attr("times")
    whole = net.reshape(x, (*(1,) * (rank - len(old)), *old))
    return net.node("Tile", whole, net.constant(np.array((*(1,) * (rank - len(times)), *times)), DType.I64))


@entry("slice")
def _slice(net: Network, op: Op, x: str) -> str:
    if op.output.type.rank == 0:
        return x
    rows = []
    for axis, (start, stop, step) in enumerate(zip(op.attr("starts"), op.attr("stops"), op.attr("steps"), strict=True)):
        chosen = range(ints(op.inputs[0].type.shape)[axis])[slice(start, stop, step)]
        rows.append((chosen.start, chosen.stop if chosen.stop >= 0 else np.iinfo(np.int64).min, axis, step))
    starts, stops, axes, steps = (net.constant(np.array(column), DType.I64) for column in zip(*rows, strict=True))
    return net.node("Slice", x, starts, stops, axes, steps)


@entry("pad")
def _pad(net: Network, op: Op, x: str) -> str:
    missing = (0,) * (op.output.type.rank - len(op.attr("low")))
    around = net.constant(np.array((*missing, *op.attr("low"), *missing, *op.attr("high"))), DType.I64)
    mode = op.attr("mode")
    return net.node("Pad", x, around, *([net.constant(op.attr("value"), op.output.type.dtype)] if mode == "constant" else []), mode=mode)


@entry("gather")
def _gather(net: Network, op: Op, table: str, index: str) -> str:
    return net.node("Gather", table, index, axis=op.attr("axis"))


@entry("take_along")
def _take_along(net: Network, op: Op, x: str, index: str) -> str:
    return net.node("GatherElements", x, index, axis=op.attr("axis"))


@entry("top_k")
def _top_k(net: Network, op: Op, x: str) -> list[str]:
    return net.nodes(
        "TopK", (x, net.constant(np.array([op.attr("k")]), DType.I64)), 2, axis=op.attr("axis"), largest=int(op.attr("largest"))
    )


@entry("depth_to_space")
def _depth_to_space(net: Network, op: Op, x: str) -> str:
    return net.node("DepthToSpace", x, blocksize=op.attr("block"), mode=op.attr("order").upper())


# What ONNX calls them, and the places in its order of the gates i f g o and r z n.
_RECURRENT = {"lstm": ("LSTM", (0, 3, 1, 2)), "gru": ("GRU", (1, 0, 2)), "rnn_tanh": ("RNN", (0,)), "rnn_relu": ("RNN", (0,))}


@entry(*RECURRENT)
def _recurrent(net: Network, op: Op, x: str, *rest: str) -> list[str]:
    """Time stands first there, then directions."""
    name, order = _RECURRENT[op.kind]
    states, axis = 2 if op.kind == "lstm" else 1, op.attr("axis")
    dtype, width = op.inputs[0].type.dtype, ints(op.inputs[1].type.shape)[1]
    first = net.constant([0], DType.I64)

    def gates(value: str) -> str:
        sizes = net.constant([width] * len(order), DType.I64)
        parts = net.nodes("Split", (value, sizes), len(order), axis=-1)
        return net.node("Concat", *(parts[n] for n in order), axis=-1)

    weights = [net.node("Unsqueeze", net.node("Transpose", gates(w), perm=(1, 0)), first) for w in rest[states : states + 2]]
    zeros = net.constant(np.zeros(len(order) * width), dtype)
    biases = [gates(b) for b in rest[states + 2 :]] or [zeros, zeros]
    bias = net.node("Unsqueeze", net.node("Concat", *biases, axis=0), first)
    begun = [net.node("Unsqueeze", h, first) for h in rest[:states]]
    settings: dict[str, dict[str, Any]] = {"gru": {"linear_before_reset": 1}, "rnn_relu": {"activations": ["Relu"]}}
    x = x if axis == 0 else net.node("Transpose", x, perm=(1, 0, 2))
    direction = "reverse" if op.attr("reverse") else "forward"
    more = {"hidden_size": width, "direction": direction, **settings.get(op.kind, {})}
    y, *last = net.nodes(name, (x, *weights, bias, "", *begun), 1 + states, **more)
    results = [net.node("Squeeze", h, first) for h in last]
    if len(op.outputs) > states:
        y = net.node("Squeeze", y, net.constant([1], DType.I64))
        results.append(y if axis == 0 else net.node("Transpose", y, perm=(1, 0, 2)))
    return results
