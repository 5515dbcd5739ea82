"""Index arithmetic: bounds are sound, simplification keeps values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.lowering.indices import bounds, coefficient, simplify

SIZES = {"i": 12, "j": 5, "k": 60}
RANGES = {name: (0, size - 1) for name, size in SIZES.items()}


def indices() -> st.SearchStrategy[Dim]:
    leaf = st.one_of(st.sampled_from([dims.name(n) for n in SIZES]), st.integers(-7, 7))
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
            st.tuples(inner, st.integers(-5, 5)).map(lambda p: p[0] * p[1]),
            st.tuples(inner, st.integers(1, 30)).map(lambda p: dims.floor_divide(*p)),
            st.tuples(inner, st.integers(1, 30)).map(lambda p: p[0] - p[1] * dims.floor_divide(*p)),
        ),
        max_leaves=6,
    )


POINTS = [{"i": i, "j": j, "k": k} for i in (0, 3, 11) for j in (0, 2, 4) for k in (0, 1, 29, 31, 59)]


@given(indices())
def test_bounds_hold_everywhere(index: Dim) -> None:
    found = bounds(index, RANGES)
    assert found is not None
    for point in POINTS:
        assert found[0] <= dims.evaluate(index, point) <= found[1]


@given(indices())
def test_simplify_keeps_the_value(index: Dim) -> None:
    simpler = simplify(index, RANGES)
    assert all(dims.evaluate(index, p) == dims.evaluate(simpler, p) for p in POINTS)


def test_remainders_have_tight_bounds() -> None:
    k = dims.name("k")
    assert bounds(k - 7 * dims.floor_divide(k, 7), RANGES) == (0, 6)
    middle = dims.floor_divide(k, 3) - 4 * dims.floor_divide(k, 12)
    assert bounds(middle, RANGES) == (0, 3)


def test_coefficient_of_what_stands_in_a_quotient_is_unknown() -> None:
    k = dims.name("k")
    assert coefficient(3 * k + 1, "k") == 3
    assert coefficient(dims.floor_divide(k, 5), "k") is None
    assert coefficient(dims.floor_divide(k, 5) * 4, "i") == 0
