"""What to say about a syntax error: what was found, what was expected, and which common slip it looks like.

`explain` asks a short list of detectors, the most specific first; each is a function of the mistake and gives a diagnostic
or None. What none of them knows gets the plain "expected ..., found ..." of `_plain`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from lark import Token

from dslc.diagnostics import Diagnostic, Note, Span
from dslc.frontend.lex import CLOSE, OPEN, fixed_tokens, reserved_words

_OPERATORS = {"PLUS", "MINUS", "STAR", "SLASH", "DOUBLE_SLASH", "PERCENT", "AT", "POWER", "OR", "AND", "PIPE", "RANGE"}
_COMPARISONS = {"EQUALS", "UNEQUAL", "AT_MOST", "AT_LEAST", "LESS", "MORE"}
_STATEMENTS = {"PARAM", "STATE", "UPDATE", "RETURN", "YIELD", "FOR", "IF", "ASSERT"}
_CLAUSES = {"DATA", "PHASE", "MINIMIZE", "METRIC", "LOAD", "SAVE", "FREEZE"}
_ITEMS = {"IMPORT", "DIM", "CONST", "PRECISION", "BLOCK", "MODEL", "OPTIMIZER", "TRAIN", "EXPORT"}

# Words that other languages begin a statement or an item with.
_FOREIGN_STARTS = {
    "def": "a reusable network is `block Name[static](x: f32[N, D]) -> f32[N, D] { ... }`",
    "fn": "a reusable network is `block Name[static](x: f32[N, D]) -> f32[N, D] { ... }`",
    "func": "a reusable network is `block Name[static](x: f32[N, D]) -> f32[N, D] { ... }`",
    "function": "a reusable network is `block Name[static](x: f32[N, D]) -> f32[N, D] { ... }`",
    "class": "a reusable network is `block Name[static](x: f32[N, D]) -> f32[N, D] { ... }`",
    "layer": "a layer is a `block`",
    "network": "a network is a `model`",
    "net": "a network is a `model`",
    "from": 'another file is imported by `import "file.dl" as name`',
    "include": 'another file is imported by `import "file.dl" as name`',
    "use": 'another file is imported by `import "file.dl" as name`',
    "let": "a name is bound by `name = value`",
    "var": "a name is bound by `name = value`; nothing mutates",
    "val": "a name is bound by `name = value`",
    "while": "`for` unrolls over a static range; `scan` loops at run time",
    "elif": "write `else if`",
    "elseif": "write `else if`",
    "print": "there is nothing to print from: `dslc run --dump` saves intermediate values",
    "pass": "an empty body is `{ }`",
    "lambda": "there are no anonymous functions: define a block and give its name",
    "struct": "there are no records; a block gives several named results by `-> (a: f32[N], b: f32[N])`",
    "loss": "a loss is named by `minimize`, in a `train` item",
}


@dataclass(frozen=True, slots=True)
class Mistake:
    """A token at which one item's parse came to a halt: `tokens[start:end]` is the piece, `index == end` its end."""

    file: str
    tokens: list[Token]
    start: int
    index: int
    end: int
    accepts: frozenset[str]

    @property
    def token(self) -> Token | None:
        """What was found; None at the end of the piece."""
        return self.tokens[self.index] if self.index < self.end else None

    def before(self, count: int = 1) -> Token | None:
        """The token `count` before the one found."""
        i = self.index - count
        return self.tokens[i] if i >= self.start else None

    def after(self) -> Token | None:
        """The token behind the one found."""
        return self.tokens[self.index + 1] if self.index + 1 < self.end else None

    def innermost(self) -> Token | None:
        """The bracket or brace that is open where the parse stopped."""
        i = self.innermost_index()
        return None if i is None else self.tokens[i]

    def innermost_index(self) -> int | None:
        """Its index among the tokens."""
        stack: list[int] = []
        for i in range(self.start, self.index):
            if self.tokens[i].type in OPEN:
                stack.append(i)
            elif self.tokens[i].type in CLOSE and stack:
                stack.pop()
        return stack[-1] if stack else None

    def at(self, token: Token) -> Span:
        """The span of a token."""
        return Span(self.file, token.line or 1, token.column or 1, token.end_line or 1, token.end_column or 2)

    def behind(self, token: Token) -> Span:
        """The place right behind a token."""
        line, column = token.end_line or 1, token.end_column or 1
        return Span(self.file, line, column, line, column + 1)

    def place(self) -> Span:
        """Where the parse stopped."""
        return self.at(self.token) if self.token is not None else self.behind(self.tokens[self.end - 1])

    def starts_line(self, back: int = 0) -> bool:
        """Whether nothing stands on the line before the token `back` places before the one found."""
        i = self.index - back
        return i == 0 or self.tokens[i - 1].end_line != self.tokens[i].line


