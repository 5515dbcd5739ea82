"""Passes recurse into the regions of an operation (the body of a loop) with these helpers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dslc.ir.graph import Graph, Op


def in_regions(op: Op, transform: Callable[[Graph], Graph]) -> Op:
    """`op` with every region transformed; `op` itself where it has none."""
    return replace(op, regions=tuple(transform(region) for region in op.regions)) if op.regions else op
