"""`param` and `state` statements: paths, types and initial values of persistent buffers."""

from __future__ import annotations

import math
from dataclasses import replace

from dslc.diagnostics import Span
from dslc.frontend import static, syntax
from dslc.frontend.arguments import block_arguments
from dslc.frontend.program import stream_of
from dslc.frontend.report import Refused, did_you_mean, listed
from dslc.frontend.scope import INITIALISERS, Context, Frame
from dslc.frontend.signatures import evaluate_type
from dslc.frontend.tensors import cast, coerce, emit
from dslc.frontend.values import BlockFunction, Poison, SharedFunction, Tensor, describe, is_number
from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.module import Initial, Role
from dslc.ir.recipe import AVERAGE
from dslc.ir.types import DType, TensorType

# The static arguments of each initialiser, with their defaults.
ARGUMENTS: dict[str, dict[str, float]] = {
    "zeros": {},
    "ones": {},
    "constant": {"value": 0.0},
    "normal": {"std": 1.0, "mean": 0.0},
    "truncated_normal": {"std": 1.0, "mean": 0.0},
    "uniform": {"low": 0.0, "high": 1.0},
    "xavier_uniform": {"gain": 1.0},
    "xavier_normal": {"gain": 1.0},
    "kaiming_uniform": {"gain": math.sqrt(2.0)},
    "kaiming_normal": {"gain": math.sqrt(2.0)},
    "orthogonal": {"gain": 1.0},
}


def make_parameter(context: Context, node: syntax.Param, frame: Frame) -> None:
    """`param w: T ~ init`: binds the name to the parameter's value."""
    _may_make(context, node.name, frame)
    path = _own_path(context, node.name, frame)
    type_ = _stored_type(context, node.type, frame, f"the parameter `{node.name.text}`")
    if not type_.dtype.floating:
        raise context.reporter.error(
            "DL0407",
            f"a parameter is trained, so it holds floats, not {type_.dtype.value}",
            node.type.span,
            hint="write `state` for other data",
        )
    initial = initial_of(context, node.initial, type_, path, frame)
    stored, role = (f"{AVERAGE}{path}", Role.EMA) if frame.averaged else (path, Role.PARAMETER)
    tensor = load(context, stored, type_, role, initial, node)
    frame.names[node.name.text] = cast(context, tensor, context.dtype(node.type.dtype), node.span)


def make_shared(context: Context, node: syntax.SharedBlock, frame: Frame) -> None:
    """`param cell = Block[...]`."""
    _may_make(context, node.name, frame)
    path = _own_path(context, node.name, frame)
    value = context.evaluate(node.block, frame)
    if isinstance(value, Poison):
        raise Refused
    if not isinstance(value, BlockFunction) or isinstance(value.item, syntax.Optimizer):
        raise context.reporter.error(
            "DL0305",
            f"`param {node.name.text} =` makes a block once, and this is {describe(value)}",
            node.block.span,
            hint=f"a parameter has a type: param {node.name.text}: f32[...] = 0",
        )
    if value.static is None:
        value = replace(value, static=block_arguments(context, value, [], node.block.span))
    frame.names[node.name.text] = SharedFunction(value, path)


def make_state(context: Context, node: syntax.State, frame: Frame) -> None:
    """`state s: T = 0`: binds the name to the latest value in this program."""
    if not frame.optimizer:
        _may_make(context, node.name, frame, state=True)
    path = _own_path(context, node.name, frame)
    type_ = _stored_type(context, node.type, frame, f"the state `{node.name.text}`")
    role = Role.OPTIMIZER if frame.optimizer else Role.METRIC if frame.metric else Role.STATE
    load(context, path, type_, role, initial_of(context, node.initial, type_, path, frame), node)
    frame.states[node.name.text] = path
    frame.names[node.name.text] = context.program.state(path)


