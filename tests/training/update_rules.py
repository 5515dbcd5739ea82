"""Update rules and schedules in NumPy, as the papers and PyTorch have them: the oracles of the optimizer library.

A rule is `rule(p, g, t, state, lr, **settings)`: it returns the new parameter and keeps what it remembers in the dictionary `state`.
`t` counts from 1. A schedule is `schedule(t, total)`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
State = dict[str, Any]


def adagrad(p: Array, g: Array, t: int, s: State, lr: float, eps: float = 1e-10, start: float = 0.0) -> Array:
    s["s"] = s.get("s", start) + g * g
    return p - lr * g / (np.sqrt(s["s"]) + eps)


def adadelta(p: Array, g: Array, t: int, s: State, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6) -> Array:
    s["s"] = rho * s.get("s", 0.0) + (1 - rho) * g * g
    d = g * np.sqrt(s.get("d", 0.0) + eps) / np.sqrt(s["s"] + eps)
    s["d"] = rho * s.get("d", 0.0) + (1 - rho) * d * d
    return p - lr * d


def _moments(g: Array, t: int, s: State, b1: float, b2: float) -> tuple[Array, Array]:
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
    return s["m"], s["v"]


def adam(p: Array, g: Array, t: int, s: State, lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Array:
    m, v = _moments(g, t, s, b1, b2)
    return p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


def adamw(p: Array, g: Array, t: int, s: State, lr: float, decay: float = 0.01) -> Array:
    return adam(p * (1 - lr * decay), g, t, s, lr)


def adamax(p: Array, g: Array, t: int, s: State, lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Array:
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["u"] = np.maximum(b2 * s.get("u", 0.0), np.abs(g) + eps)
    return p - lr / (1 - b1**t) * s["m"] / s["u"]


def nadam(
    p: Array, g: Array, t: int, s: State, lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, slope: float = 0.004
) -> Array:
    now, after = (b1 * (1 - 0.5 * 0.96 ** (n * slope)) for n in (t, t + 1))
    s["product"] = s.get("product", 1.0) * now
    m, v = _moments(g, t, s, b1, b2)
    denominator = np.sqrt(v / (1 - b2**t)) + eps
    return p - lr * (1 - now) / (1 - s["product"]) * g / denominator - lr * after / (1 - s["product"] * after) * m / denominator


def rmsprop(p: Array, g: Array, t: int, s: State, lr: float, alpha: float = 0.99, eps: float = 1e-8, momentum: float = 0.0) -> Array:
    s["s"] = alpha * s.get("s", 0.0) + (1 - alpha) * g * g
    s["v"] = momentum * s.get("v", 0.0) + g / (np.sqrt(s["s"]) + eps)
    return p - lr * s["v"]


def sgd(p: Array, g: Array, t: int, s: State, lr: float, momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0) -> Array:
    d = g + decay * p
    s["v"] = momentum * s.get("v", 0.0) + d
    return p - lr * (d + momentum * s["v"] if nesterov else s["v"])


def lion(p: Array, g: Array, t: int, s: State, lr: float, b1: float = 0.9, b2: float = 0.99, decay: float = 0.0) -> Array:
    m = s.get("m", 0.0 * g)
    s["m"] = b2 * m + (1 - b2) * g
    return p * (1 - lr * decay) - lr * np.sign(b1 * m + (1 - b1) * g)


def lamb(
    p: Array, g: Array, t: int, s: State, lr: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, decay: float = 0.01
) -> Array:
    m, v = _moments(g, t, s, b1, b2)
    d = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * p
    size, length = np.linalg.norm(p), np.linalg.norm(d)
    return p - lr * (size / length if size > 0 and length > 0 else 1.0) * d


def one_cycle(rate: float, rise: float = 0.3, start: float = 0.04, end: float = 4e-6) -> Any:
    def at(t: int, total: int) -> float:
        top, last = rise * total - 1, total - 1

        def between(a: float, b: float, share: float) -> float:
            return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

        done = t - 1
        return between(start * rate, rate, done / top) if done <= top else between(rate, end * rate, (done - top) / (last - top))

    return at


def cosine_restarts(rate: float, period: int, factor: int = 1, end: float = 0.0) -> Any:
    def at(t: int, total: int) -> float:
        begin, length = 0, period
        while t - 1 >= begin + length:
            begin, length = begin + length, length * factor
        return rate * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * (t - 1 - begin) / length)))

    return at


def exponential(rate: float, factor: float) -> Any:
    return lambda t, total: rate * factor ** (t - 1)


def polynomial(rate: float, power: float = 2.0, end: float = 0.0) -> Any:
    return lambda t, total: rate * (end + (1 - end) * (1 - (t - 1) / total) ** power)
