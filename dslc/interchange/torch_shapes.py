"""Reductions, losses, shapes and places as functions of PyTorch; see `torch_operators.py`."""

from __future__ import annotations

from typing import Any

from dslc.interchange.refusal import refused
from dslc.interchange.torch_operators import NAME, Entry, dtype_of, entry
from dslc.ir.graph import Op
from dslc.ops.shapes import ints, normal_axes, normal_axis


def _axes(op: Op) -> tuple[int, ...]:
    return normal_axes(op.attr("axis"), op.inputs[0].type)


@entry("sum", "mean")
def _sum(torch: Any, op: Op) -> Entry:
    wanted, axes, keep = dtype_of(torch, op.output.type.dtype), _axes(op), op.attr("keep")
    function = getattr(torch, op.kind)
    if not axes:
        return lambda x: x.to(wanted)
    if op.inputs[0].type.dtype == op.output.type.dtype:
        return lambda x: function(x, dim=axes, keepdim=keep)
    return lambda x: function(x, dim=axes, keepdim=keep, dtype=wanted)


@entry("max", "min")
def _extreme(torch: Any, op: Op) -> Entry:
    keep = op.attr("keep")
    function = getattr(torch, f"a{op.kind}")
    axes = _axes(op)
    return lambda x: function(x, dim=axes, keepdim=keep)


@entry("any", "all")
def _truth(torch: Any, op: Op) -> Entry:
    keep = op.attr("keep")
    function = getattr(torch, op.kind)
    axes = _axes(op)
    return lambda x: function(x, dim=axes, keepdim=keep)


@entry("logsumexp")
def _logsumexp(torch: Any, op: Op) -> Entry:
    keep = op.attr("keep")
    axes = _axes(op)
    return lambda x: torch.logsumexp(x, axes, keep)


@entry("norm")
def _norm(torch: Any, op: Op) -> Entry:
    keep = op.attr("keep")
    axes = _axes(op)
    return lambda x: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)


@entry("var", "std")
def _spread(torch: Any, op: Op) -> Entry:
    keep = op.attr("keep")
    correction = op.attr("correction")
    function = getattr(torch, op.kind)
    axes = _axes(op)
    return lambda x: function(x, dim=axes, keepdim=keep, correction=correction)


@entry("moments")
def _moments(torch: Any, op: Op) -> Entry:
    keep = op.attr("keep")
    stay = () if keep is None else normal_axes(keep, op.inputs[0].type)
    axes = tuple(axis for axis in range(op.inputs[0].type.rank) if axis not in stay)
    return lambda x: torch.var_mean(x, dim=axes, correction=0)[::-1]


@entry("argmax", "argmin")
def _position(torch: Any, op: Op) -> Entry:
    axis = op.attr("axis")
    keep = op.attr("keep")
    function = getattr(torch, op.kind)
    shape = op.output.type.shape
    return lambda x: function(x, axis, keep).reshape(shape)


@entry("cumsum", "cumprod")
def _running(torch: Any, op: Op) -> Entry:
    if op.attr("exclusive"):
        raise refused(op, NAME, "it is exclusive")
    axis, function = op.attr("axis"), getattr(torch, op.kind)
    if op.attr("reverse"):
        return lambda x: function(x.flip(axis), axis).flip(axis)
    return lambda x: function(x, axis)


@entry("cross_entropy")
def _cross_entropy(torch: Any, op: Op) -> Entry:
    ignored, smoothing, loss = op.attr("ignore_index"), op.attr("smoothing"), torch.nn.functional.cross_entropy
    index = -100 if ignored is None else ignored
    return lambda logits, label, weight=None: loss(logits, label, weight, ignore_index=index, label_smoothing=smoothing)


@entry("ctc_loss")
def _ctc_loss(torch: Any, op: Op) -> Entry:
    blank, reduction, zero = op.attr("blank"), op.attr("reduction"), op.attr("zero_infinity")
    function = torch.nn.functional.ctc_loss
    return lambda p, target, frames, symbols: function(p.transpose(0, 1), target, frames, symbols, blank, reduction, zero)


@entry("nll")
def _nll(torch: Any, op: Op) -> Entry:
    ignored = op.attr("ignore_index")
    index = -100 if ignored is None else ignored
    return lambda scores, label, weight=None: torch.nn.functional.nll_loss(scores, label, weight, ignore_index=index)


@entry("huber")
def _huber(torch: Any, op: Op) -> Entry:
    delta = op.attr("delta")
    return lambda x, y: torch.nn.functional.huber_loss(x, y, delta=delta)


@entry("smooth_l1")
def _smooth_l1(torch: Any, op: Op) -> Entry:
    beta = op.attr("beta")
    return lambda x, y: torch.nn.functional.smooth_l1_loss(x, y, beta=beta)


# ------------------------------------------------------------------------------------------------- shapes and places


@entry("reshape", "flatten", "squeeze", "unsqueeze")
def _reshape(torch: Any, op: Op) -> Entry:
    shape = op.output.type.shape
    return lambda x: x.reshape(shape)


