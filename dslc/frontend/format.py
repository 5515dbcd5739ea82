"""`dslc fmt`: one layout for every file.

The formatter moves white space and nothing else: the tokens and comments of its output are those of its input, which an
assertion checks. Indentation, spacing and blank lines are canonical; where a statement is broken over lines, and whether a
short body stands on one line, is the author's choice as long as lines fit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lark import Token

from dslc.diagnostics import DiagnosticError
from dslc.frontend import syntax as s
from dslc.frontend.lex import CLOSE, OPEN, Comment, lex
from dslc.frontend.parse import parse

LINE_LENGTH = 140
_ENDS_OPERAND = {"NAME", "INT", "NUMBER", "SIZE", "STRING", "TRUE", "FALSE", "RPAR", "RSQB", "RBRACE", "DOTS"}
_STAYS_BEHIND = {"COMMA", "COLON", "DOT", "LBRACE", "RANGE", "EQUAL", "AS"}  # never the first of a line
_LISTS = {"GIVEN", "OVER", "WITH", "CARRY"}
_BREAKS_BEFORE = {"PIPE", "OVER", "ARROW", "GIVEN", "WITH", "CARRY", "AND", "OR", "PLUS", "MINUS", "STAR", "SLASH", "AT", "THEN", "ELSE"}


def format_source(text: str, file: str = "<string>") -> str:
    """`text` in the canonical layout; raises DiagnosticError with everything that is wrong with it if it does not parse."""
    tree, diagnostics = parse(text, file)
    if diagnostics:
        raise DiagnosticError(*diagnostics, sources={file: text})
    lexed = lex(text, file)
    atoms = _atoms(lexed.tokens, lexed.comments)
    starts = _statement_starts(tree)
    layout = _Layout(atoms, starts)
    formatted = layout.text()
    assert [str(t) for t in lex(formatted, file).tokens] == [str(t) for t in lexed.tokens], "the formatter changed the program"
    return formatted


@dataclass(slots=True)
class _Atom:
    """A token or a comment, and what the layout needs to know about it."""

    text: str
    kind: str  # the token's type, or COMMENT
    line: int
    end_line: int
    place: tuple[int, int]
    breaks: int  # line ends between it and the atom before it
    start: str = ""  # "statement" or "setting" where one begins
    space: bool = True  # whether a space separates it from the token before it
    depth: int = 0  # brackets open before it, within its statement
    one_line: bool = False  # of a `{`: its body stands on its line
    empty: bool = False  # of a `{`: nothing stands in it
    of_scan: bool = False  # of a `{`: it is the body of a scan
    partner: int = -1  # of a brace: the index of the other one
    between: bool = False  # of a comment: it stands where a statement could


def _atoms(tokens: list[Token], comments: list[Comment]) -> list[_Atom]:
    """Tokens and comments in the order of the source."""
    slices = _slice_colons(tokens)
    atoms = [
        _Atom(str(t), t.type, t.line or 1, t.end_line or 1, (t.line or 1, t.column or 1), 0, space=_spaced(tokens, i, slices))
        for i, t in enumerate(tokens)
    ]
    atoms += [_Atom(c.text, "COMMENT", c.span.line, c.span.line, (c.span.line, c.span.column), 0) for c in comments]
    atoms.sort(key=lambda a: a.place)
    previous = 1
    for atom in atoms:
        atom.breaks = atom.line - previous
        previous = atom.end_line
    _match_braces(atoms)
    return atoms


def _match_braces(atoms: list[_Atom]) -> None:
    """Pair the braces, count the brackets around each atom, and see which bodies are a scan's and which stand on one line."""
    opened: list[int] = []
    depths = [0]
    scans: list[int] = []  # the bracket depths, over all, at which a scan waits for its body
    for i, atom in enumerate(atoms):
        if atom.kind in ("RPAR", "RSQB"):
            depths[-1] -= 1
        if atom.kind == "RBRACE":
            depths.pop()
        atom.depth = depths[-1]
        if atom.kind in ("LPAR", "LSQB"):
            depths[-1] += 1
        elif atom.kind == "SCAN":
            scans.append(sum(depths))
        elif atom.kind == "LBRACE":
            if scans and scans[-1] == sum(depths):
                atom.of_scan = True
                scans.pop()
            opened.append(i)
            depths.append(0)
        elif atom.kind == "RBRACE":
            begin = opened.pop()
            atoms[begin].partner, atom.partner = i, begin
            atoms[begin].empty = begin + 1 == i
            atoms[begin].one_line = atoms[begin].line == atom.line