def explain(mistake: Mistake) -> Diagnostic:
    """The one diagnostic that a mistake gets."""
    detectors: tuple[Callable[[Mistake], Diagnostic | None], ...] = (
        _foreign_word,
        _not_an_item,
        _mismatched,
        _reserved_name,
        _assignment_as_comparison,
        _named_in_parentheses,
        _chained_comparison,
        _comment_slip,
        _half_number,
        _if_shapes,
        _colon_body,
        _unclosed,
        _two_values,
    )
    for detect in detectors:
        diagnostic = detect(mistake)
        if diagnostic is not None:
            return diagnostic
    return _plain(mistake)


def _foreign_word(m: Mistake) -> Diagnostic | None:
    """`def f(x):`, `let y = x`, `while true {`: a word that begins something elsewhere."""
    token, last = m.token, m.before()
    where_items_stand = m.index == m.start or "$END" in m.accepts
    where_statements_stand = last is not None and m.accepts <= {"EQUAL", "COMMA"} and m.starts_line(1)
    for word, fits in ((token, where_items_stand), (last, where_statements_stand)):
        if word is not None and fits and str(word) in _FOREIGN_STARTS:
            return Diagnostic("DL0018", f"`{word}` is not in this language", m.at(word), hint=_FOREIGN_STARTS[str(word)])
    follower = m.after()
    if token is None or follower is None or last is None or token.type not in _OPERATORS or follower.type != "EQUAL":
        return None
    if follower.start_pos != token.end_pos or not where_statements_stand:
        return None
    hint = f"nothing mutates; write `{last} = {last} {token} ...`"
    return Diagnostic("DL0018", f"`{token}=` is not in this language", m.at(token).to(m.at(follower)), hint=hint)


def _not_an_item(m: Mistake) -> Diagnostic | None:
    """Something else where an item should begin."""
    token = m.token
    if token is None or not (m.index == m.start or m.accepts == {"$END"}) or token.type in CLOSE:
        return None
    if token.type in _ITEMS:
        return None
    if m.index > m.start:
        extra = _early_close(m)
        if extra is not None:
            message = "this `}` closes more than its line shows: what follows stands outside"
            notes = (Note(f"{_described(token)} stands outside every item", m.at(token)),)
            return Diagnostic("DL0012", message, m.at(extra), notes, "remove this `}`, or indent it as the block that it closes")
    close = difflib.get_close_matches(str(token), [w.lower() for w in _ITEMS], 1, 0.7) if token.type == "NAME" else []
    hint = (
        f"did you mean `{close[0]}`?"
        if close
        else "an item begins with import, dim, const, precision, block, model, optimizer, train or export"
    )
    if not close and token.type in _STATEMENTS | _CLAUSES | {"NAME"} and m.index > m.start:
        hint = "this belongs inside the braces of an item: is there a `}` too many before it?"
    return Diagnostic("DL0014", f"expected an item, found {_described(token)}", m.at(token), hint=hint)


def _mismatched(m: Mistake) -> Diagnostic | None:
    """A closing bracket of the wrong kind, or one that closes nothing."""
    token = m.token
    if token is None or token.type not in CLOSE:
        return None
    top = m.innermost()
    if top is None or (top.type == "LBRACE" and token.type != "RBRACE"):
        return Diagnostic(
            "DL0012", f"this `{token}` closes nothing", m.at(token), hint=f"remove it, or add the `{_opener(token)}` that it closes"
        )
    if OPEN[top.type] == token.type:
        return None
    wanted = _closer(top)
    if token.type == "RBRACE" or (m.starts_line() and m.index > m.start):
        last = m.before() or token
        return _not_closed(m, top, last, f" before `{token}`")
    message = f"`{token}` does not close `{top}`"
    return Diagnostic("DL0012", message, m.at(token), (Note("opened here", m.at(top)),), f"write `{wanted}`")


def _reserved_name(m: Mistake) -> Diagnostic | None:
    """`data = x`, `for state in xs`: a reserved word as a name."""
    token, last = m.token, m.before()
    if token is None:
        return None
    follower = m.after()
    if str(token) in reserved_words() and "NAME" in m.accepts and follower is not None:
        behind_names = {"EQUAL", "COMMA", "COLON", "DOT", "IN", "RPAR", "RSQB"}
        if not (m.starts_line() and _begins_statement(token)):
            behind_names |= {"LPAR", "LSQB", "LBRACE"} | _OPERATORS
        if follower.type in behind_names:
            return _reserved(m, token)
    if (
        last is not None
        and str(last) in reserved_words()
        and m.accepts == {"NAME"}
        and token.type in {"EQUAL", "COMMA", "LPAR", "LSQB", "DOT"} | _OPERATORS
    ):
        return _reserved(m, last)
    return None


