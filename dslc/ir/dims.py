"""Dimensions: integers, and symbolic integer expressions over named sizes.

`Dim = int | DimExpr`. A `DimExpr` is an integer polynomial in canonical form over atoms: names (`H`) and floor quotients
(`H // 2`). Arithmetic on ints and `DimExpr`s folds constants, so that a dimension without names is always a plain `int`, and two
expressions that simplify to the same form are equal and hash alike. The remainder is written with the quotient,
`a % b = a - b * (a // b)`, which makes divisibility facts ordinary equations.

Canonical quotients by a positive constant d, each an identity of floor division:
    (d*x + r) // d = x + r // d        (g*x + r) // (g*d) = (x + r // g) // d        (x // a + y) // d = (x + a*y) // (a*d)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Monomial = tuple[tuple["str | Quotient", int], ...]  # atoms with their powers, sorted; () is the constant term


class DimError(ValueError):
    """A dimension expression that has no value: division by zero, a name without a value, or text that is not a dimension."""


@dataclass(frozen=True, slots=True)
class Quotient:
    """The atom `numerator // denominator` where no identity of the module docstring simplifies it."""

    numerator: Dim
    denominator: Dim

    def __str__(self) -> str:
        return f"{_factor(self.numerator)} // {_factor(self.denominator)}"


@dataclass(frozen=True, slots=True, eq=False)
class DimExpr:
    """A polynomial that is not constant: pairs of monomial and non-zero coefficient, in canonical order."""

    terms: tuple[tuple[Monomial, int], ...]
    _hash: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DimExpr) and self._hash == other._hash and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Dim) -> Dim:
        total = dict(self.terms)
        for monomial, coefficient in _terms(other):
            total[monomial] = total.get(monomial, 0) + coefficient
        return _make(total)

    def __mul__(self, other: Dim) -> Dim:
        total: dict[Monomial, int] = {}
        right = _terms(other)
        for left_monomial, left in self.terms:
            for right_monomial, coefficient in right:
                monomial = _product(left_monomial, right_monomial)
                total[monomial] = total.get(monomial, 0) + left * coefficient
        return _make(total)

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __radd__(self, other: int) -> Dim:
        return self + other

    def __rsub__(self, other: int) -> Dim:
        return -self + other

    def __rmul__(self, other: int) -> Dim:
        return self * other

    def __floordiv__(self, other: Dim) -> Dim:
        return floor_divide(self, other)

    def __rfloordiv__(self, other: int) -> Dim:
        return floor_divide(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return self - other * floor_divide(self, other)

    def __rmod__(self, other: int) -> Dim:
        return other - self * floor_divide(other, self)

    def __pow__(self, power: int) -> Dim:
        if power < 0 or power > 16:
            raise DimError(f"a dimension to the power {power}")
        result: Dim = 1
        for _ in range(power):
            result = result * self
        return result

    def __str__(self) -> str:
        text = ""
        for monomial, coefficient in self.terms:
            term = _term_text(monomial, abs(coefficient), alone=len(self.terms) == 1 and coefficient > 0)
            sign = "-" if coefficient < 0 else "+"
            if not text and coefficient < 0:
                bare = coefficient == -1 and len(monomial) == 1 and monomial[0][1] == 1 and isinstance(monomial[0][0], Quotient)
                text = f"-({term})" if bare else f"-{term}"  # in Python -a // b is (-a) // b
            else:
                text += f" {sign} {term}" if text else term
        return text

    __repr__ = __str__


Dim = int | DimExpr


def name(text: str) -> DimExpr:
    """The dimension called `text`."""
    terms = ((((text, 1),), 1),)
    return DimExpr(terms, hash(terms))


def floor_divide(a: Dim, b: Dim) -> Dim:
    """`a // b`, rounded to minus infinity, in canonical form."""
    if isinstance(b, int):
        if b == 0:
            raise DimError(f"division of {a} by zero")
        if isinstance(a, int):
            return a // b
        return _divide_by_constant(a, b)
    quotient = _polynomial_quotient(a, b)
    if quotient is not None:
        return quotient
    return _atom(Quotient(a, b))


def divide_exactly(a: Dim, b: Dim) -> Dim:
    """`a / b` where the caller knows that b divides a; equal to `a // b`. Constants that do not divide raise DimError."""
    if isinstance(a, int) and isinstance(b, int) and b != 0 and a % b != 0:
        raise DimError(f"{a} is not divisible by {b}")
    return floor_divide(a, b)


def is_known_multiple(a: Dim, b: Dim) -> bool:
    """Whether b divides a by form alone, without facts."""
    try:
        return b != 0 and a - b * floor_divide(a, b) == 0
    except DimError:
        return False


def names(d: Dim) -> frozenset[str]:
    """The names in a dimension, those inside quotients included."""
    return frozenset(_names(d))


def _names(d: Dim) -> Iterator[str]:
    for monomial, _ in _terms(d):
        for atom, _power in monomial:
            if isinstance(atom, str):
                yield atom
            else:
                yield from _names(atom.numerator)
                yield from _names(atom.denominator)


def substitute(d: Dim, mapping: Mapping[str, Dim]) -> Dim:
    """`d` with names replaced, simplified again."""
    if isinstance(d, int):
        return d
    total: Dim = 0
    for monomial, coefficient in d.terms:
        term: Dim = coefficient
        for atom, power in monomial:
            value = _substitute_atom(atom, mapping)
            for _ in range(power):
                term = term * value
        total = total + term
    return total


def _substitute_atom(atom: str | Quotient, mapping: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, str):
        found = mapping.get(atom)
        return name(atom) if found is None else found
    return floor_divide(substitute(atom.numerator, mapping), substitute(atom.denominator, mapping))


def evaluate(d: Dim, values: Mapping[str, int]) -> int:
    """The integer that `d` is for these sizes. DimError where a name has no value or a divisor is zero."""
    if isinstance(d, int):
        return d
    total = 0
    for monomial, coefficient in d.terms:
        term = coefficient
        for atom, power in monomial:
            term *= _evaluate_atom(atom, values) ** power
        total += term
    return total


def _evaluate_atom(atom: str | Quotient, values: Mapping[str, int]) -> int:
    if isinstance(atom, str):
        if atom not in values:
            raise DimError(f"the size {atom} is not bound")
        return values[atom]
    denominator = evaluate(atom.denominator, values)
    if denominator == 0:
        raise DimError(f"division of {atom.numerator} by zero")
    return evaluate(atom.numerator, values) // denominator


# --- canonical form ---------------------------------------------------------------------------------------------------


def _terms(d: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(d, int):
        return (((), d),) if d else ()
    return d.terms


def _make(total: Mapping[Monomial, int]) -> Dim:
    kept = [(monomial, coefficient) for monomial, coefficient in total.items() if coefficient]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    kept.sort(key=lambda term: _monomial_key(term[0]))
    terms = tuple(kept)
    return DimExpr(terms, hash(terms))


def _monomial_key(monomial: Monomial) -> tuple[int, tuple[tuple[int, str, int], ...]]:
    degree = sum(power for _, power in monomial)
    return (-degree, tuple((*_atom_key(atom), -power) for atom, power in monomial))


def _atom_key(atom: str | Quotient) -> tuple[int, str]:
    return (0, atom) if isinstance(atom, str) else (1, str(atom))


def _product(a: Monomial, b: Monomial) -> Monomial:
    if not a:
        return b
    if not b:
        return a
    powers = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: _atom_key(item[0])))


def _atom(atom: str | Quotient) -> DimExpr:
    terms = ((((atom, 1),), 1),)
    return DimExpr(terms, hash(terms))


def _divide_by_constant(a: DimExpr, d: int) -> Dim:
    if d < 0:
        return floor_divide(-a, -d)
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, coefficient in a.terms:
        whole[monomial], rest[monomial] = divmod(coefficient, d)
    outside, inside = _make(whole), _make(rest)
    if isinstance(inside, int):  # (d*x + r) // d = x + r // d, and 0 <= r < d
        return outside
    inside, d = _flatten_quotient(inside, d)
    factor = math.gcd(d, *(coefficient for monomial, coefficient in inside.terms if monomial))
    if factor > 1:
        reduced = _make({monomial: coefficient // factor for monomial, coefficient in inside.terms})
        return outside + floor_divide(reduced, d // factor)
    if any(coefficient >= d or coefficient < 0 for _, coefficient in inside.terms):  # flattening can bring new multiples of d
        return outside + _divide_by_constant(inside, d)
    return outside + _atom(Quotient(inside, d))


def _flatten_quotient(inside: DimExpr, d: int) -> tuple[DimExpr, int]:
    """(x // a + y) // d = (x + a*y) // (a*d), applied where exactly one term is a bare quotient by a constant."""
    found = [
        monomial
        for monomial, coefficient in inside.terms
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0][0], Quotient) and monomial[0][1] == 1
    ]
    if len(found) != 1:
        return inside, d
    quotient = found[0][0][0]
    assert isinstance(quotient, Quotient)
    if not isinstance(quotient.denominator, int):
        return inside, d
    others = _make({monomial: coefficient for monomial, coefficient in inside.terms if monomial != found[0]})
    flat = quotient.numerator + quotient.denominator * others
    return (flat, quotient.denominator * d) if isinstance(flat, DimExpr) else (inside, d)


