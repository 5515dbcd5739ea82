"""The tables of `docs/from-pytorch.md` and `docs/from-keras.md`: the checker accepts what they say, row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dslc.ops  # noqa: F401 - fills the registry of operators
from dslc.frontend import check
from dslc.frontend.parse import parse

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("from-pytorch.md", "from-keras.md")
NET = "model Net(x: f32[N, 64]) -> f32[N, 10] { return (x |> Dense[32, relu] as body) |> Dense[10] as head }\n"
RECIPE = NET + 'train net {\n  data x: f32[N, 64], label: i64[N] from "digits"\n  logits = Net(x)\n'
TEMPLATES = {
    "dslc, in a recipe": RECIPE + "  ROW\n  minimize cross_entropy(logits, label) over Net with AdamW[1e-3]\n}\n",
    "dslc, behind a loss": RECIPE + "  minimize cross_entropy(logits, label) ROW\n}\n",
}
STATEMENT = re.compile(r"(param|state|update|if|for)\b(?!.*\bthen\b)|\w+ = ")


def signature(page: str) -> str:
    """The tensors that the page's rows are about."""
    return ", ".join(re.findall(r"^block \w+\((.*)\) ->", page, re.MULTILINE))


def rows(name: str) -> Iterator[tuple[str, str]]:
    """The place and the program of each row."""
    page = (DOCS / name).read_text(encoding="utf-8")
    kind = ""
    for number, line in enumerate(page.splitlines(), 1):
        cells = [c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 2:
            continue
        if cells[1].startswith("dslc"):
            kind = cells[1]
            assert kind in ("dslc", "dslc, in a body", *TEMPLATES), kind
        elif set(cells[1]) - set("-"):
            codes = re.findall(r"`([^`]+)`", cells[1])
            if kind in TEMPLATES:
                [code] = codes
                yield f"{name}:{number}", TEMPLATES[kind].replace("ROW", code)
            elif kind == "dslc, in a body":
                assert codes, line
                body = "\n  ".join(c if STATEMENT.match(c) else f"_{n} = {c}" for n, c in enumerate(codes))
                yield f"{name}:{number}", f"model Row({signature(page)}) -> f32[N, 64] {{\n  {body}\n  return x\n}}\n"


ROWS = {place: text for name in PAGES for place, text in rows(name)}


def test_there_are_rows() -> None:
    assert all(sum(place.startswith(name) for place in ROWS) >= 50 for name in PAGES)


@pytest.mark.parametrize("place", ROWS)
def test_row(place: str) -> None:
    text = ROWS[place]
    _, diagnostics = parse(text, place)
    if not diagnostics:
        diagnostics = list(check(text, place, folder=DOCS).diagnostics)
    assert [d.message for d in diagnostics if d.severity == "error"] == [], text


def test_a_row_can_be_wrong() -> None:
    page = ROWS[next(iter(ROWS))].replace("x @ w", "x @ y")
    assert [d.code for d in check(page, "page", folder=DOCS).diagnostics if d.severity == "error"] != []