@entry("along")
def _along(torch: Any, op: Op) -> Entry:
    shape = op.output.type.shape
    return lambda v, x: v.reshape(shape)


@entry("transpose")
def _transpose(torch: Any, op: Op) -> Entry:
    axes = op.attr("axes") or tuple(reversed(range(op.output.type.rank)))
    return lambda x: x.permute(axes)


@entry("expand")
def _expand(torch: Any, op: Op) -> Entry:
    shape = op.output.type.shape
    return lambda x: x.expand(shape)


@entry("concat")
def _concat(torch: Any, op: Op) -> Entry:
    axis = op.attr("axis")
    return lambda *xs: torch.cat(xs, axis)


@entry("stack")
def _stack(torch: Any, op: Op) -> Entry:
    axis = op.attr("axis")
    return lambda *xs: torch.stack(xs, axis)


@entry("split")
def _split(torch: Any, op: Op) -> Entry:
    axis = normal_axis(op.attr("axis"), op.inputs[0].type)
    parts = [value.type.shape[axis] for value in op.outputs]
    return lambda x: torch.split(x, parts, axis)


@entry("tile")
def _tile(torch: Any, op: Op) -> Entry:
    times = op.attr("times")
    return lambda x: x.tile(times)


@entry("flip")
def _flip(torch: Any, op: Op) -> Entry:
    axes = _axes(op)
    return lambda x: x.flip(axes)


@entry("roll")
def _roll(torch: Any, op: Op) -> Entry:
    shift = op.attr("shift")
    axis = op.attr("axis")
    return lambda x: torch.roll(x, shift, axis)


@entry("slice")
def _slice(torch: Any, op: Op) -> Entry:
    places, turned = [], []
    for axis, (start, stop, step) in enumerate(zip(op.attr("starts"), op.attr("stops"), op.attr("steps"), strict=True)):
        chosen = range(ints(op.inputs[0].type.shape)[axis])[slice(start, stop, step)]
        if step < 0:
            chosen = chosen[::-1]
            turned.append(axis)
        places.append(slice(chosen.start, max(chosen.start, chosen.stop), chosen.step))
    where = tuple(places)
    return (lambda x: x[where].flip(turned)) if turned else lambda x: x[where]


@entry("pad")
def _pad(torch: Any, op: Op) -> Entry:
    mode = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}[op.attr("mode")]
    pairs, rank = list(zip(op.attr("low"), op.attr("high"), strict=True)), op.output.type.rank
    if mode != "constant" and (
        rank not in (3, 4, 5) or any(pair != (0, 0) for pair in pairs[: 2 - rank or None][: len(pairs) - (rank - 2)])
    ):
        raise refused(op, NAME, f'the mode "{op.attr("mode")}" is for the last axes of images there')
    if mode != "constant":
        pairs = pairs[-(rank - 2) :]
    around = [n for pair in reversed(pairs) for n in pair]
    value = op.attr("value") if mode == "constant" else None
    return lambda x: torch.nn.functional.pad(x, around, mode, value)


@entry("gather")
def _gather(torch: Any, op: Op) -> Entry:
    axis, shape = normal_axis(op.attr("axis"), op.inputs[0].type), op.output.type.shape
    if axis == 0 and op.inputs[0].type.rank == 2:
        return lambda table, index: torch.nn.functional.embedding(index, table)
    return lambda table, index: torch.index_select(table, axis, index.reshape(-1)).reshape(shape)


@entry("take_along")
def _take_along(torch: Any, op: Op) -> Entry:
    axis = op.attr("axis")
    return lambda x, index: torch.take_along_dim(x, index.long(), axis)


@entry("one_hot")
def _one_hot(torch: Any, op: Op) -> Entry:
    classes, dtype = torch.arange(op.attr("size")), dtype_of(torch, op.output.type.dtype)
    return lambda x: (x.unsqueeze(-1) == classes).to(dtype)


@entry("tril", "triu")
def _triangle(torch: Any, op: Op) -> Entry:
    offset = op.attr("offset")
    function = getattr(torch, op.kind)
    return lambda x: function(x, offset)


@entry("sort", "argsort")
def _sort(torch: Any, op: Op) -> Entry:
    axis, descending = op.attr("axis"), op.attr("descending")
    if op.kind == "argsort":
        return lambda x: torch.argsort(x, dim=axis, descending=descending, stable=True)
    return lambda x: tuple(torch.sort(x, dim=axis, descending=descending, stable=True))


@entry("top_k")
def _top_k(torch: Any, op: Op) -> Entry:
    k, axis, largest = op.attr("k"), op.attr("axis"), op.attr("largest")
    return lambda x: tuple(torch.topk(x, k, axis, largest))


@entry("depth_to_space")
def _depth_to_space(torch: Any, op: Op) -> Entry:
    if op.attr("order") != "crd":
        raise refused(op, NAME, 'its order is not "crd"')
    block = op.attr("block")
    return lambda x: torch.nn.functional.pixel_shuffle(x, block)
