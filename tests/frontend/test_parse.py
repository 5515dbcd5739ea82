"""The parser: trees, spans, recovery, limits, and what it says about common slips."""

from __future__ import annotations

import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark import Lark

from dslc.diagnostics import Span, render
from dslc.frontend import syntax as s
from dslc.frontend.lex import MAX_BYTES, MAX_NESTING, MAX_TOKENS, fixed_tokens, lex
from dslc.frontend.parse import parse
from dslc.frontend.unparse import expression
from dslc.options import resource

SOURCES = sorted((Path(__file__).parent / "sources").glob("*.dl"))


def good(text: str) -> s.File:
    tree, diagnostics = parse(text, "t.dl")
    assert [(d.code, d.message) for d in diagnostics] == []
    return tree


def const(text: str) -> s.Expr:
    """The expression `text`."""
    (item,) = good(f"const k = {text}").items
    assert isinstance(item, s.Const)
    return item.value


def errors(text: str | bytes) -> list[tuple[str, int, int]]:
    """Code, line and column of every diagnostic."""
    return [(d.code, d.span.line if d.span else 0, d.span.column if d.span else 0) for d in parse(text, "t.dl")[1]]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_the_tour_of_the_language_parses(path: Path) -> None:
    tree = good(path.read_text(encoding="utf-8"))
    kinds = {type(node) for node in s.walk(tree)}
    assert len(kinds) > 30


def test_the_tours_use_every_kind_of_node() -> None:
    seen = {type(node) for path in SOURCES for node in s.walk(good(path.read_text(encoding="utf-8")))}
    nodes = {c for c in vars(s).values() if isinstance(c, type) and issubclass(c, s.Node) and c is not s.Node}
    assert {c.__name__ for c in nodes - seen} <= {"Assert", "TupleType", "TupleExpr", "Const"}
    more = 'block F(x: f32[N]) -> (f32[N], f32[N]) { assert 1 == 1, "why" y = (x, x) return y }'
    assert {type(n) for n in s.walk(good(more))} >= {s.Assert, s.TupleType, s.TupleExpr}


def test_grammar_has_no_conflicts_and_no_colliding_terminals() -> None:
    """Lark's own lexer, built from the same grammar, gives the same tokens as ours."""
    text = resource("grammars/dl.lark").read_text(encoding="utf-8")
    own = Lark(text, parser="lalr", lexer="basic", start="item")
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        assert [(t.type, str(t)) for t in own.lex(source)] == [(t.type, str(t)) for t in lex(source, "").tokens]


@pytest.mark.parametrize(
    ("text", "grouped"),
    [
        ("a + b * c ** d ** e", "a + (b * (c ** (d ** e)))"),
        ("-a ** b", "-(a ** b)"),
        ("a ** -b", "a ** (-b)"),
        ("a - b - c", "(a - b) - c"),
        ("a / b // c % d @ e * f", "((((a / b) // c) % d) @ e) * f"),
        ("not a == b and c or d", "((not (a == b)) and c) or d"),
        ("a + x |> f", "(a + x) |> f"),
        ("a or x |> f |> g", "(a or x) |> f |> g"),
        ("x as h |> f as g", "(x as h) |> f as g"),
        ("if a then b else if c then d else e |> f", "if a then b else (if c then d else (e |> f))"),
        ("if a |> f then b |> g else c", "if (a |> f) then (b |> g) else c"),
        ("0..n + 1", "0..(n + 1)"),
        ("a < b + 1", "a < (b + 1)"),
        ("f[a](b)[c].d(e)", "((((f[a])(b))[c]).d)(e)"),
        ("a * -b", "a * (-b)"),
    ],
)
def test_precedence(text: str, grouped: str) -> None:
    assert const(text) == const(grouped)


