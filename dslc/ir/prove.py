"""A prover for statements about sizes: sound, incomplete, and it refutes by finding small counterexamples.

`prove(goal, facts)` answers `Proved`, `Refuted(counterexample)` or `Unknown`. Every name stands for a size of at least 1. Facts
come from `given` clauses and declared bounds. A proof is by canonical form after the facts' equations are solved
(`H % 32 == 0` turns H into 32 times a new name), then by interval bounds and small combinations of inequalities.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd

from dslc.ir import dims
from dslc.ir.dims import Dim, DimError, DimExpr, Quotient

RELATIONS = ("==", "!=", "<=", ">=", "<", ">")


def compared(left: float, operator: str, right: float) -> bool:
    """`left operator right` of two numbers."""
    match operator:
        case "==":
            return left == right
        case "!=":
            return left != right
        case "<=":
            return left <= right
        case ">=":
            return left >= right
        case "<":
            return left < right
        case _:
            return left > right


@dataclass(frozen=True, slots=True)
class Relation:
    """`left operator right` between two dimensions; the operator is one of RELATIONS."""

    left: Dim
    operator: str
    right: Dim

    def __str__(self) -> str:
        remainder = _as_remainder(self.left) if self.right == 0 else None
        return f"{remainder or self.left} {self.operator} {self.right}"

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether it is true for these sizes; DimError where it has no value."""
        return compared(dims.evaluate(self.left, values), self.operator, dims.evaluate(self.right, values))

    def substituted(self, mapping: Mapping[str, Dim]) -> Relation:
        return Relation(dims.substitute(self.left, mapping), self.operator, dims.substitute(self.right, mapping))


def _as_remainder(d: Dim) -> str | None:
    """`T % 2` for T - 2 * (T // 2)."""
    for monomial, _ in d.terms if isinstance(d, DimExpr) else ():
        for atom, _power in monomial:
            if isinstance(atom, Quotient) and d == atom.numerator - atom.denominator * dims.floor_divide(atom.numerator, atom.denominator):
                texts = [str(part) if str(part).isalnum() else f"({part})" for part in (atom.numerator, atom.denominator)]
                return " % ".join(texts)
    return None


def divides(divisor: Dim, d: Dim) -> Relation:
    """The statement that `divisor` divides `d`."""
    return Relation(d - divisor * dims.floor_divide(d, divisor), "==", 0)


@dataclass(frozen=True, slots=True)
class Proved:
    """The goal holds for all sizes that satisfy the facts."""


@dataclass(frozen=True, slots=True)
class Refuted:
    """The goal fails for these sizes, which satisfy the facts."""

    counterexample: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return "fails at " + ", ".join(f"{n} = {v}" for n, v in sorted(self.counterexample.items())) if self.counterexample else "is false"


@dataclass(frozen=True, slots=True)
class Unknown:
    """Neither shown nor refuted."""


Verdict = Proved | Refuted | Unknown


def prove(goal: Relation, facts: Sequence[Relation] = ()) -> Verdict:
    """Decides `goal` for all names >= 1 under `facts`, as far as it can."""
    relevant = _connected(goal, facts)
    solution = solve(relevant)
    try:
        if replaceable(goal, solution.mapping) and _holds_by_form(goal.substituted(solution.mapping), solution):
            return Proved()
    except OverflowError:  # numbers beyond a float: bounds say nothing
        pass
    counterexample = _search(goal, relevant)
    return Refuted(counterexample) if counterexample is not None else Unknown()


# --- solving the facts' equations ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Solution:
    """Names replaced by what the equations among the facts make of them, and the inequalities that remain (each `>= 0`)."""

    mapping: Mapping[str, Dim]
    inequalities: tuple[Dim, ...]
    equations: tuple[Dim, ...]
    different: tuple[Dim, ...]


