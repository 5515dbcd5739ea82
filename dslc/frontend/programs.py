"""Programs from models: which sizes are bound, the inputs, and the inference graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from dslc.diagnostics import Span
from dslc.frontend import syntax
from dslc.frontend.calls import Call, call_block, model_block, model_path
from dslc.frontend.expressions import evaluate
from dslc.frontend.files import Files, Unit
from dslc.frontend.program import ProgramBuilder
from dslc.frontend.report import Refused, Reporter, did_you_mean, listed
from dslc.frontend.scope import Context, Frame
from dslc.frontend.signatures import declared_results, evaluate_type
from dslc.frontend.statements import run
from dslc.frontend.values import BlockFunction, ModelFunction, Origin, Poison, Results, Tensor, Undecided, Value, is_size
from dslc.ir import dims, prove
from dslc.ir.dims import Dim, DimExpr
from dslc.ir.module import PortKind, Program
from dslc.ir.prove import Relation
from dslc.ir.types import DType

MAX_FACTS = 64

LARGEST_BATCH = 1 << 16  # of a recipe whose file declares no bound: memory is taken for the batch at hand, not for this
FAMILIES = ("norm", "softmax", "loss")
PRECISIONS = ("bf16", "f16", "f32", "f64")


@dataclass(slots=True)
class Request:
    """What the caller fixes: sizes by name, a precision, and whether sizes may stay symbols (`dslc check`)."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    double: bool = False
    checking: bool = False
    steps: list[int] = field(default_factory=lambda: [0])


def new_context(files: Files, reporter: Reporter, unit: Unit, name: str, request: Request) -> Context:
    """A fresh program, with `float` as the root file's `precision` says."""
    floating, families = _precision(reporter, unit)
    if request.double:
        floating = DType.F64
    context = Context(reporter, files, ProgramBuilder(name), floating, families if floating.half else frozenset(), dict(request.sizes))
    context.checking, context.double, context.steps = request.checking, request.double, request.steps
    context.declared = frozenset(name for name, dim in unit.dims.items() if dim.size is not None)
    context.evaluate = partial(evaluate, context)
    context.run = partial(run, context)
    return context


def sibling(context: Context, name: str) -> Context:
    """Another program of the same file, with the same sizes."""
    other = replace(context, program=ProgramBuilder(name), sizes=dict(context.sizes), facts=list(context.facts), open_items=[])
    other.evaluate = partial(evaluate, other)
    other.run = partial(run, other)
    return other


def _precision(reporter: Reporter, unit: Unit) -> tuple[DType, frozenset[str]]:
    """What `float` means, and the operator families that stay in f32 where that has 16 bits."""
    found, families = DType.F32, set()
    for item in unit.tree.items:
        if not isinstance(item, syntax.Precision):
            continue
        if item.dtype.text in PRECISIONS:
            found = DType(item.dtype.text)
        else:
            reporter.error("DL0111", f"`{item.dtype.text}` is no precision", item.dtype.span, hint=f"write one of {listed(PRECISIONS)}")
        for family in item.families:
            if family.name.text not in FAMILIES:
                hint = did_you_mean(family.name.text, FAMILIES) or f"the families are {listed(FAMILIES)}"
                reporter.error("DL0103", f"`{family.name.text}` is no operator family", family.name.span, hint=hint)
            own = family.value.text if isinstance(family.value, syntax.Name) else ""
            if own == "f32" and found.half:
                families.add(family.name.text)
            elif own != found.value:
                hint = "under `precision bf16` or `precision f16` a family may be f32"
                reporter.error("DL0111", f"`{own}` is no precision for an operator family here", family.value.span, hint=hint)
    return found, frozenset(families)


# --- sizes ---------------------------------------------------------------------------------------------------------------


def bound_of(context: Context, unit: Unit, name: str) -> int | None:
    """The declared upper bound of a file-level dimension."""
    dim = unit.dims.get(name)
    if dim is None or dim.bound is None:
        return None
    value = context.evaluate(dim.bound, Frame(unit, f"dim {name}"))
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**31:
        return value
    if not isinstance(value, Poison):
        context.reporter.error("DL0217", f"the bound of {name} is a whole number of at least 1", dim.bound.span)
    return None


