"""Names: what is visible where, and the state that elaboration threads through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from dslc.diagnostics import Note, Span
from dslc.frontend import syntax
from dslc.frontend.files import Files, Unit
from dslc.frontend.program import ProgramBuilder
from dslc.frontend.report import Abandoned, Reporter, did_you_mean
from dslc.frontend.values import (
    POISON,
    BlockFunction,
    Builtin,
    Imported,
    ListValue,
    MaybeUnbound,
    ModelFunction,
    OperatorFunction,
    Results,
    Tensor,
    Value,
)
from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.operator import OPERATORS
from dslc.ir.prove import Proved, Relation, Verdict, prove
from dslc.ir.types import DType

MAX_OPERATIONS = 100_000
MAX_STEPS = 1_000_000
CALL_STEPS = 90  # a call costs about as much as this many expressions
PROOF_STEPS = 200  # so does a proof,
SEARCH_STEPS = 4000  # and the search for a counterexample where there is none
MAX_CALLS = 48
LIST_FUNCTIONS = ("len", "zip", "reversed", "enumerate")
BUILTINS = (*LIST_FUNCTIONS, "grad", "eval", "ema", "size")
INITIALISERS = (
    *("zeros", "ones", "constant", "normal", "uniform", "truncated_normal", "orthogonal"),
    *("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"),
)


class Missing(Enum):
    """No such name."""

    MISSING = 0


MISSING = Missing.MISSING


@dataclass(slots=True)
class Frame:
    """The names of one call of a block or model, of a recipe, or of a file's own expressions."""

    unit: Unit
    what: str
    path: str = ""
    training: bool = False
    names: dict[str, Value] = field(default_factory=dict)
    rows: dict[str, tuple[Dim, ...]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    loops: int = 0
    no_parameters: str | None = None  # why parameters may not be made here
    optimizer: bool = False
    metric: bool = False  # states are those of a metric, and are updated outside training too
    averaged: bool = False  # parameters are the averaged ones
    own: set[str] = field(default_factory=set)  # names of its own parameters and states
    yields: list[tuple[Value, Span]] | None = None  # in the body of a scan: what it has yielded

    def child_path(self, name: str) -> str:
        """The path of the next thing called `name`: indexed from [0] in a loop, elsewhere from the second on."""
        count = self.counters.get(name, 0)
        self.counters[name] = count + 1
        own = f"{name}[{count}]" if self.loops or count else name
        return f"{self.path}.{own}" if self.path else own


@dataclass(slots=True)
class Context:
    """What one elaboration shares. `evaluate` and `run` tie the knot between the modules of the elaborator."""

    reporter: Reporter
    files: Files
    program: ProgramBuilder
    floating: DType = DType.F32
    families: frozenset[str] = frozenset()  # operators that stay in f32 where `float` has 16 bits
    sizes: dict[str, Dim] = field(default_factory=dict)  # file-level dimensions of the root file, as bound
    bound: set[str] = field(default_factory=set)  # the sizes that the program's inputs mention
    facts: list[Relation] = field(default_factory=list)
    proofs: dict[tuple[Relation, ...], Verdict] = field(default_factory=dict)  # what was asked before, by question and facts
    declared: frozenset[str] = frozenset()  # dimensions with a size of their own: `dim T = 128`
    checking: bool = False  # sizes are symbols; a decision that they leave open is no error
    double: bool = False  # read f32 as f64
    open_items: list[tuple[str, str]] = field(default_factory=list)
    statics: dict[tuple[str, str], Value] = field(default_factory=dict)
    steps: list[int] = field(default_factory=lambda: [0])  # expressions evaluated so far, shared by the items of a check
    evaluate: Callable[[syntax.Node, Frame], Value] = lambda expression, frame: POISON
    run: Callable[[Sequence[syntax.Statement], Frame], tuple[tuple[Value, Span], ...] | None] = lambda statements, frame: None

    @property
    def stored(self) -> DType:
        """What `float` is in memory that persists, and in optimizers: 16 bits would lose small steps."""
        return DType.F32 if self.floating.half else self.floating

    def dtype(self, name: syntax.Name) -> DType:
        """The element type that a name stands for."""
        return self.dtype_of(name.text, name.span)

    def dtype_of(self, text: str, span: Span) -> DType:
        if text == "float":
            return self.floating
        try:
            dtype = DType(text)
        except ValueError:
            known = [d.value for d in DType] + ["float"]
            hint = did_you_mean(text, known) or f"the element types are {', '.join(known)}"
            raise self.reporter.error("DL0111", f"`{text}` is not an element type", span, hint=hint) from None
        return DType.F64 if self.double and dtype == DType.F32 else dtype


def spend(context: Context, steps: int, span: Span) -> None:
    """Counts work; gives up where a file asks for more than some seconds of it."""
    context.steps[0] += steps
    if context.steps[0] > MAX_STEPS:
        context.reporter.error(
            "DL0312", "the file takes too many steps to unroll", span, hint="make the ranges of the `for` smaller, or nest fewer calls"
        )
        raise Abandoned


def ask(context: Context, relation: Relation) -> Verdict:
    """What the facts say about a relation of sizes. Counts the work, which the next `spend` refuses where it is too much."""
    key = (relation, *context.facts)
    verdict = context.proofs.get(key)
    context.steps[0] += len(key)
    if verdict is None:
        verdict = context.proofs[key] = prove(relation, context.facts)
        context.steps[0] += PROOF_STEPS + 4 * len(context.facts)
        if not isinstance(verdict, Proved):
            context.steps[0] += SEARCH_STEPS
    return verdict


def too_many_operators(context: Context, span: Span) -> Abandoned:
    context.reporter.error(
        "DL0312", f"the program has more than {MAX_OPERATIONS:,} operators", span, hint="a `for` is unrolled: make its range smaller"
    )
    return Abandoned()


def is_dtype_name(text: str) -> bool:
    return text == "float" or text in DType._value2member_map_


def resolve(context: Context, name: syntax.Name, frame: Frame) -> Value:
    """What a name stands for: local names, then the file's, then the library's, operators and the language's own."""
    text = name.text
    if text in frame.names:
        value = frame.names[text]
        if isinstance(value, MaybeUnbound):
            raise context.reporter.error(
                "DL0316",
                f"`{text}` is not bound on every path",
                name.span,
                notes=[Note(f"bound here, {value.where}", value.span)],
                hint=f"give `{text}` a value before, or bind it on every path",
            )
        return value
    if text in frame.rows:
        raise context.reporter.error(
            "DL0308", f"`{text}` stands for several dimensions", name.span, hint=f"write `*{text}` in a type, or a list of sizes"
        )
    found = file_name(context, frame.unit, text)
    if isinstance(found, Missing):
        found = language_name(context, name, frame)
    if not isinstance(found, Missing):
        return found
    raise unknown_name(context, name, frame)


def file_name(context: Context, unit: Unit, text: str) -> Value | Missing:
    """An item, import or dimension of a file."""
    if text in unit.tree.broken:
        return POISON
    if text in unit.imports:
        unit.used.add(text)
        imported = unit.imports[text]
        return POISON if imported is None else Imported(imported)
    if text in unit.items:
        unit.used.add(text)
        return item_value(context, unit, unit.items[text])
    if text in unit.dims:
        unit.used.add(text)
        return dimension_value(context, unit, unit.dims[text])
    return MISSING


def language_name(context: Context, name: syntax.Name, frame: Frame) -> Value | Missing:
    text = name.text
    if text == "training":
        return frame.training
    if text == "none":
        return None
    if text in context.files.library:
        return item_value(context, *context.files.library[text])
    if text in BUILTINS:
        return Builtin(text)
    if text in OPERATORS and not OPERATORS[text].internal:
        return OperatorFunction(text)
    if is_dtype_name(text):
        return context.dtype(name)
    return MISSING


def item_value(context: Context, unit: Unit, item: syntax.Item) -> Value:
    match item:
        case syntax.Block() | syntax.Optimizer():
            return BlockFunction(unit, item)
        case syntax.Model() | syntax.Instance():
            return ModelFunction(unit, item)
        case syntax.Const():
            return constant_value(context, unit, item)
        case _:
            return POISON


def dimension_value(context: Context, unit: Unit, dim: syntax.Dim) -> Value:
    """A file-level dimension: its binding, else its declared size, else a symbol while checking."""
    text = dim.name.text
    if not unit.alias and not unit.library and text in context.sizes:
        return context.sizes[text]
    if dim.size is not None:
        enter(context, (unit.file, text), dim.name.span)
        try:
            return context.evaluate(dim.size, Frame(unit, f"dim {text}"))
        finally:
            context.open_items.pop()
    if context.checking:
        return dims.name(text)
    raise context.reporter.error(
        "DL0513", f"the size {text} is not bound", dim.name.span, hint=f"give it with `dim {text} = 64` or --dim {text}=64"
    )


def constant_value(context: Context, unit: Unit, item: syntax.Const) -> Value:
    """The value of a `const` item: static ones once for all, tensors once a program."""
    key = (unit.file, item.name.text)
    if key in context.statics:
        return context.statics[key]
    if key in context.program.constants:
        return context.program.constants[key]
    enter(context, key, item.name.span)
    try:
        frame = Frame(unit, f"const {item.name.text}", no_parameters="a constant makes no parameters")
        with context.program.outside():
            value = context.evaluate(item, frame)
    finally:
        context.open_items.pop()
    if holds_tensor(value):
        context.program.constants[key] = value
    else:
        context.statics[key] = value
    return value


def holds_tensor(value: Value) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, ListValue | Results) and any(holds_tensor(item) for item in value.items))


