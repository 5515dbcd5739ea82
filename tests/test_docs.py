"""The documentation's examples are programs: every block of code marked `dl` is accepted without errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dslc.ops  # noqa: F401 - fills the registry of operators
from dslc.frontend import check, syntax
from dslc.frontend.clauses import SAVE_OPTIONS, SETTINGS
from dslc.frontend.format import format_source
from dslc.frontend.lex import fixed_tokens
from dslc.frontend.parse import parse
from dslc.frontend.scope import INITIALISERS
from dslc.options import resource

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "docs" / "language.md", *sorted(p for p in (ROOT / "docs").glob("*.md") if p.name != "language.md")]
PAGES += [p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if p.exists()]


def examples() -> Iterator[tuple[str, str]]:
    """Place and text of each example."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```dl\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield f"{page.name}:{text[: found.start()].count(chr(10)) + 2}", found.group(1)


EXAMPLES = dict(examples())


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("place", EXAMPLES)
def test_example(place: str) -> None:
    text = EXAMPLES[place]
    _, diagnostics = parse(text, place)
    if not diagnostics:
        diagnostics = list(check(text, place, folder=ROOT).diagnostics)
    assert [(d.code, d.message, str(d.span)) for d in diagnostics if d.severity == "error"] == []
    assert format_source(text) == text, "an example is laid out as dslc fmt does"


@pytest.mark.parametrize("path", sorted(resource("std").glob("*.dl")), ids=lambda p: p.name)
def test_the_library_is_listed(path: Path) -> None:
    """Every capitalised block, every optimizer and every schedule, with the static parameters that a user sets."""
    page = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    tree, _ = parse(path.read_text(encoding="utf-8"), path.name)
    signatures = [item.signature for item in tree.items if isinstance(item, syntax.Block | syntax.Optimizer)]
    public = [sig for sig in signatures if sig.name.text[0].isupper() or any(p.name.text == "rate" for p in sig.static)]
    assert public
    for sig in public:
        found = re.search(rf"`{sig.name.text}(\[[^`]*\])?`", page)
        assert found is not None, sig.name.text


def test_settings_and_initialisers_are_listed() -> None:
    page = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    for name in (*SETTINGS, *INITIALISERS, *SAVE_OPTIONS):
        assert re.search(rf"`{name}\b", page) or f"with {name} = " in page, name


def test_reserved_words_are_listed() -> None:
    page = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    listed = re.search(r"cannot be names:\n`([a-z \n]+)`", page)
    assert listed is not None
    assert listed.group(1).split() == sorted(word for word in fixed_tokens() if word.isalpha())
