"""Idioms: what other libraries do in one call, found in a graph that spells it out.

A convolution or a product with its bias, batch normalisation, layer normalisation. Without this a library that is compared would be
given more work than whoever writes the network for it gives it. Each rewrite carries its equation; sizes are bound.

| kind of the new operation | inputs | attributes |
|---|---|---|
| conv1d ... conv_transpose3d | x, w, b | those of the convolution |
| linear | x [..., K], w [K, P], b [P] | |
| batch_norm | x, scale, bias, mean, variance | eps |
| batch_norm_training | x, scale, bias, running mean and variance; gives y and the new running ones | eps, momentum |
| layer_norm | x, scale, bias | eps |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dslc.ir.graph import Graph, Op, Value, sorted_attrs
from dslc.transforms.dead_code import dead_code

CONVOLUTIONS = frozenset({f"conv{rank}d" for rank in (1, 2, 3)} | {f"conv_transpose{rank}d" for rank in (1, 2, 3)})


def find_idioms(graph: Graph) -> Graph:
    """The graph with idioms as single operations; what they have made superfluous is gone."""
    plain = _vectors_by_reshape(graph)
    found = _Graph(plain, plain.producers(), plain.uses())
    replaced: dict[Value, Op] = {}
    for op in plain.ops:
        for match in _MATCHES:
            new = match(found, op)
            if new is not None:
                replaced |= dict.fromkeys(new.outputs, new)
                break
    ops: list[Op] = []
    emitted: set[Op] = set()
    for op in plain.ops:
        new = replaced.get(op.outputs[0], op)
        if new not in emitted:  # a normalisation stands where its first result stood; all that it reads comes before
            emitted.add(new)
            ops.append(new)
    return dead_code(_sorted(Graph(plain.inputs, tuple(ops), plain.outputs)))


def _vectors_by_reshape(graph: Graph) -> Graph:
    """along(v, x) = reshape(v): x gives only a shape, so it is no use of x."""

    def plain(op: Op) -> Op:
        if op.kind != "along":
            return op
        return Op("reshape", op.inputs[:1], sorted_attrs({"shape": op.output.type.shape}), op.outputs, span=op.span)

    return Graph(graph.inputs, tuple(map(plain, graph.ops)), graph.outputs)


def _sorted(graph: Graph) -> Graph:
    """In definition order: a result that one operation took over from several may stand behind its readers."""
    known = set(graph.inputs)
    pending, done = list(graph.ops), list[Op]()
    while pending:
        late: list[Op] = []
        for op in pending:
            if known.issuperset(op.inputs):
                known.update(op.outputs)
                done.append(op)
            else:
                late.append(op)
        assert len(late) < len(pending), "a graph without cycles"
        pending = late
    return Graph(graph.inputs, tuple(done), graph.outputs)


@dataclass(frozen=True, slots=True)
class _Graph:
    graph: Graph
    producers: dict[Value, Op]
    uses: dict[Value, list[Op]]

    def made(self, value: Value, *kinds: str) -> Op | None:
        """The operation that makes `value`, if it is of one of these kinds."""
        op = self.producers.get(value)
        return op if op is not None and op.kind in kinds else None

    def pair(self, value: Value, kind: str) -> list[tuple[Value, Value]]:
        """Both orders of the operands of `value`, if it is made by the commutative operator `kind`."""
        op = self.made(value, kind)
        return [] if op is None else [(op.inputs[0], op.inputs[1]), (op.inputs[1], op.inputs[0])]

    def number(self, value: Value) -> float | None:
        """The constant that `value` is."""
        op = self.made(value, "full", "extent")
        if op is None or value.type.shape != ():
            return None
        return float(op.attr("value" if op.kind == "full" else "size"))

    def vector(self, value: Value) -> Value | None:
        """The vector [C] that lies along the channels of `value`, [1, C, 1, ...]."""
        op = self.made(value, "reshape")
        shape = value.type.shape
        if op is None or len(shape) < 2 or op.inputs[0].type.shape != shape[1:2]:
            return None
        return op.inputs[0] if all(n == 1 for axis, n in enumerate(shape) if axis != 1) else None

    def alone(self, value: Value) -> bool:
        """Whether one operation reads `value` and no caller sees it."""
        return len(self.uses.get(value, [])) == 1 and value not in self.graph.outputs

    def rsqrt_of(self, value: Value) -> tuple[Value, float] | None:
        """(v, eps) where value = rsqrt(v + eps)."""
        op = self.made(value, "rsqrt")
        for v, eps in self.pair(op.inputs[0], "add") if op is not None else []:
            number = self.number(eps)
            if number is not None:
                return v, number
        return None

    def gain_of(self, value: Value) -> tuple[Value, Value, float] | None:
        """(scale, v, eps) where value = scale * rsqrt(v + eps)."""
        for scale, root in self.pair(value, "mul"):
            found = self.rsqrt_of(root)
            if found is not None:
                return scale, *found
        return None


def _bias(found: _Graph, op: Op) -> Op | None:
    """conv(x, w) + along(b) = conv(x, w, b); x @ w + b = linear(x, w, b)."""
    for product, term in found.pair(op.outputs[0], "add"):
        made = found.made(product, "matmul", *CONVOLUTIONS)
        if made is None or not found.alone(product) or product.type != op.output.type:
            continue
        if made.kind == "matmul":
            w = made.inputs[1].type
            if w.rank == 2 and term.type.shape == w.shape[1:] and made.inputs[0].type.rank > 1:
                return Op("linear", (*made.inputs, term), (), op.outputs, span=made.span)
        elif (bias := found.vector(term)) is not None:
            return Op(made.kind, (*made.inputs, bias), made.attrs, op.outputs, span=made.span)
    return None


def _batch_norm(found: _Graph, op: Op) -> Op | None:
    """x * gain + (bias - mean * gain), gain = scale * rsqrt(variance + eps)."""
    for product, offset in found.pair(op.outputs[0], "add"):
        shift = found.vector(offset)
        rest = found.made(shift, "sub") if shift is not None else None
        if rest is None:
            continue
        for x, factor in found.pair(product, "mul"):
            gain = found.vector(factor)
            parts = found.gain_of(gain) if gain is not None else None
            if parts is None or x.type != op.output.type:
                continue
            scale, variance, eps = parts
            for mean, again in found.pair(rest.inputs[1], "mul"):
                if again == gain:
                    inputs = (x, scale, rest.inputs[0], mean, variance)
                    return Op("batch_norm", inputs, sorted_attrs({"eps": eps}), op.outputs, span=op.span)
    return None


def _batch_norm_training(found: _Graph, op: Op) -> Op | None:
    """(x - m) * (scale * rsqrt(v + eps)) + bias with the moments m, v of x, and running ones that move towards them."""
    for product, offset in found.pair(op.outputs[0], "add"):
        bias = found.vector(offset)
        if bias is None:
            continue
        for centred, factor in found.pair(product, "mul"):
            gain = found.vector(factor)
            parts = found.gain_of(gain) if gain is not None else None
            difference = found.made(centred, "sub")
            if parts is None or difference is None:
                continue
            scale, variance, eps = parts
            x, mean = difference.inputs[0], found.vector(difference.inputs[1])
            moments = found.made(variance, "moments")
            if moments is None or moments.inputs != (x,) or moments.outputs != (mean, variance):
                continue
            means, variances = _moved(found, moments.outputs[0]), _moved(found, moments.outputs[1])
            if means is None or variances is None or means[2] != variances[2]:
                continue
            inputs = (x, scale, bias, means[0], variances[0])
            attrs = sorted_attrs({"eps": eps, "momentum": means[2]})
            return Op("batch_norm_training", inputs, attrs, (op.output, means[1], variances[1]), span=op.span)
    return None


def _moved(found: _Graph, moment: Value) -> tuple[Value, Value, float] | None:
    """(old, new, momentum) where new = stop_gradient(old + momentum * (moment - old)), the variance's moment unbiased."""
    for value in [moment, *_unbiased(found, moment)]:
        for op in found.uses.get(value, []):
            if op.kind != "sub" or op.inputs[0] != value:
                continue
            old = op.inputs[1]
            for step in found.uses.get(op.output, []):
                momentum = next((n for a, b in found.pair(step.outputs[0], "mul") if b == op.output and (n := found.number(a))), None)
                if momentum is None:
                    continue
                for total in found.uses.get(step.output, []):
                    if any(a == old for a, _ in found.pair(total.outputs[0], "add")):
                        stopped = next((s for s in found.uses.get(total.output, []) if s.kind == "stop_gradient"), None)
                        return old, (stopped or total).output, momentum
    return None


