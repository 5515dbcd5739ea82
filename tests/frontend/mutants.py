"""Single-token mutants of `.dl` files: what a typing mistake looks like.

Run it for a table: `python tests/frontend/mutants.py 2000`.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lark import Token

import dslc.ops  # noqa: F401 - fills the registry of operators
from dslc.diagnostics import Diagnostic
from dslc.frontend import check
from dslc.frontend.lex import lex
from dslc.options import resource

KINDS = ("delete", "duplicate", "swap", "replace")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A text that differs from a file's in one token; `lines` are those of the tokens touched."""

    file: Path
    kind: str
    what: str
    lines: tuple[int, ...]
    text: str


def zoo() -> list[Path]:
    """The models and the library that come with dslc."""
    return sorted(resource("models").rglob("*.dl")) + sorted(resource("std").rglob("*.dl"))


def mutants(files: list[Path], count: int, seed: int) -> Iterator[Mutant]:
    """`count` mutants, the files in turn."""
    rng = random.Random(seed)
    texts = {f: f.read_text(encoding="utf-8") for f in files}
    tokens = {f: lex(text, f.name).tokens for f, text in texts.items()}
    spellings = sorted({str(t) for found in tokens.values() for t in found})
    for n in range(count):
        file = files[n % len(files)]
        yield _mutant(rng, file, texts[file], tokens[file], spellings)


def _mutant(rng: random.Random, file: Path, text: str, tokens: list[Token], spellings: list[str]) -> Mutant:
    kind = rng.choice(KINDS)
    i = rng.randrange(len(tokens) - 1)
    token, following = tokens[i], tokens[i + 1]
    begin, end = token.start_pos or 0, token.end_pos or 0
    lines: tuple[int, ...] = (token.line or 1,)
    if kind == "delete":
        what, new = f"{token}", ""
    elif kind == "duplicate":
        what, new = f"{token}", f"{token} {token}"
    elif kind == "swap":
        what, new = f"{token} {following}", f"{following}{text[end : following.start_pos]}{token}"
        end = following.end_pos or 0
        lines = (token.line or 1, following.line or 1)
    else:
        new = rng.choice(spellings)
        what = f"{token} by {new}"
    before, after = text[:begin], text[end:]
    if before and before[-1].isalnum() and new[:1].isalnum():
        new = " " + new
    if (new or before)[-1:].isalnum() and after[:1].isalnum():
        new += " "
    return Mutant(file, kind, what, lines, before + new + after)


def diagnose(text: str, file: Path) -> list[Diagnostic]:
    """The errors of a text that stands in the place of `file`."""
    return list(check(text, file.name, folder=file.parent).errors)


def is_near(mutant: Mutant, errors: list[Diagnostic]) -> bool:
    """Whether the mutant is accepted, or its first error stands within one line of the mutation."""
    if not errors:
        return True
    span = errors[0].span
    return span is not None and any(abs(span.line - line) <= 1 for line in mutant.lines)


def main(count: int) -> None:
    files = zoo()
    print(f"{len(files)} files")
    outcome: Counter[str] = Counter()
    slowest = 0.0
    for mutant in mutants(files, count, seed=1):
        begin = time.perf_counter()
        errors = diagnose(mutant.text, mutant.file)
        slowest = max(slowest, time.perf_counter() - begin)
        outcome["accepted" if not errors else "near" if is_near(mutant, errors) else "far"] += 1
        outcome["more than one error"] += len(errors) > 1
        if not is_near(mutant, errors):
            span = errors[0].span
            place = f"{span.line}:{span.column}" if span else "nowhere"
            print(f"far: {mutant.file.name}:{mutant.lines[0]} {mutant.kind} {mutant.what!r}: {place} {errors[0].code} {errors[0].message}")
    print(dict(outcome), f"slowest {slowest:.2f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
