"""The cheapest cut against all sets of nodes."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from dslc.transforms.cut import cheapest_cut

Edges = set[tuple[int, int]]


def separated(edges: Edges, sources: set[int], sinks: set[int], removed: set[int]) -> bool:
    reached = sources - removed
    while True:
        more = {b for a, b in edges if a in reached and b not in removed} - reached
        if not more:
            return not reached & sinks
        reached |= more


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_set_is_cheaper(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 7))
    nodes = st.integers(0, n - 1)
    weights = {i: data.draw(st.integers(1, 9)) for i in range(n)}
    edges = {(a, b) for a, b in data.draw(st.sets(st.tuples(nodes, nodes))) if a < b}
    sources, sinks = data.draw(st.sets(nodes)), data.draw(st.sets(nodes))
    cut = cheapest_cut(weights, edges, sources, sinks)
    assert separated(edges, sources, sinks, cut)
    sets = [set(c) for k in range(n + 1) for c in combinations(range(n), k)]
    assert sum(weights[i] for i in cut) == min(sum(weights[i] for i in s) for s in sets if separated(edges, sources, sinks, s))


def test_of_equal_cuts_the_latest() -> None:
    assert cheapest_cut({"a": 2, "b": 2, "c": 2}, [("a", "b"), ("b", "c")], ["a"], ["c"]) == {"c"}
