"""What the same bits cost: networks compiled as always against the same compiler with sums in any order.

    python tests/benchmarks/reduction_order.py [case ...] [--seconds 4] [--threads 2] [--tune]

The free build cuts contractions into chunks only where that makes blocks for the cache, gives small register tiles and long row sums
several accumulators, and lets LLVM reorder and contract every sum and product outside of the math library. Sums are not split over
threads: in these networks every contraction has enough tiles for all. With --tune tiles of both builds are measured first, those of
the free one over all orders and chunks; that takes minutes.

Both builds live in one process and take turns in short blocks; a block of one stands between two of the other. Printed are the
median time of a call and the median of time(fixed) / time(free) over all blocks, with its quartiles: above 1, the fixed order costs.
Kernels are kept in the cache: only the first run compiles.
"""

# ruff: noqa: E402 - a script: the paths of the project and its tests come first
from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from contender import CASES, source

import dslc
from dslc.api import compilation
from dslc.api.measure import timed_block

BLOCK_S = 0.02
CONTESTS = {
    "lenet training 64": ("lenet", "training", 64),
    "mlp training 64": ("mlp", "training", 64),
    "lenet inference 1": ("lenet", "inference", 1),
    "lenet inference 64": ("lenet", "inference", 64),
}

Call = Callable[[], Any]


@contextmanager
def order(name: str, tune: bool = False) -> Iterator[None]:
    """Within it, programs are compiled with sums in this order."""
    right = compilation.obtain

    def obtain(request: compilation.Request, *rest: Any) -> compilation.Ready:
        return right(replace(request, options=replace(request.options, order=name, tune=tune)), *rest)

    with patch("dslc.api.compilation.obtain", obtain), patch("dslc.api.trainer.obtain", obtain):
        yield


def build(network: str, mode: str, batch: int, **options: Any) -> Call:
    """A call of the network on a random batch, through the public interface: an inference or a training step with AdamW."""
    case, draw = CASES[network], np.random.default_rng(0)
    image = draw.standard_normal((batch, *case.shape)).astype(np.float32)
    if mode == "inference":
        net = dslc.compile(source(case), model=case.model, **options)
        return lambda: net(image=image)
    label = draw.integers(0, case.classes, batch)
    trainer = dslc.Trainer(source(case), recipe="contest", data={"train": (image, label)}, batch=batch, save=False, **options)
    return lambda: trainer.train_on(image=image, label=label)


def block(call: Call) -> float:
    """The median time of a call over a short while."""
    return statistics.median(timed_block(call, BLOCK_S))


def contest(fixed: Call, free: Call, seconds: float) -> tuple[float, float, list[float]]:
    """Median seconds of both, and the shares fixed / free, each block of `fixed` against those of `free` around it."""
    for call in (fixed, free) * 3:
        block(call)
    mine: list[float] = []
    theirs = [block(free)]
    shares: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(shares) < 5:
        mine.append(block(fixed))
        theirs.append(block(free))
        shares.append(2 * mine[-1] / (theirs[-2] + theirs[-1]))
    return statistics.median(mine), statistics.median(theirs), shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="parts of their names; all without")
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring for a case")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tune", action="store_true", help="measure tiles of both builds first")
    said = parser.parse_args()
    for title, (network, mode, batch) in CONTESTS.items():
        if said.cases and not any(part in title for part in said.cases):
            continue
        calls = []
        for name in ("fixed", "free"):
            with order(name, said.tune):
                calls.append(build(network, mode, batch, threads=said.threads))
        mine, theirs, shares = contest(calls[0], calls[1], said.seconds)
        low, middle, high = statistics.quantiles(shares, n=4)
        print(
            f"{title:20s} fixed {mine * 1e6:8.1f} us  free {theirs * 1e6:8.1f} us  fixed / free {middle:.3f} ({low:.3f} to {high:.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
