"""Golden files: what a user reads for every error code.

`tests/errors/DL0011.dl` is a source, a line `# expected`, and behind it the rendering as comments; `DL0011-more.dl` is another
for the same code. `DL0901.py` is Python that raises a DiagnosticError, for codes that no source text gives. In a `.dl` file a
line `#@ repeat 300 text` stands for 300 times `text`, `#@ bytes ff fe` for these bytes. `pytest --update-golden` rewrites
what is expected.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import dslc.ops  # noqa: F401 - fills the registry of operators
from dslc.diagnostics import Diagnostic, DiagnosticError, render
from dslc.explain import Explanation, explain, explanations, page
from dslc.frontend import check
from dslc.frontend.parse import parse

FOLDER = Path(__file__).parent / "errors"
MARK = "# expected\n"
FILES = sorted(p for p in FOLDER.iterdir() if p.suffix in (".dl", ".py"))


def expand(source: str) -> bytes:
    """The bytes that a golden source stands for."""
    out = bytearray()
    for line in source.splitlines(keepends=True):
        if line.startswith("#@ repeat "):
            _, _, count, text = line.rstrip("\n").split(" ", 3)
            out += (text * int(count) + "\n").encode()
        elif line.startswith("#@ bytes "):
            out += bytes.fromhex(line.split(" ", 2)[2])
        else:
            out += line.encode()
    return bytes(out)


def found_in(path: Path, source: str) -> tuple[list[Diagnostic], dict[str, str]]:
    """The diagnostics of a golden file's source, and the texts to render them with."""
    if path.suffix == ".py":
        with pytest.raises(DiagnosticError) as raised:
            exec(compile(source, path.name, "exec"), {"__name__": "golden"})
        return list(raised.value.diagnostics), raised.value.sources
    data = expand(source)
    text = data.decode(errors="replace")
    _, diagnostics = parse(data, path.name)
    if not diagnostics:
        diagnostics = list(check(text, path.name, folder=FOLDER).diagnostics)
    return diagnostics, {path.name: text}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_golden(path: Path, update_golden: bool) -> None:
    source, _, expected = path.read_text(encoding="utf-8").partition(MARK)
    diagnostics, texts = found_in(path, source)
    code = path.name[:6]
    assert diagnostics, f"{path.name} gives no diagnostic"
    assert {d.code for d in diagnostics} == {code}, "a mistake gives its own code and no other"
    shown = "\n\n".join(render(d, texts) for d in diagnostics)
    commented = "".join(f"# {line}".rstrip() + "\n" for line in shown.splitlines())
    if update_golden:
        path.write_text(source.rstrip("\n") + "\n" + MARK + commented, encoding="utf-8")
    else:
        assert expected == commented


def test_every_code_has_a_golden_file() -> None:
    assert sorted(set(explanations()) - {p.name[:6] for p in FILES}) == []
    assert sorted({p.name[:6] for p in FILES} - set(explanations())) == []


@pytest.mark.parametrize("entry", [e for e in explanations().values() if e.language == "dl"], ids=lambda e: e.code)
def test_examples_of_explanations(entry: Explanation) -> None:
    """The wrong example gives its code and nothing else, the fixed one gives no error."""
    wrong = errors_of(entry.wrong)
    assert [d.code for d in wrong] == [entry.code]
    assert [d.message for d in errors_of(entry.fixed)] == []


def errors_of(text: str) -> list[Diagnostic]:
    """Errors, without warnings."""
    _, diagnostics = parse(text, "example.dl")
    if not diagnostics:
        diagnostics = list(check(text, "example.dl", folder=FOLDER).diagnostics)
    return [d for d in diagnostics if d.severity == "error"]


def test_codes_are_found_by_number_too() -> None:
    assert explain("DL0011") is explain("dl0011") is explain("11")
    assert "Wrong:" in str(explain("DL0011"))
    with pytest.raises(DiagnosticError, match="DL0902"):
        explain("DL9999")


def test_the_page_of_codes_is_up_to_date(update_golden: bool) -> None:
    place = Path(__file__).parent.parent / "docs" / "errors.md"
    if update_golden:
        place.write_text(page(), encoding="utf-8")
    assert place.read_text(encoding="utf-8") == page(), "run pytest tests/test_errors.py --update-golden"
