"""Timing of compiled programs: whole calls, kernel by kernel, and what the machine can do at most, measured in the same run."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dslc.api.figures import step_flops
from dslc.backends.cpu.build import KernelSource, Workers
from dslc.backends.cpu.target import host_target
from dslc.ir.plan import INDEX, BufferPlan, ExecutablePlan, KernelPlan, ProgramPlan, StepPlan, concrete, scales
from dslc.lowering.steps import Step
from dslc.options import Options
from dslc.runtime.cache import Cache
from dslc.runtime.convert import DTYPES, Array
from dslc.runtime.executable import Executable
from dslc.runtime.executable import Program as RuntimeProgram
from dslc.runtime.profile import StepTime

_MULTIPLY_ADDS = 16  # independent chains: latency 4, two units, and some to spare
_TURNS = 20_000
_READ_BYTES = 256 << 20  # as the weights of a large network: no cache keeps all of it from call to call
_COPY_BYTES = 64 << 20  # as images of a batch: read, and as much written


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of a call over many calls."""

    median: float
    best: float
    calls: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What all threads together reach: fused multiply-adds in registers (GFLOP/s), reading memory and copying it (GB/s).

    A copied byte counts twice, once read and once written.
    """

    gflops: float
    gbytes: float
    copied: float


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel call of a program, the median of several runs."""

    number: int
    label: str
    span: str
    seconds: float
    share: float
    gflops: float
    gbytes: float

    def as_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return asdict(self)


def time_calls(call: Callable[[], object], seconds: float = 1.0) -> Timing:
    """Calls for about so long, after three to warm up."""
    for _ in range(3):
        call()
    times = timed_block(call, seconds, least=5)
    return Timing(statistics.median(times), min(times), len(times))


def timed_block(call: Callable[[], object], seconds: float, least: int = 3) -> list[float]:
    """The seconds of each of the calls that follow one another for about so long, at `least` so many."""
    times: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times) < least:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def random_inputs(plan: ProgramPlan, batch: int, classes: int = 2) -> dict[str, Array]:
    """Normal numbers for floating inputs, small integers for the others."""
    draw = np.random.default_rng(0)
    found = {}
    for port in plan.inputs:
        shape, dtype = concrete(port.shape, batch), DTYPES[port.dtype]
        found[port.name] = (
            draw.standard_normal(shape).astype(dtype) if dtype.kind == "f" else draw.integers(0, classes, shape).astype(dtype)
        )
    return found


def profile(
    program: RuntimeProgram,
    steps: Sequence[Step],
    inputs: Mapping[str, Array],
    settings: Mapping[str, Any] | None,
    batch: int,
    runs: int = 31,
) -> list[Row]:
    """Time, arithmetic and traffic of every step; `steps` are the lowered ones, without the prologue's. The traffic counts each
    argument of a kernel once."""
    profiles: list[list[StepTime]] = [program.profile(inputs, settings) for _ in range(runs)]
    medians = [statistics.median(p[n].seconds for p in profiles) for n in range(len(program.plan.steps))]
    total = sum(medians) or 1.0
    rows = []
    for number, (plan, step, seconds) in enumerate(zip(program.plan.steps, steps, medians, strict=True)):
        runs = program.plan.runs(number)
        moved = runs * sum(_traffic(program.plan, plan, index, batch) for index in {i for i, _ in plan.args if i >= 0})
        span = max(seconds, 1e-9)
        flops = runs * step_flops(step, batch)
        rows.append(Row(number, plan.label, plan.span, seconds, seconds / total, flops / span / 1e9, moved / span / 1e9))
    return rows


def _traffic(program: ProgramPlan, step: StepPlan, index: int, batch: int) -> float:
    """Bytes of a buffer that one run of a step touches: of a sequence that a loop walks only an element."""
    walked = {m.loop for m in step.moves if step.args[m.argument][0] == index and m.counts == INDEX}
    return _bytes(program.buffers[index], batch) / math.prod(program.loops[n].length for n in walked)


def _bytes(buffer: BufferPlan, batch: int) -> int:
    return buffer.nbytes * (batch if scales(buffer.shape) else 1)


def by_line(rows: list[Row]) -> list[tuple[str, float, float]]:
    """(source line, seconds, share) of all steps together, the slowest first."""
    found: dict[str, float] = {}
    for row in rows:
        line = row.span.rpartition(":")[0] or "(made by the compiler)"
        found[line] = found.get(line, 0.0) + row.seconds
    total = sum(found.values()) or 1.0
    return sorted(((line, seconds, seconds / total) for line, seconds in found.items()), key=lambda item: -item[1])


def machine_limits(options: Options, store: Cache | None) -> Limits:
    """Measured now with kernels of our own."""
    return Machine(options, store).measure(1.0)