def solve(facts: Iterable[Relation]) -> Solution:
    """Solves the equations for names as far as they are linear in one: `H % 4 == 0` gives H = 4 * `H/4` with a new name."""
    mapping: dict[str, Dim] = {}
    equations = [f.left - f.right for f in facts if f.operator == "=="]
    unsolved: list[Dim] = []
    for equation in equations:
        if _length(equation, mapping) > _LONG:
            continue
        equation = dims.substitute(equation, mapping)
        found = _solve_divisibility(equation) or _solve_linear(equation)
        if found is None:
            if equation != 0:
                unsolved.append(equation)
            continue
        if any(_length(d, found) > _LONG for d in mapping.values()):
            unsolved.append(equation)
            continue
        mapping = {n: dims.substitute(d, found) for n, d in mapping.items()} | found
    inequalities: list[Dim] = []
    different: list[Dim] = []
    for fact in facts:
        if not replaceable(fact, mapping):
            continue  # one fact less shows less, and nothing false
        fact = fact.substituted(mapping)
        difference = fact.left - fact.right
        match fact.operator:
            case ">=":
                inequalities.append(difference)
            case ">":
                inequalities.append(difference - 1)
            case "<=":
                inequalities.append(0 - difference)
            case "<":
                inequalities.append(0 - difference - 1)
            case "!=":
                different.append(difference)
    inequalities += [replacement - 1 for replacement in mapping.values()]
    return Solution(
        mapping, tuple(inequalities), tuple(dims.substitute(e, mapping) for e in unsolved if _length(e, mapping) <= _LONG), tuple(different)
    )


_LONG = 2000  # terms that an expression may come to when names in it are replaced


def replaceable(relation: Relation, mapping: Mapping[str, Dim]) -> bool:
    """Whether the two sides stay short when the names are replaced: powers of sums grow beyond all measure."""
    return _length(relation.left, mapping) <= _LONG and _length(relation.right, mapping) <= _LONG


def _length(d: Dim, mapping: Mapping[str, Dim]) -> int:
    """At most so many terms come of replacing names; a factor counts twice, so that high powers of one term are long too."""
    if isinstance(d, int):
        return 1
    total = 0
    for monomial, _ in d.terms:
        length = 1
        for atom, power in monomial:
            if isinstance(atom, Quotient):
                each = _length(atom.numerator, mapping) + _length(atom.denominator, mapping)
            else:
                found = mapping.get(atom, 1)
                each = sum(2 ** min(12, max(0, sum(p for _, p in m) - 1)) for m, _ in found.terms) if isinstance(found, DimExpr) else 1
            for _ in range(min(power, 12)):
                length *= each
            if length > _LONG:
                return length
        total += length
    return total


def _solve_divisibility(equation: Dim) -> dict[str, Dim] | None:
    """An equation e - d * (e // d) = 0: solved for a name with a coefficient prime to d (any name, if it stands alone)."""
    if not isinstance(equation, DimExpr):
        return None
    for monomial, _ in equation.terms:
        for atom, power in monomial:
            if not isinstance(atom, Quotient) or power != 1:
                continue
            e, d = atom.numerator, atom.denominator
            if equation not in (e - d * dims.floor_divide(e, d), d * dims.floor_divide(e, d) - e):
                continue
            solved = _solve_multiple(e, d)
            if solved is not None:
                return solved
    return None


def _solve_multiple(e: Dim, d: Dim) -> dict[str, Dim] | None:
    """d divides e, solved for a name of e."""
    assert isinstance(e, DimExpr)
    for monomial, coefficient in e.terms:
        if len(monomial) != 1 or monomial[0][1] != 1 or not isinstance(monomial[0][0], str):
            continue
        variable = monomial[0][0]
        rest = e - coefficient * dims.name(variable)
        if variable in dims.names(rest) or variable in dims.names(d):
            continue
        if isinstance(d, int) and rest == 0:  # d | c*x  <=>  d / gcd(c, d) | x
            d = d // gcd(d, coefficient)
            return {variable: d * dims.name(f"{variable}'{d}")} if d > 1 else None
        if abs(coefficient) == 1:
            fresh = dims.name(f"{variable}'{d if isinstance(d, int) else ''}")
            return {variable: (d * fresh - rest) * coefficient} if rest != 0 else {variable: d * fresh}
    return None