def _unbiased(found: _Graph, variance: Value) -> list[Value]:
    """variance * n / (n - 1)."""
    products = [op.output for op in found.uses.get(variance, []) if op.kind == "mul"]
    return [op.output for value in products for op in found.uses.get(value, []) if op.kind == "div" and op.inputs[0] == value]


def _layer_norm(found: _Graph, op: Op) -> Op | None:
    """d * rsqrt(mean(d * d) + eps) * scale + bias, d = x - mean(x), along the last axis."""
    for product, bias in found.pair(op.outputs[0], "add"):
        for normal, scale in found.pair(product, "mul"):
            for d, root in found.pair(normal, "mul"):
                parts, difference = found.rsqrt_of(root), found.made(d, "sub")
                if parts is None or difference is None or scale.type.rank != 1 or bias.type != scale.type:
                    continue
                x, mean = difference.inputs
                square = found.made(parts[0], "mean")
                if square is None or not _is_row_mean(found, mean, x) or not _is_row_mean(found, parts[0], square.inputs[0]):
                    continue
                if any(a == b == d for a, b in found.pair(square.inputs[0], "mul")):
                    return Op("layer_norm", (x, scale, bias), sorted_attrs({"eps": parts[1]}), op.outputs, span=op.span)
    return None


def _is_row_mean(found: _Graph, value: Value, x: Value) -> bool:
    op = found.made(value, "mean")
    return op is not None and op.inputs == (x,) and bool(op.attr("keep")) and op.attr("axis") in (-1, (-1,), x.type.rank - 1)


_MATCHES: tuple[Callable[[_Graph, Op], Op | None], ...] = (_bias, _batch_norm, _batch_norm_training, _layer_norm)
