"""Scans as loops of compiled steps: right against the interpreter, the same bits at every width and number of threads, nothing copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dslc import compile, load
from dslc.api.sources import Source
from dslc.api.stages import clusters_text, memory_text
from dslc.backends.cpu.build import Workers
from dslc.backends.cpu.target import host_target, kernel_sources
from dslc.compiler import Compiled, compile_module, transform
from dslc.diagnostics import DiagnosticError
from dslc.ir.builder import Builder
from dslc.ir.dims import name
from dslc.ir.graph import Value
from dslc.ir.plan import INDEX, NEW, OLD, memory_report
from dslc.ir.plan_rules import validate
from dslc.ir.plan_text import dumps, loads
from dslc.ir.scan import build_scan, parts
from dslc.ir.types import DType, TensorType
from dslc.lowering.lower import lower
from dslc.lowering.plan import plan_program
from dslc.lowering.steps import Lowered, Part, located
from dslc.options import Options
from dslc.runtime.cache import Cache
from dslc.runtime.executable import Executable
from dslc.verify import check_kernels
from tests.backends.guarded import guarded
from tests.backends.small_programs import Small, small

F32, I64 = DType.F32, DType.I64
N = name("N")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A program with the types of its inputs (i64 ones are 2) and its buffers."""

    made: Small
    types: tuple[tuple[DType, tuple[Any, ...]], ...]
    buffers: Mapping[str, tuple[DType, tuple[int, ...]]]

    @property
    def batches(self) -> tuple[int, ...]:
        return (1, 3, 8) if self.made.program.batch else (1,)

    def arrays(self, batch: int) -> list[Array]:
        draw = np.random.default_rng(batch)
        shapes = [(t, tuple(batch if n is N else n for n in s)) for t, s in self.types]
        return [draw.standard_normal(s).astype(np.float32) if t == F32 else np.array(2, np.int64) for t, s in shapes]

    def state(self) -> dict[str, Array]:
        draw = np.random.default_rng(7)
        return {n: (0.3 * draw.standard_normal(s)).astype(np.float32) for n, (_, s) in self.buffers.items()}


CASES: dict[str, Case] = {}
Make = Callable[..., Any]


def case(*types: tuple[DType, tuple[Any, ...]], batch: bool = False, **buffers: tuple[DType, tuple[int, ...]]) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        CASES[make.__name__] = Case(small(types, make, buffers, batch), types, buffers)
        return make

    return register


def block(*types: tuple[DType, tuple[Any, ...]]) -> tuple[Builder, Value, list[Value]]:
    """A body in the making: its builder, index and other inputs."""
    body = Builder()
    return body, body.input(I64), [body.input(t, *s) for t, s in types]


def rnn(b: Builder, x: Value, w: Value, axis: int, length: int, reverse: bool = False) -> tuple[Value, ...]:
    """h = tanh(x[t] + h @ w), whose epilogue cannot write over the h that the product reads; what is stacked has the batch behind time."""
    shape = tuple(n for a, n in enumerate(x.type.shape) if a != axis)
    body, _, (e, h, u) = block((F32, shape), (F32, shape), (F32, w.type.shape))
    after = body.tanh(body.add(e, body.matmul(h, u)))
    start = b.like(0.25, h.type)
    op = build_scan(
        b, body.graph(after, after), length=length, sequences=(x,), initial=(start,), captures=(w,), elements=(axis,), yields=(0,), reverse=reverse,
    )  # fmt: skip
    return op.outputs


@case((F32, (5, 3, 16)), (F32, (16, 16)))
def rnn_forwards(b: Builder, x: Value, w: Value) -> Any:
    return rnn(b, x, w, 0, 5)


@case((F32, (N, 4, 16)), batch=True, w=(F32, (16, 16)))
def rnn_backwards(b: Builder, x: Value, w: Value) -> Any:
    """A sequence that is computed, along axis 1, from its end; the new hidden states are used further."""
    final, all_of = rnn(b, b.tanh(x), w, 1, 4, reverse=True)
    return b.mul(final, final), b.transpose(all_of, axes=(1, 0, 2)), w