def test_pipes_are_flat_and_parentheses_are_not_kept() -> None:
    pipe = const("x |> f as a |> g[1](y)")
    assert isinstance(pipe, s.Pipe)
    assert [expression(stage.callee) for stage in pipe.stages] == ["f", "g[1](y)"]
    assert [stage.name.text if stage.name else None for stage in pipe.stages] == ["a", None]
    assert const("((x))") == const("x")


def test_subscripts() -> None:
    index = const("x[..., ::2, 1:, :-1, a:b:c, :, k = 3, [1, 2],]")
    assert isinstance(index, s.Brackets)
    shapes = [type(sub).__name__ for sub in index.subscripts]
    assert shapes == ["Ellipsis", "Slice", "Slice", "Slice", "Slice", "Slice", "Named", "ListExpr"]
    assert const("f[]") == s.Brackets(s.Name("f", span=index.span), (), span=index.span)


def test_numbers_keep_their_value_and_spelling() -> None:
    found = const("[20_000, 1e-5, 0.5, 12, 1.5e+3]")
    assert isinstance(found, s.ListExpr)
    assert [n.value for n in found.items] == [20_000, 1e-5, 0.5, 12, 1500.0]  # type: ignore[union-attr]
    assert [n.text for n in found.items] == ["20_000", "1e-5", "0.5", "12", "1.5e+3"]  # type: ignore[union-attr]
    assert isinstance(found.items[0], s.Int) and isinstance(found.items[1], s.Number)
    (train,) = good("train t { budget 2GiB }").items
    assert isinstance(train, s.Train) and isinstance(train.clauses[0], s.Setting) and train.clauses[0].value.value == 2 << 30


def test_dims_and_train() -> None:
    dims, train = good(
        'dim N <= 256, T = 128, S\ntrain t { minimize a over M, "p.*" with A[1], clip = 1.0 over "q" with B save M as "f" }'
    ).items
    assert isinstance(dims, s.Dims) and isinstance(train, s.Train)
    assert [(d.name.text, d.bound is not None, d.size is not None) for d in dims.dims] == [
        ("N", True, False),
        ("T", False, True),
        ("S", False, False),
    ]
    minimize, save = train.clauses
    assert isinstance(minimize, s.Minimize) and isinstance(save, s.Save)
    assert [[t.text if isinstance(t, s.Path) else t.value for t in g.targets] for g in minimize.groups] == [["M", "p.*"], ["q"]]
    assert [len(g.options) for g in minimize.groups] == [1, 0]
    assert save.model is not None and save.model.text == "M"


def test_else_if_is_a_chain() -> None:
    (block,) = good("block F() -> f32 { if a { x = 1 } else if b { x = 2 } else { x = 3 } return x }").items
    assert isinstance(block, s.Block)
    first = block.body[0]
    assert isinstance(first, s.If) and isinstance(first.otherwise[0], s.If) and len(first.otherwise[0].otherwise) == 1


def test_spans_cover_their_text() -> None:
    text = "block F[k = 3](x: f32[N, *S]) -> f32[N] {\n  y = x[0:N] + g[k](x)\n    |> relu as r\n  return y\n}\n"
    lines = text.split("\n")

    def shown(span: Span) -> str:
        if span.line == span.end_line:
            return lines[span.line - 1][span.column - 1 : span.end_column - 1]
        inner = lines[span.line : span.end_line - 1]
        return "\n".join([lines[span.line - 1][span.column - 1 :], *inner, lines[span.end_line - 1][: span.end_column - 1]])

    tree = good(text)
    texts = {type(n).__name__: shown(n.span) for n in s.walk(tree)}
    assert texts["Block"] == text.strip()
    assert texts["Pipe"] == "x[0:N] + g[k](x)\n    |> relu as r"
    assert texts["Binary"] == "x[0:N] + g[k](x)"
    assert texts["Slice"] == "0:N"
    assert texts["Apply"] == "g[k](x)"
    assert texts["RowDims"] == "*S"
    assert texts["Stage"] == "|> relu as r"
    (binary,) = (n for n in s.walk(tree) if isinstance(n, s.Binary))
    assert shown(binary.op_span) == "+"
    for node in s.walk(tree):
        if isinstance(node, s.Name):
            assert shown(node.span) == node.text


