"""Scaled dot-product attention: each query's average of values, weighted by how well their keys fit it.

The public operator brings its operands into one form, in which `attention_forward` and `attention_backward` are algorithms of the back
end that keep no matrix of scores: the forward one goes through the keys in blocks with a running maximum (M. Milakov, N. Gimelshein,
2018), the backward one computes the scores again from the logarithm of their sum (T. Dao et al., 2022). Both have an expansion in plain
operators too, which defines them, serves second derivatives and sizes that are known only at run time.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.routines import Routine
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, extent, require, reshaped, same_dtype

LONGEST_ROW = 4096  # bytes of a row of features up to which blocks of rows fit a thread's stack
F32, F64, I32, I64, BOOL = DType.F32, DType.F64, DType.I32, DType.I64, DType.BOOL
_CAUSAL = Attr("bool", False, "a query sees its own position and those before it; the last query stands at the last key")
_MASK = np.arange(5 * 6).reshape(5, 6) % 4 != 1
_BLIND = np.arange(3 * 4).reshape(3, 4) >= 4  # the first query sees nothing


def _check(name: str, q: TensorType, k: TensorType, v: TensorType) -> None:
    """q [..., H, T, E], k [..., G, S, E] and v [..., G, S, D] with H a multiple of G."""
    require("floating", name, q, k, v)
    same_dtype("attend to", q, k, v)
    for position, t in enumerate((q, k, v)):
        if t.rank < 3:
            raise TypeFailure(f"{name} needs [..., heads, length, features], not {t}", inputs=(position,))
    r = q.rank
    if k.rank != r or v.rank != r:
        other = 1 if k.rank != r else 2
        raise TypeFailure(f"{name} of {q}, {k} and {v}: they need as many axes", inputs=(0, other))
    for axis in range(r - 3):
        for position, t in ((1, k), (2, v)):
            if t.shape[axis] != q.shape[axis]:
                raise TypeFailure(
                    f"{name} of {q}, {k} and {v}: axis {axis} is {q.shape[axis]} and {t.shape[axis]}",
                    inputs=(0, position),
                    axes=(axis, axis),
                )
    if q.shape[-1] != k.shape[-1]:
        raise TypeFailure(f"queries {q} and keys {k} differ in their features", inputs=(0, 1), axes=(r - 1, r - 1))
    if k.shape[-2] != v.shape[-2]:
        raise TypeFailure(f"keys {k} and values {v} differ in number", inputs=(1, 2), axes=(r - 2, r - 2))
    if k.shape[-3] != v.shape[-3]:
        raise TypeFailure(f"keys {k} and values {v} differ in their heads", inputs=(1, 2), axes=(r - 3, r - 3))
    heads, groups = q.shape[-3], k.shape[-3]
    if isinstance(heads, int) and isinstance(groups, int) and (groups == 0 or heads % groups):
        raise TypeFailure(
            f"{name} of {q} and {k}: {heads} heads of queries do not divide among {groups} of keys", inputs=(0, 1), axes=(r - 3, r - 3)
        )


def _check_extra(name: str, lead: tuple[Dim, ...], scores: tuple[Dim, ...], dtype: DType, extra: tuple[TensorType, ...]) -> None:
    """At most one mask, one bias and one number of keys, each of which broadcasts."""
    seen: set[str] = set()
    for position, t in enumerate(extra, 3):
        kind = "mask" if t.dtype == BOOL else "bias" if t.dtype.floating else "number of keys"
        if kind in seen:
            raise TypeFailure(f"{name} takes one {kind}, not two", inputs=(position,))
        seen.add(kind)
        if kind == "bias" and t.dtype != dtype:
            raise TypeFailure(f"{name} of {dtype.value} needs a bias of {dtype.value}, not {t}", inputs=(0, position))
        wanted = lead if kind == "number of keys" else scores
        fits = t.rank <= len(wanted) and all(n in (1, m) for n, m in zip(reversed(t.shape), reversed(wanted), strict=False))
        if not fits:
            shape = ", ".join(map(str, wanted))
            raise TypeFailure(f"{name} needs a {kind} that broadcasts to [{shape}], not {t}", inputs=(position,))


@operator
class Attention(Operator):
    """softmax(scale q k^T + bias) v over the keys that each query may see: q [..., H, T, E], k [..., G, S, E], v [..., G, S, D] to [..., H, T, D].

    With fewer heads of keys, each serves H / G heads of queries in a row (grouped queries). Behind q, k and v, in any order: a mask of
    bools (true: seen) and a bias that is added to the scores, both broadcast to [..., H, T, S]; and a whole number of keys, one or one an
    example [...], from 0 to S: only so many are there, and the rest of a cache is not read. `causal` and `window` count positions from
    the end: the last query stands at the last key, so with n keys query i stands at n - T + i. A query that sees no key gives 0. Scores
    are never kept, in training neither: the gradient computes them again, but for that of a bias, which is a matrix of scores itself.
    Behind the number of keys, keys and values may hold anything. What a mask, `causal` or `window` hides has the weight 0, and 0 * NaN is NaN:
    hidden keys may hold anything for the result, but hidden values, and for gradients all that is hidden, must be finite.
    """

    family = "softmax"
    onnx = "Attention"
    inputs = ("q", "k", "v", "*masks")
    attrs = {
        "causal": _CAUSAL,
        "window": Attr("int", None, "a query sees keys fewer than so many positions away"),
        "scale": Attr("float", None, "factor of the scores; 1 / sqrt(E) unless told"),
    }
    samples = [
        Sample(((5, 2, 3, 4), (5, 2, 3, 4), (5, 2, 3, 4))),
        Sample(((5, 2, 3, 4), (5, 2, 3, 4), (5, 2, 3, 4)), {"causal": True}),
        Sample(((4, 3, 2), (2, 5, 2), (2, 5, 3)), {"causal": True, "scale": 0.7}),
        Sample(((5, 2, 6, 2), (5, 1, 6, 2), (5, 1, 6, 2)), {"causal": True, "window": 3}),
        Sample(((2, 7, 2), (2, 4, 2), (2, 4, 2)), {"causal": True}),
        Sample(((2, 1, 5, 2), (2, 1, 6, 2), (2, 1, 6, 2), _MASK), {"window": 4}),
        Sample(((1, 3, 2), (1, 4, 2), (1, 4, 2), _BLIND)),
        Sample(((2, 2, 3, 2), (2, 2, 4, 2), (2, 2, 4, 2), (2, 3, 4), np.array([2, 4])), {"causal": True}),
        Sample(((2, 2, 1, 3), (2, 1, 9, 3), (2, 1, 9, 3), np.array(4))),
        Sample(((2, 40, 20), (2, 150, 20), (2, 150, 33)), {"causal": True}, gradient=False),
        Sample(((2, 6, 70, 32), (2, 2, 70, 32), (2, 2, 70, 32)), {"causal": True, "window": 40}, gradient=False),
        Sample(
            (
                (3, 2, 133, 64),
                (3, 2, 77, 64),
                (3, 2, 77, 64),
                (2, 1, 77),
                np.arange(3 * 133 * 77).reshape(3, 1, 133, 77) % 7 > 1,
                np.array([77, 3, 60]),
            ),
            gradient=False,
        ),
        Sample(((3, 4, 2, 24), (3, 1, 90, 24), (3, 1, 90, 80), np.array([0, 90, 70])), {"causal": True}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(I32, (2, 3, 4)),) * 3, {}, "floating-point"),
        BadSample((TensorType(F32, (3, 4)),) * 3, {}, "[..., heads, length, features]"),
        BadSample((TensorType(F32, (2, 3, 4)), TensorType(F64, (2, 3, 4)), TensorType(F32, (2, 3, 4))), {}, "element types differ"),
        BadSample((TensorType(F32, (2, 3, 4)), TensorType(F32, (2, 3, 5)), TensorType(F32, (2, 3, 5))), {}, "differ in their features"),
        BadSample((TensorType(F32, (2, 3, 4)), TensorType(F32, (2, 3, 4)), TensorType(F32, (2, 5, 4))), {}, "differ in number"),
        BadSample((TensorType(F32, (2, 3, 4)), TensorType(F32, (1, 3, 4)), TensorType(F32, (2, 3, 4))), {}, "differ in their heads"),
        BadSample((TensorType(F32, (3, 3, 4)), TensorType(F32, (2, 3, 4)), TensorType(F32, (2, 3, 4))), {}, "do not divide among"),
        BadSample((TensorType(F32, (6, 2, 3, 4)), TensorType(F32, (5, 2, 3, 4)), TensorType(F32, (5, 2, 3, 4))), {}, "axis 0 is 6 and 5"),
        BadSample((*(TensorType(F32, (2, 3, 4)),) * 3, TensorType(BOOL, (3, 4))), {}, "broadcasts to [2, 3, 3]"),
        BadSample((*(TensorType(F32, (2, 3, 4)),) * 3, *(TensorType(BOOL, (3, 3)),) * 2), {}, "one mask, not two"),
        BadSample((*(TensorType(F32, (2, 3, 4)),) * 3, TensorType(I64, (3,))), {}, "number of keys that broadcasts to []"),
        BadSample((TensorType(F32, (2, 3, 4)),) * 3, {"window": 0}, "at least 1"),
    ]

    def infer(
        self, q: TensorType, k: TensorType, v: TensorType, *masks: TensorType, causal: bool, window: int | None, scale: float | None
    ) -> TensorType:
        _check(self.name, q, k, v)
        if window is not None and window < 1:
            raise TypeFailure(f"attention needs a window of at least 1 position, not {window}")
        _check_extra(self.name, q.shape[:-3], (*q.shape[:-1], k.shape[-2]), q.dtype, masks)
        return q.with_shape((*q.shape[:-1], v.shape[-1]))

    def expand(
        self, b: Builder, q: Value, k: Value, v: Value, *masks: Value, causal: bool, window: int | None, scale: float | None
    ) -> Value:
        lead = q.type.shape[:-3]
        batch: Dim = 1
        for size in lead:
            batch = batch * size
        width = q.type.shape[-1]
        if scale is None:
            if not isinstance(width, int):
                raise TypeFailure(f"attention of {q.type} needs a fixed number of features, or a scale", inputs=(0,))
            scale = 1 / sqrt(width) if width else 1.0
        scores = (*q.type.shape[:-1], k.type.shape[-2])
        flat = [reshaped(b, x, (batch, *x.type.shape[-3:])) for x in (q, k, v)]
        extra: list[Value] = []
        for x in sorted(masks, key=lambda x: (x.type.dtype != BOOL, not x.type.dtype.floating)):
            if x.type.dtype.integer:
                extra.append(reshaped(b, b.expand(b.cast(x, dtype=I64), shape=lead), (batch,)))
            else:
                extra.append(reshaped(b, b.expand(x, shape=scores), (batch, *scores[-3:])))
        out, _ = _forward(b, *flat, *extra, causal=causal, window=window or 0, scale=scale)
        return reshaped(b, out, (*q.type.shape[:-1], v.type.shape[-1]))

    def reference(self, q: Array, k: Array, v: Array, *masks: Array, causal: bool, window: int | None, scale: float | None) -> Any:
        s, group = _scores_of(q, k, masks, causal, window or 0, scale if scale is not None else 1 / sqrt(q.shape[-1]))
        (v,) = _there(masks, v)
        out, _ = _softmax_of(s)
        return (out @ np.repeat(v, group, -3)).astype(q.dtype)


# ---- NumPy ----------------------------------------------------------------------------------------------------------


def _scores_of(q: Array, k: Array, masks: tuple[Array, ...], causal: bool, window: int, scale: float) -> tuple[Array, int]:
    """Scores [..., H, T, S], minus infinity where a query does not see a key, and the heads of queries that share one of keys."""
    group = q.shape[-3] // k.shape[-3]
    s: Array = (q @ np.swapaxes(np.repeat(k, group, -3), -1, -2)) * scale
    t, n = s.shape[-2:]
    keys: Array = np.full((*s.shape[:-3], 1, 1, 1), n)
    for mask in masks:
        if mask.dtype.kind == "f":
            s = s + mask
        elif mask.dtype.kind == "b":
            s = np.where(mask, s, -np.inf)
        else:
            keys = np.broadcast_to(np.clip(mask, 0, n), s.shape[:-3])[..., None, None, None]
    at, key = keys - t + np.arange(t)[:, None], np.arange(n)
    seen = key < keys
    if causal:
        seen = seen & (key <= at)
    if window:
        seen = seen & (np.abs(at - key) < window)
    return np.where(seen, s, -np.inf), group


def _there(masks: tuple[Array, ...], *operands: Array) -> tuple[Array, ...]:
    """Keys or values [..., G, S, E] with zeros behind the number of keys, if one is given."""
    for mask in masks:
        if mask.dtype.kind in "iu":
            last = np.arange(operands[0].shape[-2])[:, None]
            counts = np.broadcast_to(mask, operands[0].shape[:-3])[..., None, None, None]
            return tuple(np.where(last < counts, x, x.dtype.type(0)) for x in operands)
    return operands


def _softmax_of(s: Array) -> tuple[Array, Array]:
    """Probabilities, 0 in a row that sees nothing, and the logarithms of the sums of exponentials."""
    with np.errstate(all="ignore"):
        top = s.max(-1, keepdims=True, initial=-np.inf)
        e = np.exp(s - np.where(top == -np.inf, 0.0, top))
        total = e.sum(-1, keepdims=True)
        return e / np.where(total == 0, 1.0, total), (np.where(top == -np.inf, 0.0, top) + np.log(total))[..., 0]


# ---- plain operators ------------------------------------------------------------------------------------------------


def _forward(b: Builder, q: Value, k: Value, v: Value, *extra: Value, causal: bool, window: int, scale: float) -> tuple[Value, Value]:
    """The algorithm of the back end, or plain operators where a length is known only at run time or a row of features is very long."""
    sizes = (*q.type.shape[1:], *k.type.shape[1:], *v.type.shape[1:])
    if all(isinstance(n, int) and n > 0 for n in sizes) and _row_bytes(q, v) <= LONGEST_ROW:
        out, total = b.attention_forward(q, k, v, *extra, causal=causal, window=window, scale=scale)
        return out, total
    return _plain_forward(b, q, k, v, extra, causal, window, scale)


def _row_bytes(*values: Value) -> int:
    return max(n * x.type.dtype.size for x in values for n in (x.type.shape[-1],) if isinstance(n, int))


def _grouped(b: Builder, x: Value, groups: Dim) -> Value:
    """[B, H, ...] as [B, groups, H / groups, ...]."""
    n, heads, *rest = x.type.shape
    return reshaped(b, x, (n, groups, _divided(heads, groups), *rest))


def _divided(heads: Dim, groups: Dim) -> Dim:
    return heads // groups if isinstance(heads, int) and isinstance(groups, int) else 1 if heads == groups else heads


def _plain_scores(b: Builder, q: Value, k: Value, extra: tuple[Value, ...], causal: bool, window: int, scale: float) -> Value:
    """Scores [B, H, T, S], minus infinity where a query does not see a key."""
    dtype, (n, heads, length, _), (_, groups, keys, _) = q.type.dtype, q.type.shape, k.type.shape
    products = b.einsum(_grouped(b, q, groups), k, equation="b g h t e, b g s e -> b g h t s")
    s: Value = b.mul(reshaped(b, products, (n, heads, length, keys)), b.scalar(scale, dtype))
    low = b.scalar(-np.inf, dtype)
    there: Value | None = None
    for x in extra:
        if x.type.dtype.floating:
            s = b.add(s, x)
        elif x.type.dtype == BOOL:
            s = b.where(x, s, low)
        else:
            there = reshaped(b, x, (n, 1, 1, 1))
    if there is None and not causal and not window:
        return s
    last, count = b.iota(size=keys, dtype=I64), extent(b, keys, I64)
    if there is not None:
        count = b.maximum(b.minimum(there, count), b.scalar(0, I64))
    at = b.add(b.sub(count, extent(b, length, I64)), reshaped(b, b.iota(size=length, dtype=I64), (length, 1)))
    seen = [b.lt(last, count)] if there is not None else []
    if causal:
        seen.append(b.le(last, at))
    if window:
        seen.append(b.lt(b.abs(b.sub(at, last)), b.scalar(window, I64)))
    for condition in seen:
        s = b.where(condition, s, low)
    return s


def _plain_there(b: Builder, extra: tuple[Value, ...], *operands: Value) -> tuple[Value, ...]:
    """Keys or values [B, G, S, E] with zeros behind the number of keys, if one is given: what stands there may be anything."""
    for x in extra:
        if x.type.dtype.integer:
            n, _, keys, _ = operands[0].type.shape
            last = reshaped(b, b.iota(size=keys, dtype=I64), (keys, 1))
            there = b.lt(last, reshaped(b, x, (n, 1, 1, 1)))
            return tuple(b.where(there, y, b.scalar(0.0, y.type.dtype)) for y in operands)
    return operands


def _plain_forward(
    b: Builder, q: Value, k: Value, v: Value, extra: tuple[Value, ...], causal: bool, window: int, scale: float
) -> tuple[Value, Value]:
    k, v = _plain_there(b, extra, k, v)
    dtype, (n, heads, length, _), groups = q.type.dtype, q.type.shape, k.type.shape[1]
    s = _plain_scores(b, q, k, extra, causal, window, scale)
    zero, one, low = (b.scalar(x, dtype) for x in (0.0, 1.0, -np.inf))
    top = b.stop_gradient(b.max(s, axis=-1, keep=True))
    base = b.where(b.eq(top, low), zero, top)
    e = b.exp(b.sub(s, base))
    total = b.sum(e, axis=-1, keep=True)
    blind = b.eq(total, zero)
    total = b.where(blind, one, total)
    out = b.einsum(_grouped(b, b.div(e, total), groups), v, equation="b g h t s, b g s d -> b g h t d")
    logsum = b.where(blind, low, b.add(base, b.log(total)))
    return reshaped(b, out, (n, heads, length, v.type.shape[-1])), reshaped(b, logsum, (n, heads, length))


def _probabilities(b: Builder, s: Value, logsum: Value) -> Value:
    """exp(s - logsum), 0 in a row that sees nothing."""
    dtype = s.type.dtype
    base = b.where(b.eq(logsum, b.scalar(-np.inf, dtype)), b.scalar(0.0, dtype), logsum)
    value: Value = b.exp(b.sub(s, reshaped(b, base, (*logsum.type.shape, 1))))
    return value


def _score_gradients(b: Builder, p: Value, v: Value, dout: Value, delta: Value) -> Value:
    """The gradient by the scores: p (dout v^T - delta)."""
    n, heads, length, keys = p.type.shape
    dp = b.einsum(_grouped(b, dout, v.type.shape[1]), v, equation="b g h t d, b g s d -> b g h t s")
    value: Value = b.mul(p, b.sub(reshaped(b, dp, (n, heads, length, keys)), reshaped(b, delta, (n, heads, length, 1))))
    return value


# ---- the algorithms -------------------------------------------------------------------------------------------------

_SETTINGS = {
    "causal": _CAUSAL,
    "window": Attr("int", 0, "a query sees keys fewer than so many positions away; 0: all"),
    "scale": Attr("float", doc="factor of the scores"),
}


def _routine(name: str, q: TensorType, k: TensorType, v: TensorType, extra: tuple[TensorType, ...], attrs: dict[str, Any]) -> Routine:
    sizes = (
        *(("examples", q.shape[0]), ("heads", q.shape[1]), ("groups", k.shape[1])),
        *(("queries", q.shape[2]), ("keys", k.shape[2]), ("features", q.shape[3]), ("width", v.shape[3])),
    )
    given = {"masked": BOOL in [x.dtype for x in extra], "biased": any(x.dtype.floating for x in extra)}
    given["counted"] = any(x.dtype.integer for x in extra)
    return Routine(name, sizes, (*attrs.items(), *given.items()), strided=True)


@operator
class AttentionForward(Operator):
    """attention of q [B, H, T, E], k [B, G, S, E] and v [B, G, S, D], and for each query the logarithm of the sum of its exponentials [B, H, T].

    Then a mask and a bias [B, H, T, S] and a number of keys [B], in this order, of which each may be missing.
    """

    family = "softmax"
    internal = True
    inputs = ("q", "k", "v", "*extra")
    attrs = _SETTINGS
    samples = [
        Sample(((5, 2, 3, 2), (5, 1, 4, 2), (5, 1, 4, 3)), {"causal": True, "scale": 0.5}),
        Sample(
            ((1, 1, 3, 2), (1, 1, 4, 2), (1, 1, 4, 2), (1, 1, 3, 4), np.array([2])),
            {"causal": True, "scale": 0.5, "window": 2},
            gradient=False,
        ),
        Sample(((2, 2, 20, 16), (2, 2, 200, 16), (2, 2, 200, 16)), {"scale": 4.0}, gradient=False),
        Sample((np.full((1, 1, 20, 16), 30.0), np.full((1, 1, 70, 16), 30.0), (1, 1, 70, 16)), {"scale": 1.0}, gradient=False),
    ]
    errors = [BadSample((TensorType(F32, (2, 3, 4)),) * 3, {"scale": 1.0}, "four axes")]

    def infer(
        self, q: TensorType, k: TensorType, v: TensorType, *extra: TensorType, causal: bool, window: int, scale: float
    ) -> tuple[TensorType, TensorType]:
        if q.rank != 4:
            raise TypeFailure(f"attention_forward needs four axes, not {q}", inputs=(0,))
        _check(self.name, q, k, v)
        return q.with_shape((*q.shape[:3], v.shape[3])), q.with_shape(q.shape[:3])

    def routine(self, q: TensorType, k: TensorType, v: TensorType, *extra: TensorType, **attrs: Any) -> Routine:
        return _routine(self.name, q, k, v, extra, attrs)

    def expand(
        self, b: Builder, q: Value, k: Value, v: Value, *extra: Value, causal: bool, window: int, scale: float
    ) -> tuple[Value, Value]:
        return _plain_forward(b, q, k, v, extra, causal, window, scale)

    def vjp(
        self, b: Builder, dy: tuple[Value | None, Value | None], y: tuple[Value, Value], q: Value, k: Value, v: Value, *extra: Value,
        causal: bool, window: int, scale: float,
    ) -> tuple[Value | None, ...]:  # fmt: skip
        out, logsum = y
        dout = dy[0] if dy[0] is not None else b.like(0.0, out.type)
        delta = b.sum(b.mul(dout, out), axis=-1)
        if dy[1] is not None:
            delta = b.sub(delta, dy[1])
        settings = {"causal": causal, "window": window, "scale": scale}
        gradients = list(b.attention_backward(q, k, v, logsum, delta, dout, *extra, **settings))
        for x in extra:
            if x.type.dtype.floating:
                (v,) = _plain_there(b, extra, v)
                p = _probabilities(b, _plain_scores(b, q, k, extra, causal, window, scale), logsum)
                gradients.append(_score_gradients(b, p, v, dout, delta))
            else:
                gradients.append(None)
        return tuple(gradients)

    def reference(self, q: Array, k: Array, v: Array, *extra: Array, causal: bool, window: int, scale: float) -> Any:
        k, v = _there(extra, k, v)
        s, group = _scores_of(q, k, extra, causal, window, scale)
        p, logsum = _softmax_of(s)
        return (p @ np.repeat(v, group, 1)).astype(q.dtype), logsum.astype(q.dtype)


@operator
class AttentionBackward(Operator):
    """The gradients of attention_forward by q, k and v.

    From its operands, its logarithms of sums [B, H, T], the gradient by its result [B, H, T, D], and `delta` [B, H, T], the sum of each
    row of that gradient times the result, minus the gradient by the logarithm.
    """

    family = "softmax"
    internal = True
    inputs = ("q", "k", "v", "logsum", "delta", "dout", "*extra")
    attrs = _SETTINGS
    samples = [
        Sample(((5, 2, 3, 2), (5, 1, 4, 2), (5, 1, 4, 3), (5, 2, 3), (5, 2, 3), (5, 2, 3, 3)), {"causal": True, "scale": 0.5}),
        Sample(
            ((1, 2, 70, 24), (1, 2, 90, 24), (1, 2, 90, 17), np.full((1, 2, 70), 3.0), (1, 2, 70), (1, 2, 70, 17)),
            {"causal": True, "scale": 0.25, "window": 30},
            gradient=False,
        ),
        Sample(
            ((2, 4, 20, 64), (2, 2, 90, 64), (2, 2, 90, 64), np.full((2, 4, 20), 3.0), (2, 4, 20), (2, 4, 20, 64), np.array([70, 0])),
            {"scale": 0.1},
            gradient=False,
        ),
        Sample(
            (
                *((1, 1, 3, 2), (1, 1, 4, 2), (1, 1, 4, 2), np.array([[[1.0, -np.inf, 0.5]]]), (1, 1, 3), (1, 1, 3, 2)),
                np.array([[[[True] * 4, [False] * 4, [True, True, False, True]]]]),
                (1, 1, 3, 4),
            ),
            {"scale": 0.5},
            gradient=False,
        ),
    ]
    errors = [
        BadSample(
            (*(TensorType(F32, (1, 2, 3, 4)),) * 3, *(TensorType(F32, (1, 2, 3)),) * 2, TensorType(F32, (1, 2, 3))), {"scale": 1.0}, "dout"
        ),
    ]

    def infer(
        self,
        q: TensorType,
        k: TensorType,
        v: TensorType,
        logsum: TensorType,
        delta: TensorType,
        dout: TensorType,
        *extra: TensorType,
        **attrs: Any,
    ) -> tuple[TensorType, TensorType, TensorType]:
        _check(self.name, q, k, v)
        if dout.shape != (*q.shape[:3], v.shape[3]) or not logsum.shape == delta.shape == q.shape[:3]:
            raise TypeFailure(f"attention_backward of {q} and {v} cannot take dout {dout}, logsum {logsum} and delta {delta}", inputs=(5,))
        return q, k, v

    def routine(self, q: TensorType, k: TensorType, v: TensorType, *rest: TensorType, **attrs: Any) -> Routine:
        return _routine(self.name, q, k, v, rest[3:], attrs)

    def expand(
        self, b: Builder, q: Value, k: Value, v: Value, logsum: Value, delta: Value, dout: Value, *extra: Value,
        causal: bool, window: int, scale: float,
    ) -> tuple[Value, Value, Value]:  # fmt: skip
        k, v = _plain_there(b, extra, k, v)
        groups = k.type.shape[1]
        p = _probabilities(b, _plain_scores(b, q, k, extra, causal, window, scale), logsum)
        ds = _grouped(b, b.mul(_score_gradients(b, p, v, dout, delta), b.scalar(scale, q.type.dtype)), groups)
        dq = b.einsum(ds, k, equation="b g h t s, b g s e -> b g h t e")
        dk = b.einsum(ds, _grouped(b, q, groups), equation="b g h t s, b g h t e -> b g s e")
        dv = b.einsum(_grouped(b, p, groups), _grouped(b, dout, groups), equation="b g h t s, b g h t d -> b g s d")
        return reshaped(b, dq, q.type.shape), dk, dv

    def reference(
        self, q: Array, k: Array, v: Array, logsum: Array, delta: Array, dout: Array, *extra: Array, causal: bool, window: int, scale: float
    ) -> Any:
        k, v = _there(extra, k, v)
        s, group = _scores_of(q, k, extra, causal, window, scale)
        p = np.exp(s - np.where(logsum == -np.inf, 0.0, logsum)[..., None])
        ds = p * (dout @ np.swapaxes(np.repeat(v, group, 1), -1, -2) - delta[..., None]) * scale
        dk, dv = np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ dout
        shared = [x.reshape(x.shape[0], -1, group, *x.shape[2:]).sum(2).astype(q.dtype) for x in (dk, dv)]
        return ((ds @ np.repeat(k, group, 1)).astype(q.dtype), *shared)
