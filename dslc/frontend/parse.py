"""Text to syntax tree, going on at the next item after a mistake so that one run finds the mistakes of all items.

A file is cut where an item begins, and each piece is parsed by itself: a missing brace cannot swallow what follows. One item
gives at most one syntax error.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from lark import Token

from dslc.diagnostics import Diagnostic, DiagnosticError, Span
from dslc.frontend.feed import Feeder, Unexpected
from dslc.frontend.lex import CLOSE, MAX_MISTAKES, MAX_NESTING, OPEN, Lexed, decode, lex, reserved_words, too_deep
from dslc.frontend.slips import Mistake, explain
from dslc.frontend.syntax import File, Item

# Of Lark's states, before an item is refused as nested too deep: the longest rule pushes fewer than 16 a level.
MAX_STACK = 16 * MAX_NESTING

# What stands behind the word that begins an item.
_FOLLOWERS = {
    "IMPORT": "STRING",
    "DIM": "NAME",
    "CONST": "NAME",
    "PRECISION": "NAME",
    "BLOCK": "NAME",
    "MODEL": "NAME",
    "OPTIMIZER": "NAME",
    "TRAIN": "NAME",
    "EXPORT": "NAME",
}


def parse(text: str | bytes, file: str = "<string>") -> tuple[File, list[Diagnostic]]:
    """The syntax tree of `text` and everything wrong with it, in the order of the source.

    Items with an error are missing from the tree; what they would have declared is in its `broken`. Never raises for user
    input: a file past a limit (size, tokens, nesting) gives an empty tree and one diagnostic.
    """
    try:
        if isinstance(text, bytes):
            text = decode(text, file)
        lexed = lex(text, file)
    except DiagnosticError as error:
        return File((), span=_whole("", file)), list(error.diagnostics)
    items: list[Item] = []
    broken: set[str] = set()
    found = list(lexed.diagnostics)
    cut_short = False
    for start, end in _pieces(lexed.tokens):
        if cut_short and lexed.tokens[start].line == lexed.tokens[start - 1].end_line:
            broken |= _declared(lexed.tokens, start, end)  # a reserved word within a broken item, not the start of another
            continue
        if len(found) >= MAX_MISTAKES:
            broken |= _declared(lexed.tokens, start, end)
            continue
        mistakes = _mistakes_in(lexed, start, end)
        result = _parse_item(lexed.tokens, start, end, file)
        cut_short = isinstance(result, Diagnostic)
        if isinstance(result, Diagnostic):
            found += [result] if not _follows_from(result, mistakes) else []
            broken |= _declared(lexed.tokens, start, end)
        elif any(d.code not in ("DL0015", "DL0018") for d in mistakes):
            broken |= _declared(lexed.tokens, start, end)  # a stand-in would give errors of its own later on
        else:
            items.append(result)
    found.sort(key=lambda d: (d.span.line, d.span.column) if d.span else (0, 0))
    return File(tuple(items), frozenset(broken), span=_whole(text, file)), found


def _parse_item(tokens: list[Token], start: int, end: int, file: str) -> Item | Diagnostic:
    parser = Feeder(file)
    index = start
    try:
        for index in range(start, end):
            parser.feed(tokens[index])
            if len(parser.stack) > MAX_STACK:
                return _too_deep(tokens[start], tokens[index], file)
        index = end
        item: Item = parser.feed(Token.new_borrow_pos("$END", "", tokens[end - 1]))
        return item
    except DiagnosticError as error:
        return error.diagnostics[0]
    except Unexpected:
        return explain(Mistake(file, tokens, start, index, end, parser.accepts()))


def _too_deep(first: Token, last: Token, file: str) -> Diagnostic:
    spans = [Span(file, t.line or 1, t.column or 1, t.end_line or 1, t.end_column or 1) for t in (first, last)]
    return too_deep(spans[1], spans[0])


def _pieces(tokens: list[Token]) -> Iterator[tuple[int, int]]:
    """Ranges of tokens that each hold one item, or what stands where an item should."""
    if tokens:
        starts = sorted({0, *_item_starts(tokens)})
        yield from pairwise([*starts, len(tokens)])


def _item_starts(tokens: list[Token]) -> Iterator[int]:
    """Where an item begins. Its words are reserved everywhere, so brackets still open mean that one was not closed - unless
    the word was meant as a name, which what stands around it tells."""
    braces = brackets = 0
    for i, token in enumerate(tokens):
        kind = token.type
        if kind in _FOLLOWERS:
            first_on_line = i == 0 or tokens[i - 1].end_line != token.line
            follower = tokens[i + 1] if i + 1 < len(tokens) else None
            fits = follower is not None and (follower.type == _FOLLOWERS[kind] or str(follower) in reserved_words())
            if (fits and first_on_line) or (not brackets and not braces and (fits or first_on_line)):
                braces = brackets = 0
                yield i
        elif kind == "LBRACE":
            braces += 1
        elif kind == "RBRACE":
            braces = max(0, braces - 1)
        elif kind in OPEN:
            brackets += 1
        elif kind in CLOSE:
            brackets = max(0, brackets - 1)


def _declared(tokens: list[Token], start: int, end: int) -> set[str]:
    """The names that a broken item was about to declare."""
    kind = tokens[start].type
    names = [t for t in tokens[start + 1 : end] if t.type == "NAME"]
    if kind == "DIM":
        return {str(t) for t in names}
    if kind == "IMPORT":
        return {str(names[-1])} if names else set()
    return {str(t) for t in names[:1]}


def _mistakes_in(lexed: Lexed, start: int, end: int) -> list[Diagnostic]:
    """What the lexer found within the piece."""
    if not lexed.diagnostics:
        return []
    last = lexed.tokens[end - 1].end_line if end < len(lexed.tokens) else None
    first = lexed.tokens[start].line if start else None
    return [d for d in lexed.diagnostics if d.span and (first or 0) <= d.span.line <= (last or d.span.line)]


def _follows_from(error: Diagnostic, mistakes: list[Diagnostic]) -> bool:
    """Whether a syntax error is the echo of a mistake in the characters right before it."""
    return any(d.span and error.span and 0 <= error.span.line - d.span.line <= 1 for d in mistakes)


def _whole(text: str, file: str) -> Span:
    lines = text.split("\n")
    return Span(file, 1, 1, len(lines), len(lines[-1]) + 1)
