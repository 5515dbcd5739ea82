"""The lanes around a line of a kernel, and indices as lanes of i64."""

from __future__ import annotations

from dataclasses import dataclass

from dslc.ir import dims
from dslc.ir.dims import Dim, Quotient
from dslc.lowering.indices import coefficient


@dataclass(frozen=True)
class Vector:
    """The vector loop around the current line: its variable, and the number of live lanes where it is a tail."""

    variable: str
    live: str | None = None
    shift: int = 0  # lanes after the variable's value: sub-vectors of a canonical reduction, the later vectors of a step that does several

    def shifted(self, d: Dim) -> Dim:
        """An index at the first of the lanes."""
        return dims.substitute(d, {self.variable: dims.name(self.variable) + self.shift}) if self.shift else d


def index_lanes(d: Dim, v: Vector | None) -> str:
    """An index as i64 lanes."""
    if v is None or v.variable not in dims.names(d):
        return f"splat_i64({d})"
    scale = coefficient(d, v.variable)
    if scale == 1:
        return f"iota_i64({v.shifted(d)})"
    if scale is not None:
        rest = dims.substitute(d, {v.variable: 0})
        return f"splat_i64({rest}) + iota_i64({v.variable} + {v.shift}) * splat_i64({scale})"
    return _polynomial(d, v)


def _polynomial(d: Dim, v: Vector) -> str:
    """Index arithmetic lane by lane, where the vector variable stands inside a quotient."""
    if isinstance(d, int):
        return f"splat_i64({d})"
    terms = []
    for monomial, scale in d.terms:
        factors = [f"splat_i64({scale})"] if scale != 1 or not monomial else []
        for atom, power in monomial:
            factors += [_atom(atom, v)] * power
        terms.append(" * ".join(factors))
    return f"({' + '.join(terms)})"


def _atom(atom: str | Quotient, v: Vector) -> str:
    if isinstance(atom, str):
        return f"iota_i64({atom} + {v.shift})" if atom == v.variable else f"splat_i64({atom})"
    return f"ifloordiv({_polynomial(atom.numerator, v)}, {_polynomial(atom.denominator, v)})"
