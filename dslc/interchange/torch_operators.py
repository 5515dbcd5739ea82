"""Arithmetic, convolutions, pooling and norms as functions of PyTorch: `TABLE[kind](torch, op)` gives a function of tensors, with the attributes of `op` inside.

Sizes are bound. What is not here but has an `expand` is written out with other operators first (`torch_network.py`).
PyTorch is imported by whoever calls: `torch` is the module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dslc.interchange.recurrent import RECURRENT
from dslc.interchange.refusal import refused
from dslc.ir.graph import Op
from dslc.ir.types import DType
from dslc.ops.shapes import normal_axes
from dslc.ops.windows import several, sides

NAME = "PyTorch"
Entry = Callable[..., Any]
TABLE: dict[str, Entry] = {}


def dtype_of(torch: Any, dtype: DType) -> Any:
    """PyTorch's element type."""
    names = {
        "f16": "float16",
        "bf16": "bfloat16",
        "f32": "float32",
        "f64": "float64",
        "i8": "int8",
        "i32": "int32",
        "i64": "int64",
        "u8": "uint8",
    }
    return getattr(torch, names.get(dtype.value, dtype.value))


def entry(*kinds: str) -> Callable[[Entry], Entry]:
    """Enters what makes the function of these operators."""

    def keep(function: Entry) -> Entry:
        TABLE.update(dict.fromkeys(kinds, function))
        return function

    return keep


def _named(kind: str, name: str) -> None:
    """An operator whose operands are those of torch.name, all of them tensors."""
    TABLE[kind] = lambda torch, op: getattr(torch, name)


_SAME = """
abs acos acosh asin asinh atan atan2 atanh ceil cos cosh erf exp exp2 expm1 floor isfinite isinf isnan log log10 log1p log2
matmul maximum minimum neg pow reciprocal relu round rsqrt selu sigmoid sign sin sinh sqrt square tan tanh trunc where
eq ne lt le gt ge fmod
"""
for _kind in _SAME.split():
    _named(_kind, _kind)
for _kind, _name in {"add": "add", "sub": "sub", "mul": "mul", "and": "logical_and", "or": "logical_or", "xor": "logical_xor",
                     "not": "logical_not", "mod": "remainder", "floordiv": "floor_divide", "div": "true_divide"}.items():  # fmt: skip
    _named(_kind, _name)


def _functional(kind: str, name: str) -> None:
    TABLE[kind] = lambda torch, op: getattr(torch.nn.functional, name)


for _kind, _name in {"silu": "silu", "mish": "mish", "log_sigmoid": "logsigmoid", "softsign": "softsign", "relu6": "relu6",
                     "hard_sigmoid": "hardsigmoid", "hard_swish": "hardswish", "l1": "l1_loss", "mse": "mse_loss",
                     "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits"}.items():  # fmt: skip
    _functional(_kind, _name)


@entry("identity")
def _identity(torch: Any, op: Op) -> Entry:
    return lambda x: x


@entry("stop_gradient")
def _stop_gradient(torch: Any, op: Op) -> Entry:
    return lambda x: x.detach()


@entry("leaky_relu")
def _leaky_relu(torch: Any, op: Op) -> Entry:
    slope = op.attr("slope")
    return lambda x: torch.nn.functional.leaky_relu(x, slope)


@entry("elu", "celu")
def _elu(torch: Any, op: Op) -> Entry:
    alpha = op.attr("alpha")
    function = getattr(torch.nn.functional, op.kind)
    return lambda x: function(x, alpha)


@entry("gelu")
def _gelu(torch: Any, op: Op) -> Entry:
    form = "tanh" if op.attr("approximate") else "none"
    return lambda x: torch.nn.functional.gelu(x, approximate=form)


@entry("softplus")
def _softplus(torch: Any, op: Op) -> Entry:
    return lambda x: torch.nn.functional.softplus(x)


@entry("glu")
def _glu(torch: Any, op: Op) -> Entry:
    axis = op.attr("axis")
    return lambda x: torch.nn.functional.glu(x, axis)


@entry("hard_tanh")
def _hard_tanh(torch: Any, op: Op) -> Entry:
    low = op.attr("low")
    high = op.attr("high")
    return lambda x: torch.nn.functional.hardtanh(x, low, high)


@entry("hard_shrink", "soft_shrink")
def _shrink(torch: Any, op: Op) -> Entry:
    threshold = op.attr("threshold")
    function = getattr(torch.nn.functional, op.kind.replace("_", ""))
    return lambda x: function(x, threshold)


