"""What `statistics true` adds to a training program: sizes of gradients, parameters and activations."""

from __future__ import annotations

from collections.abc import Sequence

from dslc.frontend import syntax
from dslc.frontend.scope import Context
from dslc.frontend.values import Tensor
from dslc.ir.graph import Value
from dslc.ir.module import PortKind
from dslc.ir.recipe import STATISTICS
from dslc.ir.types import DType


def add_statistics(context: Context, clause: syntax.Minimize, paths: Sequence[str], gradients: Sequence[Tensor]) -> None:
    """Roots of mean squares of gradients, of the parameters before the step and of what blocks made, and the shares of zeros of these."""
    context.program.builder.span = clause.span
    for path, gradient in zip(paths, gradients, strict=True):
        _add(context, f"gradient/{path}", _size(context, gradient))
        _add(context, f"parameter/{path}", _size(context, context.program.loaded[path]))
    for path, made in (context.program.made or {}).items():
        _add(context, f"activation/{path}", _size(context, made))
        _add(context, f"zeros/{path}", _zeros(context, made))


def _add(context: Context, name: str, value: Value) -> None:
    context.program.output(PortKind.METRIC, f"{STATISTICS}{name}", Tensor(value))


def _size(context: Context, tensor: Tensor) -> Value:
    builder = context.program.builder
    wide = builder.cast(tensor.value, dtype=DType.F32) if tensor.type.dtype.half else tensor.value
    root: Value = builder.sqrt(builder.mean(builder.mul(wide, wide), axis=None))
    return root


def _zeros(context: Context, tensor: Tensor) -> Value:
    builder = context.program.builder
    wide = builder.cast(tensor.value, dtype=DType.F32) if tensor.type.dtype.half else tensor.value
    share: Value = builder.mean(builder.cast(builder.eq(wide, builder.scalar(0.0, wide.type.dtype)), dtype=DType.F32), axis=None)
    return share
