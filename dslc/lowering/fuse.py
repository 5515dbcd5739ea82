"""Graph -> nests: which values get memory, and the expression that computes each of them, everything between written inline.

A value is materialised where it must be (a result, an operand of a contraction, a table that data indexes, a long sum) or
where computing it again for every reader would cost more than a store and loads. Everything else is inlined: element-wise
chains, broadcasts and views vanish into their consumers. A contraction or a long reduction absorbs the element-wise chain
behind it as its epilogue. Recurrences and routines have results in memory, and a routine's operands are there too.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dslc.diagnostics import Span
from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.loops import (
    Acc,
    Binary,
    Carried,
    ContractionMap,
    Expr,
    Gathered,
    Random,
    Read,
    Reader,
    Recurrence,
    Reduce,
    Unary,
    element,
    readers_of,
    var,
)
from dslc.ir.operator import OPERATORS
from dslc.ir.routines import Routine
from dslc.ir.scan import is_scan, parts
from dslc.ir.types import TensorType
from dslc.lowering.indices import rewrite, walk

NOMINAL_BATCH = 32  # for weighing costs only
UNROLLED = 16  # a reduction of at most so many elements is written out
WORTH_STORING = 8  # scalar operations: about what a store and a load cost
EXPENSIVE = {
    "exp": 12, "exp2": 12, "expm1": 14, "log": 14, "log2": 18, "log10": 18, "log1p": 20, "sinh": 22, "cosh": 18, "tanh": 16, "asinh": 34,
    "acosh": 30, "atanh": 30, "sigmoid": 16, "erf": 18, "sin": 20, "cos": 20, "tan": 24, "asin": 24, "acos": 24, "atan": 20, "atan2": 26,
    "pow": 30, "div": 5, "sqrt": 6, "rsqrt": 8,
}  # fmt: skip
SMALL_UPDATE = 40_000  # elements; less is not worth sharing among threads
IN_PLACE = "in_place"  # an attribute that only lowering gives
LARGEST_EXPRESSION = 160  # nodes; a longer chain is cut, so that kernels stay quick to compile


@dataclass(frozen=True, slots=True)
class Nest:
    """One materialised value: `expr` is its element at `index` (one loop variable an axis), over Reads of materialised values.

    Where `contraction` is set, `Acc` in `expr` stands for the finished sum of `a` times `b`. Where `recurrence` is, `expr` is its
    value. Where `routine` or `loop` is, `expr` is `Acc`: what that makes.
    """

    value: Value
    index: tuple[str, ...]
    expr: Expr
    span: Span | None
    label: str
    contraction: Contracted | None = None
    recurrence: Recurrence | None = None
    routine: Called | None = None
    loop: Looped | None = None

    @property
    def expressions(self) -> tuple[Expr, ...]:
        if self.loop is not None:
            return self.loop.initial
        return (self.expr,) if self.recurrence is None else self.recurrence.expressions

    @property
    def values(self) -> tuple[Value, ...]:
        """What it makes, with what else a routine or a loop makes."""
        if self.loop is not None:
            return self.loop.op.outputs
        return (self.value, *(self.routine.results[1:] if self.routine is not None else ()))


@dataclass(frozen=True, slots=True)
class Called:
    """The routine inside a nest, the graph values that it reads, and its results, of which the first is the nest's value."""

    routine: Routine
    inputs: tuple[Value, ...]
    results: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Looped:
    """The scan inside a nest, and what its carries start as: an element at `index_of(axes_of(...), ...)` each."""

    op: Op
    initial: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Contracted:
    """The sum of products inside a nest: operands are graph values, read through `maps`, each of which gives a part of the
    result. Elements that are in no part are zero."""

    maps: tuple[ContractionMap, ...]
    a: Value
    b: Value
    value: Value  # the contraction's own result, before the epilogue
    kind: str


@dataclass(frozen=True, slots=True)
class Shape:
    """What one operator's body looks like: number of reads of each input, cost of its own arithmetic, and its class."""

    reads: Mapping[int, float]
    pointwise: frozenset[int]  # inputs that are read at the element's own index only
    cost: float
    view: bool  # only renames elements
    reduction: bool  # has a sum that is not written out
    tables: frozenset[int]  # values that data indexes
    draw: bool


