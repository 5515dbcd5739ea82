"""Initial values of persistent buffers: each is drawn from its own stream of the seed, so that other buffers do not change it.

A matrix `[In, Out]` has fan-in In and fan-out Out. A convolution's weights `[Out, In, k, ...]` have fan-in In * k * ... and
fan-out Out * k * .... The generator is NumPy's Philox, keyed by (seed, stream).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


_VALUES = {"f16": "f2", "bf16": "f4", "f32": "f4", "f64": "f8", "i8": "i1", "i32": "i4", "i64": "i8", "u8": "u1", "bool": "?"}


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """(fan-in, fan-out) of a weight's shape."""
    if len(shape) < 2:
        n = float(math.prod(shape))
        return n, n
    if len(shape) == 2:
        return float(shape[0]), float(shape[1])
    field = math.prod(shape[2:])
    return float(shape[1] * field), float(shape[0] * field)


def initial_value(initial: Mapping[str, Any] | None, dtype: str, shape: tuple[int, ...], seed: int) -> Array:
    """The array that `initial` (kind, settings, stream) describes, in the values of `dtype`: f32 for bf16."""
    kind = "zeros" if initial is None else str(initial["kind"])
    settings: Mapping[str, Any] = {} if initial is None else initial.get("settings", {})
    target = np.dtype(_VALUES[dtype])
    if kind == "zeros":
        return np.zeros(shape, target)
    if kind == "ones":
        return np.ones(shape, target)
    if kind == "constant":
        return np.full(shape, settings.get("value", 0), target)
    stream = 0 if initial is None else int(initial.get("stream", 0))
    draw = np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, stream % 2**64], np.uint64)))
    return np.ascontiguousarray(_drawn(kind, settings, shape, draw).astype(target)).reshape(shape)


def _drawn(kind: str, settings: Mapping[str, Any], shape: tuple[int, ...], draw: np.random.Generator) -> Array:
    fan_in, fan_out = fans(shape)
    gain = float(settings.get("gain", 1.0))
    if kind == "normal":
        return draw.normal(float(settings.get("mean", 0.0)), float(settings.get("std", 1.0)), shape)
    if kind == "uniform":
        return draw.uniform(float(settings.get("low", -1.0)), float(settings.get("high", 1.0)), shape)
    if kind == "truncated_normal":
        return _truncated(draw, shape) * float(settings.get("std", 1.0)) + float(settings.get("mean", 0.0))
    if kind == "orthogonal":
        return gain * _orthogonal(draw, shape)
    if kind.startswith("xavier"):  # Glorot and Bengio 2010: variance 2 / (fan-in + fan-out)
        deviation = gain * math.sqrt(2.0 / max(fan_in + fan_out, 1.0))
    elif kind.startswith("kaiming"):  # He et al. 2015: variance 2 / fan-in, for what a relu follows
        deviation = gain * math.sqrt(2.0 / max(fan_in, 1.0))
    else:
        raise ValueError(f"no initialiser {kind!r}")
    if kind.endswith("uniform"):
        bound = math.sqrt(3.0) * deviation
        return draw.uniform(-bound, bound, shape)
    return draw.normal(0.0, deviation, shape)


def _truncated(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Standard normal numbers within two deviations, by drawing again."""
    values = np.asarray(draw.standard_normal(shape))
    while True:
        outside = np.abs(values) > 2.0
        count = int(outside.sum())
        if count == 0:
            return values
        values[outside] = draw.standard_normal(count)


def _orthogonal(draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Orthonormal rows or columns of the matrix [first axis, the rest] (Saxe et al. 2014), signs made unique."""
    rows = shape[0] if shape else 1
    columns = max(1, math.prod(shape) // max(rows, 1))
    tall = draw.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q = q * np.sign(np.diag(r))
    return (q if rows >= columns else q.T).reshape(shape)