def _reserved(m: Mistake, word: Token) -> Diagnostic:
    message = f"`{word}` is a reserved word and cannot be a name"
    return Diagnostic("DL0013", message, m.at(word), hint=f"call it `{word}_`, or something else")


def _assignment_as_comparison(m: Mistake) -> Diagnostic | None:
    """`if n = 3 {`: `=` where a comparison was meant."""
    token = m.token
    if token is None or token.type != "EQUAL" or m.starts_line():
        return None
    comparable = bool(m.accepts & _COMPARISONS) or bool(m.accepts & {"AND", "THEN", "LBRACE"})
    top = m.innermost()
    if not comparable or (top is not None and top.type == "LPAR" and _after_name_in_list(m)):
        return None
    hint = "a comparison is written `==`"
    if _statement_binds(m):
        hint = "a statement binds one value, and a comparison is written `==`"
    return Diagnostic("DL0017", "`=` binds a name and cannot stand in an expression", m.at(token), hint=hint)


def _named_in_parentheses(m: Mistake) -> Diagnostic | None:
    """`f(x, axis = 1)`: static configuration among the tensors."""
    token, name, opened = m.token, m.before(), m.innermost_index()
    if token is None or name is None or token.type != "EQUAL" or opened is None:
        return None
    if m.tokens[opened].type != "LPAR" or not _after_name_in_list(m):
        return None
    callee = m.tokens[opened - 1] if opened > m.start else None
    shown = callee if callee is not None and callee.type == "NAME" else "f"
    message = "static configuration stands in brackets, not among the tensors"
    return Diagnostic("DL0016", message, m.at(name).to(m.at(token)), hint=f"write `{shown}[{name} = ...](...)`")


def _chained_comparison(m: Mistake) -> Diagnostic | None:
    """`0 < n < 8`."""
    token = m.token
    if token is None or token.type not in _COMPARISONS or "AND" not in m.accepts or m.accepts & _COMPARISONS:
        return None
    return Diagnostic("DL0019", "comparisons do not chain", m.at(token), hint="write `a < b and b < c`")


def _comment_slip(m: Mistake) -> Diagnostic | None:
    """`// a comment`."""
    token = m.token
    for i in range(m.index, m.start - 1, -1):
        if i >= m.end:
            continue
        slash = m.tokens[i]
        if slash.end_line != (token or m.tokens[m.end - 1]).line:
            break
        if slash.type == "DOUBLE_SLASH" and (slash is token or (token is not None and token.type == "NAME" and i + 1 < m.index)):
            return Diagnostic(
                "DL0018",
                "a comment does not begin with `//`",
                m.at(slash),
                hint="a comment begins with `#`; `//` is the whole-number division",
            )
    return None


def _half_number(m: Mistake) -> Diagnostic | None:
    """`.5` and `1.`."""
    token, last, before = m.token, m.before(), m.before(2)
    if last is not None and last.type == "DOT" and before is not None and before.type == "INT":
        span = m.at(before).to(m.at(last))
        return Diagnostic("DL0008", f"`{before}.` is not a number", span, hint=f"write `{before}.0`")
    follower = m.after()
    if token is not None and token.type == "DOT" and follower is not None and follower.type == "INT" and "NAME" in m.accepts:
        return Diagnostic("DL0008", f"`.{follower}` is not a number", m.at(token).to(m.at(follower)), hint=f"write `0.{follower}`")
    return None


def _if_shapes(m: Mistake) -> Diagnostic | None:
    """The statement and the expression `if` mixed up, or written as in Python."""
    token = m.token
    if token is None:
        return None
    hint = "as an expression: `if condition then a else b`; as a statement: `if condition { ... } else { ... }`"
    if token.type == "THEN" and "LBRACE" in m.accepts:
        return Diagnostic("DL0018", "a statement `if` has a body in braces, and no `then`", m.at(token), hint=hint)
    if token.type == "LBRACE" and "THEN" in m.accepts:
        return Diagnostic("DL0018", "an expression `if` has `then` and `else`, and no braces", m.at(token), hint=hint)
    if token.type == "ELSE" and "LBRACE" in m.accepts:
        return Diagnostic(
            "DL0018", "a conditional value is written the other way round", m.at(token), hint="write `if condition then a else b`"
        )
    return None


