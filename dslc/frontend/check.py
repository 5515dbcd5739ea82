"""`check`: everything wrong with a file at once, with its sizes left open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from dslc.diagnostics import Diagnostic, Note
from dslc.frontend import syntax
from dslc.frontend.calls import Call, call_block
from dslc.frontend.elaborate import Loaded, load
from dslc.frontend.files import Unit
from dslc.frontend.lints import lint
from dslc.frontend.names import check_names
from dslc.frontend.phases import Shared, parts_of
from dslc.frontend.programs import Request, assume_given, bound_of, build_model, find_model, new_context
from dslc.frontend.recipes import build_recipe
from dslc.frontend.report import Abandoned, NeedsSize, Refused, Reporter, did_you_mean, listed
from dslc.frontend.scope import Context, Frame, constant_value
from dslc.frontend.signatures import evaluate_type
from dslc.frontend.values import POISON, BlockFunction, ModelFunction, Poison, Tensor, Value, is_size
from dslc.ir import dims
from dslc.ir.types import DType

EXPORT_OPTIONS = ("target", "weights", "precision")
# What a block that nothing calls can be told without knowing its static arguments.
CERTAIN = frozenset(f"DL0{number}" for number in (101, 102, 103, 108, 109, 111, 113, 202, 307, 314, 316, 317, 319, 330, 331, 409, 410))


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What is wrong with a file, in the order of the source, and what is in it. `sources` renders the diagnostics."""

    diagnostics: tuple[Diagnostic, ...]
    sources: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.diagnostics if d.severity == "error")


def check(
    text: str,
    file: str = "<string>",
    *,
    folder: Path | None = None,
    dims: Mapping[str, int] | None = None,
    precision: str | None = None,
) -> CheckResult:
    """All errors and lints of a file; sizes that `dims` does not bind stay symbols."""
    loaded = load(text, file, folder)
    request = Request(dict(dims or {}), precision == "f64", checking=True)
    try:
        _check_items(loaded, request)
    except RecursionError:
        loaded.reporter.error("DL0311", "the file is nested too deeply", None)
    except (Refused, NeedsSize, Abandoned):
        pass  # reported, or a size that a constant leaves open
    context = new_context(loaded.files, Reporter(), loaded.unit, "lint", request)
    context.reporter = loaded.reporter
    check_names(context, loaded.unit)
    if not loaded.reporter.failed:
        lint(context, loaded.unit)
    found = sorted(loaded.reporter.diagnostics, key=lambda d: _order(d, file))
    return CheckResult(tuple(_unknown_once(found)), loaded.files.sources, tuple(loaded.models), tuple(loaded.recipes))


def _unknown_once(found: list[Diagnostic]) -> list[Diagnostic]:
    """An unknown name once, at its first use: it may be the definition that is misspelt."""
    first: dict[str, Diagnostic] = {}
    others: dict[str, list[int]] = {}
    kept: list[Diagnostic] = []
    for d in found:
        if d.code != "DL0101" or d.span is None:
            kept.append(d)
        elif d.message in first:
            others.setdefault(d.message, []).append(d.span.line)
        else:
            first[d.message] = d
            kept.append(d)
    lines = {m: list(dict.fromkeys(map(str, n))) for m, n in others.items()}
    return [
        replace(d, notes=(*d.notes, Note(f"also in line{'s' * (len(lines[d.message]) > 1)} {listed(lines[d.message], 5)}")))
        if d.code == "DL0101" and d.message in lines
        else d
        for d in kept
    ]


def _order(diagnostic: Diagnostic, file: str) -> tuple[int, str, int, int]:
    span = diagnostic.span
    return (0, "", 0, 0) if span is None else (1 if span.file == file else 2, span.file, span.line, span.column)


def _check_items(loaded: Loaded, request: Request) -> None:
    unit = loaded.unit
    context = new_context(loaded.files, loaded.reporter, unit, "check", request)
    for dim in unit.dims.values():
        _guarded(partial(_check_dim, context, unit, dim))
    for item in unit.tree.items:
        match item:
            case syntax.Const():
                _guarded(partial(constant_value, context, unit, item))
            case syntax.Model() | syntax.Instance():
                _with_sizes(loaded, request, partial(build_model, model=ModelFunction(unit, item)))
            case syntax.Train():
                shared = Shared()
                for part in parts_of(item):
                    _with_sizes(loaded, request, partial(build_recipe, unit=unit, train=item, part=part, shared=shared))
            case syntax.Export():
                _guarded(partial(_check_export, context, unit, item))
            case syntax.Block() | syntax.Optimizer():
                _check_block(loaded, request, item)
            case _:
                pass


def _guarded(action: Callable[[], object]) -> None:
    with suppress(Refused):
        action()


def _check_dim(context: Context, unit: Unit, dim: syntax.Dim) -> None:
    bound_of(context, unit, dim.name.text)
    if dim.size is not None:
        value = context.evaluate(dim.size, Frame(unit, f"dim {dim.name.text}"))
        if isinstance(value, Poison):
            return
        if not is_size(value) or not isinstance(value, int) or not 1 <= value < 2**31:
            context.reporter.error("DL0217", f"the size of {dim.name.text} is a whole number from 1 to 2^31 - 1", dim.size.span)