def _spaced(tokens: list[Token], i: int, slices: set[int]) -> bool:
    """Whether a space stands between a token and the one before it, when they share a line."""
    if i == 0:
        return False
    left, right = tokens[i - 1].type, tokens[i].type
    if right in ("LPAR", "LSQB"):
        return left not in ("NAME", "RPAR", "RSQB", "SCAN", "LPAR", "LSQB") and not _is_sign(tokens, i - 1) and left != "RANGE"
    if right in ("COMMA", "RPAR", "RSQB", "DOT", "RANGE") or left in ("LPAR", "LSQB", "DOT", "RANGE"):
        return False
    if right == "COLON":
        return left == "COMMA"
    if left == "COLON":
        return i - 1 not in slices
    return not _is_sign(tokens, i - 1)


def _is_sign(tokens: list[Token], i: int) -> bool:
    """Whether `tokens[i]` is a `-` or `*` that belongs to what stands behind it."""
    return tokens[i].type in ("MINUS", "STAR") and (i == 0 or tokens[i - 1].type not in _ENDS_OPERAND)


def _slice_colons(tokens: list[Token]) -> set[int]:
    """The colons that are part of an index, not of a type."""
    found: set[int] = set()
    indexing = [False]  # for each open bracket, whether it may hold slices
    for i, token in enumerate(tokens):
        if token.type in OPEN:
            signature = i > 1 and tokens[i - 2].type in ("BLOCK", "MODEL", "OPTIMIZER")
            indexing.append(token.type == "LSQB" and not signature)
        elif token.type in CLOSE:
            indexing.pop()
        elif token.type == "COLON" and indexing[-1]:
            found.add(i)
    return found


def _statement_starts(tree: s.File) -> dict[tuple[int, int], str]:
    """Where items, statements and clauses begin."""
    starts: dict[tuple[int, int], str] = {}
    for node in s.walk(tree):
        for name in ("items", "body", "otherwise", "clauses"):
            below = getattr(node, name, ())
            if isinstance(below, tuple) and not isinstance(node, s.IfExpr | s.ListExpr | s.TupleExpr):
                for child in below:
                    kind = "setting" if isinstance(child, s.Setting) else "statement"
                    starts[child.span.line, child.span.column] = kind
    for node in s.walk(tree):  # `else if` goes on where it stands
        if isinstance(node, s.If) and len(node.otherwise) == 1 and isinstance(node.otherwise[0], s.If):
            starts[node.otherwise[0].span.line, node.otherwise[0].span.column] = "chained"
    return starts


@dataclass(slots=True)
class _Line:
    """A line of output, and the atoms that it is made of."""

    indent: int
    text: str = ""
    comment: str = ""
    first: int = -1
    atoms: list[tuple[int, int]] = field(default_factory=list)  # index of the atom, its column in the text

    def width(self) -> int:
        return self.indent + len(self.text)