def axes_of(t: TensorType) -> tuple[str, ...]:
    """A loop variable for each axis."""
    return tuple(f"i{n}" for n in range(t.rank))


def index_of(names: tuple[str, ...], shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The index of a nest's own element: a loop variable an axis, 0 where the axis has one element."""
    return tuple(0 if extent == 1 else var(name) for name, extent in zip(names, shape, strict=True))


def elements(shape: tuple[Dim, ...]) -> float:
    total = 1.0
    for extent in shape:
        total *= extent if isinstance(extent, int) else dims.evaluate(extent, dict.fromkeys(dims.names(extent), NOMINAL_BATCH))
    return total


def body_of(op: Op, index: tuple[Dim, ...], readers: tuple[Reader, ...]) -> Expr:
    return OPERATORS[op.kind].body(index, *readers, **dict(op.attrs))


def is_contraction(op: Op) -> bool:
    return OPERATORS[op.kind].has("contraction")


def is_recurrence(op: Op) -> bool:
    return OPERATORS[op.kind].has("recurrence")


def is_routine(op: Op) -> bool:
    return OPERATORS[op.kind].has("routine") or is_update(op)


def is_update(op: Op) -> bool:
    """Whether a part of an operator's first operand is replaced where that lies: `updates.in_place` has marked it."""
    return dict(op.attrs).get(IN_PLACE, False) is True


def is_whole(op: Op) -> bool:
    """Whether an operator's result exists in memory only, and nothing is written inline on either side of that."""
    return op.kind == "constant" or is_contraction(op) or is_recurrence(op) or is_routine(op) or is_scan(op)


def definition(op: Op, index: tuple[Dim, ...], readers: tuple[Reader, ...]) -> tuple[Expr, ...]:
    """The expressions that define an operator's element; a recurrence has several."""
    if is_recurrence(op):
        made: Recurrence = OPERATORS[op.kind].recurrence(index, *readers, **dict(op.attrs))
        return made.expressions
    return (body_of(op, index, readers),)


def _probe_index(value: Value) -> tuple[Dim, ...]:
    return index_of(tuple(f"p{n}" for n in range(value.type.rank)), value.type.shape)


def shape_of(op: Op) -> Shape:
    """Looks at an operator's definition once, over fresh variables."""
    if is_routine(op) or is_scan(op):
        return Shape({v.id: 1.0 for v in op.inputs}, frozenset(), 0.0, False, False, frozenset(), False)
    out = op.output
    index = _probe_index(out)
    defined = definition(op, index, readers_of(op, element))
    nodes = {id(node): node for e in defined for node in walk(e)}.values()  # a recurrence may yield what it carries on
    reads: dict[int, float] = {}
    cost, reduction, draw = 0.0, False, False
    tables: set[int] = set()
    inner = 1.0
    for node in nodes:
        match node:
            case Reduce():
                size = elements(tuple(x for _, x in node.variables))
                inner *= size
                reduction |= not written_out(node)
            case Unary() | Binary():
                cost += EXPENSIVE.get(node.op, 1)
            case Random():
                draw = True
            case Gathered():
                tables.add(node.source)
                cost += 4
    scale = elements(out.type.shape)
    for node in nodes:
        if isinstance(node, Read):
            size = next(elements(v.type.shape) for v in op.inputs if v.id == node.source)
            reads[node.source] = reads.get(node.source, 0.0) + max(1.0, inner * scale / max(size, 1.0))
    elsewhere = {node.source for node in nodes if isinstance(node, Read) and node.index != index}
    view = len(defined) == 1 and isinstance(defined[0], Read)
    return Shape(reads, frozenset(reads.keys() - elsewhere), cost * inner, view, reduction, frozenset(tables), draw)


def materialised(graph: Graph) -> tuple[set[Value], dict[Value, Op]]:
    """Values that get memory, and for each contraction's or reduction's result the last operator of the chain it absorbs."""
    producer = graph.producers()
    uses = graph.uses()
    shapes = {op: shape_of(op) for op in graph.ops if op.kind != "constant"}
    keep: set[Value] = set(graph.inputs) | set(graph.outputs)
    for op in graph.ops:
        if op.kind == "constant":
            keep.add(op.output)
        elif is_contraction(op) or is_routine(op):
            keep.update(_base(v, producer, shapes) for v in op.inputs)
        elif is_scan(op):
            it = parts(op)
            keep.update((*(_base(v, producer, shapes) for v in it.sequences), *it.captures))
        else:
            keep.update(v for v in op.inputs if v.id in shapes[op].tables)
    absorbed: dict[Value, Op] = {}
    claimed: dict[Op, Op] = {}
    sites: dict[Value, Sites] = {}
    work = _chain_costs(graph, shapes)
    for op in reversed(graph.ops):
        if op.kind == "constant":
            continue
        if is_recurrence(op) or is_routine(op) or is_scan(op):
            keep.update(op.outputs)
            continue
        v = op.output
        if is_contraction(op) or shapes[op].reduction:
            end = _absorb(op, uses, shapes, keep, claimed, contraction=is_contraction(op))
            absorbed[v] = end
            keep.add(end.output)
            sites.pop(end.output, None)
            continue
        if v in keep:
            continue
        sites[v] = _sites(v, uses, shapes, claimed, sites)
        if shapes[op].draw:
            continue
        if work[v] * (sum(sites[v].values()) - 1) > WORTH_STORING or work[v] > LARGEST_EXPRESSION:
            keep.add(v)
            del sites[v]
    for op in graph.ops:  # a chain inside an epilogue belongs to its end, whatever the costs said
        if not op.outputs:
            continue
        v = op.outputs[0]
        if op.kind != "constant" and v in absorbed and absorbed[v].output != v:
            keep.discard(v)
    return keep, absorbed


def _base(value: Value, producer: Mapping[Value, Op], shapes: Mapping[Op, Shape]) -> Value:
    """The value that a chain of views looks at."""
    while value in producer and not is_whole(producer[value]) and shapes[producer[value]].view:
        value = producer[value].inputs[0]
    return value


def base_chain(value: Value, producer: Mapping[Value, Op]) -> list[Value]:
    """A value and what it is a view of, down to the value that is computed."""
    chain = [value]
    while value in producer and not is_whole(producer[value]) and shape_of(producer[value]).view:
        value = producer[value].inputs[0]
        chain.append(value)
    return chain


def _chain_costs(graph: Graph, shapes: Mapping[Op, Shape]) -> dict[Value, float]:
    """Scalar operations for one element of each value if everything before it were inlined."""
    work: dict[Value, float] = dict.fromkeys(graph.inputs, 0.0)
    for op in graph.ops:
        if is_whole(op) or shapes[op].reduction:
            work.update(dict.fromkeys(op.outputs, 0.0))
            continue
        # what has fewer elements is computed once and read, where computing it for every reader would cost more
        once = {v for v in op.inputs if work[v] * (elements(op.output.type.shape) / max(elements(v.type.shape), 1.0) - 1) > WORTH_STORING}
        inputs = sum(0.0 if v in once else work[v] for v in dict.fromkeys(op.inputs))
        work[op.output] = shapes[op].cost + inputs
        if work[op.output] > LARGEST_EXPRESSION:
            work[op.output] = LARGEST_EXPRESSION + 1
    return work


Sites = Mapping[tuple[Value, tuple[int, ...]], float]
"""Where a value that is written inline is computed: how often for one of its elements, by the nest and the way from that nest's
own index to the one at which the value is read (the operators that change it). What one nest reads twice at one index it computes once."""


def _sites(
    value: Value, uses: Mapping[Value, list[Op]], shapes: Mapping[Op, Shape], claimed: Mapping[Op, Op], sites: Mapping[Value, Sites]
) -> Sites:
    found: dict[tuple[Value, tuple[int, ...]], float] = {}
    for user in uses.get(value, ()):
        if is_contraction(user) or is_routine(user):
            continue  # read through a view: its base is kept
        end = claimed[user].output if user in claimed else user.outputs[0]
        times = shapes[user].reads.get(value.id, 1.0)
        for (nest, way), inlined in sites.get(end, {(end, ()): 1.0}).items():
            at = (nest, way if value.id in shapes[user].pointwise else (*way, user.outputs[0].id))
            found[at] = max(found.get(at, 0.0), times * inlined)
    return found


def _absorb(
    op: Op,
    uses: Mapping[Value, list[Op]],
    shapes: Mapping[Op, Shape],
    keep: set[Value],
    claimed: dict[Op, Op],
    contraction: bool,
) -> Op:
    """The last operator of the element-wise chain behind a sum: same shape, one reader, one contraction a chain.

    A contraction stores what it computes with, so its chain ends with a value of the same element type.
    """
    end, length = op, 0
    chain: list[Op] = []
    while end.output not in keep and len(uses.get(end.output, ())) == 1 and length < 40:
        user = uses[end.output][0]
        if is_whole(user) or user in claimed or shapes[user].reduction or shapes[user].tables:
            break
        if user.output.type.shape != op.output.type.shape or end.output.id not in shapes[user].pointwise:
            break
        end, length = user, length + 1
        chain.append(user)
    while contraction and chain and chain[-1].output.type.dtype != op.output.type.dtype:
        chain.pop()
    claimed.update(dict.fromkeys(chain, chain[-1] if chain else op))
    return chain[-1] if chain else op


def fuse(graph: Graph) -> tuple[Nest, ...]:
    """The nests of a graph, in an order in which each reads only earlier ones and the graph's inputs."""
    keep, absorbed = materialised(graph)
    producer = graph.producers()
    ends = {end.output: op for op in graph.ops if op.kind != "constant" and op.outputs and op.outputs[0] in absorbed for end in (absorbed[op.output],)}
    nests = []
    for op in graph.ops:
        if not op.outputs:
            continue  # a loop that nobody asked for anything
        v = op.outputs[0]
        if v not in keep or op.kind == "constant":
            continue
        root = ends.get(v)
        if is_recurrence(op) or is_routine(op) or is_scan(op):
            nests.append(_whole_nest(op, keep, producer))
            continue
        names = tuple(f"i{n}" for n in range(v.type.rank))
        contraction = root if root is not None and is_contraction(root) else None
        e = _element(v, index_of(names, v.type.shape), keep, producer, contraction)
        contracted = None
        if contraction is not None:
            maps = OPERATORS[contraction.kind].contraction(*(x.type for x in contraction.inputs), **dict(contraction.attrs))
            maps = maps if isinstance(maps, tuple) else (maps,)
            contracted = Contracted(maps, contraction.inputs[0], contraction.inputs[1], contraction.output, contraction.kind)
        source = contraction or root or op
        nests.append(Nest(v, names, e, source.span or op.span, source.kind if root is not None else op.kind, contracted))
    return tuple(nests)


def _whole_nest(op: Op, keep: set[Value], producer: Mapping[Value, Op]) -> Nest:
    """The nest of a recurrence, with what it reads written inline, or of a routine, or of a loop."""
    v = op.outputs[0]
    names = tuple(f"i{n}" for n in range(v.type.rank))
    if is_scan(op):
        starts = tuple(value_at(x, index_of(axes_of(x.type), x.type.shape), keep, producer) for x in parts(op).initial)
        return Nest(v, names, Acc(v.type.dtype), op.span, op.kind, loop=Looped(op, starts))
    if is_update(op):
        return Nest(v, names, Acc(v.type.dtype), op.span, op.kind, routine=Called(_update(op), op.inputs[1:], op.outputs))
    if is_routine(op):
        routine: Routine = OPERATORS[op.kind].routine(*(x.type for x in op.inputs), **dict(op.attrs))
        return Nest(v, names, Acc(v.type.dtype), op.span, op.kind, routine=Called(routine, op.inputs, op.outputs))
    readers = readers_of(op, lambda x, i: value_at(x, i, keep, producer))
    it: Recurrence = OPERATORS[op.kind].recurrence(index_of(names, v.type.shape), *readers, **dict(op.attrs))
    carries = tuple(Carried(c.name, unroll_small(c.initial), unroll_small(c.next)) for c in it.carries)
    it = Recurrence(it.axis, it.reverse, carries, unroll_small(it.value))
    return Nest(v, names, it.value, op.span, op.kind, recurrence=it)


def _update(op: Op) -> Routine:
    """The routine that puts `update` [outer, count, inner] into what lies there, [outer, size, inner]."""
    x, update, _ = op.inputs
    axis = op.attr("axis") % x.type.rank
    sizes: list[Dim] = [1, update.type.shape[axis], x.type.shape[axis], 1]
    for n, extent in enumerate(x.type.shape):
        if n != axis:
            sizes[0 if n < axis else 3] = sizes[0 if n < axis else 3] * extent
    serial = elements(update.type.shape) < SMALL_UPDATE
    return Routine("update_slice", tuple(zip(("outer", "count", "size", "inner"), sizes, strict=True)), serial=serial)


def value_at(value: Value, index: tuple[Dim, ...], keep: set[Value], producer: Mapping[Value, Op]) -> Expr:
    """An element of any value: a Read where it has memory, else its definition."""
    if value in keep or value not in producer:
        return Read(value.id, index, value.type.dtype)
    return _element(value, index, keep, producer, None)


def _element(value: Value, index: tuple[Dim, ...], keep: set[Value], producer: Mapping[Value, Op], contraction: Op | None) -> Expr:
    memo: dict[tuple[Value, tuple[Dim, ...]], Expr] = {}

    def read(v: Value, at: tuple[Dim, ...]) -> Expr:
        if contraction is not None and v == contraction.output:
            assert at == index, "an epilogue reads the sum at its own index"
            return Acc(v.type.dtype)
        if (v in keep and v != value) or v not in producer:
            return Read(v.id, at, v.type.dtype)
        if (v, at) not in memo:
            memo[v, at] = define(v, at)
        return memo[v, at]

    def define(v: Value, at: tuple[Dim, ...]) -> Expr:
        op = producer[v]
        return body_of(op, at, readers_of(op, read))

    if contraction is not None and value == contraction.output:
        return Acc(value.type.dtype)
    return define(value, index)


def written_out(e: Reduce) -> bool:
    """Whether a reduction becomes straight code: a window of several axes, or a handful of elements, and not too long a text."""
    total = _points(e)
    several = len([x for _, x in e.variables if x != 1]) > 1
    return 1 <= total <= (UNROLLED if several else 4) and total * _written_size(e.body) <= LARGEST_EXPRESSION


def _points(e: Reduce) -> int:
    """The number of elements, 0 where it is not known before the program runs."""
    total = 1
    for _, extent in e.variables:
        if not isinstance(extent, int):
            return 0
        total *= extent
    return total


def _written_size(e: Expr) -> int:
    """Nodes of an expression once the reductions inside it are written out."""
    sizes = 0
    inside: set[int] = set()
    for node in reversed(list(walk(e))):
        if id(node) in inside:
            continue
        sizes += 1
        if isinstance(node, Reduce):
            inside.update(id(n) for n in walk(node.body))
            sizes += _points(node) * _written_size(node.body) if written_out(node) else 8
    return sizes


def unroll_small(e: Expr) -> Expr:
    """Writes out reductions of a few elements: `max over a 2 x 2 window` becomes three `max`."""
    from dslc.ir.loops import binary, const, select, unary
    from dslc.ir.types import DType
    from dslc.lowering.indices import substitute

    def change(node: Expr) -> Expr:
        if not isinstance(node, Reduce) or not written_out(node):
            return node
        points: list[dict[str, Dim]] = [{}]
        for name, extent in node.variables:
            assert isinstance(extent, int)
            points = [{**p, name: n} for p in points for n in range(extent)]
        terms = [substitute(node.body, p) for p in points]
        if not node.op.startswith("arg"):
            total = terms[0]
            for term in terms[1:]:
                total = binary(node.op, total, term)
            return total
        best: Expr = terms[0]
        where: Expr = const(0, DType.I64)
        for n, term in enumerate(terms[1:], 1):
            better = binary("gt" if node.op == "argmax" else "lt", term, best)
            if term.dtype.floating:  # the first NaN wins
                nan = binary("and", unary("isnan", term), unary("not", unary("isnan", best)))
                better = binary("or", better, nan)
            best, where = select(better, term, best), select(better, const(n, DType.I64), where)
        return where

    return rewrite(e, change)
