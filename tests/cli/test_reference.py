"""`docs/operators.md` is what `dslc ops` says; `pytest --update-golden` writes it anew."""

from __future__ import annotations

from pathlib import Path

import dslc.ops  # noqa: F401  (registers the operators)
from dslc.cli.ops import library_items, reference, signature
from dslc.ir.operator import OPERATORS

PAGE = Path(__file__).parent.parent.parent / "docs" / "operators.md"
HEAD = """# Operators and layers

Made from the operators' own documentation and from the library's source; `dslc ops NAME` prints the same. Settings stand in brackets, tensors in
parentheses. Operators are differentiable unless the text says otherwise.
"""


def page() -> str:
    """The reference of every operator by family, and the library."""
    families: dict[str, list[str]] = {}
    for name, operator in sorted(OPERATORS.items()):
        if type(operator).__module__.startswith("dslc.") and not (operator.internal or operator.meta):
            families.setdefault(operator.family, []).append(name)
    parts = [HEAD]
    for family, names in sorted(families.items()):
        parts.append(f"## {family}\n")
        for name in names:
            _, _, rest = reference(OPERATORS[name]).partition("\n\n")
            text, _, attributes = rest.partition("\n\n  ")
            parts.append(f"### `{signature(OPERATORS[name])}`\n\n{text}\n")
            if attributes:
                rows = [line.strip() for line in attributes.splitlines() if line.strip()]
                parts.append("\n".join(_row(row) for row in rows) + "\n")
    parts.append("## The library\n")
    parts += [f"```dl\n{source}\n```\n" for _, source in sorted(library_items().items())]
    return "\n".join(parts)


def _row(row: str) -> str:
    name, colon, meaning = row.partition(": ")
    return f"- `{name}`: {meaning}" if colon else row


def test_the_page_is_up_to_date(update_golden: bool) -> None:
    if update_golden:
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "run pytest tests/cli/test_reference.py --update-golden"
