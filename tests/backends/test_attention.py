"""Attention's kernels: no matrix of scores in memory, nothing read behind the last key, operands where they lie, full vectors."""

from __future__ import annotations

import ctypes
import mmap
import re
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assembly import WIDTH, complaints, innermost_loops

import dslc
from dslc.api.figures import step_flops
from dslc.backends.cpu.native import compile_object
from dslc.backends.cpu.routines import routine_source
from dslc.compiler import emit_cuda, transform
from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.module import Module, Port, PortKind, Program
from dslc.ir.operator import OPERATORS
from dslc.ir.routines import Routine
from dslc.ir.types import DType
from dslc.lowering.lower import lower
from dslc.lowering.plan import plan_program
from dslc.lowering.steps import Lowered
from dslc.runtime.loader import load_object

Array = np.ndarray[Any, Any]
ABI = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 4)
LONG = 2048


def program_of(b: Builder, outputs: tuple[Value, ...]) -> Program:
    graph = b.graph(*outputs)
    inputs = tuple(Port(PortKind.INPUT, f"x{n}") for n in range(len(graph.inputs)))
    return Program("attend", graph, inputs, tuple(Port(PortKind.RESULT, f"y{n}") for n in range(len(outputs))))


def lowered(b: Builder, *outputs: Value) -> Lowered:
    return lower(transform(program_of(b, outputs), {})[0])


# ---- memory ---------------------------------------------------------------------------------------------------------


def test_no_matrix_of_scores_is_kept() -> None:
    """At length 2048, forward and backward: the whole arena is smaller than one matrix of scores."""
    b = Builder()
    x = b.input(DType.F32, 1, 4, LONG, 16)
    y = b.attention(b.mul(x, x), x, x, causal=True)
    dx = b.grad(b.sum(b.mul(y, y)), x)
    made = lowered(b, y, dx)
    assert [step.label for step in made.steps if "attention" in step.label] == ["attention_forward", "attention_backward"]
    plan, _ = plan_program(made, dict.fromkeys(range(len(made.steps)), "k"))
    assert plan.fixed_bytes < LONG * LONG * 4
    assert max(prod(v.type.shape) for v in made.places) == 4 * LONG * 16


LONG_TEXT = f"""
dim T = {LONG}
model M(q: f32[1, T, 32], k: f32[1, T, 32], v: f32[1, T, 32])
    -> (y: f32[1, T, 32], dq: f32[1, T, 32], dk: f32[1, T, 32], dv: f32[1, T, 32]) {{
  y = attention[causal = true](q, k, v)
  dq, dk, dv = grad[q, k, v](sum(sin(y)))
  return y, dq, dk, dv
}}
"""


def test_long_sequences_equal_the_plain_formula(tmp_path: Path) -> None:
    program = dslc.compile(LONG_TEXT, cache=tmp_path)
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, LONG, 32)) for _ in range(3))
    found = program(**{name: x.astype(np.float32) for name, x in (("q", q), ("k", k), ("v", v))})
    scores = np.where(np.tri(LONG, dtype=bool), q @ k.swapaxes(1, 2) / np.sqrt(32), -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    y = p @ v
    dp = np.cos(y) @ v.swapaxes(1, 2)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(32)
    wanted = {"y": y, "dq": ds @ k, "dk": ds.swapaxes(1, 2) @ q, "dv": p.swapaxes(1, 2) @ np.cos(y)}
    for name, x in wanted.items():
        np.testing.assert_allclose(found[name], x, rtol=0, atol=1e-5 * np.abs(x).max(), err_msg=name)


# ---- what is read ---------------------------------------------------------------------------------------------------


def routine(name: str, heads: int, groups: int, queries: int, keys: int, features: int, counted: bool) -> Routine:
    """Rows side by side; one example."""
    q, k = ((0, 0, n * features, features, 1) for n in (queries, keys))
    total = (0, 0, queries, 1)
    places = [q, k, k] if name == "attention_forward" else [q, k, k, total, total, q]
    places += [(0, 1)] if counted else []
    places += [q, total] if name == "attention_forward" else [q, k, k]
    sizes = {"examples": 1, "heads": heads, "groups": groups, "queries": queries, "keys": keys, "features": features, "width": features}
    settings = {"causal": True, "window": 0, "scale": 0.25, "masked": False, "biased": False, "counted": counted}
    types = [DType.F32] * len(places)
    if counted:
        types[3] = DType.I64
    return Routine(name, tuple(sizes.items()), tuple(settings.items()), (), tuple(types), False, True, tuple(places))


@pytest.mark.parametrize("queries", [1, 20], ids=["decoding", "blocks"])
def test_keys_behind_the_number_of_keys_are_not_read(queries: int) -> None:
    """The cache goes on in pages that may not be touched."""
    keys, features, page = 512, 64, mmap.PAGESIZE
    there = 5 * page // (features * 4)
    source = routine_source(routine("attention_forward", 1, 1, queries, keys, features, True), WIDTH)
    code, symbol, _ = compile_object(source, "kernel", WIDTH)
    library = load_object(code)
    rng = np.random.default_rng(0)
    caches, pages = [], []
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for _ in range(2):
        memory = mmap.mmap(-1, keys * features * 4)
        cache: Array = np.frombuffer(memory, np.float32).reshape(keys, features)
        cache[:there] = rng.standard_normal((there, features))
        caches.append(cache)
        pages.append(memory)
        assert protect(ctypes.c_void_p(cache.ctypes.data + there * features * 4), ctypes.c_size_t(len(memory) - 5 * page), 0) == 0
    q = rng.standard_normal((queries, features)).astype(np.float32)
    out, total, count = np.zeros_like(q), np.zeros(queries, np.float32), np.array([there])
    words = (ctypes.c_int64 * 6)(*(a.ctypes.data for a in (q, *caches, count, out, total)))
    slots = (ctypes.c_int64 * 4)()
    kernel = ABI(library.addresses[symbol])
    assert kernel(ctypes.addressof(slots), ctypes.addressof(slots) + 16, ctypes.addressof(words), 0, 1, 1) == 0
    k, v = (cache[:there][None] for cache in caches)
    wanted = OPERATORS["attention"].reference(q[None], k, v, causal=True, window=None, scale=0.25)[0]
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)


