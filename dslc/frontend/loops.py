"""`scan`: the loop at run time. Its body is elaborated once, into a graph of its own; what it reads from around it becomes explicit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from dslc.diagnostics import Note, Span
from dslc.frontend import static, syntax
from dslc.frontend.program import Scope
from dslc.frontend.report import Refused, did_you_mean, listed, plural
from dslc.frontend.scope import MAX_OPERATIONS, Context, Frame, Missing, file_name, language_name, resolve, spend, too_many_operators
from dslc.frontend.signatures import check_size, check_total, equal, mismatch_hint
from dslc.frontend.source import expression_text
from dslc.frontend.statements import Returned, bind, parts_of
from dslc.frontend.statistics import mean_of
from dslc.frontend.tensors import cast, emit, name_origin, note_of, number
from dslc.frontend.values import (
    Builtin,
    ListValue,
    Origin,
    Poison,
    RangeValue,
    Results,
    Tensor,
    Value,
    describe,
    is_number,
    is_size,
)
from dslc.ir import dims
from dslc.ir.dims import Dim, DimExpr
from dslc.ir.graph import Graph
from dslc.ir.graph import Value as GraphValue
from dslc.ir.operator import TypeFailure
from dslc.ir.scan import build_scan, free_values, with_axis, without_axis
from dslc.ir.types import DType

SETTINGS = {"axis": "axis", "reverse": "bool", "recompute": "bool"}


@dataclass(frozen=True, slots=True)
class _Settings:
    axis: int
    reverse: bool
    recompute: bool


# --- what a scan walks over -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sequence:
    """A tensor, walked along `axis`."""

    tensor: Tensor
    axis: int
    span: Span

    @property
    def length(self) -> Dim:
        return self.tensor.type.shape[self.axis]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """`start..stop`, or the numbers of `enumerate`, which have no end of their own."""

    start: Dim
    length: Dim | None
    span: Span


@dataclass(frozen=True, slots=True)
class _Together:
    """`zip(a, b)`, `enumerate(a)`."""

    parts: tuple[_Source, ...]


_Source = _Sequence | _Numbers | _Together


def _source(context: Context, node: syntax.Expr, settings: _Settings, frame: Frame) -> _Source:
    function = _list_function(context, node, frame)
    if function is not None:
        assert isinstance(node, syntax.Apply)
        if not node.args or (function == "enumerate" and len(node.args) != 1):
            wanted = "one sequence" if function == "enumerate" else "sequences"
            raise context.reporter.error("DL0301", f"{function} takes {wanted}, and here are {len(node.args)}", node.span)
        walked = tuple(_source(context, a, settings, frame) for a in node.args)
        return _Together((_Numbers(0, None, node.span), *walked) if function == "enumerate" else walked)
    value = context.evaluate(node, frame)
    match value:
        case Poison():
            raise Refused
        case RangeValue():
            length = value.stop - value.start
            if isinstance(length, int) and length < 1:
                raise context.reporter.error("DL0332", f"the range {value.start}..{value.stop} is empty", node.span)
            return _Numbers(value.start, length, node.span)
        case Tensor():
            rank = value.type.rank
            if not -rank <= settings.axis < rank:
                what = f"a scan along axis {settings.axis} cannot walk over {value.type}"
                raise context.reporter.error("DL0332", what, node.span, notes=[note_of(context, value)])
            return _Sequence(value, settings.axis % rank, node.span)
        case ListValue() | Results():
            hint = "a static `for` walks over a list; zip(a, b) walks over two tensors at once"
        case _ if is_size(value):
            hint = f"write 0..{expression_text(node)} for a range"
        case _:
            hint = "write 0..n for a range"
    raise context.reporter.error("DL0332", f"a scan walks over tensors and ranges, not over {describe(value)}", node.span, hint=hint)


def _list_function(context: Context, node: syntax.Expr, frame: Frame) -> str | None:
    """`zip` or `enumerate`, where the node calls one of them: of tensors they have a meaning here alone."""
    if not isinstance(node, syntax.Apply) or not isinstance(node.callee, syntax.Name) or node.callee.text not in ("zip", "enumerate"):
        return None
    function = resolve(context, node.callee, frame)
    return function.name if isinstance(function, Builtin) else None


def _leaves(source: _Source) -> Iterator[_Sequence | _Numbers]:
    if isinstance(source, _Together):
        for part in source.parts:
            yield from _leaves(part)
    else:
        yield source


def _length(context: Context, node: syntax.Scan, source: _Source, frame: Frame) -> tuple[Dim, str | None]:
    """How often the body runs, and the name that `over` gives to it."""
    known = [(leaf.length, leaf.span) for leaf in _leaves(source) if leaf.length is not None]
    named: str | None = None
    if node.extent is not None and known and _is_new(context, node.extent, frame):
        assert isinstance(node.extent, syntax.Name)
        named = node.extent.text
    elif node.extent is not None:
        value = context.evaluate(node.extent, frame)
        if isinstance(value, Poison):
            raise Refused
        if not is_size(value):
            raise context.reporter.error("DL0305", f"what a scan goes over is a size, not {describe(value)}", node.extent.span)
        assert isinstance(value, int | DimExpr)
        known.append((value, node.extent.span))
    if not known:
        raise context.reporter.error("DL0332", "nothing tells how long this scan is", node.source.span, hint="write `over T` behind it")
    length, first = known[0]
    for other, span in known[1:]:
        if not equal(context, length, other):
            note = Note(f"this has {_elements(length)}", first)
            hint = mismatch_hint(context, length, other) or "what is walked together has one length"
            raise context.reporter.error("DL0333", f"a scan over {_elements(length)} and {_elements(other)}", span, notes=[note], hint=hint)
    check_size(context, length, node.source.span, str(length), "the number of iterations")
    if isinstance(length, DimExpr) and not context.checking:
        raise context.reporter.error(
            "DL0303",
            f"a scan runs {length} times, and {listed(sorted(dims.names(length)))} is only known at run time",
            node.source.span,
            hint="bind the size; over the examples of a batch, operators work on all at once",
        )
    return length, named


def _elements(length: Dim) -> str:
    return plural(length, "element") if isinstance(length, int) else f"{length} elements"


def _is_new(context: Context, node: syntax.Expr, frame: Frame) -> bool:
    """Whether `over` gives the length a name: one that means nothing yet."""
    if not isinstance(node, syntax.Name) or node.text in frame.names or node.text in frame.rows:
        return False
    return isinstance(file_name(context, frame.unit, node.text), Missing) and isinstance(language_name(context, node, frame), Missing)


def _element(context: Context, source: _Source, slices: Iterator[Tensor], scope: Scope) -> Value:
    """What an iteration gets of the source."""
    match source:
        case _Together():
            return Results(tuple(_element(context, part, slices, scope) for part in source.parts))
        case _Sequence():
            return next(slices)
        case _Numbers():
            assert scope.index is not None
            if source.start == 0:
                return scope.index
            start = number(context, source.start, DType.I64, source.span)
            return emit(context, "add", (scope.index, start), {}, source.span, "the number of the iteration")


# --- lists of tensors as carries, yields and results ------------------------------------------------------------------------


def _flat(value: Value) -> list[Value]:
    """The tensors and numbers of a value: a list carries all that is in it."""
    if isinstance(value, ListValue | Results):
        return [leaf for item in value.items for leaf in _flat(item)]
    return [value]


def _rebuilt(value: Value, leaves: Iterator[Tensor]) -> Value:
    """A value of the same form with other leaves."""
    if isinstance(value, ListValue):
        return ListValue(tuple(_rebuilt(item, leaves) for item in value.items))
    if isinstance(value, Results):
        return Results(tuple(_rebuilt(item, leaves) for item in value.items), value.names)
    return next(leaves)


def _tensor(context: Context, value: Value, what: str, span: Span) -> Tensor:
    """A tensor, or a number as one."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, bool):
        return number(context, value, DType.BOOL, span)
    if is_number(value):
        return number(context, value, context.floating if isinstance(value, float) else DType.I64, span)
    if isinstance(value, Poison):
        raise Refused
    raise context.reporter.error("DL0305", f"{what} is a tensor, not {describe(value)}", span)