def test_byte_order_mark_and_line_ends() -> None:
    plain = good("const a = 1\nconst b = 2\n")
    assert good("\ufeffconst a = 1\r\nconst b = 2\r\n") == plain
    item = good("\ufeffconst a = 1\r\nconst b = 2").items
    assert [(i.span.line, i.span.column) for i in item] == [(1, 1), (2, 1)]
    assert parse("const a = 1".encode("utf-8-sig"))[1] == []


def test_every_broken_item_gives_one_error_and_the_others_are_kept() -> None:
    text = """
block A(x: f32[N]) -> f32[N] { return x + }
block B(x: f32[N]) -> f32[N] { return x }
model C(x: f32[N] -> f32[N] { return x }
const D = (1
train t { epochs 5 }
export B as "x" with
dim E = 4
block F(x: f32[N]) -> f32[N] {
  if training {
    x = x
  return x
}
block G(x: f32[N]) -> f32[N] { return x }
"""
    tree, diagnostics = parse(text, "t.dl")
    assert [d.span.line for d in diagnostics if d.span] == [2, 4, 5, 7, 11]  # each where something is missing
    assert [type(i).__name__ for i in tree.items] == ["Block", "Train", "Dims", "Block"]
    assert tree.broken >= {"A", "C", "D", "B", "F"}


def test_one_mistake_one_error() -> None:
    """The golden files say what is said; here it counts that nothing is said twice."""
    body = "block A(x: f32[N]) -> f32[N] {{\n  {}\n  return x\n}}\nconst after = 1\n"
    for line in (
        "y = x $ x",
        "y = 'a",
        "y = f(x",
        "y = x]",
        "y = (x, ",
        "if x",
        "param : f32 = 0",
        "y = 3x",
        "y == x",
        "x.y = 3",
        "é = x",
        "f(x)",
        "return",
    ):
        found = errors(body.format(line))
        assert len(found) == 1, (line, found)
        assert 2 <= found[0][1] <= 3, (line, found)


def test_a_reserved_word_as_a_name_is_no_new_item() -> None:
    for text in (
        "const model = 1",
        "block F(x: f32[N]) -> f32[N] {\n  return f(model, x)\n}",
        "block F(dim: f32[N]) -> f32[N] { return x }",
    ):
        assert [code for code, _, _ in errors(text)] == ["DL0013"]


