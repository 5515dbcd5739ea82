"""A measuring worker: reads requests as JSON lines, answers each with how long kernels take that compute the same. Started by `tuning.py`.

A process of its own, so that a kernel that goes astray takes no one along, and so that Ctrl-C ends the measuring at once. Each kernel
runs on the pool like a program's step, many calls in a row; kernels take turns, and what counts is the median of each one's time
over the first one's in the same turn. A kernel whose results differ from the first one's by a bit is out.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from dslc.ir.plan import BufferPlan, ExecutablePlan, KernelPlan, PersistentPlan, ProgramPlan, StepPlan
from dslc.runtime.convert import DTYPES
from dslc.runtime.executable import Executable
from dslc.runtime.serve import serve

CALL_S = 1e-3  # of one timed call: long enough for the clock, short enough for an undisturbed one
TURNS, LEAST_TURNS = 21, 5
BUDGET_S = 1.0  # for the turns of all kernels together
SURE = 0.98  # a kernel must be faster than the first one by so much, twice


@dataclass(frozen=True, slots=True)
class Contest:
    """Kernels with the same arguments: object code and symbol of each, (element type, elements) of each argument, the batch."""

    kernels: tuple[tuple[bytes, str], ...]
    buffers: tuple[tuple[str, int], ...]
    batch: int
    threads: int
    same_bits: bool = True

    def to_json(self) -> dict[str, Any]:
        kernels = [[base64.b64encode(code).decode(), symbol] for code, symbol in self.kernels]
        return {"kernels": kernels, "buffers": self.buffers, "batch": self.batch, "threads": self.threads, "same_bits": self.same_bits}

    @staticmethod
    def from_json(said: Mapping[str, Any]) -> Contest:
        kernels = tuple((base64.b64decode(code), str(symbol)) for code, symbol in said["kernels"])
        buffers = tuple((str(dtype), int(count)) for dtype, count in said["buffers"])
        return Contest(kernels, buffers, said["batch"], said["threads"], said["same_bits"])


@dataclass(frozen=True, slots=True)
class Outcome:
    """The kernel that won, and how many times as long the first one takes; a kernel that is not surely faster does not win."""

    winner: int
    gain: float


def decide(contest: Contest) -> Outcome:
    """Measure. The first kernel is the one to beat."""
    others = list(range(1, len(contest.kernels)))
    if contest.same_bits:
        right = _results(contest, 0)
        others = [n for n in others if _results(contest, n) == right]
    once = _executable(contest, 1)
    seconds = min(_seconds(once, "0", contest.batch) for _ in range(5))
    times = max(1, int(CALL_S / max(seconds, 1e-7)))
    ready = _executable(contest, times) if times > 1 else once
    shares = _shares(ready, others, contest.batch)
    if not shares:
        return Outcome(0, 1.0)
    best = min(shares, key=shares.__getitem__)
    if shares[best] >= SURE:
        return Outcome(0, 1.0)
    again = _shares(ready, [best], contest.batch)[best]  # the best of several was lucky: it must show it alone
    return Outcome(best, 1 / again) if again < SURE else Outcome(0, 1.0)


def _executable(contest: Contest, times: int) -> Executable:
    """A program for each kernel, named by its number, that calls it so many times."""
    names = [f"argument{n}" for n in range(len(contest.buffers))]
    persistent = tuple(PersistentPlan(n, dtype, (count,), "state") for n, (dtype, count) in zip(names, contest.buffers, strict=True))
    buffers = tuple(BufferPlan(p.name, p.dtype, p.shape, "persistent", 0, p.nbytes) for p in persistent)
    arguments = tuple((n, 0) for n in range(len(buffers)))
    programs = tuple(
        ProgramPlan(str(n), buffers, (StepPlan(str(n), arguments),) * times, batch_bound=contest.batch) for n in range(len(contest.kernels))
    )
    kernels = tuple(KernelPlan(str(n), str(n), symbol) for n, (_, symbol) in enumerate(contest.kernels))
    objects = {str(n): code for n, (code, _) in enumerate(contest.kernels)}
    made = Executable(ExecutablePlan(programs, persistent, kernels=kernels), objects, threads=contest.threads)
    draw = np.random.default_rng(0)
    for p in persistent:
        floating = DTYPES[p.dtype].kind == "f"
        made.set(p.name, (draw.standard_normal(p.shape) if floating else np.ones(p.shape)).astype(DTYPES[p.dtype]))
    return made


def _results(contest: Contest, number: int) -> list[bytes]:
    made = _executable(contest, 1)
    made.call(str(number), {}, batch=contest.batch)
    return [made.get(name).tobytes() for name in made.names()]


def _seconds(executable: Executable, program: str, batch: int) -> float:
    begin = time.perf_counter()
    executable.call(program, {}, batch=batch)
    return time.perf_counter() - begin


def _shares(executable: Executable, others: Sequence[int], batch: int) -> dict[int, float]:
    """Median time of each of the others over the first one's, which runs before and after it."""
    for n in (0, *others):
        _seconds(executable, str(n), batch)
    found: dict[int, list[float]] = {n: [] for n in others}
    begin = time.perf_counter()
    for turn in range(TURNS):
        if turn >= LEAST_TURNS and time.perf_counter() - begin > BUDGET_S:
            break
        before = _seconds(executable, "0", batch)
        for n in others:
            mine, after = _seconds(executable, str(n), batch), _seconds(executable, "0", batch)
            found[n].append(2 * mine / (before + after))
            before = after
    return {n: median(values) for n, values in found.items()}


def main() -> None:
    out = sys.stdout
    sys.stdout = sys.stderr  # nothing but answers may reach the pipe

    def answer(line: str) -> str:
        outcome = decide(Contest.from_json(json.loads(line)))
        return json.dumps([outcome.winner, outcome.gain])

    serve(answer, out)


if __name__ == "__main__":
    main()