# --- the scan ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Carry:
    """A carried name: its first value and its leaves before an iteration."""

    node: syntax.Named
    first: Value
    initial: tuple[Tensor, ...]
    before: tuple[Tensor, ...]

    @property
    def text(self) -> str:
        return self.node.name.text


def evaluate_scan(context: Context, node: syntax.Scan, frame: Frame) -> Value:
    """The yields, stacked, then what `return` names as it is after the last iteration."""
    settings = _settings(context, node, frame)
    source = _source(context, node.source, settings, frame)
    length, named = _length(context, node, source, frame)
    sequences = [leaf for leaf in _leaves(source) if isinstance(leaf, _Sequence)]
    _check_names(context, node)
    firsts = [(c, context.evaluate(c.value, frame)) for c in node.carries]
    initial = [[_tensor(context, leaf, f"the carry `{c.name.text}`", c.value.span) for leaf in _flat(v)] for c, v in firsts]
    spend(context, 20, node.span)
    watched = set(context.program.made or ())
    with context.program.loop(length) as scope:
        slices = [_input(context, scope, s.tensor, s.axis) for s in sequences]
        carries = [
            _Carry(c, value, tuple(leaves), tuple(_input(context, scope, leaf) for leaf in leaves))
            for (c, value), leaves in zip(firsts, initial, strict=True)
        ]
        inner = replace(frame, names=dict(frame.names), states=dict(frame.states), yields=[])
        for text, path in inner.states.items():
            inner.names[text] = context.program.state(path)
        if named is not None:
            inner.names[named] = length
        element = _element(context, source, iter(slices), scope)
        for target, part in zip(node.targets, parts_of(context, element, len(node.targets), node.source.span), strict=True):
            bind(context, inner, target, part)
        for carry in carries:
            bind(context, inner, carry.node.name, _rebuilt(carry.first, iter(carry.before)))
        returned = context.run(node.body, inner)
        assert scope.index is not None
        given = (scope.index, *slices, *(t for c in carries for t in c.before), *(before for before, _ in scope.states.values()))
        body = _Body(context, node, scope, settings, {t.value for t in given})
        body.close(carries, inner, returned)
        body.watch(watched)
    value = body.emit(sequences, slices, length)
    for text, path in frame.states.items():
        if path in body.states:
            frame.names[text] = context.program.current[path]
    return value


