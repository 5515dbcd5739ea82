"""Text to tokens, with the limits that keep hostile text cheap.

The terminals are those of `grammars/dl.lark`. What is no token is reported and stands in the stream as the token that was
most likely meant, so that the parser does not stumble over the same mistake again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from lark import Lark, Token
from lark.lexer import Lexer, PatternStr

from dslc.diagnostics import Diagnostic, DiagnosticError, Note, Span
from dslc.options import resource

MAX_BYTES = 1 << 20
MAX_TOKENS = 200_000
MAX_NESTING = 256
MAX_NAME = 255
MAX_DIGITS = 40
MAX_MISTAKES = 100  # errors before the rest of the file is left unread

OPEN = {"LPAR": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}
CLOSE = {"RPAR": "LPAR", "RSQB": "LSQB", "RBRACE": "LBRACE"}

# Control characters, surrogates and the invisible marks that make text read otherwise than it runs.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)

# What other languages write here: text -> (token type that was meant or None, its text, hint).
_FOREIGN: dict[str, tuple[str | None, str, str]] = {
    ";": (None, "", "a statement ends where it ends: drop the `;`"),
    "&&": ("AND", "and", "write `and`"),
    "||": ("OR", "or", "write `or`"),
    "!": ("NOT", "not", "write `not`"),
    "/*": (None, "", "a comment begins with `#` and ends with its line"),
    "*/": (None, "", "a comment begins with `#` and ends with its line"),
    "=>": ("ARROW", "->", "a result is written with `->`"),
    ":=": ("EQUAL", "=", "write `=`"),
    "===": ("EQUALS", "==", "write `==`"),
    "None": ("NAME", "none", "write `none`"),
    "|": (None, "", "a pipe is written `|>`; a logical or is `or`"),
    "^": ("POWER", "**", "a power is written `**`"),
    "True": ("TRUE", "true", "write `true`"),
    "False": ("FALSE", "false", "write `false`"),
}


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment, `#` included, and where it stands."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Lexed:
    """The tokens and comments of a file, and what was wrong with its characters."""

    tokens: list[Token]
    comments: list[Comment]
    diagnostics: list[Diagnostic]


class _NoLexer(Lexer):
    """Lark is fed tokens; it reads no text itself."""

    def __init__(self, conf: object) -> None:
        pass

    def lex(self, lexer_state: object, parser_state: object = None) -> object:  # type: ignore[override]
        return iter(())


@cache
def grammar() -> Lark:
    """The parser for one item, built once a process (0.15 s)."""
    text = resource("grammars/dl.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer=_NoLexer, strict=True, start="item")


@cache
def fixed_tokens() -> dict[str, str]:
    """Reserved words and punctuation: text -> terminal name."""
    return {t.pattern.value: t.name for t in grammar().terminals if isinstance(t.pattern, PatternStr)}


@cache
def reserved_words() -> frozenset[str]:
    """The words that cannot be names."""
    return frozenset(text for text in fixed_tokens() if text.isalpha())


@cache
def _pattern() -> re.Pattern[str]:
    regular = {t.name: t.pattern.to_regexp() for t in grammar().terminals if not isinstance(t.pattern, PatternStr)}
    marks = sorted((text for text in fixed_tokens() if not text.isalpha()), key=len, reverse=True)
    alternatives = {
        "SPACE": r"[ \t\r\n]+",
        "NAME": regular["NAME"] + r"(?!\w)",
        "FOREIGN": r"===|&&|\|\||/\*|\*/|=>|:=|;|!(?!=)|\|(?!>)|\^",
        "MARK": "|".join(map(re.escape, marks)),
        **{name: regular[name] for name in ("NUMBER", "SIZE", "INT", "STRING", "COMMENT")},
        "BAD_NUMBER": r"[0-9](?:[0-9A-Za-z_]|\.(?=[0-9A-Za-z]))*",
        "WORD": r"\w+",
        "QUOTED": r"""'[^'\n]*'|[“„«][^“”„«»"\n]*[“”»"]""",
        "OPEN_STRING": r'"[^"\n]*',
        "OTHER": r"[^\x00-\x7f\w]+|.",
    }
    return re.compile("|".join(f"(?P<{name}>{regexp})" for name, regexp in alternatives.items()), re.DOTALL)