def update_state(context: Context, node: syntax.Update, frame: Frame) -> None:
    """`update s = e`: the new value from here on, stored when the program ends; without training only checked."""
    text = node.name.text
    value = context.evaluate(node.value, frame)
    if text not in frame.states:
        if isinstance(frame.names.get(text), Poison):
            return
        hint = did_you_mean(text, frame.states) or "declare it with `state`"
        raise context.reporter.error("DL0409", f"`{text}` is no state of {frame.what}", node.name.span, hint=hint)
    if isinstance(value, Poison):
        return
    path = frame.states[text]
    declared = context.program.buffers[path].type
    tensor = coerce(context, value, declared, f"the state `{text}`", node.value.span)
    if tensor.type.shape != declared.shape:
        raise context.reporter.error("DL0213", f"the state `{text}` is {declared}, and this is {tensor.type}", node.value.span)
    if not frame.training and not frame.metric:
        return
    if declared.dtype.floating and not frame.optimizer:
        stopped = emit(context, "stop_gradient", (tensor,), {}, node.span, f"the state `{text}`")
        assert isinstance(stopped, Tensor)
        tensor = stopped
    context.program.current[path] = tensor
    frame.names[text] = tensor


def load(context: Context, path: str, type_: TensorType, role: Role, initial: Initial, node: syntax.Param | syntax.State) -> Tensor:
    """The buffer's value; every use of one path must declare one type."""
    known = context.program.buffers.get(path)
    if known is not None and known.type != type_:
        raise context.reporter.error(
            "DL0406",
            f"`{path}` is {known.type} in one call and {type_} in another",
            node.type.span,
            hint="a model has one set of parameters: call it with the same sizes, or make two models",
        )
    return context.program.buffer(path, type_, role, initial, context.reporter.place(node.span))


def _may_make(context: Context, name: syntax.Name, frame: Frame, state: bool = False) -> None:
    made = f"the {'state' if state else 'parameter'} `{name.text}`"
    if frame.no_parameters is not None and not (state and frame.metric):
        raise context.reporter.error(
            "DL0319",
            f"{frame.what} makes {made}, and {frame.no_parameters}",
            name.span,
            hint="call the block in a model, and the model here",
        )
    if frame.what[:1].islower():
        raise context.reporter.error(
            "DL0319",
            f"the block `{frame.what}` makes {made}, so its name begins with a capital",
            name.span,
            hint=f"call it {frame.what[:1].upper()}{frame.what[1:]}: lower-case blocks make no parameters",
        )


def _own_path(context: Context, name: syntax.Name, frame: Frame) -> str:
    if name.text in frame.own and not frame.loops:
        raise context.reporter.error("DL0102", f"`{name.text}` is made twice in {frame.what}", name.span)
    frame.own.add(name.text)
    return frame.child_path(name.text)


def _stored_type(context: Context, declared: syntax.Type, frame: Frame, what: str) -> TensorType:
    type_ = evaluate_type(context, declared, frame, what)
    if type_.dtype.half:  # 16 bits would lose small steps
        type_ = type_.with_dtype(DType.F32)
    symbolic: frozenset[str] = frozenset().union(*(dims.names(size) for size in type_.shape)) if type_.shape else frozenset()
    if symbolic and not context.checking:
        raise context.reporter.error(
            "DL0408",
            f"{what} is {type_}, and {listed(sorted(symbolic))} is only known at run time",
            declared.span,
            hint="what is stored has a fixed size; the batch cannot be part of it",
        )
    return type_


# --- initial values ------------------------------------------------------------------------------------------------------


def initial_of(context: Context, node: syntax.Drawn | syntax.Filled, type_: TensorType, path: str, frame: Frame) -> Initial:
    """How a buffer starts. `xavier_*` and `kaiming_*` become uniform or normal with their bounds computed here."""
    if isinstance(node, syntax.Filled):
        value = context.evaluate(node.value, frame)
        if isinstance(value, Poison):
            raise Refused
        if isinstance(value, bool) and type_.dtype == DType.BOOL:
            return Initial("constant", (("value", value),))
        if not is_number(value) or isinstance(value, dims.DimExpr) or type_.dtype == DType.BOOL:
            raise context.reporter.error(
                "DL0410",
                f"an initial value is a fixed number, not {describe(value)}",
                node.value.span,
                hint="random initial values stand after `~`",
            )
        assert isinstance(value, int | float)
        if type_.dtype.integer and isinstance(value, float):
            raise context.reporter.error("DL0410", f"{value:g} is no {type_.dtype.value} number", node.value.span)
        return Initial("constant", (("value", float(value) if type_.dtype.floating else value),))
    name, settings = _initialiser(context, node.initialiser, frame)
    if not type_.dtype.floating and name not in ("zeros", "ones", "constant"):
        raise context.reporter.error("DL0410", f"{name} draws floats, and this is {type_.dtype.value}", node.initialiser.span)
    return _resolved(context, name, settings, type_, stream_of(path), node.initialiser.span)


