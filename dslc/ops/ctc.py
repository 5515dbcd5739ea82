"""Connectionist temporal classification: the loss of a sequence of symbols that is aligned with no frame, and its two recursions; the
distance of two sequences.

A. Graves et al., "Connectionist temporal classification", 2006. The states of an example are its symbols with a blank before, between and
behind them, L = 2 S + 1 in all. From one frame to the next a path stays, goes to the next state, or skips a blank between two symbols
that differ. Everything is a logarithm, so that the probability of no path underflows.
"""

from __future__ import annotations

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.routines import Routine
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, broadcast_to, cut, require, reshaped

F32, F64, I32, I64, BOOL = DType.F32, DType.F64, DType.I32, DType.I64, DType.BOOL
MOVES = 3  # a path comes from the same state, the one before, or the one before that
_NONE = float("-inf")
_REDUCTIONS = ("mean", "sum", "none")


# ---- the recursions -----------------------------------------------------------------------------------------------


def _check_lattice(name: str, x: TensorType) -> None:
    require("floating", name, x)
    if x.rank != 3:
        raise TypeFailure(f"{name} needs [N, T, L], not {x}", inputs=(0,))
    if isinstance(x.shape[2], int) and x.shape[2] < 2:
        raise TypeFailure(f"{name} needs at least 2 states, not {x}", inputs=(0,), axes=(2,))


@operator
class CtcForward(Operator):
    """The logarithm of the probability of all paths from the first frame to each state of each frame: [N, T, L].

    `e` has the logarithms of the states' symbols in each frame, [N, T, L]; `skip` tells which states are reached from two states before, [N, L].
    A path begins in state 0, or in state 1 where that may skip. Minus infinity where none arrives.
    """

    family = "loss"
    internal = True
    inputs = ("e", "skip")
    samples = [
        Sample(((5, 3, 2), np.full((5, 2), True))),
        Sample(((2, 4, 7), np.array([[False, True, False, True, False, False, False], [False, True] * 3 + [False]])), gradient=False),
        Sample((np.random.default_rng(3).normal(-2, 1, (3, 20, 41)), np.arange(123).reshape(3, 41) % 3 > 0), gradient=False),
        Sample((np.array([[[0.0, -np.inf], [-np.inf, -np.inf], [0.0, 0.0]]]), np.array([[False, True]])), gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (3, 4)), TensorType(BOOL, (3, 4))), {}, "[N, T, L]"),
        BadSample((TensorType(F32, (2, 3, 4)), TensorType(BOOL, (2, 3))), {}, "bool[2, 4]"),
        BadSample((TensorType(F32, (2, 3, 1)), TensorType(BOOL, (2, 1))), {}, "at least 2"),
    ]

    def infer(self, e: TensorType, skip: TensorType) -> TensorType:
        _check_lattice(self.name, e)
        wanted = TensorType(BOOL, (e.shape[0], e.shape[2]))
        if skip != wanted:
            raise TypeFailure(f"ctc_forward of {e} needs {wanted}, not {skip}", inputs=(0, 1))
        return e

    def routine(self, e: TensorType, skip: TensorType) -> Routine:
        rows, steps, states = e.shape
        scratch = (TensorType(e.dtype, (rows, states + MOVES - 1)),)
        return Routine("ctc", (("rows", rows), ("steps", steps), ("states", states)), (), scratch)

    def vjp(self, b: Builder, dy: Value, y: Value, e: Value, skip: Value) -> tuple[Value, None]:
        weights = _move_shares(b, y, skip)
        reached = b.ne(y, b.scalar(_NONE, y.type.dtype))
        return b.banded_recurrence(b.where(reached, dy, b.scalar(0.0, y.type.dtype)), *weights, reverse=True), None

    def reference(self, e: Array, skip: Array) -> Array:
        y = np.full_like(e, -np.inf)
        for n, rows in enumerate(e):
            before = np.full(e.shape[2], -np.inf, e.dtype)
            for t, row in enumerate(rows):
                one = np.concatenate([[0 if t == 0 else -np.inf], before[:-1]])
                two = np.concatenate([[-np.inf, 0 if t == 0 else -np.inf], before[:-2]])
                both = np.logaddexp(before, one)
                before = (row + np.where(skip[n], np.logaddexp(both, two), both)).astype(e.dtype)
                y[n, t] = before
        return y