def _colon_body(m: Mistake) -> Diagnostic | None:
    """`for i in xs:`."""
    token = m.token
    if token is None or token.type not in ("COLON", "EQUAL") or "LBRACE" not in m.accepts:
        return None
    return Diagnostic("DL0018", f"a body stands in braces, not behind `{token}`", m.at(token), hint="write `{ ... }`")


def _unclosed(m: Mistake) -> Diagnostic | None:
    """A bracket that is open where a statement begins, or anything open at the end of the item."""
    token, last, top = m.token, m.before(), m.innermost()
    if top is None or last is None:
        return None
    if token is None:
        suspect = _late_close(m)
        if top.type == "LBRACE" and suspect is not None:
            opener, index = suspect
            message = "this block is not closed: what follows is indented as the block around it"
            return Diagnostic("DL0011", message, m.behind(m.tokens[index - 1]), (Note("opened here", m.at(opener)),), "add `}`")
        following = m.tokens[m.end] if m.end < len(m.tokens) else None
        ending = f"`{following}`" if following is not None else "the end of the file"
        return _not_closed(m, top, last, f" before {ending}")
    if top.type == "LBRACE" or last.end_line == token.line or not _begins_statement_here(m):
        return None
    if not m.accepts & {OPEN[top.type], "COMMA"}:
        return None
    return _not_closed(m, top, last, "")


def _not_closed(m: Mistake, top: Token, last: Token, ending: str) -> Diagnostic:
    """A bracket is most often forgotten on the line it is opened on, a brace at the end of what it holds."""
    wanted = _closer(top)
    message = f"the `{top}` is not closed: expected `{wanted}`{ending}"
    opened, wanting = m.at(top), m.behind(last)
    if top.type != "LBRACE" and opened.line != wanting.line:
        return Diagnostic("DL0011", message, opened, (Note(f"`{wanted}` is missing at the latest here", wanting),), f"add `{wanted}`")
    return Diagnostic("DL0011", message, wanting, (Note("opened here", opened),), f"add `{wanted}`")


def _two_values(m: Mistake) -> Diagnostic | None:
    """`y = a b`: the second value was read as the beginning of the next statement."""
    token, last, before = m.token, m.before(), m.before(2)
    if last is None or before is None or last.type != "NAME" or not m.accepts <= {"EQUAL", "COMMA"} or m.starts_line(1):
        return None
    if before.type in {"LBRACE", "RBRACE"} or (token is not None and token.type == "EQUAL"):
        return None
    message = f"expected an operator or the end of the statement, found {_described(last)}"
    return Diagnostic("DL0010", message, m.at(last), hint=f"is an operator, a comma or a bracket missing before `{last}`?")


def _plain(m: Mistake) -> Diagnostic:
    expected = _expected(m.accepts)
    if m.token is None:
        following = m.tokens[m.end] if m.end < len(m.tokens) else None
        found = f"`{following}`" if following is not None else "the end of the file"
    else:
        found = _described(m.token)
    return Diagnostic("DL0010", f"expected {expected}, found {found}", m.place(), hint=_plain_hint(m))


def _plain_hint(m: Mistake) -> str | None:
    token = m.token
    if m.accepts == {"EQUAL", "COMMA"} and token is not None and token.type in {"LPAR", "LSQB", "DOT"} | _OPERATORS:
        return "a statement binds a name: write `y = ...`, or `return ...`"
    if "ARROW" in m.accepts and token is not None:
        return "a signature says what it gives: `-> f32[N, 10]`"
    if m.accepts <= {"OVER"} | _OPERATORS | _COMPARISONS and "OVER" in m.accepts:
        return "`minimize loss over Model with Optimizer[...]`"
    if token is not None and token.type == "LPAR" and "NAME" in m.accepts and (last := m.before()) is not None and last.type == "PARAM":
        return "a parameter is `param w: f32[In, Out] ~ initialiser`"
    return None


