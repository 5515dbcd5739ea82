"""The kernel of a contraction: its schedule printed, with a body of its own for a batch of one.

Where the register tile's rows are the batch, one example leaves most of a tile empty: what counts then is how fast the weights
are read, and a tile of one row and many vectors reads them faster. Both bodies sum in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from dslc.backends.cpu.build import KernelSource
from dslc.backends.cpu.contract import emit
from dslc.lowering.contraction import Contraction
from dslc.lowering.prepare import tiled
from dslc.lowering.schedules import Schedule

ENTRY = "kernel"

Choose = Callable[[Contraction, int], Schedule]
"""The schedule of a contraction for vectors of so many lanes."""


def contraction_source(contraction: Contraction, width: int, order: str = "fixed", choose: Choose = tiled) -> KernelSource:
    """Numba source of the kernel. What `choose` gives must sum in the order of the planned schedule, unless any order will do."""
    text = emit(choose(contraction, width), ENTRY).text
    one = one_example(contraction, width, order)
    if one is not None:
        text = _either(emit(choose(one, width), ENTRY).text, text)
    return KernelSource(text, ENTRY, width, order)


def one_example(contraction: Contraction, width: int, order: str = "fixed") -> Contraction | None:
    """The contraction for a batch of one, where the batch makes the tile's rows and the sums stay the same."""
    several = tiled(contraction, width)
    rows = [t for t in several.rows if t.runtime]
    if len(rows) != 1 or rows[0].axis.per_batch != 1 or several.dot is not None:
        return None
    batch = rows[0].axis
    c = several.contraction
    single = replace(c, axes=tuple(replace(a, extent=1) if a.name == batch.name else a for a in c.axes))
    one = tiled(single, width)
    same = one.dot is None and one.vector == several.vector and one.reduction == several.reduction
    return single if same or order == "free" else None


def _either(one: str, several: str) -> str:
    """One source with two bodies: `one` for a batch of one."""
    one = re.sub(r"\btile_(?=\d)", "row_", one)
    one_tiles, one_body = _parts(one)
    tiles, body = _parts(several)
    head = f"def {ENTRY}(row, thread, threads, batch):"
    lines = [head, "    if batch == 1:", *_indented(one_body), "    else:", *_indented(body)]
    return "\n\n".join([one_tiles, tiles, "\n".join(lines)]) + "\n"


def _parts(text: str) -> tuple[str, list[str]]:
    at = text.index(f"def {ENTRY}(")
    return text[:at].rstrip() + "\n", text[at:].rstrip().split("\n")[1:]


def _indented(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]
