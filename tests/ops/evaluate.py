"""A scalar evaluator of operator bodies: every output element by itself, in NumPy scalars, as the definitions in `ir/loops.py` say.

Slow and plain on purpose: the bodies that it runs are what the back ends compile, the references that it is compared with are
NumPy's. A read outside of a tensor fails, so that a body must guard its reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from dslc.ir import dims, loops
from dslc.ir.loops import Expr, Reader
from dslc.ir.operator import OPERATORS
from dslc.ir.types import DType, TensorType

Array = np.ndarray[Any, Any]

_UNARY = {
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: type(x)(1) / np.sqrt(x),
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": lambda x: type(x)(math.erf(x)),
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.rint,
    "not": np.logical_not,
    "isnan": np.isnan,
}
_BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "atan2": np.arctan2,
    "fmod": np.fmod,
    "pow": lambda x, y: np.power(np.array([x]), np.array([y]))[0],  # NumPy's scalar power takes sqrt for 0.5: NaN at -inf
    "and": np.logical_and,
    "or": np.logical_or,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def evaluate_body(
    kind: str,
    arrays: list[Array],
    types: list[TensorType],
    attrs: Mapping[str, Any],
    result: TensorType,
    sizes: Mapping[str, int] | None = None,
) -> Array:
    """The result of an operator by its body; `sizes` has the values of symbolic sizes."""
    operator = OPERATORS[kind]
    sizes = sizes or {}
    names = [loops.variable("i") for _ in result.shape]
    sources = dict(enumerate(arrays))
    body = operator.body(tuple(loops.var(n) for n in names), *(reader(n, t) for n, t in enumerate(types)), **attrs)
    assert body.dtype == result.dtype, f"the body of {kind} is {body.dtype}, its result {result.dtype}"
    out = np.zeros([dims.evaluate(size, sizes) for size in result.shape], result.dtype.numpy)
    with np.errstate(all="ignore"):
        for index in np.ndindex(*out.shape):
            out[index] = evaluate(body, {**sizes, **dict(zip(names, index, strict=True))}, sources)
    return out


def reader(source: int, type: TensorType) -> Reader:
    return Reader(type, lambda index: loops.Read(source, index, type.dtype), source)


def evaluate(e: Expr, env: Mapping[str, int], sources: Mapping[int, Array]) -> Any:
    """One scalar, of the expression's own type."""
    match e:
        case loops.Const(value, dtype):
            return dtype.numpy.type(value)
        case loops.Read(source, index, _):
            return _element(sources[source], [dims.evaluate(i, env) for i in index])
        case loops.IndexValue(index, dtype):
            return dtype.numpy.type(dims.evaluate(index, env))
        case loops.Unary(op, x, dtype):
            return dtype.numpy.type(_unary(op, evaluate(x, env, sources)))
        case loops.Binary(op, x, y, dtype):
            return dtype.numpy.type(_binary(op, evaluate(x, env, sources), evaluate(y, env, sources)))
        case loops.Select(condition, x, y, _):
            return evaluate(x if evaluate(condition, env, sources) else y, env, sources)
        case loops.Cast(x, dtype):
            return _cast(evaluate(x, env, sources), dtype)
        case loops.Gathered(source, index, axis, at, extent, _):
            place = [dims.evaluate(i, env) for i in index]
            place[axis] = min(max(int(evaluate(at, env, sources)), 0), dims.evaluate(extent, env) - 1)
            return _element(sources[source], place)
        case loops.Random(seed, counter, stream, index, dtype):
            key, step = (int(evaluate(word, env, sources)) for word in (seed, counter))
            return dtype.numpy.type(_uniform(key, step, stream, dims.evaluate(index, env)))
        case loops.Reduce():
            return _reduce(e, env, sources)
    raise AssertionError(f"no rule for {type(e).__name__}")


def _element(array: Array, index: list[int]) -> Any:
    for axis, (i, size) in enumerate(zip(index, array.shape, strict=True)):
        assert 0 <= i < size, f"read at {index}, outside of axis {axis} of {array.shape}"
    return array[tuple(index)]


def _unary(op: str, x: Any) -> Any:
    if op == "sigmoid":
        e = np.exp(-np.abs(x))
        return 1 / (1 + e) if x >= 0 else e / (1 + e)
    return _UNARY[op](x)


def _binary(op: str, x: Any, y: Any) -> Any:
    if op in ("floordiv", "mod"):
        assert isinstance(x, np.integer), f"{op} is for integers"
        if y == 0:
            return type(x)(0)
        return np.floor_divide(x, y) if op == "floordiv" else np.remainder(x, y)
    return _BINARY[op](x, y)


def _cast(x: Any, dtype: DType) -> Any:
    if isinstance(x, np.floating) and dtype.integer:
        if np.isnan(x):
            return dtype.numpy.type(0)
        info = np.iinfo(np.dtype(dtype.numpy.str))
        wide = float(x)
        exact = math.trunc(wide) if math.isfinite(wide) else (info.max if wide > 0 else info.min)
        return dtype.numpy.type(min(max(exact, int(info.min)), int(info.max)))
    return x.astype(dtype.numpy)


def _reduce(e: loops.Reduce, env: Mapping[str, int], sources: Mapping[int, Array]) -> Any:
    names = [name for name, _ in e.variables]
    extents = [dims.evaluate(size, env) for _, size in e.variables]
    terms = [evaluate(e.body, {**env, **dict(zip(names, at, strict=True))}, sources) for at in product(*map(range, extents))]
    if e.op in ("add", "mul"):
        total = e.dtype.numpy.type(0 if e.op == "add" else 1)
        for term in terms:
            total = total + term if e.op == "add" else total * term
        return total
    best, where = terms[0], 0
    for position, term in enumerate(terms):
        better = term > best if e.op.endswith("max") else term < best
        if not np.isnan(best) and (np.isnan(term) or better):
            best, where = term, position
    return e.dtype.numpy.type(where if e.op.startswith("arg") else best)


def _uniform(seed: int, counter: int, stream: int, index: int) -> float:
    """24 bits of Philox4x32-10 (Salmon et al. 2011), in Python integers: one block of four words for four indices."""
    low = 0xFFFFFFFF
    block = index >> 2
    c = [block & low, block >> 32, stream & low, counter & low]
    k = [seed & low, (seed >> 32) & low]
    for _ in range(10):
        p, q = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(q >> 32) ^ c[1] ^ k[0], q & low, (p >> 32) ^ c[3] ^ k[1], p & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return (c[index & 3] >> 8) / 2**24