def _expected(accepts: frozenset[str]) -> str:
    """The tokens that could stand here, in words."""
    rest = set(accepts)
    if rest <= {"DOT", "AS"}:
        return "`.` or `as`"
    words: list[str] = []
    if {"LPAR", "NAME", "MINUS", "INT"} <= rest:
        words.append("an expression")
        rest -= {"LPAR", "LSQB", "NAME", "MINUS", "INT", "NUMBER", "STRING", "TRUE", "FALSE", "NOT", "SCAN", "IF", "COLON", "DOTS"}
    operators = bool(rest & {"PLUS", "STAR", "OR", "AND"})
    if operators or "DOT" in rest:
        rest -= {"LPAR", "LSQB", "DOT", "AS"} | _OPERATORS | _COMPARISONS
    if "RETURN" in rest:
        words.append("a statement")
        rest -= _STATEMENTS | {"NAME"}
    if rest & {"LOAD", "FREEZE"}:
        words.append("a clause")
        rest -= _CLAUSES | {"NAME"}
    if "METRIC" in rest:
        words.append("an assignment, `minimize` or `metric`")
        rest -= {"METRIC", "MINIMIZE", "NAME"}
    if "BLOCK" in rest:
        words.append("an item")
        rest -= _ITEMS
    if {"INT", "SIZE"} <= rest:
        words.append("a number, a size, a string, true or false")
        rest -= {"INT", "NUMBER", "SIZE", "STRING", "TRUE", "FALSE"}
    for kind, text in (("NAME", "a name"), ("STRING", "a string"), ("$END", "the end of the item")):
        if kind in rest:
            words.append(text)
            rest.discard(kind)
    spelled = {name: text for text, name in fixed_tokens().items()}
    words += [f"`{spelled[kind]}`" for kind in sorted(rest) if kind in spelled]
    if operators and len(words) < 3:
        words.append("an operator")
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1] if words else "nothing more"


def _described(token: Token) -> str:
    shown = token if len(token) <= 40 else token[:37] + "..."
    if token.type == "NAME":
        return f"the name `{shown}`"
    if token.type in ("INT", "NUMBER", "SIZE"):
        return f"the number `{shown}`"
    return f"the string {shown}" if token.type == "STRING" else f"`{shown}`"


def _closer(opener: Token) -> str:
    return {"LPAR": ")", "LSQB": "]", "LBRACE": "}"}[opener.type]


def _opener(closer: Token) -> str:
    return {"RPAR": "(", "RSQB": "[", "RBRACE": "{"}[closer.type]


def _begins_statement(token: Token) -> bool:
    return token.type in _STATEMENTS | _CLAUSES


def _begins_statement_here(m: Mistake) -> bool:
    """Whether the token found looks like the first of a statement: its word, or a name before `=`."""
    assert m.token is not None
    if _begins_statement(m.token) or m.token.type in CLOSE:
        return True
    follower = m.after()
    return m.token.type == "NAME" and follower is not None and follower.type in {"EQUAL", "COMMA", "INT", "NUMBER"}


def _after_name_in_list(m: Mistake) -> bool:
    name, before = m.before(), m.before(2)
    return name is not None and name.type == "NAME" and before is not None and before.type in {"LPAR", "COMMA"}


def _statement_binds(m: Mistake) -> bool:
    """Whether an `=` stands before this one in the same statement."""
    for i in range(m.index - 1, m.start, -1):
        if m.tokens[i].type == "EQUAL":
            return True
        if m.tokens[i].type in _STATEMENTS | {"LBRACE", "RBRACE"}:
            return False
    return False


def _indent(m: Mistake, opener: int) -> int:
    """The column at which the closing brace of `tokens[opener]` is expected."""
    for i in range(opener, m.start - 1, -1):
        if m.tokens[i].type in {"FOR", "IF", "SCAN", "PHASE"} or i == m.start:
            line = m.tokens[i].line
            while i > m.start and m.tokens[i - 1].end_line == line:
                i -= 1
            return m.tokens[i].column or 1
    return 1


def _late_close(m: Mistake) -> tuple[Token, int] | None:
    """The innermost `{` behind which something is indented as what is around it, and the index of that."""
    stack: list[int] = []
    for i in range(m.start, m.end):
        token = m.tokens[i]
        if token.type == "LBRACE":
            stack.append(i)
        elif stack and m.tokens[i - 1].end_line != token.line:
            column, inner = token.column or 1, len(stack) > 1
            if column < _indent(m, stack[-1]) or (inner and column == _indent(m, stack[-1]) and token.type != "RBRACE"):
                return m.tokens[stack[-1]], i
        if token.type == "RBRACE" and stack:
            stack.pop()
    return None


def _early_close(m: Mistake) -> Token | None:
    """The first `}` that is indented deeper than the block that it closes."""
    stack: list[int] = []
    for i in range(m.start, m.index):
        token = m.tokens[i]
        if token.type == "LBRACE":
            stack.append(i)
        elif token.type == "RBRACE" and stack:
            opener = stack.pop()
            if m.tokens[i - 1].end_line != token.line and (token.column or 1) > _indent(m, opener) and m.tokens[opener].line != token.line:
                return token
    return None