def _move_shares(b: Builder, y: Value, skip: Value) -> list[Value]:
    """Of what arrives in each state of each frame, the share that came from it, from the state before and from the one before that.

    `y` is what `ctc_forward` gives. Shares are normalised as they are made, so that those of a state sum to 1 up to one rounding
    however long the sequence. No operand is infinite where its result counts: all derivatives are finite.
    """
    rows, steps, states = y.type.shape
    dtype = y.type.dtype
    zero, none = b.scalar(0.0, dtype), b.scalar(_NONE, dtype)
    sources = []
    for move in range(MOVES):
        part = b.slice(y, starts=(0, 0, 0), stops=(rows, steps - 1, states - move), steps=(1, 1, 1))
        sources.append(b.pad(part, low=(1, move), high=(0, 0), value=_NONE))
    sources[2] = b.where(b.reshape(skip, shape=(rows, 1, states)), sources[2], none)
    largest = b.stop_gradient(b.maximum(b.maximum(sources[0], sources[1]), sources[2]))
    found = b.ne(largest, none)
    largest = b.where(found, largest, zero)
    terms = []
    for source in sources:
        there = b.ne(source, none)
        distance = b.sub(b.where(there, source, zero), b.where(there, largest, zero))
        terms.append(b.where(there, b.exp(distance), zero))
    total = b.where(found, b.add(b.add(terms[0], terms[1]), terms[2]), b.scalar(1.0, dtype))
    return [b.div(term, total) for term in terms]


@operator
class BandedRecurrence(Operator):
    """h[t, s] = d[t, s] + sum over k of w_k[t, s] * h[t - 1, s - k], for k = 0, 1, 2; what lies outside is 0. All are [N, T, L].

    With `reverse` the transposed one: h[t, s] = d[t, s] + sum over k of w_k[t + 1, s + k] * h[t + 1, s + k].
    """

    family = "scan"
    internal = True
    inputs = ("d", "w0", "w1", "w2")
    attrs = {"reverse": Attr("bool", False, "from the last frame to the first, by the transposed sum")}
    samples = [
        Sample(((5, 3, 4),) * 4),
        Sample(((5, 3, 4),) * 4, {"reverse": True}),
        Sample(((1, 2, 2),) * 4, {"reverse": True}),
        Sample(((2, 6, 35),) * 4, gradient=False),
        Sample(((2, 6, 35),) * 4, {"reverse": True}, gradient=False),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),) * 4, {}, "[N, T, L]"),
        BadSample((TensorType(F32, (2, 3, 4)),) * 3 + (TensorType(F32, (2, 3, 5)),), {}, "of one type"),
    ]

    def infer(self, d: TensorType, w0: TensorType, w1: TensorType, w2: TensorType, reverse: bool) -> TensorType:
        _check_lattice(self.name, d)
        if not d == w0 == w1 == w2:
            raise TypeFailure(f"banded_recurrence needs four tensors of one type, not {d}, {w0}, {w1} and {w2}", inputs=(0, 1, 2, 3))
        return d

    def routine(self, d: TensorType, w0: TensorType, w1: TensorType, w2: TensorType, reverse: bool) -> Routine:
        rows, steps, states = d.shape
        return Routine("band", (("rows", rows), ("steps", steps), ("states", states)), (("reverse", reverse),))

    def vjp(
        self, b: Builder, dh: Value, h: Value, d: Value, w0: Value, w1: Value, w2: Value, reverse: bool
    ) -> tuple[Value, Value, Value, Value]:
        # The result and its cotangent's recurrence are the two directions; a weight joins a state of the one to a state of the other.
        other = b.banded_recurrence(dh, w0, w1, w2, reverse=not reverse)
        first, second = (other, h) if reverse else (h, other)
        rows, steps, states = d.type.shape
        changes = []
        for move in range(MOVES):
            part = b.slice(first, starts=(0, 0, 0), stops=(rows, steps - 1, states - move), steps=(1, 1, 1))
            changes.append(b.mul(b.pad(part, low=(1, move), high=(0, 0)), second))
        return other, changes[0], changes[1], changes[2]

    def reference(self, d: Array, w0: Array, w1: Array, w2: Array, reverse: bool) -> Array:
        h = np.zeros_like(d)
        steps, states = d.shape[1:]
        for t in range(steps)[:: -1 if reverse else 1]:
            h[:, t] = d[:, t]
            if 0 <= (t + 1 if reverse else t - 1) < steps:
                for k, w in enumerate((w0, w1, w2)):
                    if reverse:
                        h[:, t, : states - k] += w[:, t + 1, k:] * h[:, t + 1, k:]
                    else:
                        h[:, t, k:] += w[:, t, k:] * h[:, t - 1, : states - k]
        return h


# ---- the loss -----------------------------------------------------------------------------------------------------

