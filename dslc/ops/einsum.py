"""Reads the equation of an einsum and pairs its labels with sizes."""

from __future__ import annotations

from dataclasses import dataclass

from dslc.ir.dims import Dim
from dslc.ir.operator import TypeFailure
from dslc.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Equation:
    """Labels as numbers: one list an operand, and the result's. `broadcast` are those that `...` stands for."""

    operands: tuple[tuple[int, ...], ...]
    result: tuple[int, ...]
    sizes: dict[int, Dim]
    broadcast: frozenset[int]


def parse_equation(text: str, types: tuple[TensorType, ...]) -> Equation:
    """The equation for operands of these types; `TypeFailure` where they do not fit."""
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(types):
        raise TypeFailure(f"einsum {text!r} names {len(terms)} operands and got {len(types)}")
    spread = max((t.rank - _letters(text, term) for t, term in zip(types, terms, strict=True) if "..." in term), default=0)
    sizes: dict[int, Dim] = {}
    broadcast = frozenset(range(-spread, 0))
    operands = []
    for position, (t, term) in enumerate(zip(types, terms, strict=True)):
        here = t.rank - _letters(text, term)
        if here < 0 or (here > 0 and "..." not in term):
            raise TypeFailure(f"einsum {text!r}: operand {position} names {_letters(text, term)} axes of {t}", inputs=(position,))
        labels = _labels(term, here)
        for axis, label in enumerate(labels):
            known = sizes.setdefault(label, t.shape[axis])
            if label in broadcast and known == 1:
                sizes[label] = t.shape[axis]
            elif known != t.shape[axis] and not (label in broadcast and t.shape[axis] == 1):
                shown = chr(label) if label > 0 else "an axis of ..."
                raise TypeFailure(f"einsum {text!r}: {shown} is {known} and {t.shape[axis]}", inputs=(position,), axes=(axis,))
        operands.append(labels)
    if arrow:
        _letters(text, right)
        result = _labels(right, spread)
    else:
        every = [label for labels in operands for label in labels if label > 0]
        result = tuple(range(-spread, 0)) + tuple(sorted(label for label in set(every) if every.count(label) == 1))
    for label in result:
        if label not in sizes:
            raise TypeFailure(f"einsum {text!r}: {chr(label)} is in no operand")
        if result.count(label) > 1:
            raise TypeFailure(f"einsum {text!r}: {chr(label)} is twice in the result")
    if spread and not broadcast.issubset(result):
        raise TypeFailure(f"einsum {text!r}: the result lacks the axes of ...")
    return Equation(tuple(operands), result, sizes, broadcast)


def _letters(text: str, term: str) -> int:
    """The number of labels in a term beside `...`."""
    rest = term.replace("...", "", 1)
    if not all(c.isascii() and c.isalpha() for c in rest):
        raise TypeFailure(f"einsum {text!r}: labels are letters, operands are separated by commas")
    return len(rest)


def _labels(term: str, spread: int) -> tuple[int, ...]:
    """Letters by their code; the axes of `...` are -spread .. -1, aligned at their ends."""
    before, dots, after = term.partition("...")
    return tuple(map(ord, before)) + (tuple(range(-spread, 0)) if dots else ()) + tuple(map(ord, after))
