"""Convolutions of images that were doubled by repeating pixels become transposed convolutions of the small images.

    conv(nearest_x2(x), w) = conv_transpose[stride = 2](x, v)        v: sums of neighbouring elements of w, turned round

Each pixel stands twice along a doubled axis, so the two elements of w that meet the copies are added before they are multiplied: of K
products along the axis (K + 1) / 2 are left on average, of a 3 x 3 kernel's 4 out of 9. Nothing but the result is written in double size.

A convolution sums over channels. Where the doubled image is one of several that are joined, each is convolved by itself, and the joined
image is not made either:

    conv(concat(nearest_x2(x), s), w) = conv_transpose[stride = 2](x, v) + conv(s, w's part for s)

The results differ by rounding only. Of weights that do not change v is computed once, like whatever depends on weights alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Graph, Op, Value
from dslc.transforms.dead_code import dead_code
from dslc.transforms.regions import in_regions

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}  # and their spatial axes
FEWEST_CHANNELS = 8
"""Of fewer channels the sums are short, and results of fewer lie in rows, of which each part would write every second element: neither
pays for being cut in parts."""

Times = tuple[int, ...]  # how often each element of a small image stands in the large one along each spatial axis
Makers = Mapping[Value, Op]


def fold_upsampling(graph: Graph) -> Graph:
    """`graph` with convolutions of doubled images folded, unless it asks for gradients.

    The rounding of a sum of weights is the same for all pixels. In a result that is one error among many; in the gradient of the next
    layer's weights, a sum over all pixels, it alone would not average out.
    """
    if any(op.kind == "grad" for op in graph.ops):
        return graph
    builder = Builder(graph.inputs, graph.ops)
    builder.ops = []
    same: dict[Value, Value] = {}
    makers: dict[Value, Op] = {}
    for old in graph.ops:
        op = in_regions(old.with_inputs(tuple(same.get(v, v) for v in old.inputs)), fold_upsampling)
        if _foldable(op) and any(_times(image, makers) is not None for image in _joined(op.inputs[0], makers)):
            builder.span = op.span
            same[op.output] = _folded(builder, op, makers)
        else:
            builder.ops.append(op)
            makers |= dict.fromkeys(op.outputs, op)
    made = Graph(graph.inputs, tuple(builder.ops), tuple(same.get(v, v) for v in graph.outputs))
    return dead_code(made) if same else made


def _foldable(op: Op) -> bool:
    """A convolution of floating-point images with stride 1, in one group, whose windows have several elements an axis and no place
    wholly outside of the image."""
    if op.kind not in CONVOLUTIONS or not op.output.type.dtype.floating:
        return False
    ones = (1, (1,) * CONVOLUTIONS[op.kind])
    if op.attr("groups") != 1 or op.attr("stride") not in ones or op.attr("dilation") not in ones:
        return False
    if not _enough(op.output):
        return False
    return all(k > max(1, before, after) for k, (before, after) in zip(_kernel(op), _padding(op), strict=True))


def _enough(image: Value) -> bool:
    channels = image.type.shape[1]
    return isinstance(channels, int) and channels >= FEWEST_CHANNELS


def _kernel(op: Op) -> list[int]:
    return [k for k in op.inputs[1].type.shape[2:] if isinstance(k, int)]


def _padding(op: Op) -> list[tuple[int, int]]:
    """(before, after) of each spatial axis."""
    given = op.attr("padding")
    each = given if isinstance(given, tuple) else (given,) * CONVOLUTIONS[op.kind]
    return [side if isinstance(side, tuple) else (side, side) for side in each]


def _joined(x: Value, makers: Makers) -> tuple[Value, ...]:
    """The images whose channels x has, one behind the other."""
    op = makers.get(x)
    return op.inputs if op is not None and op.kind == "concat" and op.attr("axis") % x.type.rank == 1 else (x,)


def _times(image: Value, makers: Makers) -> Times | None:
    """1 or 2 for each spatial axis of an image with some axes doubled; None of any other, and of one with few channels."""
    op = makers.get(image)
    if op is None or op.kind != "resize" or op.attr("mode") != "nearest" or not _enough(image):
        return None
    before, after = op.inputs[0].type.shape[2:], image.type.shape[2:]
    times = tuple(2 if size == 2 * old else 1 for old, size in zip(before, after, strict=True))
    if max(times) == 1 or after != tuple(n * old for n, old in zip(times, before, strict=True)):
        return None
    scale = op.attr("scale")
    scales = scale if isinstance(scale, tuple) else (scale,)
    if len(scales) == 1:
        scales *= len(times)
    return times if scale is None or scales == times else None  # 2.1 doubles a short axis too, in steps of another length


def _folded(builder: Builder, op: Op, makers: Makers) -> Value:
    """What `op` computes. Images that are not doubled come last: their convolution takes in what stands behind `op`."""
    whole, w = op.inputs
    channel: Dim = 0
    others: list[tuple[Value, Value]] = []
    terms: list[Value] = []
    for image in _joined(whole, makers):
        end = channel + image.type.shape[1]
        part = w if image == whole else _cut(builder, w, 1, channel, end)
        channel = end
        times = _times(image, makers)
        if times is None:
            others.append((image, part))
        else:
            terms.append(_transposed(builder, op, makers[image].inputs[0], part, times))
    terms += [builder.apply(op.kind, image, part, **dict(op.attrs)) for image, part in others]
    total = terms[0]
    for term in terms[1:]:
        total = builder.add(total, term)
    return total


def _transposed(builder: Builder, op: Op, small: Value, w: Value, times: Times) -> Value:
    """The convolution of the image that `times` says of `small` with w[O, C, K...].

    Result h meets element t of w at h + t - before of the large image, which is small[j] for the n places from n * j on: together
    h = n * j + k - (K - 1 - before) with k = K - 1 - t + copy, copy < n. So v[k] is the sum of w[K - 1 - k + copy].
    """
    rank, kernel = len(times), _kernel(op)
    spatial = tuple(range(2, 2 + rank))
    v = builder.transpose(builder.flip(w, axis=spatial), axes=(1, 0, *spatial))
    for axis, n in zip(spatial, times, strict=True):
        if n == 2:
            v = builder.add(_moved(builder, v, axis, 0), _moved(builder, v, axis, 1))
    cropped = tuple((k - 1 - before, k - 1 - after) for k, (before, after) in zip(kernel, _padding(op), strict=True))
    result: Value = builder.apply(f"conv_transpose{rank}d", small, v, stride=times, padding=cropped)
    return result


def _moved(builder: Builder, v: Value, axis: int, places: int) -> Value:
    """v with one element more along an axis, a zero before or behind."""
    low, high = ([n if a == axis else 0 for a in range(v.type.rank)] for n in (places, 1 - places))
    padded: Value = builder.pad(v, low=tuple(low), high=tuple(high))
    return padded


def _cut(builder: Builder, x: Value, axis: int, start: Dim, stop: Dim) -> Value:
    """The part of x with `start <= index < stop` along an axis."""
    starts = tuple(start if a == axis else 0 for a in range(x.type.rank))
    stops = tuple(stop if a == axis else size for a, size in enumerate(x.type.shape))
    part: Value = builder.slice(x, starts=starts, stops=stops, steps=(1,) * x.type.rank)
    return part
