"""Every operator as a native kernel: against its NumPy reference, and the same bits at every width and number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.backends.cpu.build import Workers
from dslc.compiler import compile_module
from dslc.ir.module import Module, Port, PortKind, Program
from dslc.ir.operator import OPERATORS, Sample
from dslc.ir.types import DType
from dslc.options import Options
from dslc.runtime.cache import Cache
from dslc.runtime.executable import Executable
from tests.backends.guarded import guarded
from tests.ops.test_operators import arrays_of, build, settings, type_of

Array = np.ndarray[Any, Any]
NOT_RUN = {"grad", "scan"}  # the compiler replaces one before any kernel is made; the other has those of its body
KINDS = [kind for kind in sorted(OPERATORS) if kind not in NOT_RUN and kind != "constant"]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(len(os.sched_getaffinity(0))) as pool:
        yield pool


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def program_of(kind: str, number: int, sample: Sample, dtype: DType) -> tuple[Program, list[Array]]:
    """A program that applies the operator once, and the sample's inputs."""
    arrays = arrays_of(kind, sample, dtype)
    b, inputs, outputs = build(kind, [type_of(a) for a in arrays], sample.attrs)
    ports = tuple(Port(PortKind.INPUT, f"x{n}") for n in range(len(inputs)))
    results = tuple(Port(PortKind.RESULT, f"y{n}") for n in range(len(outputs)))
    return Program(f"{kind}_{number}_{dtype.value}", b.graph(*outputs), ports, results), arrays


@cache
def cases(kind: str, every: bool) -> tuple[tuple[Program, tuple[Array, ...], tuple[Array, ...]], ...]:
    """Programs, inputs and expected results of all samples in f32, and of the first one (with `every`: of each) in f64 too."""
    made = []
    for number, sample in enumerate(OPERATORS[kind].samples):
        seen = set()
        for dtype in (DType.F32, DType.F64) if every or number == 0 else (DType.F32,):
            program, arrays = program_of(kind, number, sample, dtype)
            types = tuple(a.dtype for a in arrays)
            if types in seen:
                continue
            seen.add(types)
            with np.errstate(all="ignore"):
                expected = OPERATORS[kind].reference(*arrays, **settings(kind, sample))
            made.append((program, tuple(arrays), tuple(map(np.asarray, expected if isinstance(expected, tuple) else (expected,)))))
    return tuple(made)


def run_all(kind: str, every: bool, width: int, threads: int, workers: Workers, kernels: Cache, at_end: bool) -> list[dict[str, Array]]:
    """Results of all samples, with inputs, results and intermediate values beside guard pages."""
    module = Module(kind, {program.name: program for program, _, _ in cases(kind, every)}, {})
    compiled = compile_module(module, Options(width=width), cache=kernels, workers=workers)
    constants = {c.name: np.frombuffer(compiled.constants[c.name], DType(c.dtype).numpy).reshape(c.shape) for c in compiled.plan.constants}
    executable = Executable(compiled.plan, compiled.objects, constants, threads=threads, guarded=True)
    results = []
    for program, arrays, expected in cases(kind, every):
        inputs = {f"x{n}": guarded(a, at_end) for n, a in enumerate(arrays)}
        out = {f"y{n}": guarded(np.zeros_like(e), at_end) for n, e in enumerate(expected)}
        results.append(executable.call(program.name, inputs, out=out))
    return results


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["f32", "f64"])
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_agree_with_the_reference_at_every_width(kind: str, every: bool, workers: Workers, kernels: Cache) -> None:
    full = run_all(kind, every, 16, 2, workers, kernels, at_end=True)
    for (program, _, expected), results in zip(cases(kind, every), full, strict=True):
        for n, want in enumerate(expected):
            check(results[f"y{n}"], want, program.name)
    for width, threads in ((8, 1), (4, 3)):
        for one, other in zip(full, run_all(kind, every, width, threads, workers, kernels, at_end=width == 4), strict=True):
            for name in one:
                assert one[name].tobytes() == other[name].tobytes(), f"{kind}: other bits at width {width} with {threads} threads"


def check(got: Array, want: Array, name: str) -> None:
    assert got.shape == want.shape and got.dtype == want.dtype, name
    if want.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=name)
        return
    tolerance = 1e-12 if want.dtype == np.float64 else 3e-5
    scale = float(np.max(np.abs(want), initial=0.0, where=np.isfinite(want)))
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * max(scale, 1e-30), err_msg=name)
