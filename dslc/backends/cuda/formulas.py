"""The math library for one thread: the formulas of the CPU's vectors, traced and printed as scalar Python.

`exp` and its relatives are written once, over `Lanes`. Here the same formulas run over `Scalar`s, which write down what is done
to them; the result is the source of a device function whose every rounding is the CPU's, so that both give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from dslc.backends.cpu import mathlib, random
from dslc.backends.cpu.lanes import F32, F64, I1, I32, I64
from dslc.ir.types import DType

NAMES = {str(F32): "f32", str(F64): "f64", str(I32): "i32", str(I64): "i64", str(I1): "bool"}
ELEMENTS = {"f32": F32, "f64": F64, "i32": I32, "i64": I64, "bool": I1}


@dataclass
class Trace:
    """The lines of a device function in the making."""

    lines: list[str] = field(default_factory=list)
    tables: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, text: str, element: str) -> Scalar:
        self.lines.append(f"t{len(self.lines) + 1} = {text}")
        return Scalar(self, f"t{len(self.lines)}", element)


@dataclass(frozen=True, slots=True)
class _Type:
    element: Any


@dataclass(frozen=True, slots=True)
class Scalar:
    """One number with the operations of `Lanes`: each of them prints a line."""

    trace: Trace
    text: str
    name: str  # f32, f64, i32, i64 or bool

    @property
    def type(self) -> _Type:
        return _Type(ELEMENTS[self.name])

    def const(self, value: float | int) -> Scalar:
        return Scalar(self.trace, constant_text(value, self.name), self.name)

    def _other(self, y: Any) -> str:
        return y.text if isinstance(y, Scalar) else self.const(y).text

    def _floating(self) -> bool:
        return self.name in ("f32", "f64")

    def _infix(self, sign: str, x: str, y: str) -> Scalar:
        if self.name == "bool":
            return self.trace.add(f"{x} {sign} {y}", "bool")
        if self._floating():
            named = {"*": "mul", "/": "div"}.get(sign)
            return self.trace.add(f"{named}_{self.name}({x}, {y})" if named else f"{x} {sign} {y}", self.name)
        return self.trace.add(f"{self.name}({x} {sign} {y})", self.name)

    def __add__(self, y: Any) -> Scalar:
        return self._infix("+", self.text, self._other(y))

    def __radd__(self, y: Any) -> Scalar:
        return self._infix("+", self._other(y), self.text)

    def __sub__(self, y: Any) -> Scalar:
        return self._infix("-", self.text, self._other(y))

    def __rsub__(self, y: Any) -> Scalar:
        return self._infix("-", self._other(y), self.text)

    def __mul__(self, y: Any) -> Scalar:
        return self._infix("*", self.text, self._other(y))

    def __rmul__(self, y: Any) -> Scalar:
        return self._infix("*", self._other(y), self.text)

    def __truediv__(self, y: Any) -> Scalar:
        return self._infix("/", self.text, self._other(y))

    def __rtruediv__(self, y: Any) -> Scalar:
        return self._infix("/", self._other(y), self.text)

    def __neg__(self) -> Scalar:
        return self.trace.add(f"-{self.text}" if self._floating() else f"{self.name}(-{self.text})", self.name)

    def __and__(self, y: Any) -> Scalar:
        return self._infix("&", self.text, self._other(y))

    def __or__(self, y: Any) -> Scalar:
        return self._infix("|", self.text, self._other(y))

    def __xor__(self, y: Any) -> Scalar:
        return self._infix("^", self.text, self._other(y))

    def __invert__(self) -> Scalar:
        return self.trace.add(f"not {self.text}" if self.name == "bool" else f"{self.name}(~{self.text})", self.name)

    def __lshift__(self, y: Any) -> Scalar:
        return self._infix("<<", self.text, self._other(y))

    def __rshift__(self, y: Any) -> Scalar:
        return self._infix(">>", self.text, self._other(y))

    def lshr(self, y: Any) -> Scalar:
        unsigned = self.name.replace("i", "u")
        return self.trace.add(f"{self.name}({unsigned}({self.text}) >> {unsigned}({self._other(y)}))", self.name)

    def _compare(self, sign: str, y: Any) -> Scalar:
        return self.trace.add(f"{self.text} {sign} {self._other(y)}", "bool")

    def __lt__(self, y: Any) -> Scalar:
        return self._compare("<", y)

    def __le__(self, y: Any) -> Scalar:
        return self._compare("<=", y)

    def __gt__(self, y: Any) -> Scalar:
        return self._compare(">", y)

    def __ge__(self, y: Any) -> Scalar:
        return self._compare(">=", y)

    def equals(self, y: Any) -> Scalar:
        return self._compare("==", y)

    def differs(self, y: Any) -> Scalar:
        return self._compare("!=", y)

    def ult(self, y: Any) -> Scalar:
        unsigned = self.name.replace("i", "u")
        return self.trace.add(f"{unsigned}({self.text}) < {unsigned}({self._other(y)})", "bool")

    def is_nan(self) -> Scalar:
        return self._compare("!=", self)

    def where(self, then: Any, otherwise: Any) -> Scalar:
        shape = then if isinstance(then, Scalar) else otherwise
        return self.trace.add(chosen(self.text, shape._other(then), shape._other(otherwise), shape.name), shape.name)

    def where_rarely(self, slow: Callable[[], Sequence[Scalar]], otherwise: Sequence[Scalar]) -> list[Scalar]:
        """Both sides are computed: what a trace prints is one straight line."""
        return [self.where(x, y) for x, y in zip(slow(), otherwise, strict=True)]

    def lookup(self, words: Sequence[int], name: str) -> Scalar:
        self.trace.tables[name] = tuple(words)
        return self.trace.add(f"i64({name}[{self.text}])", "i64")

    def call(self, name: str, *others: Any) -> Scalar:
        arguments = ", ".join([self.text, *(self._other(o) for o in others)])
        return self.trace.add(f"{name}_{self.name}({arguments})", self.name)

    def fma(self, factor: Any, addend: Any) -> Scalar:
        return self.call("fma", factor, addend)

    def abs(self) -> Scalar:
        return self.call("fabs")

    def sqrt(self) -> Scalar:
        return self.call("sqrt")

    def rint(self) -> Scalar:
        return self.call("rint")

    def copysign(self, sign: Any) -> Scalar:
        return self.call("copysign", sign)

    def polynomial(self, *coefficients: float) -> Scalar:
        result = self.const(coefficients[0])
        for c in coefficients[1:]:
            result = result.fma(self, c)
        return result

    def at_most(self, limit: float) -> Scalar:
        bound = self.const(limit)
        return (bound < self).where(bound, self)

    def at_least(self, limit: float) -> Scalar:
        bound = self.const(limit)
        return (bound > self).where(bound, self)

    def bits(self) -> Scalar:
        return self.trace.add(f"bits_{self.name}({self.text})", self.name.replace("f", "i"))

    def as_float(self) -> Scalar:
        target = self.name.replace("i", "f")
        return self.trace.add(f"{target}_of_bits({self.text})", target)

    def cast(self, instruction: str, element: Any) -> Scalar:
        target = NAMES[str(element)]
        text = f"{target}({self.text})"
        if instruction == "zext":
            text = f"{target}({self.text}) & {target}({2 ** int(self.name[1:]) - 1})"
        return self.trace.add(text, target)


def constant_text(value: float | int | bool, element: str) -> str:
    """A constant as source; infinities and NaN are names of the vocabulary."""
    if element == "bool":
        return "True" if value else "False"
    if element in ("f32", "f64"):
        real = float(value)
        if real != real:
            return f"{element}(nan)"
        if real in (float("inf"), float("-inf")):
            return f"{element}({'inf' if real > 0 else '-inf'})"
        return f"{element}({real!r})"
    return f"{element}({int(value)})"


def chosen(condition: str, x: str, y: str, element: str) -> str:
    """x where the condition holds, else y: one instruction where there is one, since branches make a kernel slow to compile."""
    if element in ("i8", "u8", "bool"):
        return f"{x} if {condition} else {y}"
    return f"cuda.selp({condition}, {x}, {y})"


@dataclass(frozen=True, slots=True)
class DeviceFunction:
    """The source of a function that kernels call; `name` is unique for its text."""

    name: str
    text: str


@cache
def math_function(name: str, dtype: DType) -> DeviceFunction:
    """`exp_f32` and so on: `mathlib.FORMULAS` for one thread."""
    arity = 2 if name in mathlib.TWO_ARGUMENTS else 1
    return _traced(f"{name}_{dtype.value}", mathlib.FORMULAS[name], [(v, dtype.value) for v in ("x", "y")[:arity]])


@cache
def random_functions(dtype: DType) -> tuple[DeviceFunction, ...]:
    """`philox_bits` and `uniform_f32` or `uniform_f64`."""
    names = [(n, "i64") for n in ("seed", "stream", "counter", "index")]
    formula: Callable[..., Any] = random.uniform_f32 if dtype == DType.F32 else random.uniform_f64
    return _traced("philox_bits", random.philox_bits, names), _traced(f"uniform_{dtype.value}", formula, [("bits", "i32")])


def _traced(name: str, formula: Callable[..., Any], parameters: list[tuple[str, str]]) -> DeviceFunction:
    trace = Trace()
    result = formula(*(Scalar(trace, p, element) for p, element in parameters))
    doc = (formula.__doc__ or "").strip().split("\n")[0]
    head = ["@device", f"def {name}({', '.join(p for p, _ in parameters)}):", *([f'    """{doc}"""'] if doc else [])]
    head = [*(f"{table} = table({words})\n" for table, words in trace.tables.items()), *head]
    return DeviceFunction(name, "\n".join([*head, *(f"    {line}" for line in trace.lines), f"    return {result.text}", ""]))
