"""How scalar operations are spelt in the SIMD vocabulary of generated kernels."""
from __future__ import annotations

from collections.abc import Sequence

from dslc.ir.loops import COMPARISONS, SIGNS, Binary, Cast, Const, Expr, Select, Unary
from dslc.ir.types import DType

FUNCTIONS = {
    "sqrt": "vsqrt", "rsqrt": "vrsqrt", "floor": "vfloor", "ceil": "vceil", "trunc": "vtrunc", "round": "vrint", "abs": "vabs",
    "max": "vmax", "min": "vmin", "floordiv": "ifloordiv", "mod": "imod",
}  # fmt: skip
NAMES = """exp exp2 expm1 log log2 log10 log1p sinh cosh tanh asinh acosh atanh sigmoid erf sin cos tan asin acos atan atan2 pow fmod"""
MATH = frozenset(NAMES.split())  # mathlib.FORMULAS, which is not imported here: it needs Numba
FUNCTIONS |= {name: f"v{name}" for name in MATH}


def operation(e: Expr, operands: Sequence[str]) -> str:
    """A scalar operation on vectors: a call, or signs inside brackets; the texts of the operands come from here, too, or are names."""
    match e:
        case Const():
            return f"splat_{e.dtype.value}({constant_text(e)})"
        case Unary(op="neg"):
            return f"-{operands[0]}"
        case Unary(op="not"):
            return f"~{operands[0]}"
        case Unary(op="isnan"):
            return f"({operands[0]} != {operands[0]})"
        case Unary(op=op):
            return f"{FUNCTIONS[op]}({operands[0]})"
        case Binary(op="floordiv" | "mod" as op, x=x) if x.dtype.floating:
            quotient = f"vfloor({operands[0]} / {operands[1]})"
            return quotient if op == "floordiv" else f"({operands[0]} - {quotient} * {operands[1]})"
        case Binary(op=op) if op in SIGNS or op in COMPARISONS:
            return f"({operands[0]} {SIGNS.get(op) or COMPARISONS[op]} {operands[1]})"
        case Binary(op=op):
            return f"{FUNCTIONS[op]}({operands[0]}, {operands[1]})"
        case Select():
            return f"where({', '.join(operands)})"
        case Cast():
            return f"to_{e.dtype.value}({operands[0]})"
    raise TypeError(f"no text for {type(e).__name__}")


def bare(text: str) -> str:
    """An operation without the brackets around it."""
    return text[1:-1] if text.startswith("(") else text


def constant_text(e: Const) -> str:
    if e.dtype == DType.BOOL:
        return "True" if e.value else "False"
    if e.dtype.floating:
        value = float(e.value)
        if value != value:
            return "nan"
        if value in (float("inf"), float("-inf")):
            return "inf" if value > 0 else "-inf"
        return repr(value)
    return str(int(e.value))


def identity(op: str, dtype: DType) -> str:
    """The vector that a reduction starts from."""
    if op in ("add", "mul"):
        number = 0 if op == "add" else 1
        return f"splat_{dtype.value}({float(number) if dtype.floating else number})"
    low = {"i8": "-128", "u8": "0", "i32": str(-(2**31)), "i64": str(-(2**63)), "bool": "False"}
    high = {"i8": "127", "u8": "255", "i32": str(2**31 - 1), "i64": str(2**63 - 1), "bool": "True"}
    if dtype.floating:
        return f"splat_{dtype.value}({'-inf' if op == 'max' else 'inf'})"
    return f"splat_{dtype.value}({(low if op == 'max' else high)[dtype.value]})"
