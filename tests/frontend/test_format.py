"""The formatter: idempotent, keeps the program and its comments, refuses what does not parse."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trees import files

from dslc.diagnostics import DiagnosticError
from dslc.frontend import syntax as s
from dslc.frontend.format import LINE_LENGTH, format_source
from dslc.frontend.lex import lex
from dslc.frontend.parse import parse
from dslc.frontend.unparse import unparse
from dslc.options import resource

SOURCES = sorted((Path(__file__).parent / "sources").glob("*.dl"))
LIBRARY = sorted(resource("models").rglob("*.dl")) + sorted(resource("std").rglob("*.dl"))


def comments(text: str) -> list[str]:
    return [c.text for c in lex(text, "x.dl").comments]


def flat(tree: s.File) -> list[tuple[str, int, str]]:
    """The nodes in order with the number of their children: `==` on a tree as deep as the limit would recurse too deep."""
    return [(type(n).__name__, len(list(s.children(n))), getattr(n, "text", "")) for n in s.walk(tree)]


def check_format(text: str) -> str:
    """Format, and see that nothing but white space changed and a second time changes nothing."""
    once = format_source(text)
    assert parse(once)[0].items == parse(text)[0].items
    assert comments(once) == comments(text)
    assert format_source(once) == once
    return once


@pytest.mark.parametrize("path", SOURCES + LIBRARY, ids=lambda p: p.name)
def test_sources(path: Path) -> None:
    check_format(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
def test_what_comes_with_dslc_is_formatted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format_source(text) == text


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(files)
def test_generated_trees(tree) -> None:
    text = unparse(tree)
    assert parse(text)[0].items == tree.items
    check_format(text)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SOURCES), st.integers(0, 2**32))
def test_any_layout(path: Path, seed: int) -> None:
    """The same tokens with random line ends, blanks and comments between them."""
    rng = random.Random(seed)
    tokens = lex(path.read_text(encoding="utf-8"), "x.dl").tokens
    pieces = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        glued = before is not None and token.type in ("LPAR", "LSQB") and before.end_pos == token.start_pos
        gap = "" if glued else rng.choice([" "] * 12 + ["\n", "\n\n\n", "  ", "\t", " # note\n", "\r\n", "\n# own line\n", "\n\n  # x\n\n"])
        pieces.append(gap + token)
    check_format("".join(pieces))


def test_layout() -> None:
    text = """
# head
import   "a.dl" as a
dim N<=256,T=128# trailing


block  F[C:int,k=3](x:f32[N , *S]) -> (out:f32[N,C])
given C%2==0,
   k>0 {
# first


  y=x[ 0:T , :: 2 ,... , -1]*-1 -  -C**2
      |>   Conv2D[ 3,stride = 2 ]|>relu as  r


  if C==1 {y = y+1
     z = 2 } else if C==2 { } else {

       # nothing here
     }
  for i in  0 .. 3 { y = f(y)   z = y }
  return (y,
    z)
}
train t { epochs 5    batch 64
 seed 7 save "x" with every=1 }
"""
    wanted = """# head
import "a.dl" as a
dim N <= 256, T = 128  # trailing

block F[C: int, k = 3](x: f32[N, *S]) -> (out: f32[N, C])
    given C % 2 == 0,
      k > 0 {
  # first

  y = x[0:T, ::2, ..., -1] * -1 - -C ** 2
    |> Conv2D[3, stride = 2] |> relu as r

  if C == 1 {
    y = y + 1
    z = 2
  } else if C == 2 { } else {
    # nothing here
  }
  for i in 0..3 { y = f(y)  z = y }
  return (y,
    z)
}
train t {
  epochs 5  batch 64
  seed 7  save "x" with every = 1
}
"""
    assert check_format(text) == wanted


def test_hanging_lines() -> None:
    text = """
block F(x: f32[N]) -> f32[N] {
  y = f[
  1,
  [2,
  3]
  ](x,
  y)
  z = scan i in 0..3
  carry h = y,
  k = y {
  yield f(
  x)
  }
  return g(
  scan i in 0..3 {
  yield x
  },
  z)
}
"""
    wanted = """block F(x: f32[N]) -> f32[N] {
  y = f[
    1,
    [2,
      3]
  ](x,
    y)
  z = scan i in 0..3
    carry h = y,
      k = y {
        yield f(
          x)
      }
  return g(
    scan i in 0..3 {
      yield x
    },
    z)
}
"""
    assert check_format(text) == wanted


def test_long_lines_are_broken_where_they_can_be() -> None:
    pipe = " |> ".join(["x", *(f"Dense[{i}, relu]" for i in range(30))])
    call = ", ".join(f"argument_{i}" for i in range(40))
    words = "if " + " and ".join(f"switch_{i} == {i}" for i in range(30)) + " { y = x } else { y = 2 * x }"
    text = f"block F(x: f32[N]) -> f32[N] {{ y = {pipe} z = f[{call}](x)\n {words}\n return y }}"
    formatted = check_format(text)
    assert max(map(len, formatted.splitlines())) <= LINE_LENGTH
    assert len(formatted.splitlines()) > 10


def test_comments_below_each_other() -> None:
    text = "const a = 1 # one\nconst long = 2 # two\n\nconst b = 3  # three\n"
    assert check_format(text) == "const a = 1     # one\nconst long = 2  # two\n\nconst b = 3  # three\n"


def test_line_ends_and_byte_order_mark() -> None:
    assert format_source("\ufeffconst a = 1\r\nconst b = 2\r\n") == "const a = 1\nconst b = 2\n"
    assert format_source("") == ""
    assert format_source("# only a comment") == "# only a comment\n"


def test_refuses_what_does_not_parse() -> None:
    with pytest.raises(DiagnosticError) as raised:
        format_source("const a = \nblock", "broken.dl")
    assert [d.code for d in raised.value.diagnostics] == ["DL0010", "DL0010"]
    assert re.search(r"broken.dl:1:10", raised.value.render())


def test_a_large_file_is_formatted_in_time() -> None:
    text = "const a = 1 # note\n" * 5000 + "const b = [" + "a, " * 5000 + "a]\n"
    assert len(check_format(text).splitlines()) > 5000


@pytest.mark.parametrize(
    "text",
    [
        "const a = " + "f(" * 250 + "1" + ")" * 250,
        "const a = " + "[" * 250 + "1" + "]" * 250,
        "const a = " + "f[k = " * 120 + "1" + "]" * 120,
        "const a = " + "if a then b else " * 250 + "c",
        "block F() -> f32 { " + "if a { } else " * 250 + "{ } return 1 }",
        "block F() -> f32 { " + "for a in b { " * 250 + "}" * 250 + " return 1 }",
    ],
    ids=lambda text: text[:30],
)
def test_as_deep_as_the_parser_allows(text: str) -> None:
    tree, diagnostics = parse(text)
    assert not diagnostics
    assert flat(parse(unparse(tree))[0]) == flat(parse(format_source(text))[0]) == flat(tree)