def enter(context: Context, key: tuple[str, str], span: Span) -> None:
    """Opens an item; refuses recursion and calls nested too deeply. The caller pops `open_items`."""
    if key in context.open_items:
        cycle = [name for _, name in context.open_items[context.open_items.index(key) :]]
        first = cycle.index(min(cycle))  # the same words wherever the cycle is entered
        cycle = [*cycle[first:], *cycle[: first + 1]]
        raise context.reporter.error(
            "DL0109",
            f"`{cycle[0]}` is defined by itself" + (f": {' -> '.join(cycle)}" if len(cycle) < 10 else ""),
            span,
            hint="blocks and models may not recurse; repeat a block with a static `for`",
        )
    if len(context.open_items) >= MAX_CALLS:
        raise context.reporter.error("DL0311", f"calls are nested more than {MAX_CALLS} deep", span, hint="write some of the blocks as one")
    context.open_items.append(key)


def unknown_name(context: Context, name: syntax.Name, frame: Frame) -> Exception:
    text = name.text
    if text in INITIALISERS:
        return context.reporter.error(
            "DL0113", f"the initialiser `{text}` stands only after `~`", name.span, hint=f"write `param w: float[In, Out] ~ {text}`"
        )
    hint = None if context.reporter.full else did_you_mean(text, visible_names(context, frame))
    return context.reporter.error("DL0101", f"there is no `{text[:80]}`", name.span, hint=hint)


def visible_names(context: Context, frame: Frame) -> Iterator[str]:
    yield from frame.names
    yield from frame.unit.names()
    yield from context.files.library
    yield from BUILTINS
    yield from (name for name, operator in OPERATORS.items() if not operator.internal)
    yield "training"


def member_of(context: Context, imported: Imported, name: syntax.Name) -> Value:
    """`vision.ResNet18`."""
    unit = imported.unit
    found = file_name(context, unit, name.text)
    if isinstance(found, Missing):
        hint = did_you_mean(name.text, unit.names()) or f"{unit.file} defines {', '.join(sorted(unit.names())) or 'nothing'}"
        raise context.reporter.error("DL0108", f"{unit.file} has no `{name.text}`", name.span, hint=hint)
    return found


def fork(frame: Frame) -> Frame:
    """A copy whose bindings do not reach the original: for a branch that is checked but not taken."""
    yields = None if frame.yields is None else list(frame.yields)
    return replace(
        frame, names=dict(frame.names), counters=dict(frame.counters), states=dict(frame.states), own=set(frame.own), yields=yields
    )
