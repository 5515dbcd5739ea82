"""Index arithmetic: ranges of loop variables, coefficients, and expressions rewritten under a substitution."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from dslc.ir import dims
from dslc.ir.dims import Dim, DimExpr, Quotient
from dslc.ir.loops import (
    Binary,
    Carry,
    Cast,
    ClampedLoad,
    Const,
    Expr,
    Gathered,
    IndexValue,
    Load,
    LoadAt,
    Random,
    Read,
    Reduce,
    Select,
    Unary,
)

Ranges = Mapping[str, tuple[int, int]]  # inclusive bounds of loop variables; a name that is missing is unknown


def bounds(d: Dim, ranges: Ranges) -> tuple[int, int] | None:
    """Inclusive bounds of an index, or None where a name has none."""
    if isinstance(d, int):
        return d, d
    remainder = _remainder(d)
    if remainder is not None:
        times, divisor, rest = remainder
        outside = bounds(rest, ranges)
        ends = (0, times * (divisor - 1))
        return None if outside is None else (outside[0] + min(ends), outside[1] + max(ends))
    low = high = 0
    for monomial, coefficient in d.terms:
        lo, hi = 1, 1
        for atom, power in monomial:
            inner = _atom_bounds(atom, ranges)
            if inner is None:
                return None
            for _ in range(power):
                corners = [a * b for a in (lo, hi) for b in inner]
                lo, hi = min(corners), max(corners)
        corners = [lo * coefficient, hi * coefficient]
        low, high = low + min(corners), high + max(corners)
    return low, high


def _remainder(d: DimExpr) -> tuple[int, int, Dim] | None:
    """`d` as times * (x % divisor) + rest, where it holds such a remainder (written x - divisor * (x // divisor))."""
    for monomial, scale in d.terms:
        if len(monomial) != 1 or monomial[0][1] != 1 or not isinstance(monomial[0][0], Quotient):
            continue
        atom = monomial[0][0]
        if not isinstance(atom.denominator, int):
            continue
        inner = {1} | {q.denominator for q in quotients(d) if q.numerator == atom.numerator and isinstance(q.denominator, int)}
        for small in sorted(inner, reverse=True):
            divisor = atom.denominator // small if atom.denominator % small == 0 else 0
            if divisor <= 1 or scale % divisor:
                continue
            times = -scale // divisor
            x = dims.floor_divide(atom.numerator, small)
            rest = d - times * (x - divisor * atom_expr(atom))
            if isinstance(rest, int) or len(rest.terms) < len(d.terms):
                return times, divisor, rest
    return None


def _atom_bounds(atom: str | Quotient, ranges: Ranges) -> tuple[int, int] | None:
    if isinstance(atom, str):
        return ranges.get(atom)
    if not isinstance(atom.denominator, int) or atom.denominator <= 0:
        return None
    inner = bounds(atom.numerator, ranges)
    return None if inner is None else (inner[0] // atom.denominator, inner[1] // atom.denominator)


def simplify(d: Dim, ranges: Ranges) -> Dim:
    """Quotients whose numerator's range lies within one step become constants: `i // 5 = 0` for 0 <= i < 5."""
    if isinstance(d, int) or not any(isinstance(a, Quotient) for m, _ in d.terms for a, _ in m):
        return d
    total: Dim = 0
    for monomial, coefficient in d.terms:
        term: Dim = coefficient
        for atom, power in monomial:
            factor: Dim = dims.name(atom) if isinstance(atom, str) else _simplify_quotient(atom, ranges)
            for _ in range(power):
                term = term * factor
        total = total + term
    return total


def _simplify_quotient(atom: Quotient, ranges: Ranges) -> Dim:
    numerator = simplify(atom.numerator, ranges)
    if isinstance(numerator, DimExpr) and isinstance(atom.denominator, int):
        denominator = atom.denominator
        # (d*x + r) // d = x where 0 <= r < d: split the terms that d divides from the rest
        whole = dims.floor_divide(_divisible_part(numerator, denominator), denominator)
        rest = numerator - _divisible_part(numerator, denominator)
        inside = bounds(rest, ranges)
        if inside is not None and inside[0] // denominator == inside[1] // denominator:
            return whole + inside[0] // denominator
    return dims.floor_divide(numerator, atom.denominator)


def _divisible_part(d: DimExpr, divisor: int) -> Dim:
    total: Dim = 0
    for monomial, coefficient in d.terms:
        if coefficient % divisor == 0:
            total = total + DimExpr(((monomial, coefficient),), hash(((monomial, coefficient),))) if monomial else total + coefficient
    return total


def coefficient(d: Dim, variable: str) -> Dim | None:
    """The factor of a variable in an index that is affine in it, 0 where it is absent, None where it stands in a quotient or a square."""
    if isinstance(d, int):
        return 0
    total: Dim = 0
    for monomial, scale in d.terms:
        rest: Dim = scale
        found = False
        for atom, power in monomial:
            if atom == variable:
                if power != 1:
                    return None
                found = True
                continue
            if isinstance(atom, Quotient) and variable in dims.names(atom_expr(atom)):
                return None
            for _ in range(power):
                rest = rest * (dims.name(atom) if isinstance(atom, str) else atom_expr(atom))
        if found:
            total = total + rest
    return total


def atom_expr(atom: Quotient) -> Dim:
    return dims.floor_divide(atom.numerator, atom.denominator)


def quotients(d: Dim) -> Iterator[Quotient]:
    """Every quotient atom in an index, nested ones included."""
    if isinstance(d, int):
        return
    for monomial, _ in d.terms:
        for atom, _power in monomial:
            if isinstance(atom, Quotient):
                yield atom
                yield from quotients(atom.numerator)


def within(index: Dim, extent: Dim, extents: Mapping[str, Dim], largest: Ranges) -> bool:
    """Whether 0 <= index < extent for every value of the loop variables; `extents` may depend on the batch."""
    numeric = bounds(index, largest)
    if numeric is None or numeric[0] < 0:
        return False
    if isinstance(extent, int) and numeric[1] < extent:
        return True
    top = index
    for name in dims.names(index) & extents.keys():
        scale = coefficient(index, name)
        if not isinstance(scale, int):
            return False
        top = dims.substitute(top, {name: extents[name] - 1 if scale > 0 else 0})
    slack = bounds(extent - 1 - top, largest)
    return slack is not None and slack[0] >= 0


def children(e: Expr) -> tuple[Expr, ...]:
    """The scalar operands of an expression."""
    match e:
        case Unary(x=x) | Cast(x=x):
            return (x,)
        case Binary(x=x, y=y):
            return (x, y)
        case Select(condition=c, x=x, y=y):
            return (c, x, y)
        case Reduce(body=b):
            return (b,)
        case Gathered(at=at) | LoadAt(at=at):
            return (at,)
        case Random(seed=s, counter=c):
            return (s, c)
    return ()


def with_children(e: Expr, new: tuple[Expr, ...]) -> Expr:
    """The same node over other operands."""
    match e:
        case Unary() | Cast():
            return replace(e, x=new[0])
        case Binary():
            return replace(e, x=new[0], y=new[1])
        case Select():
            return replace(e, condition=new[0], x=new[1], y=new[2])
        case Reduce():
            return replace(e, body=new[0])
        case Gathered() | LoadAt():
            return replace(e, at=new[0])
        case Random():
            return replace(e, seed=new[0], counter=new[1])
    return e


def walk(e: Expr, into_reductions: bool = True) -> Iterator[Expr]:
    """Every distinct node once, operands first. What stands inside a Reduce can be left to the loop that it becomes."""
    seen: set[int] = set()
    stack: list[tuple[Expr, bool]] = [(e, False)]
    while stack:
        node, done = stack.pop()
        if done:
            yield node
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        stack.append((node, True))
        if into_reductions or not isinstance(node, Reduce):
            stack.extend((c, False) for c in reversed(children(node)))


def rewrite(e: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """Bottom-up: operands first, then `change` of the node; shared nodes stay shared."""
    done: dict[int, Expr] = {}
    for node in walk(e):
        old = children(node)
        new = tuple(done[id(c)] for c in old)
        same = all(a is b for a, b in zip(old, new, strict=True))
        done[id(node)] = change(node if same else with_children(node, new))
    return done[id(e)]


def map_indices(e: Expr, change: Callable[[Dim], Dim]) -> Expr:
    """Rewrite every index in an expression."""

    def node(n: Expr) -> Expr:
        match n:
            case Read(index=index) | Gathered(index=index):
                return replace(n, index=tuple(map(change, index)))
            case IndexValue(index=index) | Random(index=index):
                return replace(n, index=change(index))
            case Load(address=address):
                return replace(n, address=change(address))
            case ClampedLoad(address=address, clamped=clamped):
                return replace(n, address=change(address), clamped=tuple((change(i), change(x), change(t)) for i, x, t in clamped))
            case LoadAt(address=address, stride=stride):
                return replace(n, address=change(address), stride=change(stride))
            case Reduce(variables=variables):
                return replace(n, variables=tuple((v, change(x)) for v, x in variables))
        return n

    return rewrite(e, node)


def indices(e: Expr) -> Iterator[Dim]:
    """Every index and address in an expression."""
    for n in walk(e):
        match n:
            case Read(index=index) | Gathered(index=index):
                yield from index
            case IndexValue(index=index) | Random(index=index):
                yield index
            case Load(address=address) | LoadAt(address=address):
                yield address
            case ClampedLoad(address=address, clamped=clamped):
                yield address
                yield from (i for i, _, _ in clamped)


def decided(e: Expr, ranges: Ranges) -> Expr:
    """The expression without the choices that depend on indices alone and always fall the same way."""

    def change(n: Expr) -> Expr:
        match n:
            case Binary(op="and" | "or" as op, x=x, y=y) if isinstance(x, Const) or isinstance(y, Const):
                known, other = (x, y) if isinstance(x, Const) else (y, x)
                assert isinstance(known, Const)
                return other if known.value is (op == "and") else known
            case Binary(op="eq" | "lt" | "ge" as op, x=IndexValue(index=index), y=Const() | IndexValue() as y):
                gap = bounds(index - (y.index if isinstance(y, IndexValue) else int(y.value)), ranges)
                if gap is None:
                    return n
                low, high = gap
                outcomes = {"eq": (low == high == 0, not low <= 0 <= high), "lt": (high < 0, low >= 0), "ge": (low >= 0, high < 0)}
                always, never = outcomes[op]
                return Const(always, n.dtype) if always or never else n
            case Select(condition=Const(value=value), x=x, y=y):
                return x if value else y
        return n

    return rewrite(e, change)


def substitute(e: Expr, mapping: Mapping[str, Dim]) -> Expr:
    return map_indices(e, lambda d: dims.substitute(d, mapping))


def variables_of(e: Expr) -> frozenset[str]:
    """Loop variables, the batch and what is carried: the names that the value of an expression depends on."""
    found: set[str] = set()
    bound: set[str] = set()
    for d in indices(e):
        found |= dims.names(d)
    for n in walk(e):
        match n:
            case Carry(name=name):
                found.add(name)
            case ClampedLoad(clamped=clamped):
                found |= frozenset().union(*(dims.names(x) for _, x, _ in clamped))
            case Reduce(variables=own):
                bound |= {v for v, _ in own}
    return frozenset(found - bound)