def lstm(b: Builder, x: Value, wx: Value, wh: Value, bias: Value, length: int = 5, width: int = 16) -> Any:
    z = b.add(b.matmul(x, wx), bias)
    gates, one = (F32, (N, 4 * width)), (F32, (N, width))
    body, _, (e, h, c, w) = block(gates, one, one, (F32, (width, 4 * width)))
    p = body.add(e, body.matmul(h, w))
    i, f, g, o = (body.slice(p, starts=(None, width * k), stops=(None, width * k + width), steps=(1, 1)) for k in range(4))
    c2 = body.add(body.mul(body.sigmoid(f), c), body.mul(body.sigmoid(i), body.tanh(g)))
    h2 = body.mul(body.sigmoid(o), body.tanh(c2))
    zero = b.like(0.0, h.type)
    op = build_scan(
        b, body.graph(h2, c2, h2), length=length, sequences=(z,), initial=(zero, zero), captures=(wh,), elements=(1,), yields=(1,)
    )
    return (*op.outputs, wx, wh, bias)


@case((F32, (N, 5, 32)), batch=True, wx=(F32, (32, 64)), wh=(F32, (16, 64)), bias=(F32, (64,)))
def long_short(b: Builder, x: Value, wx: Value, wh: Value, bias: Value) -> Any:
    return lstm(b, x, wx, wh, bias)


@case((F32, (N, 5, 16)), (F32, (N, 16)), batch=True, w=(F32, (16, 16)), v=(F32, (16, 16)))
def remembered(b: Builder, x: Value, start: Value, w: Value, v: Value) -> Any:
    """What is carried is stacked before and after iterations, forwards and backwards; its stacks are read by sums, products and alone."""
    results: list[Value] = []
    for reverse, initial in ((False, start), (True, b.tanh(start))):
        body, _, (e, h, u) = block((F32, (N, 16)), (F32, (N, 16)), (F32, (16, 16)))
        after = body.tanh(body.add(e, body.matmul(h, u)))
        op = build_scan(
            b, body.graph(after, after, h), length=5, sequences=(x,), initial=(initial,), captures=(w,), elements=(1,), yields=(1, 1), reverse=reverse,
        )  # fmt: skip
        final, all_of, before = op.outputs
        weights = b.dot_general(before, b.mul(all_of, x), contract=((1, 0), (1, 0)), batch=((), ()))
        results += [b.add(final, b.sum(before, axis=(1,))), b.tanh(b.matmul(all_of, v)), weights]
    return (*results, w, v)


@case((F32, (4, 8)), (F32, (4, 8)), (F32, (8,)))
def turned(b: Builder, x: Value, y: Value, z: Value) -> Any:
    """Two carries that swap and a third that stays, an odd number of times; the third changes shape on its way in."""
    body, i, (u, v, w) = block((F32, (4, 8)), (F32, (4, 8)), (F32, (4, 8)))
    scaled = body.mul(u, body.add(v, body.cast(i, dtype=F32)))
    wide = b.expand(b.reshape(z, shape=(1, 8)), shape=(4, 8))
    return build_scan(b, body.graph(v, u, w, scaled), length=3, initial=(x, y, wide), yields=(1,)).outputs


@case((F32, (4, 3, 8)))
def nested(b: Builder, x: Value) -> Any:
    """Rows, and backwards inside of each its columns: the inner carry starts as the outer one, which is captured too."""
    body, i, (row, h) = block((F32, (3, 8)), (F32, (8,)))
    inner, j, (e, g, outer, at) = block((F32, (8,)), (F32, (8,)), (F32, (8,)), (I64, ()))
    place = inner.cast(inner.add(inner.mul(j, inner.scalar(10, I64)), at), dtype=F32)
    after = inner.tanh(inner.add(inner.mul(g, outer), inner.add(e, place)))
    op = build_scan(body, inner.graph(after, after), length=3, sequences=(row,), initial=(h,), captures=(h, i), reverse=True)
    return build_scan(b, body.graph(*op.outputs), length=4, sequences=(x,), initial=(b.like(0.5, h.type),)).outputs


@case((F32, (0, 8)), (F32, (1, 8)), (F32, (8,)))
def seldom(b: Builder, x: Value, y: Value, z: Value) -> Any:
    """No iteration, and one."""
    results: list[Value] = []
    for sequence, length in ((x, 0), (y, 1)):
        body, _, (e, h) = block((F32, (8,)), (F32, (8,)))
        results += build_scan(b, body.graph(body.add(h, e), h), length=length, sequences=(sequence,), initial=(z,)).outputs
    return tuple(results)