def decode(data: bytes, file: str) -> str:
    """The text of a source file; raises DiagnosticError where it is too large (DL0001) or not UTF-8 (DL0004)."""
    if len(data) > MAX_BYTES:
        raise DiagnosticError(_too_large(len(data), file))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before[before.rfind(b"\n") + 1 :].decode("utf-8")) + 1
        span = Span(file, line, column, line, column + 1)
        message = f"the file is not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise DiagnosticError(Diagnostic("DL0004", message, span, hint="save the file as UTF-8")) from None


def lex(text: str, file: str) -> Lexed:
    """The tokens of `text`; raises DiagnosticError where a limit is passed, before any further work is done."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise DiagnosticError(_too_large(size, file), sources={})
    return _Scanner(text, file).scan()


def _too_large(size: int, file: str) -> Diagnostic:
    message = f"{file} has {size:,} bytes; a source file has at most {MAX_BYTES:,} (1 MiB)"
    return Diagnostic("DL0001", message, hint="keep large tables in data files, and split a large network over imported files")


class _Scanner:
    """One walk over the text; holds the position in lines and what was found so far."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.line = 1
        self.line_start = 0
        self.tokens: list[Token] = []
        self.comments: list[Comment] = []
        self.diagnostics: list[Diagnostic] = []

    def scan(self) -> Lexed:
        text, file, tokens = self.text, self.file, self.tokens
        fixed, match = fixed_tokens(), _pattern().match
        hidden = _HIDDEN.search(text)
        opened: list[Span] = []
        position = 1 if text.startswith("\ufeff") else 0  # a byte order mark is no part of the text
        self.line_start = position
        while position < len(text):
            found = match(text, position)
            assert found is not None and found.lastgroup is not None, "the last alternative takes any character"
            kind, value, start, position = found.lastgroup, found.group(), position, found.end()
            if kind == "SPACE":
                breaks = value.count("\n")
                if breaks:
                    self.line += breaks
                    self.line_start = start + value.rfind("\n") + 1
                continue
            span = Span(file, self.line, start - self.line_start + 1, self.line, position - self.line_start + 1)
            if hidden is not None and _HIDDEN.search(value):
                self.hidden_character(value, span)
                if value.startswith('"'):
                    self.add("STRING", '""', start, span)
            elif kind == "COMMENT":
                self.comments.append(Comment(value.rstrip(), span))
            elif kind in ("NAME", "MARK"):
                if kind == "NAME" and value in _FOREIGN_WORDS:
                    self.foreign(value, start, span)
                else:
                    self.name(value, start, span, fixed.get(value, "NAME"))
            elif kind in ("INT", "NUMBER", "SIZE"):
                self.number(kind, value, start, span)
            elif kind == "STRING":
                self.add(kind, value, start, span)
            elif kind == "FOREIGN":
                self.foreign(value, start, span)
            else:
                self.mistake(kind, value, start, span)
            if not tokens:
                continue
            last = tokens[-1].type
            if last in OPEN and tokens[-1].start_pos == start:
                opened.append(span)
                if len(opened) > MAX_NESTING:
                    raise self.refused(too_deep(span, opened[0]))
            elif last in CLOSE and opened and tokens[-1].start_pos == start:
                opened.pop()
            if len(tokens) > MAX_TOKENS:
                message = f"{file} has more than {MAX_TOKENS:,} tokens"
                raise self.refused(Diagnostic("DL0002", message, span, hint="split it over imported files"))
        return Lexed(tokens, self.comments, self.diagnostics)

    def refused(self, diagnostic: Diagnostic) -> DiagnosticError:
        return DiagnosticError(diagnostic, sources={self.file: self.text})

    def add(self, kind: str, value: str, start: int, span: Span) -> None:
        end = start + span.end_column - span.column
        self.tokens.append(Token(kind, value, start, span.line, span.column, span.end_line, span.end_column, end))

    def report(self, code: str, message: str, span: Span, hint: str | None = None) -> None:
        self.diagnostics.append(Diagnostic(code, message, span, hint=hint))
        if len(self.diagnostics) >= MAX_MISTAKES:
            raise DiagnosticError(*self.diagnostics, sources={self.file: self.text})

    def name(self, value: str, start: int, span: Span, kind: str) -> None:
        if len(value) > MAX_NAME:
            message = f"this name has {len(value):,} characters; a name has at most {MAX_NAME}"
            self.report("DL0007", message, Span(span.file, span.line, span.column, span.line, span.column + 20))
        if kind in ("LPAR", "LSQB") and self.tokens:
            callee = self.tokens[-1]
            if callee.type in ("NAME", "RPAR", "RSQB") and callee.end_pos != start:
                what = "tensors" if kind == "LPAR" else "static arguments or an index"
                message = f"the `{value}` of {what} stands right behind what it belongs to"
                self.report("DL0015", message, span, f"remove the space before `{value}`, or put an operator between the two")
        self.add(kind, value, start, span)

    def number(self, kind: str, value: str, start: int, span: Span) -> None:
        if len(value) > MAX_DIGITS:
            shown = Span(span.file, span.line, span.column, span.line, span.column + MAX_DIGITS)
            self.report("DL0008", f"this number has {len(value):,} characters; a number has at most {MAX_DIGITS}", shown)
            kind, value = "INT", "1"
        elif kind == "NUMBER":
            exact = float(value)
            zero = not value.lower().split("e")[0].strip("0._")
            if exact == float("inf") or (exact == 0 and not zero):
                self.report("DL0008", f"{value} is too {'large' if exact else 'small'} for a 64-bit float", span)
        self.add(kind, value, start, span)

    def foreign(self, value: str, start: int, span: Span) -> None:
        kind, _, hint = _FOREIGN[value]
        self.report("DL0018", f"`{value}` is not in this language", span, hint)
        if kind is not None:
            self.add(kind, _FOREIGN[value][1], start, span)

    def hidden_character(self, value: str, span: Span) -> None:
        found = _HIDDEN.search(value)
        assert found is not None
        place = Span(span.file, span.line, span.column + found.start(), span.line, span.column + found.start() + 1)
        code = ord(found.group())
        if code == 0:
            self.report("DL0004", "the file holds a NUL byte: it is not text", place, "save the file as UTF-8")
        else:
            self.report("DL0005", f"the invisible character U+{code:04X} has no place in a source file", place, "delete it")

    def mistake(self, kind: str, value: str, start: int, span: Span) -> None:
        """Report what is no token, and put in its place what was most likely meant."""
        if kind == "BAD_NUMBER":
            self.report("DL0008", f"`{_short(value)}` is not a number", span, _number_hint(value))
            is_size = re.fullmatch(r"[0-9]+[kKMGT]i?[bB]?", value) is not None
            self.add("SIZE" if is_size else "INT", "1GiB" if is_size else "1", start, span)
        elif kind == "WORD":
            message = f"`{_short(value)}` is not a name: names are ASCII letters, digits and `_`"
            self.report("DL0007", message, span, _ascii_hint(value))
            self.add("NAME", value, start, span)
        elif kind == "QUOTED":
            self.report("DL0006", "a string stands in straight double quotes", span, f'write "{_short(value[1:-1])}"')
            self.add("STRING", f'"{value[1:-1]}"', start, span)
        elif kind == "OPEN_STRING":
            hint = 'put a `"` behind its last character; a string ends on its line, and has no escapes'
            self.report("DL0006", "this string is not closed", span, hint)
            self.add("STRING", value.rstrip() + '"', start, span)
        else:
            self.report("DL0005", f"the character {_short(value)!r} has no meaning here", span, "delete it")


