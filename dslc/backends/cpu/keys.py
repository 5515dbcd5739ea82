"""What an expression is, for printers that compute each distinct one once."""

from __future__ import annotations

from dslc.ir.loops import Binary, Carry, Cast, ClampedLoad, Const, Expr, IndexValue, Load, LoadAt, Random, Reduce, Unary
from dslc.lowering.indices import children, walk


class Keys:
    """Equal text for equal expressions; loads show their buffer in brackets."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._kept: list[Expr] = []

    def __call__(self, e: Expr) -> str:
        for node in walk(e):
            if id(node) in self._known:
                continue
            inner = ",".join(self._known[id(c)] for c in children(node))
            match node:
                case Const(value=v, dtype=t):
                    text = f"{v!r}:{t.value}"
                case Load(buffer=b, address=d):
                    text = f"L[{b}]({d})"
                case ClampedLoad(buffer=b, address=d, clamped=clamped):
                    text = f"C[{b}]({d};{clamped})"
                case LoadAt(buffer=b, address=d, stride=s):
                    text = f"G[{b}]({d};{s};{inner})"
                case Carry(name=name):
                    text = f"carry {name}"
                case IndexValue(index=d, dtype=t):
                    text = f"I({d}):{t.value}"
                case Random(stream=s, index=d, dtype=t):
                    text = f"R{s}({d};{inner}):{t.value}"
                case Reduce(op=op, variables=vs, vector=vector):
                    text = f"{op}{vector}<{vs}>({inner})"
                case Cast(dtype=t):
                    text = f"to_{t.value}({inner})"
                case Unary(op=op) | Binary(op=op):
                    text = f"{op}({inner})"
                case _:
                    text = f"{type(node).__name__}({inner})"
            self._known[id(node)] = text
            self._kept.append(node)  # an id is only unique while its object lives
        return self._known[id(e)]