@dataclass(slots=True)
class Sizes:
    """The sizes that a program's inputs mention: values, and the batch that stays symbolic with its bound."""

    values: dict[str, Dim] = field(default_factory=dict)
    batch: str | None = None
    bound: int | None = None


def bind_sizes(context: Context, unit: Unit, types: Sequence[syntax.Type], known: Mapping[str, Value], batched: bool) -> Sizes:
    """Binds each name in the inputs' types; `batched`: a leading name stays symbolic without a declaration, as in a recipe."""
    sizes = Sizes()
    leading = {t.dims[0].text for t in types if t.dims and isinstance(t.dims[0], syntax.Name)}
    for node in _names_in(types):
        text = node.text
        if text in sizes.values or text in known or isinstance(unit.items.get(text), syntax.Const):
            continue
        unit.used.add(text)
        bound = bound_of(context, unit, text)
        dim = unit.dims.get(text)
        if text in context.sizes:
            sizes.values[text] = context.sizes[text]
        elif context.checking:
            sizes.values[text] = dims.name(text)
            if bound is not None:
                context.facts.append(Relation(dims.name(text), "<=", bound))
        elif bound == 1 and not batched:
            sizes.values[text] = 1  # nothing is left open
        elif text in leading and sizes.batch is None and (bound is not None or (batched and (dim is None or dim.size is None))):
            sizes.values[text], sizes.batch, sizes.bound = dims.name(text), text, bound or LARGEST_BATCH
        elif dim is not None and dim.size is not None:
            sizes.values[text] = _declared_size(context, unit, dim)
        elif bound is not None:
            sizes.values[text] = bound
        else:
            hint = f"declare `dim {text} <= 256` for a run-time batch, `dim {text} = 128` for a fixed size, or pass --dim {text}=128"
            context.reporter.error("DL0513", f"the size {text} is not bound", node.span, hint=hint)
            sizes.values[text] = dims.name(text)
    context.sizes |= sizes.values
    context.bound |= sizes.values.keys()
    if sizes.batch is not None and sizes.bound is not None:
        context.facts.append(Relation(dims.name(sizes.batch), "<=", sizes.bound))
    return sizes


def _declared_size(context: Context, unit: Unit, dim: syntax.Dim) -> Dim:
    assert dim.size is not None
    value = context.evaluate(dim.size, Frame(unit, f"dim {dim.name.text}"))
    if isinstance(value, Poison):
        raise Refused
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 2**31:
        raise context.reporter.error("DL0217", f"the size of {dim.name.text} is a whole number from 1 to 2^31 - 1", dim.size.span)
    return value


def _names_in(types: Sequence[syntax.Type]) -> Iterator[syntax.Name]:
    for declared in types:
        for entry in declared.dims:
            if not isinstance(entry, syntax.RowDims):
                yield from (node for node in syntax.walk(entry) if isinstance(node, syntax.Name))


def assume_given(context: Context, signature: syntax.Signature, frame: Frame) -> None:
    """While checking, a program's own `given` clauses are facts; equations among them are solved in the sizes."""
    facts: list[Relation] = []
    for fact in signature.given:
        for part in _conjuncts(fact):
            value = context.evaluate(part, frame)
            if isinstance(value, Undecided):
                facts.append(value.relation)
            elif value is False:
                context.reporter.error("DL0214", "this can never hold", part.span)
    if len(facts) > MAX_FACTS:
        span = signature.given[-1].span
        raise context.reporter.error("DL0311", f"more than {MAX_FACTS} facts", span, hint="check the others with `assert` in the body")
    solution = prove.solve(facts)
    for text, value in list(frame.names.items()):
        if is_size(value):
            assert isinstance(value, int | DimExpr)
            frame.names[text] = dims.substitute(value, solution.mapping)
    context.sizes = {n: dims.substitute(v, solution.mapping) for n, v in context.sizes.items()}
    if not all(prove.replaceable(f, solution.mapping) for f in (*context.facts, *facts)):
        raise context.reporter.error("DL0217", "these facts make a size too long an expression", signature.given[0].span)
    remaining = [f.substituted(solution.mapping) for f in (*context.facts, *facts)]
    remaining += [Relation(value, ">=", 1) for value in solution.mapping.values()]
    context.facts = [f for f in remaining if f.left != f.right]