def _solve_linear(equation: Dim) -> dict[str, Dim] | None:
    if not isinstance(equation, DimExpr):
        return None
    for monomial, coefficient in equation.terms:
        if abs(coefficient) == 1 and len(monomial) == 1 and monomial[0][1] == 1 and isinstance(monomial[0][0], str):
            variable = monomial[0][0]
            rest = equation - coefficient * dims.name(variable)
            if variable not in dims.names(rest):
                return {variable: rest * -coefficient}
    return None


# --- proof by form and bounds -------------------------------------------------------------------------------------------


def _holds_by_form(goal: Relation, solution: Solution) -> bool:
    difference = goal.left - goal.right
    match goal.operator:
        case "==":
            return _is_zero(difference, solution)
        case "!=":
            if difference in solution.different or 0 - difference in solution.different:
                return True
            return _is_non_negative(difference - 1, solution) or _is_non_negative(0 - difference - 1, solution)
        case ">=":
            return _is_non_negative(difference, solution)
        case ">":
            return _is_non_negative(difference - 1, solution)
        case "<=":
            return _is_non_negative(0 - difference, solution)
        case _:
            return _is_non_negative(0 - difference - 1, solution)


def _is_zero(d: Dim, solution: Solution) -> bool:
    if d == 0:
        return True
    for equation in solution.equations:  # d is a multiple of a known zero
        if isinstance(equation, DimExpr) and isinstance(d, DimExpr) and dims.is_known_multiple(d, equation):
            return True
    if isinstance(d, int):
        return False
    return _is_non_negative(d, solution) and _is_non_negative(0 - d, solution)


def _is_non_negative(d: Dim, solution: Solution) -> bool:
    known = [*solution.inequalities, *solution.equations, *(0 - e for e in solution.equations)]
    known += _quotient_bounds([d, *known])
    if _lower(d) > -1:
        return True
    return _by_combination(d, [k for k in known if isinstance(k, DimExpr)], 2)


