"""Contractions: C[o] = epilogue(sum over k of A[...] * B[...]) over named axes with one stride an operand.

One description serves matmul, batched matmul, convolution and all their gradients. An operand's layout is nothing but its
strides: a packed or blocked operand has an axis more (n outer, n inner), a convolution's window shares strides between output
and kernel axes, and padding is a halo that the operand's buffer already has. `tiling.plan` chooses how to run one.

What the result's bits depend on is decided here and only here, from the contraction alone: the form (lanes along an output
axis, or along a reduction axis), the order of the reduction, and where it is cut into chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from dslc.ir.dims import Dim, DimExpr, substitute
from dslc.ir.loops import Acc, Expr, Load
from dslc.ir.types import DType
from dslc.lowering.indices import map_indices

CHUNK = 200
"""The longest run of fma into one accumulator. Chunk sums are added in order: the rounding error grows with this length, not with
that of the whole reduction. Runs of 256 products left errors twice those of other libraries behind the last dense layer of a residual
network; runs of at most 200 (192 or 128 of a dense layer, 3 x 3 taps of 16 channels, a whole line) take 2% more time in large
products of few rows, and no more in convolutions."""
CHUNK_OF_EXAMPLES = 256
"""The same for sums over the run-time batch (weight gradients): what a chunk reads of both operands stays in the first-level
cache while all tiles use it."""
CHUNK_OF_LANES = 448
"""The same in dot form, in steps of 16 lanes."""
WHOLE_IN_LANES = 576
"""The most steps that dot form takes in one run: the lanes are 16 sums of their own, so that a run may be longer."""

LINE = 16  # elements of four bytes in a cache line

FINISHED = Acc(DType.F32)


@dataclass(frozen=True, slots=True)
class Axis:
    """One loop. `extent` None is the run-time batch times `per_batch`; strides count elements, 0 = the operand lacks the axis.

    `c` is None for a reduction axis.
    """

    name: str
    extent: int | None
    a: int
    b: int
    c: int | None
    per_batch: int = 1

    @property
    def reduction(self) -> bool:
        return self.c is None

    def size(self, batch: int) -> int:
        return self.per_batch * batch if self.extent is None else self.extent


@dataclass(frozen=True, slots=True)
class Window:
    """Where operand A is a halo of zeros: outside 0 <= start + output - tap < extent. Products with the halo may be left out."""

    output: str
    tap: str
    start: int
    extent: int


@dataclass(frozen=True, slots=True)
class Contraction:
    """The axes in any order, base offsets in elements, and what happens to a finished sum.

    Buffer arguments are 0 for A, 1 for B, 2 for C; `Load`s of the epilogue name further ones (one of buffer 2 reads
    C's old value). Their addresses are affine in the names of the output axes. With `accumulate` the
    sum starts from C's old value. A sum of more than one chunk is kept in C between chunks: then no other argument of the
    epilogue may overlap C (`uses_output_as_scratch`). `again` says that it runs in a loop: what it reads is in the caches of the
    threads that read it in the iteration before.
    """

    axes: tuple[Axis, ...]
    dtype: DType = DType.F32
    a0: int = 0
    b0: int = 0
    c0: int = 0
    epilogue: Expr = FINISHED
    accumulate: bool = False
    windows: tuple[Window, ...] = ()
    again: bool = False

    def axis(self, name: str) -> Axis:
        return next(a for a in self.axes if a.name == name)

    @property
    def outputs(self) -> tuple[Axis, ...]:
        return tuple(a for a in self.axes if not a.reduction)

    @property
    def reductions(self) -> tuple[Axis, ...]:
        return tuple(a for a in self.axes if a.reduction)

    @property
    def addresses(self) -> tuple[tuple[int, Dim], ...]:
        """(buffer, address) of every access of the epilogue, each once, in order of appearance."""
        return tuple(dict.fromkeys((e.buffer, e.address) for e in walk(self.epilogue) if isinstance(e, Load)))

    @property
    def buffers(self) -> tuple[tuple[int, DType], ...]:
        """(buffer, element type) of every argument, in the order of the kernel's arguments."""
        types = {0: self.dtype, 1: self.dtype, 2: self.dtype}
        types |= {e.buffer: e.dtype for e in walk(self.epilogue) if isinstance(e, Load)}
        return tuple(sorted(types.items()))

    def flops(self, batch: int = 1) -> int:
        total = 2
        for axis in self.axes:
            total *= axis.size(batch)
        return total


def walk(e: Expr) -> Iterator[Expr]:
    """The expression and everything in it."""
    yield e
    for name in ("x", "y", "condition"):
        if hasattr(e, name):
            yield from walk(getattr(e, name))


def linear(d: Dim) -> tuple[int, Mapping[str, int]]:
    """The constant and the coefficient of each name of an affine expression."""
    if isinstance(d, int):
        return d, {}
    constant, coefficients = 0, {}
    for monomial, factor in d.terms:
        if not monomial:
            constant = factor
            continue
        [(atom, power)] = monomial
        assert isinstance(atom, str) and power == 1, f"{d} is not affine"
        coefficients[atom] = factor
    return constant, coefficients


def coefficient(d: Dim, name: str) -> int:
    return linear(d)[1].get(name, 0)


# ---- normal form ----------------------------------------------------------------------------------------------------


def normalise(c: Contraction) -> Contraction:
    """The same contraction with as few axes as possible: axes of extent 1 dropped, neighbours in every operand merged."""
    gone = {a.name: 0 for a in c.axes if a.extent == 1}
    axes = [a for a in c.axes if a.extent != 1]
    windows = tuple(w for w in c.windows if not {w.output, w.tap} & gone.keys())
    c = _without(replace(c, axes=tuple(axes), windows=windows), gone)
    while (pair := _mergeable(c)) is not None:
        outer, inner = pair
        if outer.extent is None:
            merged = replace(inner, extent=None, per_batch=outer.per_batch * _static(inner))
        else:
            merged = replace(inner, extent=outer.extent * _static(inner))
        axes = [merged if a is inner else a for a in c.axes if a is not outer]
        windows = tuple(w for w in c.windows if not {w.output, w.tap} & {outer.name, inner.name})
        c = _without(replace(c, axes=tuple(axes), windows=windows), {outer.name: 0})
    return c


def _static(axis: Axis) -> int:
    assert axis.extent is not None
    return axis.extent


def _without(c: Contraction, names: Mapping[str, int]) -> Contraction:
    return change_addresses(c, lambda d: substitute(d, dict(names))) if names else c


def change_addresses(c: Contraction, change: Callable[[Dim], Dim]) -> Contraction:
    """The contraction with every symbolic address of its epilogue changed."""

    def changed(d: Dim) -> Dim:
        return change(d) if isinstance(d, DimExpr) else d

    return replace(c, epilogue=map_indices(c.epilogue, changed))


def _mergeable(c: Contraction) -> tuple[Axis, Axis] | None:
    for outer in c.axes:
        for inner in c.axes:
            if outer is inner or outer.reduction != inner.reduction or inner.extent is None:
                continue
            strides = [(outer.a, inner.a), (outer.b, inner.b)]
            if outer.c is not None and inner.c is not None:
                strides.append((outer.c, inner.c))
            strides += [(coefficient(d, outer.name), coefficient(d, inner.name)) for _, d in c.addresses]
            if all(o == i * inner.extent for o, i in strides):
                return outer, inner
    return None


# ---- what the bits depend on ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reduction:
    """The order of a reduction: loops outside the register tile, the axis that is cut (`block` steps a chunk), loops inside.

    A chunk is one run through `block` steps of `cut` and all of `inner`; the last name is the innermost loop.
    """

    outside: tuple[Axis, ...]
    cut: Axis | None
    block: int
    inside: tuple[Axis, ...]

    @property
    def single(self) -> bool:
        """One chunk holds everything."""
        return not self.outside and (self.cut is None or self.cut.extent == self.block)

    @property
    def steps(self) -> int:
        """The fmas of an accumulator in a full chunk (vector steps in dot form)."""
        total = self.block
        for axis in self.inside:
            total *= _static(axis)
        return total


def order_reduction(c: Contraction, dot: Axis | None, vector_is_a: bool) -> Reduction:
    """Loops by falling stride in the operand that is read in vectors, then cut to chunks of at most CHUNK (or one of its kin) steps.

    In dot form the axis `dot` is innermost and counts one step for every 16 lanes.
    """

    def key(a: Axis) -> tuple[bool, int, int]:
        first, second = (a.a, a.b) if vector_is_a else (a.b, a.a)
        return a.extent is None, abs(first), abs(second)

    axes = sorted((a for a in c.reductions if a is not dot), key=key, reverse=True)
    inside = [dot] if dot else []
    steps = -(-_static(dot) // 16) if dot else 1
    longest = WHOLE_IN_LANES if dot else CHUNK
    if any(a.extent is None for a in axes) or steps * prod(_static(a) for a in axes) > longest:
        longest = CHUNK_OF_LANES if dot else CHUNK_OF_EXAMPLES if any(a.extent is None for a in axes) else CHUNK
    while axes and axes[-1].extent is not None and steps * axes[-1].extent <= longest:
        steps *= axes[-1].extent
        inside.insert(0, axes.pop())
    if not axes:
        if inside and not dot:  # the outermost loop inside is the cut axis, in one block
            return Reduction((), inside[0], _static(inside[0]), tuple(inside[1:]))
        return Reduction((), None, 1, tuple(inside))
    cut, block = axes[-1], max(1, longest // steps)
    if cut.extent is not None:
        block = _even_block(cut.extent, block)
    return Reduction(tuple(axes[:-1]), cut, block, tuple(inside))


def _even_block(extent: int, longest: int) -> int:
    """The axis in equal parts, at most so long: of whole lines where such parts are not much shorter."""
    whole = [n for n in range(LINE, longest + 1, LINE) if extent % n == 0]
    return whole[-1] if whole and 2 * whole[-1] > longest else -(-extent // -(-extent // longest))


def useful_share(c: Contraction, w: Window) -> float:
    """The share of (output, tap) pairs that do not read the halo."""
    outputs, taps = _static(c.axis(w.output)), _static(c.axis(w.tap))
    return sum(0 <= w.start + o - t < w.extent for o in range(outputs) for t in range(taps)) / (outputs * taps)


def uses_output_as_scratch(c: Contraction, reduction: Reduction) -> bool:
    """Whether C holds partial sums while the kernel runs."""
    return not reduction.single
