"""How scalar operations are spelt in the SIMD vocabulary of generated kernels."""
from __future__ import annotations

from dslc.ir.loops import Const
from dslc.ir.types import DType

OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|"}
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
FUNCTIONS = {
    "exp": "vexp", "log": "vlog", "sqrt": "vsqrt", "rsqrt": "vrsqrt", "tanh": "vtanh", "sigmoid": "vsigmoid", "erf": "verf",
    "sin": "vsin", "cos": "vcos", "floor": "vfloor", "ceil": "vceil", "round": "vrint", "abs": "vabs",
    "max": "vmax", "min": "vmin", "pow": "vpow", "floordiv": "ifloordiv", "mod": "imod",
}  # fmt: skip


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
    if op == "add":
        return f"splat_{dtype.value}({'0.0' if dtype.floating else '0'})"
    low = {"u8": "0", "i32": str(-(2**31)), "i64": str(-(2**63)), "bool": "False"}
    high = {"u8": "255", "i32": str(2**31 - 1), "i64": str(2**63 - 1), "bool": "True"}
    if dtype.floating:
        return f"splat_{dtype.value}({'-inf' if op == 'max' else 'inf'})"
    return f"splat_{dtype.value}({(low if op == 'max' else high)[dtype.value]})"
