"""What every error code means: `dslc explain DL0210`, and the page of codes in the reference.

Each module of this package holds the codes of one stage as a tuple `EXPLANATIONS`; a new module is found by being there.

| codes | stage |
|---|---|
| DL00xx | characters, tokens and syntax |
| DL01xx to DL05xx | names, types, dimensions, blocks, recipes |
| DL06xx | transforms and lowering |
| DL07xx | data sets, training and checkpoints |
| DL08xx | artifacts, weights and runs |
| DL09xx | options and the environment |
"""

from __future__ import annotations

import importlib
import pkgutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from dslc.diagnostics import Diagnostic, DiagnosticError


@dataclass(frozen=True, slots=True)
class Explanation:
    """One code. `wrong` is the least text that gives it, `fixed` the same text put right, both in `language` (dl, sh or python)."""

    code: str
    title: str
    text: str
    wrong: str
    fixed: str
    language: str = "dl"

    def __str__(self) -> str:
        parts = [f"{self.code}: {self.title}", textwrap.dedent(self.text).strip()]
        parts += ["Wrong:", _indented(self.wrong), "Right:", _indented(self.fixed)]
        return "\n\n".join(parts)


@cache
def explanations() -> Mapping[str, Explanation]:
    """All codes, in order."""
    found: dict[str, Explanation] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        for entry in importlib.import_module(f"{__name__}.{module}").EXPLANATIONS:
            assert entry.code not in found, f"{entry.code} is explained twice"
            found[entry.code] = entry
    return dict(sorted(found.items()))


def explain(code: str) -> Explanation:
    """The explanation of a code, written `DL0210`, `dl0210` or `210`; raises DiagnosticError where there is none (DL0902)."""
    number = code.strip().upper().removeprefix("DL")
    known = explanations()
    wanted = f"DL{number:0>4}"
    if wanted not in known:
        hint = "`dslc explain` without a code lists them all"
        raise DiagnosticError(Diagnostic("DL0902", f"there is no error code {code[:20]!r}", hint=hint))
    return known[wanted]


def _indented(text: str) -> str:
    return textwrap.indent(textwrap.dedent(text).strip(), "    ")


def page() -> str:
    """All explanations as one Markdown page."""
    out = [
        "# Error codes",
        "What every code means, with the least text that gives it and the same text put right. `dslc explain CODE` prints one.",
    ]
    for entry in explanations().values():
        out += [f"## {entry.code}: {entry.title}", " ".join(textwrap.dedent(entry.text).split())]
        for title, example in (("Wrong:", entry.wrong), ("Right:", entry.fixed)):
            out += [title, f"```{'' if entry.language in ('dl', 'text') else entry.language}\n{textwrap.dedent(example).strip()}\n```"]
    return "\n\n".join(out) + "\n"
