"""Tiles that were measured on this machine take the place of those that the cost model plans.

A choice is kept in the cache by contraction, lanes, machine and threads, so that every later compilation that meets the contraction
finds it. Only schedules that give the same bits compete (`tiling.alternatives`), and the measuring worker compares their results.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dslc.backends.cpu.build import Built, KernelSource, Workers, worker_environment
from dslc.backends.cpu.contract import emit
from dslc.backends.cpu.contraction_source import ENTRY, one_example
from dslc.backends.cpu.stopwatch import Contest, Outcome
from dslc.backends.cpu.target import Target
from dslc.lowering.contraction import Contraction, linear
from dslc.lowering.schedules import BATCH_HINT, Schedule
from dslc.lowering.steps import Lowered
from dslc.lowering.tiling import alternatives, find_alternative, plan, tile_text

ALTERNATIVES = 8  # measured for a contraction, the planned one among them
MARGIN = 1024  # elements behind an argument's last one: vectors may begin there
MEASURED = "tile"  # what the cache calls a choice


@dataclass(frozen=True, slots=True)
class Tuned:
    """A contraction whose tiles were measured: the operators it comes from, the tile that is used, the planned one, how many times
    as long that one takes, and whether the cache had it."""

    label: str
    tile: str
    planned: str
    gain: float
    known: bool

    def as_json(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return {"label": self.label, "tile": self.tile, "planned": self.planned, "gain": round(self.gain, 3), "known": self.known}


class Tiles:
    """Schedules of contractions: `tiles(contraction, width)` gives the measured one where there is one, else the planned.

    `store` is a cache (or None); `used` says whether a measured choice was found.
    """

    def __init__(self, target: Target, threads: int, store: Any = None):
        self.target, self.threads, self.store = target, threads, store
        self.used = False
        self._known: dict[Contraction, tuple[Schedule, float] | None] = {}

    def __call__(self, contraction: Contraction, width: int) -> Schedule:
        found = self._measured(contraction)
        self.used = self.used or found is not None
        return plan(contraction, width, self.target.order) if found is None else found[0]

    def measure(
        self, lowered: Iterable[Lowered], workers: Workers | None = None, done: Callable[[Tuned], None] | None = None
    ) -> tuple[Tuned, ...]:
        """Measure every contraction of the programs, but for those that the cache knows. What is measured is kept at once, so that an
        interrupt loses one contraction's time."""
        jobs: dict[tuple[Contraction, int], list[str]] = {}
        for program in lowered:
            for step in program.steps:
                if isinstance(step.program, Contraction):
                    batch = min(BATCH_HINT, program.bound)
                    jobs.setdefault((step.program, batch), []).append(f"{step.label} {step.span or ''}".strip())
                    single = one_example(step.program, self.target.width, self.target.order)
                    if single is not None and program.bound > 1:
                        jobs.setdefault((single, 1), []).append(f"{step.label} {step.span or ''}".strip() + ", one example")
        results: list[Tuned] = []
        pool = workers or Workers()
        try:
            with Stopwatch() as stopwatch:
                for (contraction, batch), labels in jobs.items():
                    known = self._measured(contraction)
                    made = known or self._compete(contraction, batch, pool, stopwatch)
                    planned = tile_text(plan(contraction, self.target.width, self.target.order))
                    label = ", ".join(dict.fromkeys(labels))
                    results.append(Tuned(label, tile_text(made[0]), planned, made[1], known is not None))
                    if done is not None:
                        done(results[-1])
        finally:
            if workers is None:
                pool.close()
        return tuple(results)

    def _measured(self, contraction: Contraction) -> tuple[Schedule, float] | None:
        if contraction not in self._known:
            self._known[contraction] = self._stored(contraction)
        return self._known[contraction]

    def _stored(self, contraction: Contraction) -> tuple[Schedule, float] | None:
        content = self.store.get(MEASURED, self._key(contraction)) if self.store is not None and self.target.order == "fixed" else None
        if content is None:
            return None
        said = json.loads(content)
        schedule = find_alternative(contraction, self.target.width, said["tile"])  # None: the tiles are other ones by now
        return None if schedule is None else (schedule, float(said["gain"]))

    def _key(self, contraction: Contraction) -> str:
        parts = [self.target.environment, str(self.target.width), str(self.threads), repr(contraction)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _compete(self, contraction: Contraction, batch: int, workers: Workers, stopwatch: Stopwatch) -> tuple[Schedule, float]:
        width, order = self.target.width, self.target.order
        schedules = alternatives(contraction, width, ALTERNATIVES, order)
        sources = {tile_text(s): KernelSource(emit(s, ENTRY).text, ENTRY, width, order) for s in schedules}
        keys = {text: source.key(self.target.environment) for text, source in sources.items()}
        built: Mapping[str, Built] = workers.compile({keys[text]: source for text, source in sources.items()}) if len(schedules) > 1 else {}
        outcome = Outcome(0, 1.0)
        if built:
            kernels = tuple((built[keys[tile_text(s)]].code, built[keys[tile_text(s)]].symbol) for s in schedules)
            outcome = stopwatch(Contest(kernels, _arguments(contraction, batch), batch, self.threads, order == "fixed"))
        chosen = schedules[outcome.winner], outcome.gain
        self._known[contraction] = chosen
        if self.store is not None and order == "fixed":
            text = tile_text(chosen[0])
            self.store.put(MEASURED, self._key(contraction), json.dumps({"tile": text, "gain": outcome.gain}).encode())
            if built:
                self.store.put("object", keys[text], built[keys[text]].code)
        return chosen


def _arguments(c: Contraction, batch: int) -> tuple[tuple[str, int], ...]:
    """Element type and size of every argument, large enough for every access."""

    def reach(start: int, strides: Mapping[str, int]) -> int:
        return 1 + start + sum((c.axis(n).size(batch) - 1) * max(0, s) for n, s in strides.items())

    sizes = {
        0: reach(c.a0, {a.name: a.a for a in c.axes}),
        1: reach(c.b0, {a.name: a.b for a in c.axes}),
        2: reach(c.c0, {a.name: a.c or 0 for a in c.outputs}),
    }
    for buffer, address in c.addresses:
        start, strides = linear(address)
        sizes[buffer] = max(sizes.get(buffer, 0), reach(start, strides))
    return tuple((dtype.value, sizes[buffer] + MARGIN) for buffer, dtype in c.buffers)


class Stopwatch:
    """The measuring worker. A worker that dies loses its contest: the planned kernel stays."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, contest: Contest) -> Outcome:
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(contest.to_json()) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            self._stop()
            return Outcome(0, 1.0)
        winner, gain = json.loads(line)
        return Outcome(int(winner), float(gain))

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dslc.backends.cpu.stopwatch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=worker_environment(),
            start_new_session=True,
        )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()