@case((F32, (N, 8)), (I64, ()), batch=True)
def decode(b: Builder, x: Value, start: Value) -> Any:
    """A cache that grows by a row an iteration, read as a whole after it."""
    body, i, (q, kept, first) = block((F32, (N, 8)), (F32, (N, 6, 8)), (I64, ()))
    row = body.reshape(q, shape=(N, 1, 8))
    now = body.dynamic_update_slice(kept, row, body.add(first, i), axis=1)
    scores = body.reshape(body.sum(body.mul(now, row), axis=(2,)), shape=(N, 6, 1))
    after = body.tanh(body.add(q, body.sum(body.mul(now, scores), axis=(1,))))
    empty = b.like(0.0, TensorType(F32, (N, 6, 8)))
    return build_scan(b, body.graph(after, now, after), length=4, initial=(x, empty), captures=(start,), yields=(1,)).outputs


@case((F32, (2, 8)), (I64, ()), cache=(F32, (3, 2, 6, 8)))
def layers(b: Builder, x: Value, at: Value, cache: Value) -> Any:
    """The caches of three layers, walked and stacked again, where they lie between calls."""
    body, _, (kept, h, place) = block((F32, (2, 6, 8)), (F32, (2, 8)), (I64, ()))
    now = body.dynamic_update_slice(kept, body.reshape(h, shape=(2, 1, 8)), place, axis=1)
    after = body.tanh(body.add(h, body.sum(now, axis=(1,))))
    return build_scan(b, body.graph(after, now), length=3, sequences=(cache,), initial=(x,), captures=(at,)).outputs


@case((F32, (6, 40, 40)), (F32, (40, 40)), w=(F32, (40, 40)))
def chained(b: Builder, x: Value, y: Value, w: Value) -> Any:
    """One loop's final value is what the next one starts from; a product in each of the two, of a weight and of a value that is computed."""
    body, _, (e, h, u) = block((F32, (40, 40)), (F32, (40, 40)), (F32, (40, 40)))
    first = build_scan(
        b, body.graph(body.tanh(body.add(e, body.matmul(h, u)))), length=6, sequences=(x,), initial=(y,), captures=(b.tanh(w),)
    ).outputs[0]
    body, _, (h, u) = block((F32, (40, 40)), (F32, (40, 40)))
    second = build_scan(b, body.graph(body.mul(body.sigmoid(body.matmul(h, u)), h)), length=2, initial=(first,), captures=(w,)).outputs[0]
    return second, w


# ---- at one width: what the body is made of does not depend on it -----------------------------------------------------


@case((F32, (2, 8)), (I64, ()))
def read_late(b: Builder, x: Value, start: Value) -> Any:
    """The old cache is needed after the new one: it cannot be written where that lies."""
    body, i, (q, kept, first) = block((F32, (2, 8)), (F32, (2, 6, 8)), (I64, ()))
    now = body.dynamic_update_slice(kept, body.reshape(q, shape=(2, 1, 8)), body.add(first, i), axis=1)
    total = body.tanh(body.sum(now, axis=(1,)))
    old = body.sum(body.mul(kept, body.reshape(total, shape=(2, 1, 8))), axis=(1,))
    after = body.tanh(body.add(old, total))
    return build_scan(b, body.graph(after, now), length=3, initial=(x, b.like(0.5, kept.type)), captures=(start,)).outputs


@case((F32, (N, 3, 8, 8, 8)), batch=True, k=(F32, (16, 24, 3, 3)))
def convolved(b: Builder, x: Value, k: Value) -> Any:
    """A convolution of what is carried, beside an element: it reads both from memory with a border of zeros."""
    body, _, (e, h, w) = block((F32, (N, 8, 8, 8)), (F32, (N, 16, 8, 8)), (F32, (16, 24, 3, 3)))
    after = body.tanh(body.conv2d(body.concat(e, h, axis=1), w, padding=1))
    op = build_scan(b, body.graph(after), length=3, sequences=(x,), initial=(b.like(0.0, h.type),), captures=(k,), elements=(1,))
    return op.outputs[0], k