@dataclass(slots=True)
class _Hang:
    """How far the lines hang in on which a statement goes on."""

    statement: int  # the statement's own indentation
    item_head: bool  # it is the signature of an item, whose body follows: hang in deeper than that
    opened: list[int] = field(default_factory=list)  # for each open bracket, the indentation of its line
    listed: int | None = None  # where the items of a `given` or `over` list go that began its own line

    def indent(self, atom: _Atom, previous: _Atom | None) -> int:
        """The indentation of a line that begins with `atom`."""
        first = self.statement + (4 if self.item_head else 2)
        if self.opened:
            around = self.opened[-1]
            if atom.kind in ("RPAR", "RSQB"):
                return around
            return first if around == self.statement else around + 2
        if self.listed is not None and previous is not None and previous.kind in ("COMMA", "COMMENT") and atom.kind not in _LISTS:
            return self.listed
        return first

    def see(self, atom: _Atom, indent: int, new_line: bool) -> None:
        """Keep the brackets, and the lists that begin a line."""
        if atom.kind in ("LPAR", "LSQB"):
            self.opened.append(indent)
        elif atom.kind in ("RPAR", "RSQB"):
            self.opened.pop()
        elif new_line and not self.opened and atom.kind in _LISTS:
            self.listed = indent + 2
        elif atom.kind == "LBRACE":
            self.item_head, self.listed = False, None


@dataclass(slots=True)
class _Body:
    """An open brace: the indentation of its statements and of its closing brace, and of the statement that it stands in."""

    brace: int
    inside: int
    outside: int
    hang: _Hang


