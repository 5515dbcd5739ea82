"""Hypothesis strategies for syntax trees, of every kind of node."""

from __future__ import annotations

from hypothesis import strategies as st

from dslc.diagnostics import Span
from dslc.frontend import syntax as s

AT = Span("tree.dl", 1, 1, 1, 2)
WORDS = ("x", "y", "W", "Dense", "conv2d", "h_0", "N", "_", "model1", "layer_with_a_rather_long_name")

names = st.sampled_from(WORDS).map(lambda text: s.Name(text, span=AT))
strings = st.sampled_from(("", "a b", "std/vision.dl", "# no comment", "{[(", "n t (c h) -> c n h t")).map(lambda t: s.Str(t, span=AT))
ints = st.integers(0, 10**20).map(lambda v: s.Int(v, span=AT))
numbers = st.floats(0, 1e300, allow_nan=False).map(lambda v: s.Number(v, span=AT))
bools = st.booleans().map(lambda v: s.Bool(v, span=AT))
sizes = st.integers(1, 4096).map(lambda v: s.Size(v << 10, span=AT))


def few(strategy, least=0, most=3):
    return st.lists(strategy, min_size=least, max_size=most).map(tuple)


def make(node, *parts, **more):
    """A strategy for `node` from strategies for its parts."""
    return st.tuples(*parts).map(lambda values: node(*values, span=AT, **more))


def maybe(strategy):
    return st.none() | strategy


@st.composite
def compound(draw, inner):
    """One level of expression around `inner`."""
    named = make(s.Named, names, inner)
    subscript = inner | named | make(s.Slice, maybe(inner), maybe(inner), maybe(inner)) | st.just(s.Ellipsis(span=AT))
    stage = make(s.Stage, inner, maybe(names))
    body = few(make(s.Assign, few(names, 1), few(inner, 1)) | make(s.Yield, few(inner, 1)) | make(s.Return, few(inner, 1)), most=2)
    return draw(
        st.one_of(
            make(s.Unary, st.sampled_from(("-", "not")), inner),
            make(s.Binary, st.sampled_from(["+", "-", "*", "/", "//", "%", "@", "**", "and", "or"]), inner, inner, op_span=AT),
            make(s.Compare, st.sampled_from(["==", "!=", "<=", ">=", "<", ">"]), inner, inner, op_span=AT),
            make(s.Range, inner, inner),
            make(s.Apply, inner, few(inner)),
            make(s.Brackets, inner, few(subscript)),
            make(s.Member, inner.filter(lambda e: not isinstance(e, s.Int | s.Number)), names),
            make(s.NameAs, inner, names),
            make(s.Pipe, inner, few(stage, 1, 4)),
            make(s.IfExpr, inner, inner, inner),
            make(s.ListExpr, few(inner)),
            make(s.TupleExpr, few(inner, 2)),
            make(s.Scan, few(named, most=2), few(names, 1, 2), inner, maybe(inner), few(named, most=2), body),
        )
    )


expressions = st.recursive(names | ints | numbers | strings | bools, compound, max_leaves=12)
nameds = make(s.Named, names, expressions)
types = make(s.Type, names, few(expressions | make(s.RowDims, names)))
inputs = make(s.Input, names, types)
results = types | make(s.TupleType, few(types, 2)) | make(s.NamedResults, few(inputs, 1))
static = make(s.StaticParam, names, maybe(names), maybe(expressions))
signatures = make(s.Signature, names, few(static), few(inputs), results, few(expressions, most=2))
initials = make(s.Drawn, expressions) | make(s.Filled, expressions)
assigns = make(s.Assign, few(names, 1), few(expressions, 1))
simple = st.one_of(
    make(s.Param, names, types, initials),
    make(s.SharedBlock, names, expressions),
    make(s.State, names, types, initials),
    make(s.Update, names, expressions),
    assigns,
    make(s.Return, few(expressions, 1)),
    make(s.Yield, few(expressions, 1)),
    make(s.Assert, expressions, maybe(strings)),
)
statements = st.recursive(
    simple,
    lambda inner: make(s.For, few(names, 1), expressions, few(inner)) | make(s.If, expressions, few(inner), few(inner)),
    max_leaves=6,
)
bodies = few(statements)
paths = make(s.Path, few(names, 1))
options = few(nameds, most=2)
minimizes = make(s.Minimize, expressions, few(make(s.Group, few(paths | strings, 1), expressions, options), 1))
metrics = make(s.Metric, names, expressions)
clauses = st.one_of(
    make(s.Data, few(inputs, 1), expressions, options),
    assigns,
    minimizes,
    metrics,
    make(s.Phase, names, options, few(assigns | minimizes | metrics)),
    make(s.Setting, names, ints | numbers | sizes | strings | bools),
    make(s.Load, paths, strings, options),
    make(s.Save, maybe(paths), strings, options),
    make(s.Freeze, few(strings, 1)),
)
dims = st.one_of(make(s.Dim, names, expressions, st.none()), make(s.Dim, names, st.none(), maybe(expressions)))
items = st.one_of(
    make(s.Import, strings, maybe(names)),
    make(s.Dims, few(dims, 1)),
    make(s.Const, names, maybe(types), expressions),
    make(s.Precision, names, few(nameds)),
    make(s.Block, signatures, bodies),
    make(s.Model, signatures, bodies),
    make(s.Instance, names, expressions),
    make(s.Optimizer, signatures, bodies),
    make(s.Train, names, few(clauses, most=5)),
    make(s.Export, paths, strings, options),
)
files = few(items, 1).map(lambda found: s.File(found, span=AT))