_TARGET = np.array([[1, 2, 2], [3, 1, 0], [2, 1, 3], [1, 1, 1], [2, 0, 0]])
_LENGTHS = (np.array([6, 5, 6, 3, 4]), np.array([3, 2, 3, 3, 0]))  # the fourth has no alignment: 1 1 1 needs five frames


@operator
class CtcLoss(Operator):
    """Minus the logarithm of the probability that frames log_p[N, T, C] say the symbols target[N, S], over all alignments.

    `log_p` has logarithms of probabilities (`log_softmax`). `frames[N]` and `symbols[N]` say how many of each belong to an example; what
    lies behind them counts for nothing, whatever it is. A symbol is a class from 0 to C - 1 other than `blank`, and equal neighbours
    need a blank between them. The mean is that over examples of the loss divided by max(symbols, 1). Without an alignment the loss is
    infinite, or 0 with `zero_infinity`, and the gradient of that example is 0 either way. Losses are PyTorch's, and so are gradients by
    the scores before log_softmax. A. Graves et al., "Connectionist temporal classification", 2006, in logarithms.
    """

    family = "loss"
    inputs = ("log_p", "target", "frames", "symbols")
    attrs = {
        "blank": Attr("int", 0, "the class of no symbol"),
        "reduction": Attr("str", "mean", '"mean", "sum" or "none": one loss an example'),
        "zero_infinity": Attr("bool", False, "0 for examples that have no alignment"),
    }
    samples = [
        Sample(((5, 6, 4), _TARGET, *_LENGTHS), {"zero_infinity": True}),
        Sample(((5, 6, 4), _TARGET, *_LENGTHS), {"reduction": "none"}, gradient=False),
        Sample(((2, 4, 3), np.array([[0], [1]], np.int32), np.array([4, 2]), np.array([1, 1])), {"blank": 2, "reduction": "sum"}),
        Sample(
            (
                np.array([[[0.0, -np.inf, -np.inf], [-np.inf, 0.0, -np.inf], [np.nan] * 3]] * 2),
                *(np.array(a) for a in ([[1], [2]], [2, 0], [1, 0])),
            ),
            {"reduction": "none"},
            gradient=False,
        ),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)), *(TensorType(I64, s) for s in ((2, 3), (2,), (2,)))), {}, "[N, T, C]"),
        BadSample((TensorType(F32, (2, 3, 4)), *(TensorType(I64, s) for s in ((3, 3), (2,), (2,)))), {}, "target [2, S]"),
        BadSample((TensorType(F32, (2, 3, 4)), *(TensorType(I64, s) for s in ((2, 3), (2,), (3,)))), {}, "symbols [2]"),
        BadSample((TensorType(F32, (2, 3, 4)), *(TensorType(F32, s) for s in ((2, 3), (2,), (2,)))), {}, "integer"),
        BadSample((TensorType(F32, (2, 3, 4)), *(TensorType(I64, s) for s in ((2, 3), (2,), (2,)))), {"blank": 4}, "from 0 to 3"),
        BadSample((TensorType(F32, (2, 3, 4)), *(TensorType(I64, s) for s in ((2, 3), (2,), (2,)))), {"reduction": "max"}, '"sum"'),
    ]

    def infer(
        self,
        log_p: TensorType,
        target: TensorType,
        frames: TensorType,
        symbols: TensorType,
        blank: int,
        reduction: str,
        zero_infinity: bool,
    ) -> TensorType:
        require("floating", "ctc_loss", log_p)
        if log_p.rank != 3:
            raise TypeFailure(f"ctc_loss needs log_p [N, T, C], not {log_p}", inputs=(0,))
        count, _, classes = log_p.shape
        for position, (what, t) in enumerate((("target", target), ("frames", frames), ("symbols", symbols)), 1):
            if not t.dtype.integer:
                raise TypeFailure(f"ctc_loss needs an integer {what}, not {t}", inputs=(position,), hint="convert it with cast[i64](...)")
            if t.rank != (2 if what == "target" else 1) or t.shape[0] != count:
                wanted = f"[{count}, S]" if what == "target" else f"[{count}]"
                raise TypeFailure(f"ctc_loss of {log_p} needs {what} {wanted}, not {t}", inputs=(0, position))
        if blank < 0 or (isinstance(classes, int) and blank >= classes):
            raise TypeFailure(f"ctc_loss of {log_p}: the blank is a class from 0 to {classes - 1}, not {blank}", inputs=(0,), axes=(2,))
        if reduction not in _REDUCTIONS:
            raise TypeFailure(f'ctc_loss: the reduction is "mean", "sum" or "none", not "{reduction}"')
        return TensorType(log_p.dtype, (count,) if reduction == "none" else ())

    def expand(
        self, b: Builder, log_p: Value, target: Value, frames: Value, symbols: Value, blank: int, reduction: str, zero_infinity: bool
    ) -> Value:
        dtype = log_p.type.dtype
        zero, none = b.scalar(0.0, dtype), b.scalar(_NONE, dtype)
        rows, steps, _ = log_p.type.shape
        frames, symbols = (b.cast(v, dtype=I64) if v.type.dtype != I64 else v for v in (frames, symbols))
        labels, skip = _states(b, target, blank)
        states = labels.type.shape[1]
        at = broadcast_to(b, reshaped(b, labels, (rows, 1, states)), (rows, steps, states))
        last = b.mul(symbols, b.scalar(2, I64))  # the state behind the last symbol
        counts = b.apply(
            "and",
            b.lt(b.iota(size=steps, dtype=I64), b.reshape(frames, shape=(rows, 1))),
            b.ge(b.reshape(frames, shape=(rows, 1)), b.scalar(0, I64)),
        )
        used = b.le(b.iota(size=states, dtype=I64), b.reshape(last, shape=(rows, 1)))
        inside = b.apply("and", b.reshape(counts, shape=(rows, steps, 1)), b.reshape(used, shape=(rows, 1, states)))
        alpha = b.ctc_forward(b.where(inside, b.take_along(log_p, at, axis=2), zero), skip)
        final = b.reshape(b.sub(frames, b.scalar(1, I64)), shape=(rows, 1, 1))
        final = b.take_along(alpha, broadcast_to(b, final, (rows, 1, states)), axis=1)
        ends = []
        for back in range(2):
            place = b.reshape(b.sub(last, b.scalar(back, I64)), shape=(rows, 1, 1))
            ends.append(b.reshape(b.take_along(final, place, axis=2), shape=(rows,)))
        some = b.gt(symbols, b.scalar(0, I64))
        ends[1] = b.where(some, ends[1], none)  # without symbols there is no last one to end in
        loss, found = _minus_log_sum(b, ends)
        begun = b.gt(frames, b.scalar(0, I64))
        loss = b.where(begun, loss, zero)
        found = b.where(begun, found, b.apply("not", some))  # no frames say no symbols
        result: Value = b.where(found, loss, zero if zero_infinity else b.scalar(float("inf"), dtype))
        if reduction == "mean":
            result = b.div(result, b.cast(b.maximum(symbols, b.scalar(1, I64)), dtype=dtype))
        if reduction != "none":
            result = b.apply(reduction, result, axis=None)
        return result

    def reference(
        self, log_p: Array, target: Array, frames: Array, symbols: Array, blank: int, reduction: str, zero_infinity: bool
    ) -> Array:
        losses = np.zeros(len(log_p), log_p.dtype)
        for n, (count, length) in enumerate(zip(frames, symbols, strict=True)):
            states = [blank]
            for symbol in target[n, :length]:
                states += [int(symbol), blank]
            paths = {-1: 0.0}  # logarithms by state; -1 is before the first frame
            for row in log_p[n, :count]:
                found: dict[int, list[float]] = {}
                for state, value in paths.items():
                    for to in (state, state + 1, state + 2):
                        skips = to == state + 2
                        allowed = 0 <= to < len(states) and (
                            not skips or (to == 1 if state < 0 else states[to] not in (blank, states[state]))
                        )
                        if allowed:
                            found.setdefault(to, []).append(value + float(row[states[to]]))
                paths = {to: float(np.logaddexp.reduce(values)) for to, values in found.items()}
            ends = [v for s, v in paths.items() if s >= len(states) - 2] if count else ([0.0] if length == 0 else [])
            losses[n] = -np.logaddexp.reduce(ends) if ends else np.inf
        if zero_infinity:
            losses = np.where(np.isinf(losses), 0, losses)
        if reduction == "mean":
            losses = losses / np.maximum(symbols, 1)
        return np.asarray(losses if reduction == "none" else getattr(np, reduction)(losses), log_p.dtype)