class Machine:
    """Kernels that reach the limits of this machine, ready to be measured again and again."""

    def __init__(self, options: Options, store: Cache | None):
        target = host_target(options)
        self._width = target.width
        make = {"multiply": _multiply_source, "fill": _fill_source, "stream": _stream_source, "copy": _copy_source}
        sources = {name: source(target.width) for name, source in make.items()}
        keys = {name: source.key(target.environment) for name, source in sources.items()}
        objects = {key: code for key in keys.values() if store is not None and (code := store.get("object", key)) is not None}
        missing = {keys[name]: source for name, source in sources.items() if keys[name] not in objects}
        if missing:
            with Workers() as workers:
                for key, built in workers.compile(missing).items():
                    objects[key] = built.code
                    if store is not None:
                        store.put("object", key, built.code)
        kernels = tuple(KernelPlan(name, keys[name], sources[name].symbol) for name in sources)
        sizes = {"multiply": 1 << 20, "fill": _READ_BYTES, "stream": _READ_BYTES, "copy": 2 * _COPY_BYTES}
        programs = tuple(_program(name, size) for name, size in sizes.items())
        self._executable = Executable(ExecutablePlan(programs, kernels=kernels, features=target.features), objects, threads=options.threads)
        self._executable.program("fill")({})  # pages that nobody wrote are all the same page of zeros, which a cache holds

    def measure(self, seconds: float) -> Limits:
        """The limits, in about so long."""
        operations = 2 * _MULTIPLY_ADDS * self._width * _TURNS * self._executable.threads
        gflops = operations / self._best("multiply", 0.3 * seconds) / 1e9
        read = _READ_BYTES / self._best("stream", 0.4 * seconds) / 1e9
        return Limits(gflops, read, 2 * _COPY_BYTES / self._best("copy", 0.3 * seconds) / 1e9)

    def _best(self, name: str, seconds: float) -> float:
        program = self._executable.program(name)
        return time_calls(lambda: program({}), seconds).best


def _program(name: str, size: int) -> ProgramPlan:
    buffer = BufferPlan("data", "f32", (size // 4,), "fixed", 0, size)
    return ProgramPlan(name, (buffer,), (StepPlan(name, ((0, 0),)),), fixed_bytes=size)


def _multiply_source(width: int) -> KernelSource:
    chains = range(_MULTIPLY_ADDS)
    lines = ["def kernel(row, thread, threads, batch):", "    p = ptr_f32(arg(row, 0))", "    x = vbroadcast_f32(p, 0)"]
    lines += [f"    c{i} = vbroadcast_f32(p, {i})" for i in chains]
    lines += [f"    for _ in range({_TURNS}):"] + [f"        c{i} = fma(x, x, c{i})" for i in chains]
    lines += [f"    vstore_f32(p, {16 + i * width} + thread * 1024, c{i})" for i in chains]
    return KernelSource("\n".join(lines) + "\n", "kernel", width)


def _fill_source(width: int) -> KernelSource:
    count = _READ_BYTES // 4
    lines = ["def kernel(row, thread, threads, batch):", "    p = ptr_f32(arg(row, 0))"]
    lines += [
        f"    for i in range({count // width} * thread // threads * {width}, {count // width} * (thread + 1) // threads * {width}, {width}):"
    ]
    lines += ["        vstore_f32(p, i, splat_f32(1.0))"]
    return KernelSource("\n".join(lines) + "\n", "kernel", width)


def _stream_source(width: int) -> KernelSource:
    count, step = _READ_BYTES // 4, 8 * width
    lines = ["def kernel(row, thread, threads, batch):", "    p = ptr_f32(arg(row, 0))"]
    lines += [f"    begin = {count // step} * thread // threads * {step}", f"    end = {count // step} * (thread + 1) // threads * {step}"]
    lines += [f"    c{i} = splat_f32(0.0)" for i in range(8)]
    lines += [f"    for i in range(begin, end, {step}):"] + [f"        c{i} = c{i} + vload_f32(p, i + {i * width})" for i in range(8)]
    lines += ["    vstore_f32(p, begin, c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7)"]
    return KernelSource("\n".join(lines) + "\n", "kernel", width)


def _copy_source(width: int) -> KernelSource:
    """The first half of the buffer to the second."""
    count, step = _COPY_BYTES // 4, 8 * width
    lines = ["def kernel(row, thread, threads, batch):", "    p = ptr_f32(arg(row, 0))"]
    lines += [f"    begin = {count // step} * thread // threads * {step}", f"    end = {count // step} * (thread + 1) // threads * {step}"]
    lines += [f"    for i in range(begin, end, {step}):"]
    lines += [f"        vstore_f32(p, i + {count + i * width}, vload_f32(p, i + {i * width}))" for i in range(8)]
    return KernelSource("\n".join(lines) + "\n", "kernel", width)