_FOREIGN_WORDS = frozenset(text for text in _FOREIGN if text.isalpha())


def too_deep(span: Span, outermost: Span) -> Diagnostic:
    """Nesting beyond the limit, at `span`."""
    message = f"nesting is deeper than {MAX_NESTING} levels"
    return Diagnostic("DL0003", message, span, (Note("the outermost level", outermost),), "give intermediate results names")


def _number_hint(value: str) -> str:
    if re.fullmatch(r"[0-9]+[kKMGT]i?[bB]?", value):
        return "a size in bytes is written with KiB, MiB or GiB, like 2GiB"
    if re.fullmatch(r"0[xXbBoO][0-9a-fA-F_]+", value):
        return "numbers are decimal"
    if re.fullmatch(r"[0-9._]+(e[0-9]+)?[fFdDlLuU]+[0-9]*", value):
        return "a number has no type suffix: it takes its type from context"
    return "a number is digits, with single `_` between them, and may have a fraction or an exponent: 20_000, 0.5, 1e-5"


def _ascii_hint(value: str) -> str | None:
    plain = "".join(_GREEK.get(c, c) for c in value)
    return f"call it `{plain}`" if plain.isascii() and plain.isidentifier() else None


_LETTERS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi omega"
_GREEK = dict(zip("αβγδεζηθικλμνξοπρστυφχψω", _LETTERS.split(), strict=True))


def _short(value: str) -> str:
    return value if len(value) <= 40 else value[:37] + "..."