def _conjuncts(node: syntax.Expr) -> list[syntax.Expr]:
    if isinstance(node, syntax.Binary) and node.op == "and":
        return _conjuncts(node.left) + _conjuncts(node.right)
    return [node]


# --- models --------------------------------------------------------------------------------------------------------------


def build_model(context: Context, model: ModelFunction) -> Program | None:
    """The inference program of a model; None where it has errors."""
    block = model_block(context, model)
    arguments, sizes, frame = program_inputs(context, block)
    if arguments is None:
        return None
    signature = block.item.signature
    if context.checking:
        assume_given(context, signature, frame)
        arguments = make_inputs(context, signature, frame)
        if arguments is None:
            return None
    span = signature.name.span
    call_ = Call(tuple(arguments), tuple(i.span for i in signature.inputs), span)
    outer = Frame(model.unit, model.name)
    value = call_block(context, block, call_, model_path(model), False, outer, model=True)
    return finish_model(context, signature, value, sizes)


def program_inputs(context: Context, block: BlockFunction) -> tuple[list[Tensor] | None, Sizes, Frame]:
    signature = block.item.signature
    frame = Frame(block.unit, block.name, names=dict(block.static or {}))
    for declared in signature.inputs:
        for entry in declared.type.dims:
            if isinstance(entry, syntax.RowDims):
                context.reporter.error(
                    "DL0216",
                    f"`*{entry.name.text}` leaves open how many axes the input has",
                    entry.span,
                    hint="a model's inputs have fixed axes",
                )
                return None, Sizes(), frame
    sizes = bind_sizes(context, block.unit, [i.type for i in signature.inputs], frame.names, batched=False)
    frame.names |= sizes.values
    if context.checking:
        return [], sizes, frame
    return make_inputs(context, signature, frame), sizes, frame


def make_inputs(context: Context, signature: syntax.Signature, frame: Frame) -> list[Tensor] | None:
    found: list[Tensor] = []
    for declared in signature.inputs:
        try:
            type_ = evaluate_type(context, declared.type, frame, f"the input `{declared.name.text}`")
        except Refused:
            return None
        origin = Origin(f"the input `{declared.name.text}`", declared.span)
        found.append(context.program.input(PortKind.INPUT, declared.name.text, type_, origin))
    return found


def finish_model(context: Context, signature: syntax.Signature, value: Value, sizes: Sizes) -> Program | None:
    types, names = declared_results(signature)
    values = value.items if isinstance(value, Results) else (value,)
    if any(not isinstance(v, Tensor) for v in values):
        return None
    names = names or (("output",) if len(types) == 1 else tuple(f"output{i}" for i in range(len(types))))
    for text, item in zip(names, values, strict=True):
        assert isinstance(item, Tensor)
        context.program.output(PortKind.RESULT, text, item)
    return context.program.finish(sizes.batch, sizes.bound)


def find_model(context: Context, unit: Unit, path: Sequence[str], span: Span | None) -> ModelFunction:
    """A model by its dotted name."""
    current = unit
    for text in path[:-1]:
        imported = current.imports.get(text)
        if imported is None:
            raise context.reporter.error("DL0101", f"there is no import `{text}`", span, hint=did_you_mean(text, current.imports))
        current.used.add(text)
        current = imported
    name = path[-1]
    item = current.items.get(name)
    current.used.add(name)
    if isinstance(item, syntax.Model | syntax.Instance):
        return ModelFunction(current, item)
    if name in current.tree.broken:
        raise Refused
    models = [n for n, i in current.items.items() if isinstance(i, syntax.Model | syntax.Instance)]
    if isinstance(item, syntax.Block):
        why, hint = f"`{name}` is a block, not a model", f"make a model of it: model My{name} = {name}[...]"
    else:
        near = did_you_mean(name, models) or (f"the models are {listed(models)}" if models else "the file has no models")
        why, hint = f"there is no model `{'.'.join(path)}`", near
    raise context.reporter.error("DL0503", why, span, hint=hint)