def test_limits_are_refused_before_work() -> None:
    cases = {
        "#" * (MAX_BYTES + 1): "DL0001",
        "é" * (MAX_BYTES // 2 + 1): "DL0001",
        "a " * (MAX_TOKENS + 1): "DL0002",
        "const a = " + "[" * 300_000: "DL0003",
        "const a = " + "(" * 257 + "1" + ")" * 257: "DL0003",
        "const a = " + "1 + " * 90_000 + "1": "DL0003",
        "const a = " + "-" * 150_000 + "1": "DL0003",
        "const a = " + "not " * 150_000 + "1": "DL0003",
        "const a = " + "f" + "[1]" * 60_000: "DL0003",
        "const a = " + "1 ** " * 90_000 + "1": "DL0003",
        "const a = " + "if a then b else " * 30_000 + "c": "DL0003",
        "block F() -> f32 { " + "if a { } else " * 30_000 + "{ } }": "DL0003",
        "const a = " + "9" * 5000: "DL0008",
        "const a = " + "9" * 1_000_000: "DL0008",
        "const a = 1" + "\x00" * 50_000: "DL0004",
        ";" * 500_000: "DL0018",
        "const a = \n" * 60_000: "DL0010",
        "\xb2" * 100_000: "DL0007",
    }
    for text, code in cases.items():
        begin = time.process_time()
        tree, diagnostics = parse(text, "hostile.dl")
        assert diagnostics[0].code == code, text[:40]
        assert tree.items == ()
        assert len(diagnostics) <= 101
        assert time.process_time() - begin < 2, text[:40]


def test_what_the_limits_allow() -> None:
    nested = good("const a = " + "(" * MAX_NESTING + "1" + ")" * MAX_NESTING)
    assert nested.items == good("const a = 1").items
    deep = MAX_NESTING // 2
    good("const a = " + "f(" * deep + "1" + ")" * deep)
    good("const a = " + "1 + " * (MAX_NESTING - 3) + "1")
    assert isinstance(const("x" + " |> f" * 5000), s.Pipe)
    assert isinstance(const("[" + "1, " * 20_000 + "1]"), s.ListExpr)


def test_a_reserved_word_in_a_broken_item_is_no_new_one() -> None:
    assert errors("model A(x: f32[N]) optimizer f32[N, 10] { return x }\nconst b = 1") == [("DL0010", 1, 19)]
    assert [d[:2] for d in errors("const a = const b = c d\nconst e = 1 2")] == [("DL0010", 1), ("DL0010", 2)]


def test_names_are_ascii() -> None:
    assert errors("const größe = 1") == [("DL0007", 1, 7)]
    assert errors("const \u202ea = 1") == [("DL0005", 1, 7)]
    assert errors("# \u202e hidden in a comment\nconst a = 1") == [("DL0005", 1, 3)]
    assert errors("const " + "a" * 300 + " = 1") == [("DL0007", 1, 7)]


def test_bytes_that_are_not_text() -> None:
    assert errors(b"const a = 1\nconst b\xff = 2") == [("DL0004", 2, 8)]
    assert errors("é\n".encode() + b"\x80") == [("DL0004", 2, 1)]
    assert errors("const a = 1".encode("utf-16"))[0][0] == "DL0004"


def test_surrogates_in_a_string_from_python() -> None:
    assert errors("const a = \ud800") == [("DL0005", 1, 11)]


def test_reserved_words_are_reserved_everywhere() -> None:
    words = [w for w in fixed_tokens() if w.isalpha()]
    assert len(words) > 35
    for word in words:
        assert errors(f"block {word}() -> f32 {{ return 1 }}"), word
        assert errors(f"block F({word}: f32) -> f32 {{ return 1 }}"), word


def test_the_parser_is_built_once_and_quickly() -> None:
    code = (
        "import time; t = time.perf_counter()\nfrom dslc.frontend.parse import parse\nparse('const a = 1')\nprint(time.perf_counter() - t)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 3.0


def judged(text: str | bytes) -> None:
    """Parse anything: a tree or diagnostics that can be rendered, never an exception."""
    _, diagnostics = parse(text, "any.dl")
    shown = text if isinstance(text, str) else text.decode(errors="replace")
    for diagnostic in diagnostics:
        rendered = render(diagnostic, {"any.dl": shown})
        assert diagnostic.message in rendered
        assert {unicodedata.category(c) for c in rendered.replace("\n", "")} & {"Cc", "Cs"} == set()


@settings(max_examples=200, deadline=None)
@given(st.text() | st.binary())
def test_any_text(text: str | bytes) -> None:
    judged(text)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from([*sorted(fixed_tokens()), "x", "Dense", "3", "0.5", '"s"', "2GiB", "\n", "\n  ", "def", "//", ";"]), max_size=60
    )
)
def test_any_tokens(tokens: list[str]) -> None:
    judged(" ".join(tokens))
    judged("block F(x: f32[N]) -> f32[N] {\n" + " ".join(tokens) + "\n}\n")
    judged("train t {\n" + "".join(tokens) + "\n}\n")


def test_diagnostics_show_no_control_characters() -> None:
    text = 'import "a\x1b[31m.dl"\nconst \u202ex = 1 # \x07\n'
    for diagnostic in parse(text, "t.dl")[1]:
        assert not set(render(diagnostic, {"t.dl": text})) & {"\x1b", "\u202e", "\x07"}
