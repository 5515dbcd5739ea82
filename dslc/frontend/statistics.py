"""What `statistics true` adds to a training program: sizes of gradients, parameters and activations."""

from __future__ import annotations

from collections.abc import Sequence

from dslc.diagnostics import Span
from dslc.frontend import syntax
from dslc.frontend.scope import Context
from dslc.frontend.values import Poison, Tensor
from dslc.ir.graph import Value
from dslc.ir.module import PortKind
from dslc.ir.recipe import STATISTICS
from dslc.ir.types import DType


def add_statistics(context: Context, clause: syntax.Minimize, paths: Sequence[str], gradients: Sequence[Tensor]) -> None:
    """Roots of mean squares of gradients, of the parameters before the step and of what blocks made, and the shares of zeros of these."""
    builder = context.program.builder
    builder.span = clause.span
    for path, gradient in zip(paths, gradients, strict=True):
        _add(context, f"gradient/{path}", builder.sqrt(_square(context, gradient)))
        _add(context, f"parameter/{path}", builder.sqrt(_square(context, context.program.loaded[path])))
    for path, (square, zeros) in (context.program.made or {}).items():
        _add(context, f"activation/{path}", builder.sqrt(square.value))
        _add(context, f"zeros/{path}", zeros.value)


def remember(context: Context, path: str, results: Sequence[Tensor | Poison], span: Span) -> None:
    """Notes what a block has made, in the body of a loop for one iteration; a further call of it has a number."""
    made = context.program.made
    floats = [r for r in results if isinstance(r, Tensor) and r.type.dtype.floating]
    if made is None or not floats:
        return
    number = 1
    while (name := path if number == 1 else f"{path}#{number}") in made:
        number += 1
    context.program.builder.span = context.reporter.place(span)
    made[name] = Tensor(_square(context, floats[0])), Tensor(_zeros(context, floats[0]))


def mean_of(context: Context, stacked: Tensor) -> Tensor:
    """The mean over the iterations of a loop."""
    return Tensor(context.program.builder.mean(stacked.value, axis=None))


def _add(context: Context, name: str, value: Value) -> None:
    context.program.output(PortKind.METRIC, f"{STATISTICS}{name}", Tensor(value))


def _square(context: Context, tensor: Tensor) -> Value:
    builder, wide = context.program.builder, _wide(context, tensor)
    mean: Value = builder.mean(builder.mul(wide, wide), axis=None)
    return mean


def _zeros(context: Context, tensor: Tensor) -> Value:
    builder, wide = context.program.builder, _wide(context, tensor)
    share: Value = builder.mean(builder.cast(builder.eq(wide, builder.scalar(0.0, wide.type.dtype)), dtype=DType.F32), axis=None)
    return share


def _wide(context: Context, tensor: Tensor) -> Value:
    wide: Value = context.program.builder.cast(tensor.value, dtype=DType.F32) if tensor.type.dtype.half else tensor.value
    return wide
