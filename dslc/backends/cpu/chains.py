"""Long chains of dependent operations: which vector loops do several vectors a step, and how their lines are put together.

The processor waits for one operation of a chain after the other, and its schedulers are too small to begin the next chain
meanwhile. Several vectors a step have chains that run side by side: a function of all of them is one of a vector as wide as
they are together, which LLVM cuts again, operation by operation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dslc.backends.cpu.vocabulary import MATH
from dslc.ir.loops import ClampedLoad, LoadAt, Random, Reduce, Stmt, Store, Unary
from dslc.lowering.indices import walk

SEVERAL = 2  # functions of the math library in one step, as the gates of an LSTM have, where turns were measured
MANY = 16  # vectors of a row, of which it does not matter that up to three are done alone
WITHOUT_BRANCHES = "exp|exp2|expm1|log|log2|log10|log1p|sinh|cosh|tanh|atanh|sigmoid|erf"
CALL = re.compile(rf"( *)(\w+) = (v(?:{WITHOUT_BRANCHES}))\((\w+)\)")


def vectors_together(width: int, extent: int | None) -> int:
    """How many vectors a step does, for an extent that is known or not: as many as leave registers for constants. Measured."""
    vectors = MANY if extent is None else extent // width
    return 4 if width == 16 and vectors >= 4 and (vectors % 4 < 2 or vectors >= MANY) else 2


def together(bodies: Sequence[Sequence[str]]) -> list[str]:
    """The bodies of a step, one a vector, as one: a line of each in turns, and functions that all compute as one of a wide vector."""
    lines: list[str] = []
    for alike in zip(*bodies, strict=True):
        calls = [CALL.fullmatch(line) for line in alike]
        if None in calls:
            lines += alike
            continue
        indent, results, (function, *_), arguments = zip(*(c.groups() for c in calls if c), strict=True)
        wide = f"{results[0]}_wide"
        lines.append(f"{indent[0]}{wide} = {function}({_beside(arguments)})")
        lines += [f"{indent[0]}{name} = {part}" for name, part in zip(results, _parts(wide, len(bodies)), strict=True)]
    return lines


def _beside(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    half = len(names) // 2
    return f"beside({_beside(names[:half])}, {_beside(names[half:])})"


def _parts(wide: str, count: int) -> list[str]:
    if count == 1:
        return [wide]
    return [*_parts(f"left({wide})", count // 2), *_parts(f"right({wide})", count // 2)]


def are_long_chains(body: tuple[Stmt, ...]) -> bool:
    """Whether a loop over lanes computes several functions, and nothing that has loops or branches of its own."""
    stores = [s for s in body if isinstance(s, Store)]
    if len({s.buffer for s in stores}) != len(body):
        return False
    parts = {e for s in stores for e in walk(s.value)}
    if any(isinstance(e, Reduce | ClampedLoad | LoadAt | Random) for e in parts):
        return False
    return sum(isinstance(e, Unary) and e.op in MATH for e in parts) >= SEVERAL