@entry("clip")
def _clip(torch: Any, op: Op) -> Entry:
    whole = not op.output.type.dtype.floating
    low, high = (int(bound) if whole and bound is not None else bound for bound in (op.attr("low"), op.attr("high")))
    return lambda x: torch.clamp(x, low, high)


@entry("cast")
def _cast(torch: Any, op: Op) -> Entry:
    dtype = dtype_of(torch, op.attr("dtype"))
    return lambda x: x.to(dtype)


# ------------------------------------------------------------------------------------------------ constants and draws


@entry("full", "zeros", "ones")
def _full(torch: Any, op: Op) -> Entry:
    value = op.attr("value") if op.kind == "full" else float(op.kind == "ones")
    shape = op.output.type.shape
    dtype = dtype_of(torch, op.output.type.dtype)
    return lambda: torch.full(shape, value, dtype=dtype)


@entry("extent", "size")
def _extent(torch: Any, op: Op) -> Entry:
    value = op.attr("size") if op.kind == "extent" else op.inputs[0].type.size
    dtype = dtype_of(torch, op.output.type.dtype)
    return lambda *xs: torch.tensor(value, dtype=dtype)


@entry("iota")
def _iota(torch: Any, op: Op) -> Entry:
    size = op.attr("size")
    dtype = dtype_of(torch, op.output.type.dtype)
    return lambda: torch.arange(size, dtype=dtype)


@entry("eye")
def _eye(torch: Any, op: Op) -> Entry:
    if op.attr("offset"):
        raise refused(op, NAME, "it has no offset there")
    rows, columns = op.output.type.shape
    dtype = dtype_of(torch, op.output.type.dtype)
    return lambda: torch.eye(rows, columns, dtype=dtype)


@entry("constant")
def _constant(torch: Any, op: Op) -> Entry:
    data = op.attr("data")
    array = np.frombuffer(data.data, data.type.dtype.memory).reshape(data.type.shape).copy()
    return lambda: torch.from_numpy(array)


@entry("dropout")
def _dropout(torch: Any, op: Op) -> Entry:
    rate = op.attr("rate")
    return lambda x, seed, counter: torch.nn.functional.dropout(x, rate)


@entry("random_normal")
def _random_normal(torch: Any, op: Op) -> Entry:
    shape, dtype = op.output.type.shape, dtype_of(torch, op.output.type.dtype)
    mean, std = op.attr("mean"), op.attr("std")
    return lambda seed, counter: torch.randn(shape, dtype=dtype) * std + mean


@entry("random_uniform")
def _random_uniform(torch: Any, op: Op) -> Entry:
    shape, dtype = op.output.type.shape, dtype_of(torch, op.output.type.dtype)
    low, high = op.attr("low"), op.attr("high")
    return lambda seed, counter: torch.rand(shape, dtype=dtype) * (high - low) + low


@entry("random_flip")
def _random_flip(torch: Any, op: Op) -> Entry:
    axis = op.attr("axis")

    def run(x: Any, seed: Any, counter: Any) -> Any:
        turned = torch.rand(x.shape[0]) < 0.5
        return torch.where(turned.view(-1, *(1,) * (x.dim() - 1)), x.flip(axis), x)

    return run


# --------------------------------------------------------------------------------------- contractions and convolutions


@entry("linear")
def _linear(torch: Any, op: Op) -> Entry:
    return lambda x, w, b: torch.nn.functional.linear(x, w.t(), b)


@entry("dot_general")
def _dot_general(torch: Any, op: Op) -> Entry:
    (left, right), (batch_x, batch_y) = op.attr("contract"), op.attr("batch")
    rank_x, rank_y = (value.type.rank for value in op.inputs)
    labels_x, labels_y = list(range(rank_x)), list(range(rank_x, rank_x + rank_y))
    for i, j in zip((*left, *batch_x), (*right, *batch_y), strict=True):
        labels_y[j] = i
    batch = list(batch_x)
    free = [n for n in labels_x if n not in (*left, *batch)] + [n for n in labels_y if n >= rank_x]
    return lambda x, y: torch.einsum(x, labels_x, y, labels_y, batch + free)


@entry("einsum")
def _einsum(torch: Any, op: Op) -> Entry:
    equation = op.attr("equation")
    return lambda *xs: torch.einsum(equation, *xs)