def _initialiser(context: Context, node: syntax.Expr, frame: Frame) -> tuple[str, dict[str, float]]:
    subscripts: tuple[syntax.Subscript, ...] = ()
    head = node
    if isinstance(node, syntax.Brackets):
        head, subscripts = node.target, node.subscripts
    if not isinstance(head, syntax.Name) or head.text not in INITIALISERS:
        text = head.text if isinstance(head, syntax.Name) else "this"
        hint = did_you_mean(text, INITIALISERS) or f"the initialisers are {', '.join(INITIALISERS)}"
        raise context.reporter.error("DL0410", f"`{text}` is no initialiser", node.span, hint=hint)
    declared = ARGUMENTS[head.text]
    settings, order = dict(declared), list(declared)
    given: set[str] = set()
    for position, subscript in enumerate(subscripts):
        if isinstance(subscript, syntax.Named):
            key, value_node = subscript.name.text, subscript.value
        elif isinstance(subscript, syntax.Slice | syntax.Ellipsis) or position >= len(order):
            what = f"takes {listed(order)}" if order else "has no static arguments"
            raise context.reporter.error("DL0307", f"{head.text} {what}", subscript.span)
        else:
            key, value_node = order[position], subscript
        if key not in declared:
            known = f"{head.text} has {listed(order)}" if order else f"{head.text} has no static arguments"
            hint = did_you_mean(key, order) or known
            raise context.reporter.error("DL0103", f"{head.text} has no static argument `{key}`", subscript.span, hint=hint)
        if key in given:
            raise context.reporter.error("DL0307", f"`{key}` of {head.text} is given twice", subscript.span)
        given.add(key)
        value = context.evaluate(value_node, frame)
        if isinstance(value, Poison):
            raise Refused
        converted = static.attribute(context, "float", value, f"`{key}` of {head.text}", value_node.span, optional=False)
        assert isinstance(converted, float)
        settings[key] = converted
    return head.text, settings


def _resolved(context: Context, name: str, settings: dict[str, float], type_: TensorType, stream: int, span: Span) -> Initial:
    match name:
        case "zeros" | "ones":
            one = float(name == "ones")
            return Initial("constant", (("value", one if type_.dtype.floating else int(one)),))
        case "constant":
            return Initial("constant", tuple(settings.items()))
        case "xavier_uniform" | "xavier_normal" | "kaiming_uniform" | "kaiming_normal":
            fan_in, fan_out = _fans(context, type_, name, span)
            gain = settings["gain"]
            std = gain * math.sqrt(2.0 / (fan_in + fan_out)) if name.startswith("xavier") else gain / math.sqrt(fan_in)
            if name.endswith("uniform"):
                bound = math.sqrt(3.0) * std
                return Initial("uniform", (("high", bound), ("low", -bound)), stream)
            return Initial("normal", (("mean", 0.0), ("std", std)), stream)
        case "uniform":
            if settings["low"] > settings["high"]:
                raise context.reporter.error("DL0410", f"uniform from {settings['low']:g} to {settings['high']:g} is empty", span)
        case "normal" | "truncated_normal":
            if settings["std"] < 0:
                raise context.reporter.error("DL0410", f"a standard deviation is not negative: {settings['std']:g}", span)
        case _:
            _needs_rank_two(context, type_, name, span)
    return Initial(name, tuple(sorted(settings.items())), stream)


def _needs_rank_two(context: Context, type_: TensorType, name: str, span: Span) -> None:
    if type_.rank < 2:
        raise context.reporter.error(
            "DL0410", f"{name} needs at least two dimensions, and this is {type_}", span, hint="write `= 0`, or `~ normal[0.02]`"
        )


def _fans(context: Context, type_: TensorType, name: str, span: Span) -> tuple[int, int]:
    """Inputs and outputs of one unit: `[In, Out]` for a matrix, `[Out, In / groups, k...]` for a convolution's weights."""
    _needs_rank_two(context, type_, name, span)
    sizes = [_stand_in(size) for size in type_.shape]
    if len(sizes) == 2:
        return sizes[0], sizes[1]
    window = math.prod(sizes[2:])
    return sizes[1] * window, sizes[0] * window


def _stand_in(size: Dim) -> int:
    """A number for a size that is not bound while checking; such a program is never run."""
    return size if isinstance(size, int) else 1