@case((F32, (8, 6, 5)))
def seen_through_views(b: Builder, x: Value) -> Any:
    """Sequences that are views: some that strides walk, one with a row backwards; elements along axis 1."""
    cut = b.transpose(b.slice(x, starts=(2, None, 1), stops=(7, None, None), steps=(1, 2, 1)), axes=(1, 2, 0))
    flat = b.reshape(b.slice(x, starts=(None, None, None), stops=(None, None, None), steps=(-1, 1, 1)), shape=(8, 30))
    body, _, (e, f, h) = block((F32, (3, 5)), (F32, (8,)), (F32, (3, 5)))
    after = body.add(body.mul(h, body.scalar(0.5, F32)), body.add(e, body.sum(f)))
    rows = b.slice(flat, starts=(None, 3), stops=(None, 7), steps=(1, 1))
    graph = body.graph(after, f)
    return build_scan(b, graph, length=4, sequences=(cut, rows), initial=(b.like(0.0, h.type),), elements=(1, 1), yields=(1,)).outputs


@case((F32, (4, 6, 8)), (I64, ()), (I64, ()))
def of_all_kinds(b: Builder, x: Value, seed: Value, counter: Value) -> Any:
    """A recurrence, a routine, a draw for each iteration, and scalars of other types that are carried."""
    body, i, (e, h, n, flag, s, c) = block((F32, (6, 8)), (F32, (6, 8)), (I64, ()), (DType.BOOL, ()), (I64, ()), (I64, ()))
    sums = body.cumsum(body.add(e, h), axis=0)
    draw = body.random_uniform(s, body.add(body.mul(c, body.scalar(4, I64)), i), shape=(6, 8), stream=3)
    after = body.mul(body.tanh(body.sort(sums, axis=1)[0]), draw)
    count = body.add(n, body.cast(body.gt(body.sum(after), body.scalar(0.0, F32)), dtype=I64))
    either = body.apply("or", flag, body.gt(count, body.scalar(1, I64)))
    starts = (b.like(0.0, h.type), b.scalar(0, I64), b.scalar(False, DType.BOOL))
    op = build_scan(
        b, body.graph(after, count, either, sums), length=4, sequences=(x,), initial=starts, captures=(seed, counter), reverse=True,
    )  # fmt: skip
    return op.outputs[0], b.cast(op.outputs[1], dtype=F32), b.cast(op.outputs[2], dtype=F32), op.outputs[3]


@case((F32, (N, 3, 2, 1, 8)), (I64, ()), batch=True)
def attended(b: Builder, x: Value, start: Value) -> Any:
    """Two caches with heads, and attention over them by products."""
    body, i, (q, k, v, first) = block((F32, (N, 2, 1, 8)), (F32, (N, 2, 16, 8)), (F32, (N, 2, 16, 8)), (I64, ()))
    at = body.add(first, i)
    keys = body.dynamic_update_slice(k, q, at, axis=2)
    values = body.dynamic_update_slice(v, body.tanh(q), at, axis=2)
    weights = body.softmax(body.matmul(q, body.transpose(keys, axes=(0, 1, 3, 2))), axis=-1)
    zero = b.like(0.0, TensorType(F32, (N, 2, 16, 8)))
    graph = body.graph(keys, values, body.matmul(weights, values))
    return build_scan(b, graph, length=3, sequences=(x,), initial=(zero, zero), captures=(start,), elements=(1,), yields=(1,)).outputs


AT_ONE_WIDTH = ("read_late", "convolved", "seen_through_views", "of_all_kinds", "attended")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as pool:
        pool.start()
        yield pool


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def compiled(case: Case, width: int, workers: Workers, kernels: Cache) -> Compiled:
    return compile_module(case.made.module, Options(width=width), workers=workers, cache=kernels)


def executable(made: Compiled, threads: int) -> Executable:
    """As it comes back from a file, beside guard pages."""
    constants = {c.name: np.frombuffer(made.constants[c.name], DType(c.dtype).numpy).reshape(c.shape) for c in made.plan.constants}
    return Executable(loads(dumps(made.plan)), made.objects, constants, threads=threads, guarded=True)


def results(case: Case, ready: Executable, batch: int, at_end: bool) -> dict[str, Array]:
    for buffer, array in case.state().items():
        ready.set(buffer, array)
    inputs = {f"x{n}": guarded(a, at_end) for n, a in enumerate(case.arrays(batch))}
    found = ready.call("p", inputs)
    return {**found, **{buffer: np.array(ready.get(buffer)) for buffer in case.buffers}}


