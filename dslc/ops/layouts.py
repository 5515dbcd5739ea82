"""Composites of reshape and transpose: flatten, squeeze, unsqueeze, along, rearrange."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Shape, check_shape, normal_axes, normal_axis, reshaped

F32 = DType.F32


@operator
class Flatten(Operator):
    """All axes but the leading one as one: [N, C, H, W] becomes [N, C * H * W]."""

    onnx = "Flatten"
    family = "movement"
    samples = [Sample(((5, 2, 3),)), Sample(((5, 4),)), Sample(((5,),))]
    errors = [BadSample((TensorType(F32, ()),), {}, "a leading axis")]

    def infer(self, x: TensorType) -> TensorType:
        if not x.rank:
            raise TypeFailure(f"flatten needs a leading axis, which {x} does not have", inputs=(0,))
        return x.with_shape((x.shape[0], TensorType(x.dtype, x.shape[1:]).size))

    def expand(self, b: Builder, x: Value) -> Value:
        result: Value = b.reshape(x, shape=self.infer(x.type).shape)
        return result

    def reference(self, x: Array) -> Any:
        return x.reshape(x.shape[0], -1) if x.size else x.reshape(x.shape[0], int(np.prod(x.shape[1:])))


@operator
class Squeeze(Operator):
    """x without axes of size 1: those named, or all of them."""

    onnx = "Squeeze"
    family = "movement"
    attrs = {"axis": Attr("axes", None, "the axes to drop; all of size 1 unless told")}
    samples = [Sample(((5, 1, 3, 1),)), Sample(((5, 1, 1),), {"axis": 1}), Sample(((1, 5, 1),), {"axis": (0, -1)})]
    errors = [BadSample((TensorType(F32, (2, 3)),), {"axis": 1}, "axis 1 is 3")]

    def infer(self, x: TensorType, axis: int | tuple[int, ...] | None) -> TensorType:
        if axis is None:
            return x.with_shape(tuple(size for size in x.shape if size != 1))
        axes = normal_axes(axis, x)
        for a in axes:
            if x.shape[a] != 1:
                raise TypeFailure(f"cannot squeeze {x}: axis {a} is {x.shape[a]}, not 1", inputs=(0,), axes=(a,))
        return x.with_shape(tuple(size for a, size in enumerate(x.shape) if a not in axes))

    def expand(self, b: Builder, x: Value, axis: int | tuple[int, ...] | None) -> Value:
        result: Value = b.reshape(x, shape=self.infer(x.type, axis).shape)
        return result

    def reference(self, x: Array, axis: int | tuple[int, ...] | None) -> Any:
        return np.squeeze(x, axis=axis)


@operator
class Unsqueeze(Operator):
    """x with new axes of size 1 at the named positions of the result."""

    onnx = "Unsqueeze"
    family = "movement"
    attrs = {"axis": Attr("axes", doc="where the new axes stand in the result")}
    samples = [Sample(((5, 3),), {"axis": 1}), Sample(((5, 3),), {"axis": (0, -1)}), Sample(((),), {"axis": 0})]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"axis": 3}, "no axis 3"),
        BadSample((TensorType(F32, (2, 3)),), {"axis": (1, -3)}, "named twice"),
    ]

    def infer(self, x: TensorType, axis: int | tuple[int, ...]) -> TensorType:
        given = axis if isinstance(axis, tuple) else (axis,)
        axes = [normal_axis(a, x, extra=len(given)) for a in given]
        if len(set(axes)) != len(axes):
            raise TypeFailure(f"a new axis is named twice in {list(given)}")
        sizes = iter(x.shape)
        return x.with_shape(tuple(1 if a in axes else next(sizes) for a in range(x.rank + len(axes))))

    def expand(self, b: Builder, x: Value, axis: int | tuple[int, ...]) -> Value:
        result: Value = b.reshape(x, shape=self.infer(x.type, axis).shape)
        return result

    def reference(self, x: Array, axis: int | tuple[int, ...]) -> Any:
        return np.expand_dims(x, axis)


@operator
class Along(Operator):
    """The vector v laid along an axis of x, with size 1 on the others, so that it broadcasts against x: along[1](bias, x)."""

    family = "movement"
    inputs = ("v", "x")
    attrs = {"axis": Attr("axis", doc="the axis of x that v lies along")}
    samples = [Sample(((3,), (5, 3, 2, 2)), {"axis": 1}), Sample(((4,), (5, 4)), {"axis": -1}), Sample(((5,), (5,)), {"axis": 0})]
    errors = [
        BadSample((TensorType(F32, (2,)), TensorType(F32, (2, 3))), {"axis": 1}, "axis 1 is 3"),
        BadSample((TensorType(F32, (2, 1)), TensorType(F32, (2, 3))), {"axis": 0}, "a vector"),
        BadSample((TensorType(F32, (2,)), TensorType(F32, (2, 3))), {"axis": 2}, "no axis 2"),
    ]

    def infer(self, v: TensorType, x: TensorType, axis: int) -> TensorType:
        if v.rank != 1:
            raise TypeFailure(f"along needs a vector, not {v}", inputs=(0,))
        try:
            at = normal_axis(axis, x)
        except TypeFailure as failure:
            raise TypeFailure(failure.message, inputs=(1,)) from failure
        if v.shape[0] != x.shape[at]:
            raise TypeFailure(f"cannot lay {v} along {x}: axis {at} is {x.shape[at]}, not {v.shape[0]}", inputs=(0, 1), axes=(0, at))
        return v.with_shape(tuple(v.shape[0] if a == at else 1 for a in range(x.rank)))

    def expand(self, b: Builder, v: Value, x: Value, axis: int) -> Value:
        result: Value = b.reshape(v, shape=self.infer(v.type, x.type, axis).shape)
        return result

    def reference(self, v: Array, x: Array, axis: int) -> Any:
        shape = [1] * x.ndim
        shape[axis] = v.size
        return v.reshape(shape)


@operator
class Rearrange(Operator):
    """Reorder, split and merge axes by name: rearrange["n t (h e) -> n h t e", h = 4](x).

    Each side names every axis once; names in parentheses are axes that are merged on that side, outermost first; `1` is an axis
    of size 1 and `...` stands for any number of axes. A parenthesis on the left may leave one size to be inferred; other sizes
    are further settings. Rogozhnikov, Einops (ICLR 2022).
    """

    family = "movement"
    attrs = {
        "pattern": Attr("str", doc="the axes before and after ->"),
        "sizes": Attr("any", (), "sizes of named axes, as pairs of name and size; in the language each is a setting of its own"),
    }
    samples = [
        Sample(((5, 6),), {"pattern": "n t -> t n"}),
        Sample(((5, 3, 8),), {"pattern": "n t (h e) -> n h t e", "sizes": (("h", 4),)}),
        Sample(((5, 2, 3, 4),), {"pattern": "n h t e -> n t (h e)"}),
        Sample(((5, 3, 12),), {"pattern": "n t (c h e) -> c n h t e", "sizes": (("c", 3), ("h", 2))}),
        Sample(((5, 2, 1, 3),), {"pattern": "n ... 1 c -> n c ..."}),
        Sample(((5, 4),), {"pattern": "n (a b) -> (n a) 1 b", "sizes": (("b", 2),)}),
    ]
    errors = [
        BadSample((TensorType(F32, (2, 3)),), {"pattern": "a b"}, "->"),
        BadSample((TensorType(F32, (2, 3)),), {"pattern": "a -> a"}, "names 1 axes"),
        BadSample((TensorType(F32, (2, 3)),), {"pattern": "a b -> a"}, "b is on one side only"),
        BadSample((TensorType(F32, (2, 3)),), {"pattern": "a a -> a"}, "a is named twice"),
        BadSample((TensorType(F32, (2, 3)),), {"pattern": "a (b c) -> a b c"}, "size of b or c"),
        BadSample((TensorType(F32, (2, 3)),), {"pattern": "a (b c) -> a b c", "sizes": (("b", 2),)}, "not divisible by 2"),
        BadSample((TensorType(F32, (2, 3)),), {"pattern": "a b -> b a", "sizes": (("b", 2),)}, "b is 2"),
        BadSample((TensorType(F32, (2, 3)),), {"pattern": "a b -> b a", "sizes": (("q", 2),)}, "no axis q"),
        BadSample((TensorType(F32, (2, 3)),), {"pattern": "a (b -> b a"}, "parenthesis"),
        BadSample((TensorType(F32, (2, 3)),), {"pattern": "a 1 -> a"}, "1 in the pattern"),
    ]

    def infer(self, x: TensorType, pattern: str, sizes: tuple[tuple[str, Dim], ...]) -> TensorType:
        return x.with_shape(_Plan(x, pattern, dict(sizes)).merged)

    def expand(self, b: Builder, x: Value, pattern: str, sizes: tuple[tuple[str, Dim], ...]) -> Value:
        plan = _Plan(x.type, pattern, dict(sizes))
        y = reshaped(b, x, plan.split)
        if plan.order != tuple(range(len(plan.order))):
            y = b.transpose(y, axes=plan.order)
        return reshaped(b, y, plan.merged)

    def reference(self, x: Array, pattern: str, sizes: tuple[tuple[str, int], ...]) -> Any:
        # By the meaning of the names alone: every axis is its own einsum label, and sizes come from NumPy's own reshape.
        left, right = (_groups(side) for side in _ellipsis(pattern, x.ndim).split("->"))
        known = dict(sizes)
        shape: list[int] = []
        for group, size in zip(left, x.shape, strict=True):
            given = int(np.prod([known[name] for name in group if name in known]))
            for name in group:
                known.setdefault(name, size // given)
            shape += [known[name] for name in group]
        labels = {name: position for position, name in enumerate(name for group in left for name in group)}
        moved = np.einsum(x.reshape(shape), list(labels.values()), [labels[name] for group in right for name in group])
        return moved.reshape([int(np.prod([known[name] for name in group])) for group in right])


class _Plan:
    """A rearrangement as a reshape to `split`, a transpose by `order` and a reshape to `merged`."""

    def __init__(self, x: TensorType, pattern: str, sizes: dict[str, Dim]):
        if pattern.count("->") != 1:
            raise TypeFailure(f"the pattern of rearrange is 'axes -> axes', not {pattern!r}")
        left, right = (_groups(side) for side in _ellipsis(pattern, x.rank).split("->"))
        before, after = ([name for group in side for name in group] for side in (left, right))
        for side in (before, after):
            for name in side:
                if side.count(name) > 1:
                    raise TypeFailure(f"{name} is named twice on one side of {pattern!r}")
        for name in sorted(set(before) ^ set(after)):
            raise TypeFailure(f"{name} is on one side only of {pattern!r}")
        if len(left) != x.rank:
            raise TypeFailure(f"cannot rearrange {x}: {pattern!r} names {len(left)} axes", inputs=(0,))
        for name in sizes:
            if name not in before:
                raise TypeFailure(f"there is no axis {name} in {pattern!r}")
        check_shape(tuple(sizes.values()))
        known = dict(sizes)
        for axis, group in enumerate(left):
            self._infer_sizes(x, axis, group, known)
        self.split: Shape = tuple(known[name] for name in before)
        self.order = tuple(before.index(name) for name in after)
        merged: list[Dim] = []
        for group in right:
            size: Dim = 1
            for name in group:
                size = size * known[name]
            merged.append(size)
        self.merged: Shape = tuple(merged)

    @staticmethod
    def _infer_sizes(x: TensorType, axis: int, group: list[str], known: dict[str, Dim]) -> None:
        size = x.shape[axis]
        product: Dim = 1
        for name in group:
            product = product * known.get(name, 1)
        unknown = [name for name in group if name not in known]
        if not group and size != 1:
            raise TypeFailure(f"cannot rearrange {x}: axis {axis} is {size}, and 1 in the pattern", inputs=(0,), axes=(axis,))
        if len(unknown) > 1:
            raise TypeFailure(f"the size of {' or '.join(unknown)} is needed: write {unknown[0]} = ... beside the pattern")
        if not unknown and product != size:
            names = " * ".join(group) or "1"
            raise TypeFailure(f"cannot rearrange {x}: axis {axis} is {size}, but {names} is {product}", inputs=(0,), axes=(axis,))
        if unknown:
            if product == 0 or not dims.is_known_multiple(size, product):
                raise TypeFailure(f"cannot rearrange {x}: axis {axis} is not divisible by {product}", inputs=(0,), axes=(axis,))
            known[unknown[0]] = dims.floor_divide(size, product)


def _ellipsis(pattern: str, rank: int) -> str:
    """The pattern with `...` replaced by names for the axes that it stands for."""
    left = pattern.split("->")[0]
    if "..." not in left:
        return pattern
    others = len(_groups(left.replace("...", " ", 1)))
    return pattern.replace("...", " ".join(f"_{n}" for n in range(max(rank - others, 0))))


def _groups(side: str) -> list[list[str]]:
    """`n (h e) 1` as [[n], [h, e], []]."""
    groups: list[list[str]] = []
    inside: list[str] | None = None
    for token in re.findall(r"[A-Za-z_][A-Za-z_0-9]*|\S", side):
        if token == "(" and inside is None:
            inside = []
        elif token == ")" and inside is not None:
            groups.append(inside)
            inside = None
        elif token == "1" and inside is None:
            groups.append([])
        elif not re.fullmatch(r"[A-Za-z_]\w*", token):
            raise TypeFailure(f"{token!r} does not fit in the pattern {side.strip()!r}: axes are names, and a parenthesis holds names")
        elif inside is not None:
            inside.append(token)
        else:
            groups.append([token])
    if inside is not None:
        raise TypeFailure(f"a parenthesis is not closed in {side.strip()!r}")
    return groups
