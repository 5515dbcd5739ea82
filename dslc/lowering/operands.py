"""Contractions meet memory: layouts and halos of operands, copies where a view cannot be walked, and the axes with strides."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.graph import Op, Value
from dslc.ir.loops import Acc, Binary, Cast, Const, ContractionMap, Expr, For, Load, LoopProgram, Read, Select, Stmt, Store, Unary
from dslc.ir.types import DType, TensorType
from dslc.lowering.contraction import Axis, Contraction, Window, normalise, order_reduction
from dslc.lowering.fuse import Nest, index_of, unroll_small, value_at
from dslc.lowering.indices import bounds, coefficient, decided, map_indices, quotients, rewrite, simplify, walk
from dslc.lowering.layout import Layout, channels_last, row_major

BATCH = "batch"
VECTOR_CHANNELS = 8  # channels that make vectors over the channel axis worth while


def default_layout(t: TensorType) -> Layout:
    """Channels innermost for images with channels enough to fill a vector, else row-major."""
    if t.rank in (4, 5) and isinstance(t.shape[1], int) and t.shape[1] >= VECTOR_CHANNELS:
        return channels_last(t.shape)
    return row_major(t.shape)


@dataclass(frozen=True, slots=True)
class Operand:
    """What a contraction reads: a materialised value at an index over the contraction's axes."""

    value: Value
    index: tuple[Dim, ...]


def operand_read(value: Value, index: tuple[Dim, ...], keep: set[Value], producer: Mapping[Value, Op]) -> Operand | None:
    """The operand as a place in memory, or None where it is computed on the way, or seen from where the run-time batch ends."""
    e = value_at(value, index, keep, producer)
    if not isinstance(e, Read) or _names(e.index) - _names(index):
        return None
    return Operand(Value(e.source, _type_of(e.source, value, keep, producer)), e.index)


def _names(index: tuple[Dim, ...]) -> frozenset[str]:
    return frozenset().union(*map(dims.names, index))


def _type_of(source: int, value: Value, keep: set[Value], producer: Mapping[Value, Op]) -> TensorType:
    while value.id != source:
        value = producer[value].inputs[0]
    return value.type


