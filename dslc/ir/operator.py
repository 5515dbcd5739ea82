"""The contract of an operator: one class says everything about it, and a missing piece fails at import.

A *primitive* has `body`, its definition per output element, `recurrence`, its definition by what is carried along an axis, or
`routine`, an algorithm that back ends know by name; a *composite* has `expand`, which writes it with other operators. All have `infer`, `reference` (an independent NumPy oracle), `samples` and `errors`, which drive generated
tests, and a gradient: `vjp`, or `expand` (whose operators have one), or `differentiable = False` said explicitly.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dslc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from dslc.ir.graph import Graph, Value
    from dslc.ir.loops import ContractionMap, Expr, Recurrence
    from dslc.ir.routines import Routine

REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Attr:
    """One static argument: its kind (as the language spells it), default and meaning.

    Kinds: int, float, bool, str, dtype, dim, axis, axes, dims (a list of sizes), ints, shape, any.
    Positional order in `[ ]` is the order of declaration.
    """

    kind: str
    default: Any = REQUIRED
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs that drive the generated tests: arrays or shapes (drawn from a seeded normal), and attributes."""

    inputs: tuple[Any, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    gradient: bool = True  # False where finite differences make no sense here (a kink, an integer input)


@dataclass(frozen=True, slots=True)
class BadSample:
    """Input types that must be refused, and a fragment of the message."""

    inputs: tuple[TensorType, ...]
    attrs: Mapping[str, Any]
    message: str


class TypeFailure(Exception):
    """An operator's reason to refuse its arguments. `inputs` are the positions at fault, `axes` the axis in each of them."""

    def __init__(self, message: str, *, inputs: tuple[int, ...] = (), axes: tuple[int, ...] = (), hint: str | None = None):
        super().__init__(message)
        self.message, self.inputs, self.axes, self.hint = message, inputs, axes, hint


class Operator:
    """Base of every operator; subclasses are registered by `@operator` under their snake-case name."""

    name: ClassVar[str]
    family: ClassVar[str] = "math"
    onnx: ClassVar[str | None] = None
    attrs: ClassVar[Mapping[str, Attr]] = {}
    inputs: ClassVar[tuple[str, ...]] = ("x",)  # names of tensor arguments; a last name that starts with * takes any number
    elementwise: ClassVar[bool] = False
    moves: ClassVar[bool] = False  # takes any element type, 16-bit floats too; without it the builder widens these to f32
    widens: ClassVar[bool] = False  # sums products: operands of i8 and u8 are converted to i32 by the builder
    draw: ClassVar[bool] = False  # takes (seed, counter) scalars and a `stream` attribute: a random operator
    internal: ClassVar[bool] = False  # made by the compiler only, no spelling in the language
    regions: ClassVar[int] = 0  # how many graphs it has as its parts (the body of a loop); transforms differentiate it
    meta: ClassVar[bool] = False  # a leaf or a note to a transform (constant, grad): no body, replaced before or by lowering
    differentiable: ClassVar[bool] = True
    samples: ClassVar[list[Sample]] = []
    errors: ClassVar[list[BadSample]] = []

    # infer(self, *types, **attrs) -> TensorType or a tuple of them; with regions=(...) where it has some
    infer: Callable[..., TensorType | tuple[TensorType, ...]]
    # reference(self, *arrays, **attrs) -> array or tuple; `np` is NumPy; float64 in means float64 out
    reference: Callable[..., Any]

    # Optional parts, found by `has`:
    #   body(self, index, *readers, **attrs) -> Expr               one output element; index: tuple of index expressions
    #   recurrence(self, index, *readers, **attrs) -> Recurrence   the same, by what is carried from element to element
    #   routine(self, *types, **attrs) -> Routine                  the whole result by an algorithm that back ends know
    #   expand(self, b, *values, **attrs) -> Value or tuple
    #   vjp(self, b, dy, y, *values, **attrs) -> tuple of Value or None, one for each input (dy, y tuples if several results;
    #       a missing cotangent is None in the tuple)
    #   contraction(self, *types, **attrs) -> ContractionMap        index maps of a sum of products of two operands; a tuple of
    #       them where each gives a part of the result (elements in no part are zero)
    @classmethod
    def has(cls, part: str) -> bool:
        return callable(getattr(cls, part, None))

    if TYPE_CHECKING:

        body: Callable[..., Expr]
        recurrence: Callable[..., Recurrence]
        routine: Callable[..., Routine]
        expand: Callable[..., Value | tuple[Value, ...]]
        vjp: Callable[..., tuple[Value | None, ...]]
        contraction: Callable[..., ContractionMap | tuple[ContractionMap, ...]]


OPERATORS: dict[str, Operator] = {}


def infer_types(
    kind: str, inputs: Iterable[TensorType], attrs: Mapping[str, Any], regions: tuple[Graph, ...] = ()
) -> tuple[TensorType, ...]:
    """The types of an operation's results; TypeFailure where it is refused."""
    operator = OPERATORS[kind]
    if len(regions) != operator.regions:
        raise TypeFailure(f"{kind} has {operator.regions} regions, not {len(regions)}")
    made = operator.infer(*inputs, **attrs, regions=regions) if regions else operator.infer(*inputs, **attrs)
    return made if isinstance(made, tuple) else (made,)


DEFINITIONS = ("body", "expand", "recurrence", "routine")  # one of them says what an operator computes


def operator(cls: type[Operator]) -> type[Operator]:
    """Register an operator; refuses one with a missing part."""
    if "name" not in vars(cls):
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    missing = [part for part in ("infer", "reference") if not (cls.has(part) or (cls.meta and part == "reference"))]
    if not cls.__doc__ or cls.__doc__ == Operator.__doc__:
        missing.append("docstring")
    if not (cls.meta or any(cls.has(part) for part in DEFINITIONS)):
        missing.append("body or expand")
    if cls.differentiable and not (cls.has("vjp") or cls.has("expand") or cls.regions):
        missing.append("vjp, expand or differentiable = False")
    if not (cls.meta or cls.samples):
        missing.append("samples")
    if missing:
        raise TypeError(f"operator {cls.name} lacks {', '.join(missing)}")
    if cls.name in OPERATORS:
        raise TypeError(f"operator {cls.name} is defined twice")
    OPERATORS[cls.name] = cls()
    return cls


def float_result(*types: TensorType) -> DType:
    """The wider of the floating types; a failure where one is not floating."""
    for position, t in enumerate(types):
        if not t.dtype.floating:
            raise TypeFailure(f"needs a floating-point tensor, not {t}", inputs=(position,), hint="convert it with cast[f32](...)")
    return meeting_float([t.dtype for t in types])


def meeting_float(dtypes: Sequence[DType]) -> DType:
    """The narrowest floating type that holds all numbers of the floating ones among `dtypes`; f16 and bf16 meet in f32."""
    found = {dtype for dtype in dtypes if dtype.floating}
    if DType.F64 in found:
        return DType.F64
    return found.pop() if len(found) == 1 else DType.F32


def as_numpy(dtype: DType) -> np.dtype[np.generic]:
    return dtype.numpy
