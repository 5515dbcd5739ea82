"""DL0601: what a program with a run-time batch cannot have."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0601",
        "A tensor does not grow in proportion to the batch",
        """
        A program for any batch takes memory for each example, and its inputs and results have the batch as their first axis. A table of
        all pairs of examples, [N, N], or one more row than examples, [N + 1], is compiled for a fixed batch: --dim N=64.
        """,
        "dim N <= 64\nmodel Pairs(x: f32[N, 4]) -> f32[N, N] { return x @ transpose(x) }",
        "dim N = 64\nmodel Pairs(x: f32[N, 4]) -> f32[N, N] { return x @ transpose(x) }",
        "text",
    ),
)
