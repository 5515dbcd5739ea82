"""Measured tiles: the bits stay, the cache knows the choice, and neither a wrong kernel nor an interrupt does harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from contractions import load, matmul
from test_contraction import buffers, conv_nchw, weight_gradient_nhwc

import dslc
from dslc.backends.cpu import tuning
from dslc.backends.cpu.build import KernelSource, Workers
from dslc.backends.cpu.contract import emit
from dslc.backends.cpu.stopwatch import Contest, Outcome, decide
from dslc.backends.cpu.tuning import Stopwatch, Tuned
from dslc.lowering.contraction import Contraction
from dslc.lowering.schedules import Schedule
from dslc.lowering.tiling import alternatives, find_alternative, plan, tile_text

SHAPES: dict[str, tuple[Contraction, int]] = {
    "several chunks": (matmul(None, 40, 700), 5),
    "dot": (matmul(9, 13, 70, b_columns=False), 1),
    "convolution": (conv_nchw(None, 12, 12, 1, 6, 5), 2),
    "weight gradient": (weight_gradient_nhwc(1, 9, 9, 4, 20, 3), 1),
}
NETWORK = """
dim N <= 64
model Net(x: f32[N, 40]) -> f32[N, 70] { return x |> Dense[70, relu] }
"""


def results(s: Schedule, batch: int) -> bytes:
    arrays = buffers(s.contraction, batch)
    load(emit(s)).run([arrays[b] for b, _ in s.contraction.buffers], batch, threads=2)
    return arrays[2].tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_alternatives_give_the_same_bits(shape: str) -> None:
    c, batch = SHAPES[shape]
    planned, *others = alternatives(c, 16, 4)
    assert planned == plan(c, 16) and len(others) == 3
    assert len({emit(s).text for s in (planned, *others)}) == 4, "each is a kernel of its own"
    right = results(planned, batch)
    for s in others:
        assert results(s, batch) == right, tile_text(s)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [16, 8])
def test_alternatives_are_found_by_their_text(shape: str, width: int) -> None:
    c, _ = SHAPES[shape]
    made = alternatives(c, width, 8)
    assert [find_alternative(c, width, tile_text(s)) for s in made] == list(made)
    assert {(s.dot, s.reduction, s.bounds, s.taps) for s in made} == {(made[0].dot, made[0].reduction, made[0].bounds, made[0].taps)}
    assert find_alternative(c, width, "m 999, vectors of b, chunks of 1") is None


# ---- the measuring worker ---------------------------------------------------------------------------------------------


def steps(count: int, value: float) -> KernelSource:
    """Writes `value` times the first argument to the second, after so many steps."""
    lines = ["def kernel(row, thread, threads, batch):", "    p, q = ptr_f32(arg(row, 0)), ptr_f32(arg(row, 1))", "    x = vload_f32(p, 0)"]
    lines += [f"    for _ in range({count}):", "        x = vsqrt(x * x)", f"    vstore_f32(q, 0, x * splat_f32({value}))"]
    return KernelSource("\n".join(lines) + "\n", "kernel", 16)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(1) as pool:
        yield pool


def contest(workers: Workers, *sources: KernelSource) -> Contest:
    built = workers.compile({s.text: s for s in sources})
    kernels = tuple((built[s.text].code, built[s.text].symbol) for s in sources)
    return Contest(kernels, (("f32", 64), ("f32", 64)), 1, 1)


def test_the_fastest_kernel_with_the_same_bits_wins(workers: Workers) -> None:
    slow, wrong, fast, first = steps(4000, 2.0), steps(1, 3.0), steps(200, 2.0), steps(8000, 2.0)
    made = contest(workers, first, slow, wrong, fast)
    assert Contest.from_json(json.loads(json.dumps(made.to_json()))) == made
    outcome = decide(made)
    assert outcome.winner == 3 and outcome.gain > 3
    assert decide(contest(workers, fast, slow, wrong)) == Outcome(0, 1.0)


def test_a_worker_that_dies_loses_its_contest_only(workers: Workers) -> None:
    good = contest(workers, steps(4000, 2.0), steps(100, 2.0))
    with Stopwatch() as stopwatch:
        assert stopwatch(Contest(((b"no object code", "kernel"),) * 2, good.buffers, 1, 1)) == Outcome(0, 1.0)
        assert stopwatch(good).winner == 1
        process = stopwatch._process
    assert process is not None and process.poll() is not None, "it does not outlive its user"


# ---- compilations -----------------------------------------------------------------------------------------------------


def kernels(program: dslc.Program) -> set[str]:
    return set(program.kernel_labels)


@pytest.fixture
def second_wins(monkeypatch: pytest.MonkeyPatch) -> list[Contest]:
    """Every contest is won by the first alternative; the contests that were held."""
    held: list[Contest] = []

    def win(self: Stopwatch, contest: Contest) -> Outcome:
        held.append(contest)
        return Outcome(1, 1.25)

    monkeypatch.setattr(Stopwatch, "__call__", win)
    monkeypatch.setattr(tuning, "ALTERNATIVES", 2)
    return held


def test_later_compilations_use_what_was_measured(second_wins: list[Contest], tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    planned = dslc.compile(NETWORK, threads=2, cache=tmp_path)
    heard: list[Tuned] = []
    measured = dslc.compile(NETWORK, threads=2, cache=tmp_path, tune=True, tuned=heard.append)
    assert len(second_wins) == len(heard) == 2 and second_wins[1].batch == 1, "for a batch, and for one example"
    assert all(t.gain == 1.25 and t.tile != t.planned and not t.known for t in heard)
    assert kernels(measured) != kernels(planned)
    for batch in (x, x[:1]):
        assert measured(x=batch).tobytes() == planned(x=batch).tobytes()

    assert kernels(dslc.compile(NETWORK, threads=2, cache=tmp_path)) == kernels(measured), "found whole"
    assert kernels(dslc.compile(NETWORK + "\n", threads=2, cache=tmp_path)) == kernels(measured), "compiled again"
    assert kernels(dslc.compile(NETWORK, threads=1, cache=tmp_path)) == kernels(planned), "measured for two threads"
    heard.clear()
    dslc.compile(NETWORK, threads=2, cache=tmp_path, tune=True, tuned=heard.append)
    assert len(second_wins) == 2 and [(t.known, t.gain) for t in heard] == [(True, 1.25)] * 2


def test_without_a_cache_the_choice_holds_for_this_compilation(second_wins: list[Contest], tmp_path: Path) -> None:
    planned = dslc.compile(NETWORK, threads=2, cache=tmp_path)
    measured = dslc.compile(NETWORK, threads=2, cache=False, tune=True)
    assert len(second_wins) == 2 and kernels(measured) != kernels(planned)


def test_an_interrupt_keeps_what_was_measured(second_wins: list[Contest], tmp_path: Path) -> None:
    def stop(tuned: Tuned) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dslc.compile(NETWORK, threads=2, cache=tmp_path, tune=True, tuned=stop)
    heard: list[Tuned] = []
    dslc.compile(NETWORK, threads=2, cache=tmp_path, tune=True, tuned=heard.append)
    assert [t.known for t in heard] == [True, False] and len(second_wins) == 2


def test_a_choice_that_no_compiler_knows_is_no_choice(second_wins: list[Contest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles change between versions: what the cache says of them is looked up, not trusted."""
    monkeypatch.setattr(tuning, "tile_text", lambda s: f"another compiler's tile {s.rows and s.rows[0].size}")
    dslc.compile(NETWORK, threads=2, cache=tmp_path, tune=True)
    monkeypatch.undo()
    planned = dslc.compile(NETWORK, threads=2, cache=tmp_path / "empty")
    assert kernels(dslc.compile(NETWORK + "\n", threads=2, cache=tmp_path)) == kernels(planned)


def test_measuring_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "ALTERNATIVES", 4)
    heard: list[Tuned] = []
    x = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    measured = dslc.compile(NETWORK, threads=2, cache=tmp_path, tune=True, tuned=heard.append)
    assert len(heard) == 2 and all((t.gain > 1.0) == (t.tile != t.planned) for t in heard)
    assert measured(x=x).tobytes() == dslc.compile(NETWORK, threads=2, cache=tmp_path / "empty")(x=x).tobytes()