@pytest.mark.parametrize("which", [pytest.param(c, marks=pytest.mark.slow) if c == "convolved" else c for c in CASES])
def test_as_interpreted_with_the_same_bits_at_every_width(which: str, workers: Workers, kernels: Cache) -> None:
    case = CASES[which]
    seen: dict[int, dict[str, Array]] = {}
    for width in (8,) if which in AT_ONE_WIDTH else (16, 8, 4):
        made = compiled(case, width, workers, kernels)
        for threads in (1, 2, 3):
            ready = executable(made, threads)
            for batch in case.batches:
                found = results(case, ready, batch, at_end=threads != 2)
                if batch not in seen:
                    seen[batch] = found
                    for key, expected in case.made.interpreted(case.arrays(batch), case.state()).items():
                        np.testing.assert_allclose(found[key], expected, 2e-5, 2e-5, err_msg=f"{key} at a batch of {batch}")
                for key, array in found.items():
                    assert np.array_equal(array, seen[batch][key]), f"{key}: width {width}, {threads} threads, a batch of {batch}"


@pytest.mark.parametrize("which", ["long_short", "nested", "decode", "layers", "rnn_backwards", "remembered"])
def test_verified_step_by_step(which: str, workers: Workers, kernels: Cache) -> None:
    compile_module(CASES[which].made.module, Options(width=16, verify=True), workers=workers, cache=kernels)


def test_verification_finds_a_wrong_loop(workers: Workers, kernels: Cache) -> None:
    case = CASES["rnn_forwards"]
    made = compiled(case, 16, workers, kernels)
    program = made.programs["p"]
    lowered = program.lowered
    keys = [k.key(host_target(Options(width=16)).environment) for k in program.kernels]
    check_kernels(made.plan, made.objects, [(lowered, keys)], {})
    turned_round = replace(lowered, loops=(replace(lowered.loops[0], length=4),))
    with pytest.raises(DiagnosticError, match="DL0911"):
        check_kernels(made.plan, made.objects, [(turned_round, keys)], {})


# ---- what is planned; nothing is compiled here ----------------------------------------------------------------------


@cache
def lowered_of(which: str) -> Lowered:
    return lower(transform(CASES[which].made.program, {})[0])


def labels(which: str) -> list[list[str]]:
    """Labels of the steps: before the first loop, and inside of each."""
    it = lowered_of(which)
    outside = [s.label for n, s in enumerate(it.steps) if not any(loop.begin <= n < loop.end for loop in it.loops)]
    return [outside, *([s.label for s in it.steps[loop.begin : loop.end]] for loop in it.loops)]


def test_an_iteration_is_its_kernels_alone() -> None:
    assert labels("long_short")[1] == ["dot_general", "add+mul+copy"]  # the copy stores h where it is stacked, in the same loop
    assert labels("rnn_backwards")[1] == ["dot_general", "copy"]
    assert labels("layers")[1:] == [["dynamic_update_slice", "sum"]]
    outside, inside = labels("decode")
    assert inside == ["add", "dynamic_update_slice", "sum+copy"]
    assert not any("copy" in label for label in outside)


def planned(which: str) -> Any:
    it = lowered_of(which)
    plan, _ = plan_program(it, {n: str(n) for n in range(len(it.steps))})
    return plan


def test_a_cache_between_calls_is_written_where_it_lies() -> None:
    plan = planned("layers")
    assert [b.name for b in plan.buffers if b.region in ("fixed", "batch")] == []
    (update, _) = plan.steps[-2:]
    assert [(plan.buffers[update.args[m.argument][0]].name, m.counts, m.fixed) for m in update.moves] == [("cache", INDEX, 2 * 6 * 8 * 4)]


def test_what_reads_the_whole_of_a_carry_reads_and_writes_halves_in_turns() -> None:
    plan = planned("rnn_forwards")
    product = next(s for s in plan.steps if s.label == "dot_general")
    halves = {m.counts: plan.buffers[product.args[m.argument][0]] for m in product.moves if m.counts in (OLD, NEW)}
    assert halves[OLD] == halves[NEW]
    assert halves[OLD].nbytes == 2 * 3 * 16 * 4
    assert plan.fixed_bytes == halves[OLD].nbytes, "nothing else is kept"


def test_what_is_stacked_before_and_after_iterations_lies_there_once() -> None:
    it = lowered_of("remembered")
    slot, (forth, back) = 16, (parts(loop.op) for loop in it.loops)
    for loop, (after, before) in ((forth, (slot, 0)), (back, (0, slot))):
        lies = [located(it.places, v) for v in loop.stacked]
        assert lies == [Part(lies[0].value, after), Part(lies[0].value, before)]
        assert it.places[lies[0].value].layout.size == N * (5 + 1) * slot
    assert labels("remembered")[1:] == [["dot_general", "copy"]] * 2, "an iteration stores what it makes once beside what it carries"