def _states(b: Builder, target: Value, blank: int) -> tuple[Value, Value]:
    """The class of each state, i32[N, 2 S + 1], and whether a path may come to it from two states before, bool[N, 2 S + 1]."""
    rows, length = target.type.shape
    double: Dim = 2 * length
    symbols = reshaped(b, b.cast(target, dtype=I32) if target.type.dtype != I32 else target, (rows, length, 1))
    pairs = b.concat(b.like(blank, symbols.type), symbols, axis=2)
    labels = b.pad(b.reshape(pairs, shape=(rows, double)), low=(0,), high=(1,), value=blank)
    earlier = b.pad(cut(b, labels, 1, 0, double - 1), low=(2,), high=(0,), value=blank)
    return labels, b.ne(labels, earlier)


def _minus_log_sum(b: Builder, terms: list[Value]) -> tuple[Value, Value]:
    """-log(sum of exp) by element, and where there is one: not where all are minus infinity (0 stands there, without a gradient)."""
    dtype = terms[0].type.dtype
    zero, none = b.scalar(0.0, dtype), b.scalar(_NONE, dtype)
    largest = b.stop_gradient(b.maximum(*terms))
    found = b.ne(largest, none)
    largest = b.where(found, largest, zero)
    total = zero
    for term in terms:
        there = b.ne(term, none)
        distance = b.sub(b.where(there, term, zero), b.where(there, largest, zero))
        total = b.add(total, b.where(there, b.exp(distance), zero))
    total = b.where(found, total, b.scalar(1.0, dtype))
    return b.neg(b.add(largest, b.log(total))), found