def overhang(operand: Operand, axes: Mapping[str, Dim], bound: int, batch: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How far the index leaves the value, before and after each axis."""
    ranges = {name: (0, _largest(extent, bound, batch) - 1) for name, extent in axes.items()}
    before, after = [], []
    for index, extent in zip(operand.index, operand.value.type.shape, strict=True):
        found = bounds(index, ranges)
        assert found is not None, f"an index without bounds: {index}"
        before.append(max(0, -found[0]))
        after.append(max(0, found[1] + 1 - _largest(extent, bound, batch)))
    return tuple(before), tuple(after)


def _largest(extent: Dim, bound: int, batch: str | None) -> int:
    return extent if isinstance(extent, int) else dims.evaluate(extent, {batch or BATCH: bound})


def describe(
    nest: Nest,
    part: ContractionMap,
    a: Operand,
    b: Operand,
    layout_of: Callable[[Value], Layout],
    read: Callable[[int], Value],
    batch: str | None,
    bound: int,
) -> tuple[Contraction, tuple[Value, ...]] | None:
    """A part of a nest's contraction with strides, and its arguments in order; None where an index cannot be walked by strides.

    The epilogue is the nest's expression. Argument 0 is A, 1 is B, 2 the result.
    """
    contracted = nest.contraction
    assert contracted is not None
    args: list[Value] = [a.value, b.value, nest.value]

    def resolve(e: Expr) -> Expr:
        if isinstance(e, Read):
            value = read(e.source)
            number = next((n for n, v in enumerate(args) if n > 2 and v == value), None)
            if number is None:
                args.append(value)
                number = len(args) - 1
            return Load(number, layout_of(value).address(e.index), e.dtype)
        return e

    to_axes = dict(zip(nest.index, part.out, strict=True))
    epilogue = map_indices(rewrite(unroll_small(nest.expr), resolve), lambda d: dims.substitute(d, to_axes))
    epilogue = decided(epilogue, {name: (0, _largest(extent, bound, batch) - 1) for name, extent in part.axes})
    if not all(isinstance(n, Const | Load | Unary | Binary | Select | Cast | Acc) for n in walk(epilogue)):
        return None
    addresses = [
        layout_of(a.value).address(a.index),
        layout_of(b.value).address(b.index),
        dims.substitute(layout_of(nest.value).address(index_of(nest.index, nest.value.type.shape)), to_axes),
    ]
    axes = dict(part.axes)
    split = _split(axes, addresses, epilogue, bound, batch)
    if split is None:
        return None
    axes, addresses, epilogue = split
    outputs = _names_in(part.out, part.axes, axes)
    made = []
    for name, extent in axes.items():
        sa, sb, sc = (coefficient(d, name) for d in addresses)
        if not (isinstance(sa, int) and isinstance(sb, int) and isinstance(sc, int)):
            return None
        if isinstance(extent, int):
            size, per_batch = extent, 1
        else:
            times = dims.evaluate(extent, {batch or BATCH: 1})
            if extent != dims.name(batch or BATCH) * times:
                return None
            size, per_batch = None, times
        made.append(Axis(name, size, sa, sb, sc if name in outputs else None, per_batch))
    origin = dict.fromkeys(axes, 0)
    a0, b0, c0 = (dims.substitute(d, origin) for d in addresses)
    if not (isinstance(a0, int) and isinstance(b0, int) and isinstance(c0, int)):
        return None
    if any(_not_affine(n.address, axes) for n in walk(epilogue) if isinstance(n, Load)):
        return None
    dtype = contracted.value.type.dtype
    windows = _windows(a, axes, outputs)
    return normalise(Contraction(tuple(made), dtype, a0, b0, c0, epilogue, windows=windows)), tuple(args)


def _windows(a: Operand, axes: Mapping[str, Dim], outputs: set[str]) -> tuple[Window, ...]:
    """Where operand A's index `start + output - tap` leaves the value and meets its halo."""
    found = []
    for index, extent in zip(a.index, a.value.type.shape, strict=True):
        output, tap = (next((n for n in sorted(dims.names(index) & axes.keys()) if coefficient(index, n) == sign), "") for sign in (1, -1))
        if not (output in outputs and tap and tap not in outputs and isinstance(extent, int)):
            continue
        start = dims.substitute(index, {output: 0, tap: 0})
        if isinstance(start, int) and isinstance(axes[output], int) and isinstance(axes[tap], int):
            found.append(Window(output, tap, start, extent))
    return tuple(found)


def _not_affine(d: Dim, axes: Mapping[str, Dim]) -> bool:
    if any(True for _ in quotients(d)) or not dims.names(d) <= axes.keys():
        return True
    return any(not isinstance(coefficient(d, n), int) for n in dims.names(d))


def _names_in(out: tuple[Dim, ...], before: tuple[tuple[str, Dim], ...], after: Mapping[str, Dim]) -> set[str]:
    """Axes of the output, those that came from splitting one included."""
    names = {n for d in out for n in dims.names(d)}
    return {n for n in after if any(n == base or n.startswith(f"{base}.") for base in names)}


def _split(
    axes: dict[str, Dim], addresses: list[Dim], epilogue: Expr, bound: int, batch: str | None
) -> tuple[dict[str, Dim], list[Dim], Expr] | None:
    """Axes that a reshape's quotients cut become two: k = 25 * c + r."""
    for _ in range(8):
        ranges = {name: (0, _largest(extent, bound, batch) - 1) for name, extent in axes.items()}
        addresses = [simplify(d, ranges) for d in addresses]
        epilogue = map_indices(epilogue, partial(simplify, ranges=ranges))
        every = [*addresses, *(n.address for n in walk(epilogue) if isinstance(n, Load))]
        found = [q for d in every for q in quotients(d)]
        if not found:
            return axes, addresses, epilogue
        wanted = None
        for q in found:
            for name in sorted(dims.names(q.numerator) & axes.keys()):
                scale = coefficient(q.numerator, name)
                if isinstance(q.denominator, int) and isinstance(scale, int) and scale and q.denominator % scale == 0:
                    factor = q.denominator // scale
                    if factor > 1 and dims.is_known_multiple(axes[name], factor) and axes[name] != factor:
                        wanted = min((factor, name), wanted or (factor, name))
        if wanted is None:
            return None
        factor, name = wanted
        outer, inner = f"{name}.o", f"{name}.i"
        mapping = {name: dims.name(outer) * factor + dims.name(inner)}
        extent = axes[name]
        axes = {k: v for n, x in axes.items() for k, v in ([(outer, dims.floor_divide(extent, factor)), (inner, factor)] if n == name else [(n, x)])}
        addresses = [dims.substitute(d, mapping) for d in addresses]
        epilogue = map_indices(epilogue, partial(dims.substitute, mapping=mapping))
    return None


def needs_scratch(c: Contraction) -> bool:
    """Whether the result's buffer may hold partial sums, so that no other argument may share its memory."""
    return not order_reduction(c, None, False).single or not order_reduction(c, None, True).single


def border(layout: Layout, dtype: DType, batch: str | None) -> LoopProgram:
    """Writes zeros over the halo of a buffer and nothing else."""
    strides, padded = layout.strides, layout.padded

    def named(d: Dim) -> Dim:
        return dims.substitute(d, {batch: dims.name(BATCH)}) if batch else d

    row = strides[layout.order[-2]] if len(layout.order) > 1 else 0

    def fill(address: Dim, count: Dim, depth: int) -> Stmt:
        name = f"i{depth}"
        if depth + 1 < len(layout.order) - 1:  # whole rows, which threads share where there are few examples
            inner = fill(address + dims.name(name) * row, row, len(layout.order) - 1)
            return For(name, named(dims.floor_divide(count, row)), "serial", (inner,))
        return For(name, named(count), "vector", (Store(0, named(address + dims.name(name)), Const(0.0 if dtype.floating else 0, dtype)),))

    def level(depth: int, address: Dim) -> tuple[Stmt, ...]:
        if depth == len(layout.order) or not any(layout.before[x] or layout.after[x] for x in layout.order[depth:]):
            return ()
        axis = layout.order[depth]
        stmts: list[Stmt] = []
        if layout.before[axis]:
            stmts.append(fill(address, strides[axis] * layout.before[axis], depth))
        if layout.after[axis]:
            start = address + strides[axis] * (padded[axis] - layout.after[axis])
            stmts.append(fill(start, strides[axis] * layout.after[axis], depth))
        name = f"i{depth}"
        inner = level(depth + 1, address + strides[axis] * (dims.name(name) + layout.before[axis]))
        if inner:
            stmts.append(For(name, named(layout.extents[axis]), "parallel" if depth == 0 and not stmts else "serial", inner))
        return tuple(stmts)

    body = level(0, 0)
    parallel = bool(body) and isinstance(body[0], For) and body[0].kind == "parallel"
    return LoopProgram((dtype,), body, not parallel)


def copy_nest(source: Value, target: Value, keep: set[Value], producer: Mapping[Value, Op]) -> Nest:
    """A nest that writes `source`, whatever computes it, into memory of its own."""
    names = tuple(f"i{n}" for n in range(target.type.rank))
    op = producer.get(source)
    return Nest(target, names, value_at(source, index_of(names, target.type.shape), keep, producer), op.span if op else None, "copy")


def with_operands(nest: Nest, a: Value, b: Value) -> Nest:
    assert nest.contraction is not None
    return replace(nest, contraction=replace(nest.contraction, a=a, b=b))