def test_memory_is_exact_and_lives_through_loops() -> None:
    it, plan = lowered_of("long_short"), planned("long_short")
    x_times_w, gates = 5 * 64 * 4, 64 * 4
    assert (plan.fixed_bytes, plan.batch_bytes) == (0, x_times_w + gates), "carries and what is stacked lie in the results"
    validate(replace(compile_plan(it), programs=(replace(plan, steps=(), prologue=(), loops=()),)))
    report = memory_report(compile_plan(it), "p", 3)
    assert report.arena == 3 * plan.batch_bytes


def compile_plan(it: Lowered) -> Any:
    from dslc.ir.plan import ExecutablePlan, PersistentPlan

    plan, packed = plan_program(it, {n: str(n) for n in range(len(it.steps))})
    buffers = tuple(PersistentPlan(n, "f32", s, "state") for n, (_, s) in CASES["long_short"].buffers.items())
    return ExecutablePlan((plan,), (*buffers, *packed))


def longer(length: int) -> Lowered:
    types = ((F32, (N, length, 32)),)
    buffers = {"wx": (F32, (32, 64)), "wh": (F32, (16, 64)), "bias": (F32, (64,))}
    made = small(types, lambda b, x, wx, wh, bias: lstm(b, x, wx, wh, bias, length), buffers, True)
    return lower(transform(made.program, {})[0])


@pytest.mark.parametrize(("few", "many"), [(3, 15), (30, 3000)], ids=["rows-of-one-page", "rows-pages-apart"])
def test_code_does_not_grow_with_the_number_of_iterations(few: int, many: int) -> None:
    """Examples of one time step that lie pages apart are asked for ahead, by a few lines more; how far apart does not matter."""
    programs = longer(few), longer(many)
    assert [s.label for s in programs[0].steps] == [s.label for s in programs[1].steps] == [s.label for s in longer(3000).steps]
    target = host_target(Options(width=16))
    inside = [kernel_sources(it, target)[it.loops[0].begin : it.loops[0].end] for it in programs]
    assert [k.text.count("\n") for k in inside[0]] == [k.text.count("\n") for k in inside[1]]


def test_weights_are_packed_outside_of_the_loop() -> None:
    types = ((F32, (N, 50, 1024)),)
    buffers = {"wx": (F32, (1024, 1024)), "wh": (F32, (256, 1024)), "bias": (F32, (1024,))}

    def make(updated: bool) -> Lowered:
        def build(b: Builder, x: Value, wx: Value, wh: Value, bias: Value) -> Any:
            *results, wx, wh, bias = lstm(b, x, wx, wh, bias, 50, 256)
            return (*results, wx, b.mul(wh, b.like(0.5, wh.type)) if updated else wh, bias)

        return lower(transform(small(types, build, buffers, True).program, {})[0])

    for updated in (False, True):
        it = make(updated)
        packs = [n for n, s in enumerate(it.steps) if s.label == "pack"]
        assert packs
        assert all(n < it.loops[0].begin for n in packs)


def test_stages_show_loops(workers: Workers, kernels: Cache) -> None:
    made = compiled(CASES["nested"], 16, workers, kernels).programs["p"]
    text = clusters_text(made)
    assert "for 4 iterations" in text
    assert "  for 3 iterations backwards" in text
    assert "loop: steps" in memory_text(made.plan)


def test_saved_and_loaded(tmp_path: Path) -> None:
    """A file holds loops: run as it is where it is trusted, compiled again where it is not."""
    source = """
    dim N <= 4
    model Sums(x: f32[N, 3, 5]) -> f32[N, 3, 5] {
      return scan[axis = 1, reverse = true] v in x carry h = zeros[N, 5] { h = 0.5 * h + v  yield h }
    }
    """
    program = compile(Source(source), cache=tmp_path / "cache")
    x = np.random.default_rng(1).standard_normal((2, 3, 5)).astype(np.float32)
    expected = program(x=x)
    program.save(tmp_path / "sums.dlc", embed=True)
    for trust in (True, False):
        assert np.array_equal(load(tmp_path / "sums.dlc", trust=trust, cache=tmp_path / f"other {trust}")(x=x), expected)