# ---- the distance of two sequences --------------------------------------------------------------------------------


@operator
class EditDistance(Operator):
    """The least number of insertions, deletions and replacements that turn x into y, for each row: i64[N].

    x[N, T] and y[N, S] are symbols, `length` and `other` [N] how many of each count. V. Levenshtein, "Binary codes capable of
    correcting deletions, insertions and reversals", 1966.
    """

    family = "sequence"
    inputs = ("x", "y", "length", "other")
    differentiable = False
    samples = [
        Sample(
            (np.arange(40).reshape(5, 8) * 7 % 3, np.arange(30).reshape(5, 6) * 5 % 3, np.array([8, 5, 0, 3, 8]), np.array([6, 6, 4, 0, 1]))
        ),
        Sample((np.array([[1, 2, 3]], np.int32), np.array([[1, 3, 3, 9]]), np.array([9]), np.array([-1]))),
    ]
    errors = [
        BadSample((TensorType(I64, (2, 3)), TensorType(I64, (3, 3)), TensorType(I64, (2,)), TensorType(I64, (2,))), {}, "y [2, S]"),
        BadSample((TensorType(I64, (2, 3)), TensorType(I64, (2, 3)), TensorType(I64, (2, 1)), TensorType(I64, (2,))), {}, "length [2]"),
        BadSample((TensorType(F32, (2, 3)), TensorType(I64, (2, 3)), TensorType(I64, (2,)), TensorType(I64, (2,))), {}, "integer"),
        BadSample((TensorType(I64, (3,)), TensorType(I64, (2, 3)), TensorType(I64, (2,)), TensorType(I64, (2,))), {}, "[N, T]"),
    ]

    def infer(self, x: TensorType, y: TensorType, length: TensorType, other: TensorType) -> TensorType:
        require("integer", "edit_distance", x, y, length, other)
        if x.rank != 2:
            raise TypeFailure(f"edit_distance needs x [N, T], not {x}", inputs=(0,))
        rows = x.shape[0]
        for position, (name, t, rank) in enumerate((("y", y, 2), ("length", length, 1), ("other", other, 1)), 1):
            if t.rank != rank or t.shape[0] != rows:
                wanted = f"[{rows}, S]" if rank == 2 else f"[{rows}]"
                raise TypeFailure(f"edit_distance of {x} needs {name} {wanted}, not {t}", inputs=(0, position))
        return TensorType(I64, (rows,))

    def expand(self, b: Builder, *inputs: Value) -> Value:
        value: Value = b.edit_rows(*(b.cast(v, dtype=I64) if v.type.dtype != I64 else v for v in inputs))
        return value

    def reference(self, x: Array, y: Array, length: Array, other: Array) -> Array:
        found = []
        for a, c, n, m in zip(x, y, length, other, strict=True):
            a, c = a[: max(n, 0)], c[: max(m, 0)]
            table = np.add.outer(np.arange(len(a) + 1), np.arange(len(c) + 1))
            for i, j in np.ndindex(len(a), len(c)):
                table[i + 1, j + 1] = min(table[i, j + 1] + 1, table[i + 1, j] + 1, table[i, j] + (a[i] != c[j]))
            found.append(table[-1, -1])
        return np.array(found, np.int64)


@operator
class EditRows(EditDistance):
    """edit_distance of i64."""

    internal = True
    samples = EditDistance.samples[:1]
    expand = None  # type: ignore[assignment]

    def routine(self, x: TensorType, y: TensorType, length: TensorType, other: TensorType) -> Routine:
        rows, most = y.shape
        sizes = (("rows", rows), ("count", x.shape[1]), ("most", most))
        return Routine("edit", sizes, (), (TensorType(I64, (rows, most + 1)),))
