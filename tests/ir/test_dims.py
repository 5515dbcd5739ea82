"""Dimension arithmetic agrees with Python's integers, the text form reads back, and the prover is sound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dslc.ir import dims
from dslc.ir.dims import Dim, DimError, evaluate, name, parse_dim, substitute
from dslc.ir.prove import Proved, Refuted, Relation, Unknown, divides, prove

NAMES = ("H", "W", "C")
H, W, C, N = name("H"), name("W"), name("C"), name("N")


@st.composite
def expressions(draw: st.DrawFn, depth: int = 4) -> tuple[Dim, str]:
    """A dimension and the Python expression that it was built from."""
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        if draw(st.booleans()):
            chosen = draw(st.sampled_from(NAMES))
            return name(chosen), chosen
        value = draw(st.integers(-4, 12))
        return value, f"({value})"
    left, left_text = draw(expressions(depth - 1))
    operator = draw(st.sampled_from(["+", "-", "*", "//", "%"]))
    if operator in ("//", "%"):
        right: Dim = draw(st.integers(1, 8))
        right_text = str(right)
    else:
        right, right_text = draw(expressions(depth - 1))
    text = f"({left_text} {operator} {right_text})"
    match operator:
        case "+":
            return left + right, text
        case "-":
            return left - right, text
        case "*":
            return left * right, text
        case "//":
            return left // right, text
        case _:
            return left % right, text


sizes = st.fixed_dictionaries({n: st.integers(1, 40) for n in NAMES})


@given(expressions(), sizes)
@settings(max_examples=400, deadline=None)
def test_arithmetic_agrees_with_integers(built: tuple[Dim, str], values: dict[str, int]) -> None:
    d, text = built
    assert evaluate(d, values) == eval(text, {}, values)


@given(expressions(), sizes)
@settings(max_examples=300, deadline=None)
def test_text_means_the_same_in_python(built: tuple[Dim, str], values: dict[str, int]) -> None:
    """Kernels are Python text: a leading -(H // 2) must not be read as (-H) // 2."""
    for d in (built[0], 3 - built[0] // 2):
        assert eval(str(d), {}, values) == evaluate(d, values)


@given(expressions())
@settings(max_examples=300, deadline=None)
def test_text_reads_back(built: tuple[Dim, str]) -> None:
    d, _ = built
    assert parse_dim(str(d)) == d


@given(expressions(), sizes)
@settings(max_examples=200, deadline=None)
def test_substitution_agrees_with_evaluation(built: tuple[Dim, str], values: dict[str, int]) -> None:
    d, _ = built
    assert substitute(d, values) == evaluate(d, values)
    partial = substitute(d, {"H": 2 * W + 1})
    assert evaluate(partial, values) == evaluate(d, values | {"H": 2 * values["W"] + 1})


@given(expressions(3), expressions(3), st.sampled_from(["==", "!=", ">=", "<", "<=", ">"]), st.integers(1, 6), sizes)
@settings(max_examples=400, deadline=None)
def test_prover_is_sound(a: tuple[Dim, str], b: tuple[Dim, str], operator: str, divisor: int, values: dict[str, int]) -> None:
    goal = Relation(a[0], operator, b[0])
    facts = [divides(divisor, H), Relation(W, "<=", 20), Relation(C, ">=", 2)]
    verdict = prove(goal, facts)
    values = values | {"H": values["H"] * divisor, "W": min(values["W"], 20), "C": values["C"] + 1}
    if isinstance(verdict, Proved):
        assert goal.holds(values)
    elif isinstance(verdict, Refuted):
        witness = {n: 6 * divisor if n == "H" else 2 for n in NAMES} | dict(verdict.counterexample)
        assert not goal.holds(witness)
        assert all(fact.holds(witness) for fact in facts)


@pytest.mark.parametrize(
    ("d", "text"),
    [
        ((H + 2 * name("p") - 3) // 2 + 1, "p + (H + 1) // 2 - 1"),
        ((H + 2 - 3) // 2 + 1, "(H + 1) // 2"),
        (H // 2 // 2, "H // 4"),
        ((H // 2 - 2) // 2, "H // 4 - 1"),
        (2 * H // 4, "H // 2"),
        ((4 * H + 3) // 8, "H // 2"),
        (C * H * W, "C * H * W"),
        (3 * (H // 2) * C, "3 * C * (H // 2)"),
        (1 - H, "-H + 1"),
        (H * W // W, "H"),
        (C // name("g"), "C // g"),
        (H % 2, "H - 2*(H // 2)"),
    ],
)
def test_canonical_text(d: Dim, text: str) -> None:
    assert str(d) == text


def test_constants_fold_to_int() -> None:
    assert type(H - H) is int
    assert (H + 3) - H == 3
    assert (6 * H) // (2 * H) == 3
    assert substitute((H + 2) // 3, {"H": 7}) == 3


@pytest.mark.parametrize(
    ("goal", "facts"),
    [
        (Relation(H // 2 * 2, "==", H), [divides(2, H)]),
        (Relation((H + 1) // 2, "==", H // 2), [divides(2, H)]),
        (divides(8, H), [divides(32, H)]),
        (divides(6, H), [divides(2, H), divides(3, H)]),
        (divides(name("g"), C), [divides(name("g"), C)]),
        (Relation(H * W, "==", 12 * W), [Relation(H, "==", 12)]),
        (Relation(H, ">=", 1), []),
        (Relation(H - 3, ">=", 1), [Relation(H, ">=", 4)]),
        (Relation(H // 2, ">=", 1), [Relation(H, ">=", 2)]),
        (Relation(H // 2, "<=", H), []),
        (Relation(name("T"), "<=", name("S") + 1), [Relation(name("T"), "<=", name("S"))]),
        (Relation(H, "!=", 0), []),
        (Relation(H, "<", 300), [Relation(H, "<=", 256)]),
        (divides(2, 2 * H + 4 * W), []),
    ],
)
def test_proved(goal: Relation, facts: list[Relation]) -> None:
    assert prove(goal, facts) == Proved()


def test_refuted_with_a_small_counterexample() -> None:
    assert prove(divides(2, H)) == Refuted({"H": 1})
    assert prove(Relation(H, "==", W)) == Refuted({"H": 1, "W": 2})
    assert str(prove(divides(4, H), [divides(2, H)])) == "fails at H = 2"
    assert str(prove(Relation(H, "!=", 1000))) == "fails at H = 1000"
    assert str(prove(Relation(H * W, "<=", 20), [Relation(H, "<=", 4), Relation(W, ">=", 5)])).startswith("fails at")
    assert prove(Relation(3, "==", 4)) == Refuted({})


def test_unknown_is_said() -> None:
    assert prove(Relation(H * H * H + W * W * W, "!=", C * C * C)) == Unknown()  # true, and beyond this prover


@pytest.mark.parametrize("text", ["", "H +", "(H", "H ** 2", "1.5", "H // 0", "H H", "(" * 500 + "H" + ")" * 500])
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(DimError):
        parse_dim(text)


def test_division_by_zero_and_unbound_names_are_refused() -> None:
    with pytest.raises(DimError):
        _ = H // 0
    with pytest.raises(DimError):
        substitute(H // W, {"W": 0})
    with pytest.raises(DimError):
        evaluate(H, {})
    with pytest.raises(DimError):
        dims.divide_exactly(7, 2)
