"""Scalar expressions of loop programs as Numba CUDA Python: one thread computes one element.

Products and quotients of floats are printed as `mul_f32(x, y)`, `div_f32(x, y)`: NVVM joins a plain product and sum to one fma, and
turns a division by a power of two into a product, which would change bits.
"""

from __future__ import annotations

from collections.abc import Callable

from dslc.backends.cpu.mathlib import FORMULAS
from dslc.backends.cpu.sharing import factor
from dslc.backends.cuda.formulas import DeviceFunction, chosen, constant_text, math_function, random_functions
from dslc.ir.dims import Dim
from dslc.ir.loops import (
    COMPARISONS,
    SIGNS,
    Binary,
    Cast,
    ClampedLoad,
    Const,
    Expr,
    IndexValue,
    Load,
    LoadAt,
    Random,
    Select,
    Unary,
)
from dslc.ir.types import DType

ROUNDING = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint"}
LOWEST = {DType.I8: -128, DType.U8: 0, DType.I32: -(2**31), DType.I64: -(2**63)}
HIGHEST = {DType.I8: 127, DType.U8: 255, DType.I32: 2**31 - 1, DType.I64: 2**63 - 1}


class NotCovered(Exception):
    """A construct that the CUDA back end does not print; the message names it."""


class Functions:
    """The device functions that a kernel calls, in order of need."""

    def __init__(self) -> None:
        self.found: dict[str, DeviceFunction] = {}

    def use(self, function: DeviceFunction) -> str:
        self.found.setdefault(function.name, function)
        return function.name

    @property
    def text(self) -> str:
        return "\n\n".join(f.text for f in self.found.values())


def _small(name: str, parameters: str, doc: str, *body: str) -> DeviceFunction:
    return DeviceFunction(name, "\n".join(["@device", f"def {name}({parameters}):", f'    """{doc}"""', *(f"    {b}" for b in body), ""]))


CLAMP = _small("clamp", "index, last", "The index moved into 0 .. last.", "return max(min(index, last), 0)")


def extreme(op: str, dtype: DType) -> DeviceFunction:
    """`max_f32` and so on."""
    t = dtype.value
    better = f"y {'>' if op == 'max' else '<'} x"
    test = f"({better}) | (y != y)" if dtype.floating else better
    doc = "NaN where an argument is; x for equal zeros." if dtype.floating else "The larger." if op == "max" else "The smaller."
    return _small(f"{op}_{t}", "x, y", doc, f"return {chosen(test, 'y', 'x', t)}")


def floor_division(dtype: DType) -> DeviceFunction:
    t = dtype.value
    lines = ["if y == 0:", f"    return {t}(0)"]
    if dtype != DType.U8:
        lines += ["if y == -1:", f"    return {t}(-x)"]
    return _small(f"floordiv_{t}", "x, y", "Rounded to minus infinity; 0 where y is 0.", *lines, f"return {t}(x // y)")


def modulo(dtype: DType) -> DeviceFunction:
    t = dtype.value
    lines = ["if y == 0:" if dtype == DType.U8 else "if y == 0 or y == -1:", f"    return {t}(0)", f"return {t}(x - (x // y) * y)"]
    return _small(f"mod_{t}", "x, y", "The remainder with y's sign; 0 where y is 0.", *lines)


def truncation(source: DType, target: DType) -> DeviceFunction:
    s, t = source.value, target.value
    low, high = LOWEST[target], HIGHEST[target]
    lines = [
        "if x != x:",
        f"    return {t}(0)",
        f"if x >= {s}({float(high + 1)!r}):",
        f"    return {t}({high})",
        f"if x <= {s}({float(low)!r}):",
        f"    return {t}({low})",
        f"return {t}(i64(x))",
    ]
    return _small(f"{t}_of_{s}", "x", "Truncates and saturates; NaN gives 0.", *lines)


def tree(op: str, dtype: DType, functions: Functions) -> str:
    """The name of the function that adds (or compares) 16 lanes in shared memory by the fixed tree: 8 apart, then 4, 2, 1."""

    def joined(lanes: list[str]) -> list[str]:
        half = len(lanes) // 2
        return [combined(op, x, y, dtype, functions) for x, y in zip(lanes[:half], lanes[half:], strict=True)]

    lines: list[str] = []
    lanes = [f"lanes[first + {n}]" if n else "lanes[first]" for n in range(16)]
    while len(lanes) > 1:
        lanes = joined(lanes)
        if len(lanes) > 1:
            names = [f"x{len(lanes)}_{n}" for n in range(len(lanes))]
            lines += [f"{n} = {text}" for n, text in zip(names, lanes, strict=True)]
            lanes = names
    name = f"tree_{op}_{dtype.value}"
    return functions.use(_small(name, "lanes, first", "16 lanes in one, lanes 8 apart first, then 4, 2, 1.", *lines, f"return {lanes[0]}"))


def combined(op: str, x: str, y: str, dtype: DType, functions: Functions) -> str:
    """One step of a reduction."""
    if op == "add":
        return f"{x} + {y}" if dtype.floating else f"{dtype.value}({x} + {y})"
    if op == "mul":
        return f"mul_{dtype.value}({x}, {y})" if dtype.floating else f"{dtype.value}({x} * {y})"
    return f"{functions.use(extreme(op, dtype))}({x}, {y})"