class _Layout:
    """Lays the atoms out, and again with more breaks until every line fits that can be made to."""

    def __init__(self, atoms: list[_Atom], starts: dict[tuple[int, int], str]) -> None:
        self.atoms = atoms
        for i, atom in enumerate(atoms):
            kind = starts.get(atom.place, "") if atom.kind != "COMMENT" else ""
            if kind == "chained" and i and atoms[i - 1].kind == "LBRACE":
                kind = "statement"  # else { if ... { } } has the braces that else if has not
            atom.start = "" if kind == "chained" else kind
        self.forced: set[int] = set()
        between = True
        for atom in reversed(atoms):
            atom.between = between
            if atom.kind != "COMMENT":
                between = bool(atom.start) or atom.kind == "RBRACE"

    def text(self) -> str:
        for _ in range(64):
            lines = self.lines()
            if not self.break_long(lines):
                break
        return _joined(lines)

    def lines(self) -> list[_Line]:
        """One pass over the atoms."""
        lines: list[_Line] = []
        bodies: list[_Body] = []
        hang = _Hang(0, False)
        after_setting = False
        previous: _Atom | None = None
        for i, atom in enumerate(self.atoms):
            inside = bodies[-1].inside if bodies else 0
            one_line = bool(bodies) and self.atoms[bodies[-1].brace].one_line
            after_comment = previous is not None and previous.kind == "COMMENT"
            after_brace = previous is not None and previous.kind == "LBRACE"
            blank = False
            if atom.kind == "COMMENT":
                if lines and atom.breaks == 0:
                    lines[-1].comment = atom.text
                else:
                    at = inside if atom.between else hang.indent(atom, previous)
                    blank = atom.between and atom.breaks > 1 and previous is not None and not after_brace
                    lines += [_Line(0)] * blank + [_Line(at, comment=atom.text)]
                previous = atom
                continue
            if atom.start:
                stays = one_line or (after_setting and atom.breaks == 0 and i not in self.forced)
                new_line = after_comment or previous is None or not stays
                gap = " " if after_brace else "  "
                blank = new_line and atom.breaks > 1 and previous is not None and not after_brace
                after_setting = atom.start == "setting"
                hang = _Hang(inside, atom.kind in ("BLOCK", "MODEL", "OPTIMIZER"))
                indent = inside
            elif atom.kind == "RBRACE":
                body = bodies.pop()
                brace = self.atoms[body.brace]
                new_line = after_comment or not (brace.empty or brace.one_line)
                indent, gap, hang = body.outside, " ", body.hang
                after_setting = False
            elif atom.kind == "ELSE" and atom.depth == 0 and self.ends_body(i):
                new_line, indent, gap = after_comment, hang.statement, " "
            else:
                chosen = atom.breaks > 0 and not one_line and atom.kind not in _STAYS_BEHIND and not self.is_postfix(i)
                new_line, gap = after_comment or chosen or i in self.forced, " " * atom.space
                indent = hang.indent(atom, previous)
            if new_line or not lines:
                lines += [_Line(0)] * blank + [_Line(indent)]
                gap = ""
            line = lines[-1]
            hang.see(atom, line.indent, new_line)
            line.text += gap
            line.atoms.append((i, len(line.text)))
            line.text += atom.text
            if atom.kind == "LBRACE":
                outside = line.indent if atom.of_scan else hang.statement
                bodies.append(_Body(i, outside + 2, outside, hang))
            previous = atom
        return lines

    def ends_body(self, i: int) -> bool:
        """Whether the `else` at `i` follows the body of an `if`."""
        while i > 0 and self.atoms[i - 1].kind == "COMMENT":
            i -= 1
        return i > 0 and self.atoms[i - 1].kind == "RBRACE" and not self.atoms[self.atoms[i - 1].partner].of_scan

    def is_postfix(self, i: int) -> bool:
        """Whether a bracket must stand right behind the token before it."""
        return self.atoms[i].kind in ("LPAR", "LSQB") and not self.atoms[i].space and self.atoms[i - 1].kind not in ("LPAR", "LSQB")

    def break_long(self, lines: list[_Line]) -> bool:
        """Open bodies and force breaks in lines that are too long; whether there was anything to do."""
        changed = False
        for line in lines:
            if line.width() <= LINE_LENGTH:
                continue
            bodies = [self.atoms[i] for i, _ in line.atoms if self.atoms[i].kind == "LBRACE" and self.atoms[i].one_line]
            bodies = [b for b in bodies if not b.empty]
            if bodies:
                bodies[0].one_line = False
                changed = True
                continue
            forced = self.breaks_for(line)
            changed |= bool(forced - self.forced)
            self.forced |= forced
        return changed

    def breaks_for(self, line: _Line) -> set[int]:
        """Where to break a line that is too long: at the outermost level that has a place, as late as fits."""
        places = [(i, column) for n, (i, column) in enumerate(line.atoms) if n and self.may_break(i)]
        for depth in sorted({self.atoms[i].depth for i, _ in places}):
            level = [(i, column) for i, column in places if self.atoms[i].depth == depth]
            chosen: set[int] = set()
            begin, room = 0, LINE_LENGTH - line.indent
            for n, (i, column) in enumerate(level):
                end = level[n + 1][1] if n + 1 < len(level) else len(line.text)
                if end - begin > room:
                    chosen.add(i)
                    begin, room = column, LINE_LENGTH - line.indent - 4
            if chosen:
                return chosen
        return set()

    def may_break(self, i: int) -> bool:
        atom, before = self.atoms[i], self.atoms[i - 1]
        if atom.kind in _STAYS_BEHIND or self.is_postfix(i) or not atom.space:
            return False
        sign = atom.kind in ("MINUS", "STAR") and before.kind not in _ENDS_OPERAND
        return bool(atom.start) or before.kind == "COMMA" or (atom.kind in _BREAKS_BEFORE and not sign)


def _joined(lines: list[_Line]) -> str:
    """The text; comments behind successive lines stand below each other where that fits."""
    out: list[str] = []
    n = 0
    while n < len(lines):
        end = n
        while end < len(lines) and lines[end].comment and lines[end].text:
            end += 1
        group = lines[n:end]
        column = max((line.width() for line in group), default=0)
        if any(column + 2 + len(line.comment) > LINE_LENGTH for line in group):
            column = 0
        for line in group:
            out.append(" " * line.indent + line.text + " " * (max(column - line.width(), 0) + 2) + line.comment)
        if end == n:
            line = lines[n]
            out.append((" " * line.indent + line.text + line.comment).rstrip())
            end = n + 1
        n = end
    return "\n".join(out) + "\n" if out else ""
