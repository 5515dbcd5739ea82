"""Long chains of dependent operations: which vector loops do two vectors a step, a line of each in turns."""

from __future__ import annotations

from dslc.backends.cpu.vocabulary import MATH
from dslc.ir.loops import ClampedLoad, LoadAt, Random, Reduce, Stmt, Store, Unary
from dslc.lowering.indices import walk

SEVERAL = 2  # functions of the math library in one step, as the gates of an LSTM have, where turns were measured


def are_long_chains(body: tuple[Stmt, ...]) -> bool:
    """Whether a loop over lanes computes several functions, and nothing that has loops or branches of its own."""
    stores = [s for s in body if isinstance(s, Store)]
    if len({s.buffer for s in stores}) != len(body):
        return False
    parts = {e for s in stores for e in walk(s.value)}
    if any(isinstance(e, Reduce | ClampedLoad | LoadAt | Random) for e in parts):
        return False
    return sum(isinstance(e, Unary) and e.op in MATH for e in parts) >= SEVERAL