def _even(op: Op, rank: int) -> list[int]:
    """Padding that is the same on both sides."""
    around = sides(op.attr("padding"), rank)
    if any(before != after for before, after in around):
        raise refused(op, NAME, "its padding differs on the two sides")
    return [before for before, _ in around]


@entry("conv1d", "conv2d", "conv3d")
def _conv(torch: Any, op: Op) -> Entry:
    rank = int(op.kind[4])
    stride, dilation = several(op.attr("stride"), "stride", rank), several(op.attr("dilation"), "dilation", rank)
    around = sides(op.attr("padding"), rank)
    function, pad, groups = getattr(torch.nn.functional, op.kind), torch.nn.functional.pad, op.attr("groups")
    if any(before != after for before, after in around):
        border = [n for pair in reversed(around) for n in pair]
        return lambda x, w, b=None: function(pad(x, border), w, b, stride, 0, dilation, groups)
    padding = [before for before, _ in around]
    return lambda x, w, b=None: function(x, w, b, stride, padding, dilation, groups)


@entry("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(torch: Any, op: Op) -> Entry:
    rank = int(op.kind[14])
    stride, dilation = several(op.attr("stride"), "stride", rank), several(op.attr("dilation"), "dilation", rank)
    more = several(op.attr("output_padding"), "output_padding", rank, 0)
    groups = op.attr("groups")
    function = getattr(torch.nn.functional, op.kind)
    padding = _even(op, rank)
    return lambda x, w, b=None: function(x, w, b, stride, padding, more, groups, dilation)


# ------------------------------------------------------------------------------------------- pooling, images, norms


@entry("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
def _pool(torch: Any, op: Op) -> Entry:
    rank = int(op.kind[8])
    window = several(op.attr("window"), "window", rank)
    stride = window if op.attr("stride") is None else several(op.attr("stride"), "stride", rank)
    more = {name: op.attr(name) for name in ("ceil_mode", "count_include_pad") if name in dict(op.attrs)}
    function = getattr(torch.nn.functional, op.kind)
    padding = _even(op, rank)
    return lambda x: function(x, window, stride, padding, **more)


@entry("global_avg_pool")
def _global_avg_pool(torch: Any, op: Op) -> Entry:
    axes = tuple(range(2, op.inputs[0].type.rank))
    return lambda x: x.mean(dim=axes)


@entry("adaptive_avg_pool2d", "adaptive_max_pool2d")
def _adaptive_pool(torch: Any, op: Op) -> Entry:
    function = getattr(torch.nn.functional, op.kind)
    size = op.output.type.shape[2:]
    return lambda x: function(x, size)


@entry("resize")
def _resize(torch: Any, op: Op) -> Entry:
    size, mode, rank = op.output.type.shape[2:], op.attr("mode"), op.output.type.rank - 2
    forms = {"nearest": ("nearest",) * 3, "bilinear": ("linear", "bilinear", "trilinear"), "bicubic": ("", "bicubic", "")}
    form = forms[mode][rank - 1]
    if not form:
        raise refused(op, NAME, f"it is bicubic over {rank} axes")
    if not whole_scale(op):
        raise refused(op, NAME, "its scale gives no whole size")
    corners = None if mode == "nearest" else op.attr("align_corners")
    return lambda x: torch.nn.functional.interpolate(x, size, mode=form, align_corners=corners)


def whole_scale(op: Op) -> bool:
    """Whether the sizes of a resize are the scale times the old ones exactly, so that either says the same."""
    scale, old = op.attr("scale"), op.inputs[0].type.shape[2:]
    scales = scale if isinstance(scale, tuple) else (scale,) * len(old)
    return scale is None or all(n * s == m for n, s, m in zip(old, scales, op.output.type.shape[2:], strict=True))


@entry("batch_norm")
def _batch_norm(torch: Any, op: Op) -> Entry:
    eps = op.attr("eps")
    return lambda x, scale, bias, mean, variance: torch.nn.functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, eps)


@entry("batch_norm_training")
def _batch_norm_training(torch: Any, op: Op) -> Entry:
    momentum, eps = op.attr("momentum"), op.attr("eps")

    def run(x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
        y = torch.nn.functional.batch_norm(x, mean, variance, scale, bias, True, momentum, eps)
        return y, mean, variance  # moved in place

    return run


@entry("layer_norm")
def _layer_norm(torch: Any, op: Op) -> Entry:
    eps = op.attr("eps")
    return lambda x, scale, bias: torch.nn.functional.layer_norm(x, x.shape[-1:], scale, bias, eps)


@entry("group_norm")
def _group_norm(torch: Any, op: Op) -> Entry:
    groups = op.attr("groups")
    eps = op.attr("eps")
    return lambda x: torch.nn.functional.group_norm(x, groups, eps=eps)


@entry("instance_norm")
def _instance_norm(torch: Any, op: Op) -> Entry:
    eps = op.attr("eps")
    return lambda x: torch.nn.functional.instance_norm(x, eps=eps)


@entry("rms_norm")
def _rms_norm(torch: Any, op: Op) -> Entry:
    x_type, eps = op.inputs[0].type, op.attr("eps")
    axes = normal_axes(op.attr("axis"), x_type)
    if axes != tuple(range(x_type.rank - len(axes), x_type.rank)):
        raise refused(op, NAME, "its axes are not the last ones")
    last = [x_type.shape[axis] for axis in axes]
    return lambda x: torch.nn.functional.rms_norm(x, last, eps=eps)


@entry("local_response_norm")
def _local_response_norm(torch: Any, op: Op) -> Entry:
    if op.output.type.rank < 3:
        raise refused(op, NAME, "it needs an axis behind the channels there")
    size = op.attr("size")
    alpha = op.attr("alpha")
    beta = op.attr("beta")
    k = op.attr("k")
    return lambda x: torch.nn.functional.local_response_norm(x, size, alpha, beta, k)


@entry("normalize")
def _normalize(torch: Any, op: Op) -> Entry:
    axis = normal_axes(op.attr("axis"), op.inputs[0].type)
    eps = op.attr("eps")
    return lambda x: torch.nn.functional.normalize(x, dim=axis, eps=eps)


@entry("attention")
def _attention(torch: Any, op: Op) -> Entry:
    q, k = (value.type.shape for value in op.inputs[:2])
    (heads, length), (groups, keys) = q[-3:-1], k[-3:-1]
    causal, window, scale = op.attr("causal"), op.attr("window"), op.attr("scale")
    shared = {"scale": scale, "enable_gqa": heads != groups}
    attend = torch.nn.functional.scaled_dot_product_attention
    if len(op.inputs) == 3 and window is None and (not causal or length == keys):
        return lambda q, k, v: attend(q, k, v, is_causal=causal, **shared)

    def masked(q: Any, k: Any, v: Any, *masks: Any) -> Any:
        there, bias = torch.tensor(keys), torch.zeros((), dtype=q.dtype)
        for mask in masks:
            if mask.dtype == torch.bool:
                bias = bias.masked_fill(~mask, -torch.inf)
            elif mask.dtype.is_floating_point:
                bias = bias + mask
            else:
                there = mask.clamp(0, keys)[..., None, None, None]
        at, key = there - length + torch.arange(length)[:, None], torch.arange(keys)
        seen = key < there
        seen = seen & (key <= at) if causal else seen
        seen = seen & ((at - key).abs() < window) if window is not None else seen
        return attend(q, k, v, attn_mask=bias.masked_fill(~seen, -torch.inf), **shared).nan_to_num(0.0)

    return masked


@entry("softmax", "log_softmax")
def _softmax(torch: Any, op: Op) -> Entry:
    axis = op.attr("axis")
    function = getattr(torch, op.kind)
    return lambda x: function(x, axis)


# ------------------------------------------------------------------------------------------------- recurrent layers


@entry(*RECURRENT)
def _recurrent(torch: Any, op: Op) -> Entry:
    call, axis, reverse = getattr(torch._VF, op.kind), op.attr("axis"), op.attr("reverse")
    states = 2 if op.kind == "lstm" else 1
    stacked = len(op.outputs) > states

    def run(x: Any, *rest: Any) -> Any:
        first = tuple(h[None] for h in rest[:states])
        w_in, w_h, *biases = rest[states:]
        x, weights = x.flip(axis) if reverse else x, [w_in.t(), w_h.t(), *biases]
        shape = (bool(biases), 1, 0.0, torch.is_grad_enabled(), False, axis == 1)  # layers, dropout, training, bidirectional, batch first
        y, *last = call(x, first if states == 2 else first[0], weights, *shape)
        results = [h[0] for h in last] + ([y.flip(axis) if reverse else y] if stacked else [])
        return tuple(results) if len(results) > 1 else results[0]

    return run