def _with_sizes(loaded: Loaded, request: Request, action: Callable[[Context], object]) -> None:
    """Runs a check with symbolic sizes; where a static decision needs a size, again with its declared one."""
    for _ in range(4):
        state = loaded.reporter.state()
        context = new_context(loaded.files, loaded.reporter, loaded.unit, "check", request)
        try:
            action(context)
            return
        except Refused:
            return
        except NeedsSize as undecided:
            sizes = _stand_ins(context, loaded.unit, undecided)
            if not sizes:
                return
            loaded.reporter.restore(state)
            request = replace(request, sizes={**request.sizes, **sizes})


def _stand_ins(context: Context, unit: Unit, undecided: NeedsSize) -> dict[str, int]:
    """Declared sizes or bounds of the names that a decision needs; a small number for a name without either."""
    found: dict[str, int] = {}
    for name in undecided.names:
        text = name.split("'")[0]
        dim = unit.dims.get(text)
        declared = None if dim is None else dim.size or dim.bound
        value = 4 if declared is None else context.evaluate(declared, Frame(unit, f"dim {text}"))
        if isinstance(value, int) and value >= 1:
            found[text] = value
    return found


def _check_export(context: Context, unit: Unit, item: syntax.Export) -> None:
    model = find_model(context, unit, [p.text for p in item.model.parts], item.model.span)
    for option in item.options:
        name = option.name.text
        if name not in EXPORT_OPTIONS and name not in unit.dims and name not in model.unit.dims and not _mentions(model, name):
            hint = did_you_mean(name, (*EXPORT_OPTIONS, *unit.dims)) or f"the options are {listed(EXPORT_OPTIONS)} and sizes such as N = 1"
            context.reporter.error("DL0103", f"`export` has no option `{name}`", option.name.span, hint=hint)
            continue
        value = option.value
        if name in EXPORT_OPTIONS and not isinstance(value, syntax.Str):
            context.reporter.error("DL0305", f"`{name}` is a string", value.span, hint=f'write {name} = "..."')
        elif name == "target" and isinstance(value, syntax.Str) and value.value not in ("cpu", "cuda"):
            context.reporter.error("DL0305", f'"{value.value[:40]}" is no target', value.span, hint='write target = "cpu"')
        elif name == "weights" and isinstance(value, syntax.Str) and value.value != "ema":
            context.reporter.error("DL0305", f'"{value.value[:40]}" is no kind of weights', value.span, hint='write weights = "ema"')


def _mentions(model: ModelFunction, name: str) -> bool:
    if isinstance(model.item, syntax.Instance):
        return True  # its block's signature names the sizes
    return any(
        isinstance(n, syntax.Name) and n.text == name for i in model.item.signature.inputs for e in i.type.dims for n in syntax.walk(e)
    )


# --- blocks that nothing calls ---------------------------------------------------------------------------------------------


def _check_block(loaded: Loaded, request: Request, item: syntax.Block | syntax.Optimizer) -> None:
    """Elaborates a block by itself, with symbols for its sizes; only what is certain to be wrong is reported."""
    scratch = Reporter(frozenset(loaded.reporter.library))
    context = new_context(loaded.files, scratch, loaded.unit, "check", request)
    complete = all(p.default is not None for p in item.signature.static)
    with suppress(Refused, NeedsSize, Abandoned):
        _run_alone(context, loaded.unit, item)
    for found in scratch.diagnostics:
        if found.severity == "error" and (complete or found.code in CERTAIN):
            loaded.reporter.error(found.code, found.message, found.span, notes=found.notes, hint=found.hint)


def _run_alone(context: Context, unit: Unit, item: syntax.Block | syntax.Optimizer) -> None:
    signature = item.signature
    frame = Frame(unit, signature.name.text, names={})
    for parameter in signature.static:
        frame.names[parameter.name.text] = _static_stand_in(context, item, parameter, frame)
    statics: dict[str, Value] = dict(frame.names)
    for declared in signature.inputs:
        for entry in declared.type.dims:
            if isinstance(entry, syntax.RowDims):
                frame.rows.setdefault(entry.name.text, (dims.name(entry.name.text),))
                continue
            for node in syntax.walk(entry):
                if (
                    isinstance(node, syntax.Name)
                    and node.text not in frame.names
                    and not isinstance(unit.items.get(node.text), syntax.Const)
                ):
                    frame.names[node.text] = dims.name(node.text)
    assume_given(context, signature, frame)
    arguments: list[Tensor] = []
    for declared in signature.inputs:
        type_ = evaluate_type(context, declared.type, frame, f"the argument `{declared.name.text}`")
        arguments.append(Tensor(context.program.builder.input(type_.dtype, *type_.shape)))
    call_ = Call(tuple(arguments), tuple(i.span for i in signature.inputs), signature.name.span)
    outer = Frame(unit, signature.name.text, training=True)
    function = BlockFunction(unit, item, {n: frame.names[n] for n in statics})
    if isinstance(item, syntax.Optimizer):
        return
    call_block(context, function, call_, signature.name.text, True, outer, model=signature.name.text[:1].isupper())


def _static_stand_in(context: Context, item: syntax.Block | syntax.Optimizer, parameter: syntax.StaticParam, frame: Frame) -> Value:
    """A symbol for what may be a size; what must be a list or a block stays open."""
    if parameter.default is not None:
        return context.evaluate(parameter.default, frame)
    kind = parameter.kind.text if parameter.kind is not None else ""
    match kind:
        case "bool":
            return False
        case "float":
            return 1.0
        case "dtype":
            return DType.F32
        case "str":
            return ""
        case "dims" | "ints" | "axes":
            return POISON
        case "" if any(isinstance(n, syntax.Brackets) and n.target == parameter.name for n in syntax.walk(item)):
            return POISON
        case _:
            return dims.name(parameter.name.text)