def _settings(context: Context, node: syntax.Scan, frame: Frame) -> _Settings:
    found: dict[str, object] = {}
    for option in node.options:
        text = option.name.text
        if text not in SETTINGS:
            hint = did_you_mean(text, SETTINGS) or f"its settings are {listed(SETTINGS)}"
            raise context.reporter.error("DL0103", f"`scan` has no setting `{text}`", option.name.span, hint=hint)
        if text in found:
            raise context.reporter.error("DL0307", f"`{text}` of scan is given twice", option.span)
        value = context.evaluate(option.value, frame)
        if isinstance(value, Poison):
            raise Refused
        found[text] = static.attribute(context, SETTINGS[text], value, f"`{text}` of scan", option.value.span, optional=False)
    axis = found.get("axis", 0)
    assert isinstance(axis, int)
    return _Settings(axis, bool(found.get("reverse")), bool(found.get("recompute")))


def _check_names(context: Context, node: syntax.Scan) -> None:
    seen: dict[str, syntax.Name] = {}
    for name in (*node.targets, *(c.name for c in node.carries)):
        if name.text in seen:
            note = Note("the first is here", seen[name.text].span)
            raise context.reporter.error("DL0102", f"`{name.text}` stands twice in this scan", name.span, notes=[note])
        seen[name.text] = name


