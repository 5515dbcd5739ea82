"""What an expression of the language can be while a program is elaborated.

Static values are Python's own: `int`, `float`, `bool`, `str`, `None` (`none`), a symbolic `DimExpr`, a `DType`. The rest are
the classes here. Functions are values too: an operator, block or model, with or without its static arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from dslc.diagnostics import Span
from dslc.frontend import syntax
from dslc.ir.dims import DimExpr
from dslc.ir.graph import Value as GraphValue
from dslc.ir.prove import Relation, Verdict
from dslc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from dslc.frontend.files import Unit


class Poison:
    """The value of an expression whose error has been reported."""

    def __repr__(self) -> str:
        return "poison"


POISON = Poison()


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of the graph that is being built."""

    value: GraphValue

    @property
    def type(self) -> TensorType:
        return self.value.type


@dataclass(frozen=True, slots=True)
class ListValue:
    """A static list; it may hold tensors and functions. `total` counts the items of the lists in it too."""

    items: tuple[Value, ...]
    total: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", _total(self.items))


@dataclass(frozen=True, slots=True)
class Results:
    """Several results of a call, with names where the signature gives them."""

    items: tuple[Value, ...]
    names: tuple[str, ...] = ()
    total: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", _total(self.items))


def _total(items: tuple[Value, ...]) -> int:
    return sum(item.total if isinstance(item, ListValue | Results) else 1 for item in items)


@dataclass(frozen=True, slots=True)
class RangeValue:
    """`start..stop`."""

    start: int | DimExpr
    stop: int | DimExpr


@dataclass(frozen=True, slots=True)
class Undecided:
    """A comparison of sizes that the facts neither show nor refute for all sizes."""

    relation: Relation
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class OperatorFunction:
    """An operator; `attrs` are its static arguments once brackets have been written."""

    name: str
    attrs: tuple[tuple[str, object], ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class BlockFunction:
    """A block (or optimizer) of a file; `static` are its static arguments, defaults filled in, once it is configured."""

    unit: Unit
    item: syntax.Block | syntax.Optimizer
    static: dict[str, Value] | None = None

    @property
    def name(self) -> str:
        return self.item.signature.name.text


@dataclass(frozen=True, slots=True, eq=False)
class ModelFunction:
    """A model: a block with one set of parameters. `training` overrides the caller's for `eval[Model]` and `ema[Model]`, whose
    parameters are the averaged ones (`averaged`)."""

    unit: Unit
    item: syntax.Model | syntax.Instance
    training: bool | None = None
    averaged: bool = False

    @property
    def name(self) -> str:
        return self.item.signature.name.text if isinstance(self.item, syntax.Model) else self.item.name.text


@dataclass(frozen=True, slots=True, eq=False)
class SharedFunction:
    """`param cell = Block[...]`: a block whose parameters stand at `path` for every call."""

    block: BlockFunction
    path: str


@dataclass(frozen=True, slots=True)
class GradFunction:
    """`grad[x]`, to be called with a loss."""

    targets: tuple[Tensor, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Builtin:
    """A name with a meaning of its own: the list functions, `grad`, `eval`."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """A file behind the name of an import."""

    unit: Unit


@dataclass(frozen=True, slots=True)
class LearningRate:
    """A schedule whose numbers are run-time settings; called with the step. `total` is the recipe's number of steps."""

    schedule: BlockFunction | None
    rate: Value  # the constant rate, where there is no schedule
    total: Value


@dataclass(frozen=True, slots=True)
class MaybeUnbound:
    """A name that is bound on some paths only; using it is an error."""

    span: Span
    where: str


Function: TypeAlias = OperatorFunction | BlockFunction | ModelFunction | SharedFunction | GradFunction | Builtin | LearningRate
Static: TypeAlias = int | float | bool | str | DimExpr | DType | None
Value: TypeAlias = Tensor | ListValue | Results | RangeValue | Undecided | Function | Imported | MaybeUnbound | Poison | Static


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor came from, for the notes of a mismatch."""

    what: str
    span: Span | None
    sizes: tuple[str, ...] = field(default=())


def is_number(value: Value) -> bool:
    """A static number, symbolic sizes included; `true` is none."""
    return isinstance(value, int | float | DimExpr) and not isinstance(value, bool)


def is_size(value: Value) -> bool:
    return isinstance(value, int | DimExpr) and not isinstance(value, bool)


def describe(value: Value) -> str:
    """A value as messages name it."""
    match value:
        case Tensor():
            return f"a tensor {value.type}"
        case bool():
            return f"`{str(value).lower()}`"
        case None:
            return "`none`"
        case int() | DimExpr():
            return f"the size {value}" if isinstance(value, DimExpr) else f"the number {value}"
        case float():
            return f"the number {value:g}"
        case DType():
            return f"the element type {value.value}"
        case str():
            return f'the string "{value[:40]}"'
        case ListValue():
            return f"a list of {len(value.items)}"
        case Results():
            return f"{len(value.items)} results"
        case RangeValue():
            return "a range"
        case Undecided():
            return f"the condition {value.relation}"
        case OperatorFunction():
            return f"the operator `{value.name}`"
        case BlockFunction():
            kind = "optimizer" if isinstance(value.item, syntax.Optimizer) else "block"
            return f"the {kind} `{value.name}`"
        case SharedFunction():
            return f"the shared block `{value.path}`"
        case ModelFunction():
            return f"the model `{value.name}`"
        case GradFunction():
            return "a gradient that waits for its loss"
        case Builtin():
            return f"`{value.name}`"
        case LearningRate():
            return "a learning rate"
        case Imported():
            return f"the file `{value.unit.file}`"
        case _:
            return "nothing"