def _by_combination(d: Dim, known: Sequence[DimExpr], depth: int, scale: int = 1) -> bool:
    """d >= 0 because m*d = a + n*b with b >= 0 known, m, n > 0 and a > -m (d is an integer); nested `depth` times, `scale` = m so far."""
    if depth == 0 or not isinstance(d, DimExpr):
        return False
    coefficients = dict(d.terms)
    for fact in known[:24]:
        for monomial, coefficient in fact.terms:
            mine = coefficients.get(monomial, 0)
            if not monomial or mine * coefficient <= 0:
                continue
            common = gcd(mine, coefficient)
            factor = abs(coefficient) // common
            rest = d * factor - fact * (abs(mine) // common)
            if _lower(rest) > -scale * factor or _by_combination(rest, known, depth - 1, scale * factor):
                return True
    return False


def _quotient_bounds(expressions: Iterable[Dim]) -> list[Dim]:
    """For every quotient q = e // d by a constant: e - d*q >= 0 and d - 1 - (e - d*q) >= 0."""
    found: dict[Quotient, None] = {}
    for expression in expressions:
        if isinstance(expression, DimExpr):
            for monomial, _ in expression.terms:
                found.update({atom: None for atom, _ in monomial if isinstance(atom, Quotient)})
    bounds: list[Dim] = []
    for atom in found:
        if isinstance(atom.denominator, int):
            rest = atom.numerator - atom.denominator * dims.floor_divide(atom.numerator, atom.denominator)
            bounds += [rest, atom.denominator - 1 - rest]
    return bounds


def _lower(d: Dim) -> float:
    """A lower bound of d where every name is at least 1."""
    return _interval(d)[0]


def _interval(d: Dim) -> tuple[float, float]:
    if isinstance(d, int):
        return d, d
    low = high = 0.0
    for monomial, coefficient in d.terms:
        bounds = (1.0, 1.0)
        for atom, power in monomial:
            for _ in range(power):
                bounds = _times(bounds, _atom_interval(atom))
        bounds = _times(bounds, (coefficient, coefficient))
        low, high = low + bounds[0], high + bounds[1]
    return low, high


def _times(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    products = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(products), max(products)


_INFINITY = float("inf")


def _atom_interval(atom: str | Quotient) -> tuple[float, float]:
    if isinstance(atom, str):
        return 1.0, _INFINITY
    numerator, denominator = _interval(atom.numerator), _interval(atom.denominator)
    if denominator[0] < 1:
        return -_INFINITY, _INFINITY
    if numerator[0] < 0:
        low = numerator[0] if numerator[0] == -_INFINITY else numerator[0] // denominator[0]
    else:
        low = 0.0 if denominator[1] == _INFINITY else numerator[0] // denominator[1]
    high = _INFINITY if numerator[1] == _INFINITY else max(0.0, numerator[1] // denominator[0])
    return low, high


# --- refutation ---------------------------------------------------------------------------------------------------------


def _connected(goal: Relation, facts: Sequence[Relation]) -> list[Relation]:
    """The facts that share names with the goal, directly or through other facts."""
    reached = set(dims.names(goal.left) | dims.names(goal.right))
    remaining: list[Relation] = list(facts)
    kept: list[Relation] = []
    while True:
        near = [f for f in remaining if (dims.names(f.left) | dims.names(f.right)) & reached]
        if not near:
            return kept
        kept += near
        remaining = [f for f in remaining if f not in near]
        for fact in near:
            reached |= dims.names(fact.left) | dims.names(fact.right)


_BUDGET = 4000


def _search(goal: Relation, facts: Sequence[Relation]) -> dict[str, int] | None:
    """Small sizes that satisfy the facts and break the goal."""
    solution = solve(facts)
    involved = sorted(set().union(*(dims.names(f.left) | dims.names(f.right) for f in [goal, *facts])))
    free = sorted(set().union(*(dims.names(dims.substitute(dims.name(n), solution.mapping)) for n in involved))) if involved else []
    solved = {n: dims.substitute(dims.name(n), solution.mapping) for n in involved}
    shown = dims.names(goal.left) | dims.names(goal.right)
    candidates = _candidates(len(free), _constants([goal, *facts]))
    for assignment in itertools.islice(_assignments(candidates, len(free)), _BUDGET):
        chosen = dict(zip(free, assignment, strict=True))
        try:
            values = {n: dims.evaluate(d, chosen) for n, d in solved.items()} if solution.mapping else chosen
            if min(values.values(), default=1) >= 1 and all(f.holds(values) for f in facts) and not goal.holds(values):
                return {n: v for n, v in values.items() if n in shown}
        except DimError:
            continue
    return None


def _constants(relations: Iterable[Relation]) -> set[int]:
    found: set[int] = set()

    def visit(d: Dim) -> None:
        if isinstance(d, int):
            found.add(abs(d))
            return
        for monomial, coefficient in d.terms:
            found.add(abs(coefficient))
            for atom, _ in monomial:
                if isinstance(atom, Quotient):
                    visit(atom.numerator)
                    visit(atom.denominator)

    for relation in relations:
        visit(relation.left)
        visit(relation.right)
    return found


def _candidates(count: int, constants: set[int]) -> list[int]:
    near = {c + offset for c in constants for offset in (-1, 0, 1) if 1 <= c + offset < 2**40}
    small = set(range(1, 65 if count <= 1 else 14 if count == 2 else 8))
    return sorted(small | set(sorted(near)[:16]))


def _assignments(candidates: Sequence[int], count: int) -> Iterable[tuple[int, ...]]:
    """Assignments of `count` values, those with small values first."""
    if count == 0:
        yield ()
        return
    for largest in range(len(candidates)):
        for rest in itertools.product(range(largest + 1), repeat=count):
            if max(rest) == largest:
                yield tuple(candidates[i] for i in rest)