def test_operands_are_read_where_they_lie() -> None:
    """Heads that are parts of one projection, forward and backward: nothing is copied."""
    b = Builder()
    x = b.input(DType.F32, 2, 64, 48)
    heads = [b.transpose(b.reshape(part, shape=(2, 64, 2, 8)), axes=(0, 2, 1, 3)) for part in b.split(x, parts=3, axis=2)]
    y = b.reshape(b.transpose(b.attention(*heads, causal=True), axes=(0, 2, 1, 3)), shape=(2, 64, 16))
    dx = b.grad(b.sum(b.mul(y, y)), x)
    labels = [step.label for step in lowered(b, dx).steps]
    assert labels[0] == "attention_forward"
    assert len([label for label in labels if "attention" in label]) == 2
    assert not [label for label in labels if label == "copy"]


def test_operations_are_counted_for_what_queries_see() -> None:
    b = Builder()
    x = b.input(DType.F32, 2, 10, 8)
    (step,) = [s for s in lowered(b, b.attention(x, x, x, causal=True, window=3)).steps if s.label == "attention_forward"]
    assert step_flops(step, 1) == 2 * (1 + 2 + 8 * 3) * 2 * (8 + 8)


def test_every_pass_keeps_it() -> None:
    """The graph is verified and interpreted after each pass; one algorithm forward and one backward are left."""
    b = Builder()
    x = b.input(DType.F32, 2, 5, 4)
    dx = b.grad(b.sum(b.sin(b.attention(x, x, x, causal=True))), x)
    after, stages = transform(program_of(b, (dx,)), {}, {})
    assert [op.kind for op in after.graph.ops if op.kind.startswith("attention")] == ["attention_forward", "attention_backward"]
    assert len(stages) > 3


# ---- machine code ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["attention_forward", "attention_backward"])
def test_inner_loops(name: str) -> None:
    """Of each function by itself: the kernel's frame pointer is a register like the others in its tiles."""
    source = routine_source(routine(name, 2, 2, 128, 128, 64, False), WIDTH)
    functions = re.split(r"(?m)^(?=\w[\w.$]*:)", compile_object(source, "kernel", WIDTH, assembly=True)[2])
    products = [text for text in functions if any("fmadd" in line for loop in innermost_loops(text) for line in loop.arithmetic)]
    assert len(products) >= 3
    assert [fault for text in products for fault in complaints(text) if not fault.startswith("calls")] == []


EXPONENTIALS = """
def kernel(row, thread, threads, batch):
    p0 = ptr_{t}(arg(row, 0))
    p1 = ptr_{t}(arg(row, 1))
    for i in range(0, batch, {width}):
        vstore_{t}(p1, i, vexp_flushed_{t}(vload_{t}(p0, i)))
"""


@pytest.mark.parametrize(("dtype", "least"), [(DType.F32, -87.0), (DType.F64, -708.0)], ids=["f32", "f64"])
def test_exponentials(dtype: DType, least: float) -> None:
    """Within 1.5 units in the last place; 0 below the smallest normal number, and NaN stays."""
    special = np.array([0.0, least, np.nextafter(least, -np.inf), -1e4, -np.inf, np.nan, -0.0, 1e-6])
    x = np.concatenate([special, np.linspace(least, 0, 4088)]).astype(dtype.numpy)
    y = np.empty_like(x)
    code, symbol, _ = compile_object(EXPONENTIALS.format(t=dtype.value, width=WIDTH), "kernel", WIDTH)
    library = load_object(code)
    words, slots = (ctypes.c_int64 * 2)(x.ctypes.data, y.ctypes.data), (ctypes.c_int64 * 4)()
    ABI(library.addresses[symbol])(ctypes.addressof(slots), ctypes.addressof(slots) + 16, ctypes.addressof(words), 0, 1, len(x))
    exact = np.exp(x.astype(np.longdouble))
    kept = x >= dtype.numpy.type(least)
    assert np.all(np.abs(y[kept] - exact[kept]) <= 1.5 * np.spacing(exact[kept].astype(dtype.numpy)))
    np.testing.assert_array_equal(y[x < dtype.numpy.type(least)], 0)
    assert np.isnan(y[5]) and y[0] == 1


# ---- other back ends ------------------------------------------------------------------------------------------------


def test_cuda_writes_it_out() -> None:
    b = Builder()
    x = b.input(DType.F32, 2, 64, 8)
    program = program_of(b, (b.attention(x, x, x, causal=True),))
    made = emit_cuda(Module("m", {"attend": program}, {}))["attend"]
    assert made.kernels