def identity(op: str, dtype: DType) -> str:
    """What a reduction starts from."""
    if op in ("add", "mul"):
        return constant_text(0 if op == "add" else 1, dtype.value)
    if dtype.floating:
        return constant_text(float("-inf" if op == "max" else "inf"), dtype.value)
    if dtype == DType.BOOL:
        return "False" if op == "max" else "True"
    return constant_text((LOWEST if op == "max" else HIGHEST)[dtype], dtype.value)


def text_of(e: Expr, names: list[str], dim: Callable[[Dim], str], functions: Functions) -> str:
    """One operation as source; `names` are the texts of its operands, in order. Raises NotCovered."""
    t = e.dtype.value
    if e.dtype.half:
        raise NotCovered(f"numbers of the type {t}")
    match e:
        case Const(value=value):
            return constant_text(value, t)
        case Load(buffer=buffer, address=address):
            return f"p{buffer}[{dim(address)}]"
        case ClampedLoad(buffer=buffer, address=address, clamped=clamped):
            clamp = functions.use(CLAMP)
            parts = [dim(address)] if address != 0 else []
            for index, extent, stride in clamped:
                inside = f"{clamp}({dim(index)}, {dim(extent - 1)})"
                parts.append(inside if stride == 1 else f"{inside} * {factor(dim(stride))}")
            return f"p{buffer}[{' + '.join(parts)}]"
        case LoadAt(buffer=buffer, address=address, stride=stride):
            at = names[0] if stride == 1 else f"{names[0]} * {factor(dim(stride))}"
            return f"p{buffer}[{at}]" if address == 0 else f"p{buffer}[{dim(address)} + {at}]"
        case IndexValue(index=index):
            return f"{t}({dim(index)})"
        case Select():
            condition, x, y = names
            return chosen(condition, x, y, t)
        case Random(stream=stream, index=index, dtype=dtype):
            bits, uniform = (functions.use(f) for f in random_functions(dtype))
            return f"{uniform}({bits}({names[0]}, i64({stream}), {names[1]}, i64({dim(index)})))"
        case Cast(x=x, dtype=dtype):
            return _cast(x.dtype, dtype, names[0], functions)
        case Unary(op=op, x=x):
            return _unary(op, x.dtype, names[0], functions)
        case Binary(op=op, x=x):
            return _binary(op, x.dtype, names[0], names[1], functions)
    raise NotCovered(type(e).__name__)


def _cast(source: DType, target: DType, x: str, functions: Functions) -> str:
    if target == DType.BOOL:
        return f"{x} != {constant_text(0, source.value)}"
    if source.floating and target.integer:
        return f"{functions.use(truncation(source, target))}({x})"
    return f"{target.value}({x})"


def _unary(op: str, dtype: DType, x: str, functions: Functions) -> str:
    t = dtype.value
    match op:
        case "neg":
            return f"-{x}" if dtype.floating else f"{t}(-{x})"
        case "not":
            return f"not {x}" if dtype == DType.BOOL else f"{t}(~{x})"
        case "isnan":
            return f"{x} != {x}"
        case "sqrt":
            return f"sqrt_{t}({x})"
        case "rsqrt":
            return f"div_{t}({t}(1.0), sqrt_{t}({x}))"
        case "abs":
            if dtype.floating:
                return f"fabs_{t}({x})"
            return x if dtype == DType.U8 else chosen(f"{x} < {t}(0)", f"{t}(-{x})", x, t)
        case _ if op in ROUNDING:
            return f"{ROUNDING[op]}_{t}({x})" if dtype.floating else x
        case _ if op in FORMULAS:
            return f"{functions.use(math_function(op, dtype))}({x})"
    raise NotCovered(f"the function {op}")


def _binary(op: str, dtype: DType, x: str, y: str, functions: Functions) -> str:
    t = dtype.value
    if op in COMPARISONS:
        return f"{x} {COMPARISONS[op]} {y}"
    if op in ("max", "min"):
        return combined(op, x, y, dtype, functions)
    if dtype.floating:
        match op:
            case "mul" | "div":
                return f"{op}_{t}({x}, {y})"
            case "floordiv":
                return f"floor_{t}(div_{t}({x}, {y}))"
            case "mod":
                return f"{x} - mul_{t}(floor_{t}(div_{t}({x}, {y})), {y})"
            case "pow" | "atan2" | "fmod":
                return f"{functions.use(math_function(op, dtype))}({x}, {y})"
            case _:
                return f"{x} {SIGNS[op]} {y}"
    if dtype == DType.BOOL:
        return f"{x} {SIGNS[op]} {y}"
    if op in ("floordiv", "mod"):
        return f"{functions.use((floor_division if op == 'floordiv' else modulo)(dtype))}({x}, {y})"
    if op in SIGNS:
        return f"{t}({x} {SIGNS[op]} {y})"
    raise NotCovered(f"{op} of integers")


def indented(lines: list[str], depth: int) -> list[str]:
    return [f"{'    ' * depth}{line}" for line in lines]