def _input(context: Context, scope: Scope, outside: Tensor, axis: int | None = None) -> Tensor:
    """The value of the body that stands for one around it, or for its element along an axis."""
    type_ = outside.type if axis is None else without_axis(outside.type, axis)
    inside = Tensor(scope.builder.value(type_))
    origin = context.program.origins.get(outside.value.id)
    if origin is not None:
        name_origin(context, inside, origin if axis is None else Origin(f"an element of {origin.what}", origin.span))
    return inside


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor that the scan gives is found: among its carries or its stacked yields."""

    stacked: bool
    number: int


@dataclass(slots=True)
class _Body:
    """What the body of a scan takes and gives, once all of its statements are in its graph."""

    context: Context
    node: syntax.Scan
    scope: Scope
    settings: _Settings
    given: set[GraphValue]  # what an iteration is given: its index, elements and carries
    before: list[Tensor] = field(default_factory=list)  # carries: inputs of the body,
    after: list[Tensor] = field(default_factory=list)  # its results,
    initial: list[Tensor | None] = field(default_factory=list)  # and their values before the loop; None: nothing reads it
    yields: list[tuple[Tensor, int]] = field(default_factory=list)  # with the axis along which each is stacked
    carried: dict[GraphValue, int] = field(default_factory=dict)  # the carry that a value becomes, converted or not
    states: dict[str, int] = field(default_factory=dict)  # the carry of each state that the body updates
    read: dict[GraphValue, GraphValue] = field(default_factory=dict)  # states that it reads alone: in the body, around it
    results: list[tuple[Value, list[_Place | Tensor]]] = field(default_factory=list)
    statistics: dict[str, slice] = field(default_factory=dict)  # the yields of those of a block that is called in the body

    def close(self, carries: Sequence[_Carry], frame: Frame, returned: Returned | None) -> None:
        assert frame.yields is not None
        if not frame.yields and returned is None:
            raise self.context.reporter.error(
                "DL0331",
                "this scan gives nothing",
                self.node.span,
                hint="`yield y` stacks a value of each iteration, `return h` gives a carry after the last",
            )
        for carry in carries:
            self._close_carry(carry, frame.names[carry.text])
        for path, (before, outside) in self.scope.states.items():
            after = self.scope.current[path]
            if after is before:
                self.read[before.value] = outside.value
            else:
                self.states[path] = self._carry(before, after, outside)
        for value, span in frame.yields:
            self._result(value, [self._yield(leaf, span) for leaf in _flat(value)])
        for value, span in returned or ():
            self._result(value, [self._return(leaf, span) for leaf in _flat(value)])

    def watch(self, known: set[str]) -> None:
        """Yields the statistics of blocks but for those around the body: theirs are means over the iterations."""
        for path, numbers in (self.context.program.made or {}).items():
            if path not in known:
                self.statistics[path] = slice(len(self.yields), len(self.yields) + len(numbers))
                self.yields += [(number, 0) for number in numbers]

    def _carry(self, before: Tensor, after: Tensor, initial: Tensor | None) -> int:
        number = len(self.after)
        self.before.append(before)
        self.after.append(after)
        self.initial.append(initial)
        self.carried.setdefault(after.value, number)
        return number

    def _close_carry(self, carry: _Carry, value: Value) -> None:
        """The value of a carry for the next iteration, converted to its type."""
        leaves, span = _flat(value), carry.node.span
        if any(isinstance(leaf, Poison) for leaf in leaves):
            raise Refused
        if _form(value) != _form(carry.first):
            what = f"the carry `{carry.text}` is {describe(carry.first)} before and {describe(value)} after an iteration"
            raise self.context.reporter.error("DL0334", what, span)
        for before, initial, leaf in zip(carry.before, carry.initial, leaves, strict=True):
            number = self._carry(before, self._converted(carry, before, leaf), initial)
            if isinstance(leaf, Tensor):
                self.carried.setdefault(leaf.value, number)

    def _converted(self, carry: _Carry, before: Tensor, leaf: Value) -> Tensor:
        context, span, wanted = self.context, carry.node.span, before.type
        if isinstance(leaf, float) and wanted.dtype.integer:
            hint = f"start it with a float: {carry.text} = 0.0"
            raise context.reporter.error(
                "DL0334", f"the carry `{carry.text}` is {wanted} before and {leaf:g} after an iteration", span, hint=hint
            )
        tensor = leaf if isinstance(leaf, Tensor) else number(context, leaf, wanted.dtype, span)
        actual = tensor.type
        same = actual.rank == wanted.rank and all(equal(context, a, b) for a, b in zip(actual.shape, wanted.shape, strict=True))
        converts = wanted.dtype.floating and (actual.dtype.floating or (actual.dtype.integer and actual.rank == 0))
        if same and (converts or actual.dtype == wanted.dtype):
            return cast(context, tensor, wanted.dtype, span)
        sizes = [*map(str, actual.shape), *([] if actual.dtype.floating else [f"dtype = {actual.dtype.value}"])]
        hint = (
            f"convert it with cast[{wanted.dtype.value}](...)" if same else f"start it as large: {carry.text} = zeros[{', '.join(sizes)}]"
        )
        raise context.reporter.error(
            "DL0334",
            f"the carry `{carry.text}` is {wanted} before and {actual} after an iteration",
            span,
            notes=[note_of(context, tensor)],
            hint=hint,
        )

    def _yield(self, leaf: Value, span: Span) -> _Place | Tensor:
        tensor = _tensor(self.context, leaf, "what a scan yields", span)
        rank = tensor.type.rank + 1
        if not -rank <= self.settings.axis < rank:
            raise self.context.reporter.error(
                "DL0332",
                f"{tensor.type} cannot be stacked along axis {self.settings.axis}",
                span,
                notes=[note_of(self.context, tensor)],
                hint="the axis of a scan is that of what it walks over and of what it gives",
            )
        self.yields.append((tensor, self.settings.axis % rank))
        return _Place(True, len(self.yields) - 1)

    def _return(self, leaf: Value, span: Span) -> _Place | Tensor:
        """The last value of a carry; whatever else the body computes is carried to the end, what stands around it is itself."""
        tensor = _tensor(self.context, leaf, "what a scan returns", span)
        if tensor.value in self.carried:
            return _Place(False, self.carried[tensor.value])
        if tensor.value not in self.given and not any(tensor.value in op.outputs for op in self.scope.builder.ops):
            return tensor
        return _Place(False, self._carry(Tensor(self.scope.builder.value(tensor.type)), tensor, None))

    def _result(self, value: Value, places: list[_Place | Tensor]) -> None:
        """Several results of a call are several of the scan."""
        left = iter(places)
        for item in value.items if isinstance(value, Results) else (value,):
            self.results.append((item, [next(left) for _ in _flat(item)]))

    def emit(self, sequences: Sequence[_Sequence], slices: Sequence[Tensor], length: Dim) -> Value:
        """The scan itself, in the graph around it, and its value."""
        context, span = self.context, self.node.span
        builder = context.program.builder
        if len(builder.ops) >= MAX_OPERATIONS:
            raise too_many_operators(context, span)
        builder.span = context.reporter.place(span)
        initial = [t.value if t is not None else builder.like(0, b.type) for t, b in zip(self.initial, self.before, strict=True)]
        outputs = (*(t.value for t in self.after), *(t.value for t, _ in self.yields))
        given = (self.scope.builder.inputs[0], *(t.value for t in slices), *(t.value for t in self.before))
        free = free_values(self.scope.builder.ops, outputs, given)
        body = Graph((*given, *free), tuple(self.scope.builder.ops), outputs)
        for tensor, axis in self.yields:
            check_total(context, with_axis(tensor.type, axis, length), span, "what the scan gives")
        try:
            op = build_scan(
                builder,
                body,
                length=length,
                sequences=[s.tensor.value for s in sequences],
                initial=initial,
                captures=[self.read.get(v, v) for v in free],
                elements=[s.axis for s in sequences],
                yields=[axis for _, axis in self.yields],
                reverse=self.settings.reverse,
                recompute=self.settings.recompute,
            )
        except TypeFailure as failure:
            raise context.reporter.error("DL0201", failure.message, span) from None
        carries = [Tensor(v) for v in op.outputs[: len(self.after)]]
        stacked = [Tensor(v) for v in op.outputs[len(self.after) :]]
        for tensor in (*carries, *stacked):
            name_origin(context, tensor, Origin("the result of scan", span))
        for path, place in self.states.items():
            context.program.current[path] = carries[place]
        for path, own in self.statistics.items():
            assert context.program.made is not None
            square, zeros = (mean_of(context, tensor) for tensor in stacked[own])
            context.program.made[path] = square, zeros
        found = []
        for value, places in self.results:
            leaves = (p if isinstance(p, Tensor) else (stacked if p.stacked else carries)[p.number] for p in places)
            found.append(_rebuilt(value, iter(leaves)))
        return found[0] if len(found) == 1 else Results(tuple(found))


def _form(value: Value) -> object:
    """How lists nest in a value."""
    return tuple(map(_form, value.items)) if isinstance(value, ListValue | Results) else None