def _polynomial_quotient(a: Dim, b: DimExpr) -> Dim | None:
    """a / b where the polynomial b divides the polynomial a, else None."""
    if a == 0:
        return 0
    remainder, quotient = a, 0 if isinstance(a, int) else a * 0
    lead, lead_coefficient = b.terms[0]
    for _ in range(len(_terms(a)) + 8):
        if remainder == 0:
            return quotient
        step = None
        for monomial, coefficient in _terms(remainder)[:1]:
            missing = _monomial_quotient(monomial, lead)
            if missing is not None and coefficient % lead_coefficient == 0:
                step = _make({missing: coefficient // lead_coefficient})
        if step is None:
            return None
        quotient, remainder = quotient + step, remainder - step * b
    return None


def _monomial_quotient(a: Monomial, b: Monomial) -> Monomial | None:
    powers = dict(a)
    for atom, power in b:
        left = powers.get(atom, 0) - power
        if left < 0:
            return None
        powers[atom] = left
    return tuple((atom, power) for atom, power in powers.items() if power)


# --- text -------------------------------------------------------------------------------------------------------------


def _factor(d: Dim) -> str:
    """`d` as a factor of a product or an operand of `//`."""
    text = str(d)
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _term_text(monomial: Monomial, coefficient: int, alone: bool) -> str:
    if not monomial:
        return str(coefficient)
    if len(monomial) == 1 and coefficient == 1 and monomial[0][1] == 1 and isinstance(monomial[0][0], Quotient):
        return str(monomial[0][0])
    factors = [] if coefficient == 1 else [str(coefficient)]
    for atom, power in monomial:
        text = atom if isinstance(atom, str) else f"({atom})"
        factors += [text] * power
    return (" * " if alone else "*").join(factors)


_TOKEN = re.compile(r"\s*(?:([0-9]+)|([A-Za-z_][A-Za-z_0-9.']*)|(//|[-+*%()]))")


def parse_dim(text: str) -> Dim:
    """Reads back what `str` writes (and any expression of names, ints, `+ - * // %` and parentheses). DimError otherwise."""
    tokens: list[str] = []
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise DimError(f"not a dimension: {text!r}")
        tokens.append(match.group().strip())
        position = match.end()
    value, rest = _parse_sum(tokens, 0, 0)
    if rest != len(tokens):
        raise DimError(f"not a dimension: {text!r}")
    return value


def _parse_sum(tokens: list[str], at: int, depth: int) -> tuple[Dim, int]:
    value, at = _parse_product(tokens, at, depth)
    while at < len(tokens) and tokens[at] in ("+", "-"):
        right, after = _parse_product(tokens, at + 1, depth)
        value, at = (value + right if tokens[at] == "+" else value - right), after
    return value, at


def _parse_product(tokens: list[str], at: int, depth: int) -> tuple[Dim, int]:
    value, at = _parse_atom(tokens, at, depth)
    while at < len(tokens) and tokens[at] in ("*", "//", "%"):
        right, after = _parse_atom(tokens, at + 1, depth)
        if tokens[at] == "*":
            value = value * right
        elif tokens[at] == "//":
            value = floor_divide(value, right)
        else:
            value = value - right * floor_divide(value, right)
        at = after
    return value, at


def _parse_atom(tokens: list[str], at: int, depth: int) -> tuple[Dim, int]:
    if at >= len(tokens) or depth > 100:
        raise DimError("not a dimension: it ends early" if depth <= 100 else "not a dimension: nested too deeply")
    token = tokens[at]
    if token == "-":
        value, after = _parse_product(tokens, at + 1, depth + 1)
        return 0 - value, after
    if token == "(":
        value, after = _parse_sum(tokens, at + 1, depth + 1)
        if after >= len(tokens) or tokens[after] != ")":
            raise DimError("not a dimension: a parenthesis is not closed")
        return value, after + 1
    if token.isdigit():
        return int(token), at + 1
    if token[0].isalpha() or token[0] == "_":
        return name(token), at + 1
    raise DimError(f"not a dimension: unexpected {token!r}")
