"""Lane vectors for Numba: one type per (element type, width), pointers to elements, and a small LLVM expression builder.

A `LaneType` is LLVM's `<W x element>`; element type `bool` is a mask `<W x i1>`, kept in memory as one byte (0 or 1) a lane; f16 and
bf16 are their bits, moved and converted but never computed with.
`Lanes` wraps an LLVM value of such a type and gives it Python's operators, so that the math library reads like formulas
and still emits plain LLVM instructions: no fast-math flag is ever set and no product is contracted with a sum unless `fma` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

I1, I8, I16, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
F32, F64 = ir.FloatType(), ir.DoubleType()
POINTER = ir.PointerType()
BYTES = I8.as_pointer()

WIDTHS = (16, 8, 4)
CANONICAL_LANES = 16

Signature = Any  # numba's signature objects, made by calling the result type with the argument types
Typing = tuple[Signature, Callable[..., Any]] | None  # what the typing half of an intrinsic returns


@dataclass(frozen=True, slots=True)
class Element:
    """An element type: its LLVM register type, its LLVM memory type and size in bytes, and Numba's scalar type."""

    name: str
    register: ir.Type
    memory: ir.Type
    size: int
    scalar: types.Type
    kind: str  # "f" floating, "h" the bits of a 16-bit float, "i" signed, "u" unsigned, "b" mask


ELEMENTS: dict[str, Element] = {
    e.name: e
    for e in (
        Element("f32", F32, F32, 4, types.float32, "f"),
        Element("f64", F64, F64, 8, types.float64, "f"),
        Element("f16", I16, I16, 2, types.uint16, "h"),
        Element("bf16", I16, I16, 2, types.uint16, "h"),
        Element("i8", I8, I8, 1, types.int8, "i"),
        Element("i32", I32, I32, 4, types.int32, "i"),
        Element("i64", I64, I64, 8, types.int64, "i"),
        Element("u8", I8, I8, 1, types.uint8, "u"),
        Element("bool", I1, I8, 1, types.boolean, "b"),
    )
}


class LaneType(types.Type):
    """A vector of `width` lanes of one element type; printed as `f32x16`."""

    def __init__(self, element: str, width: int) -> None:
        self.element = ELEMENTS[element]
        self.width = width
        super().__init__(f"{element}x{width}")

    @property
    def llvm(self) -> ir.VectorType:
        return ir.VectorType(self.element.register, self.width)

    def with_element(self, element: str) -> LaneType:
        return LaneType(element, self.width)


class ElementPointer(types.Type):
    """The address of elements of one type; `ptr_bool` points at bytes holding 0 or 1."""

    def __init__(self, element: str) -> None:
        self.element = ELEMENTS[element]
        super().__init__(f"ptr_{element}")


@register_model(LaneType)
class _LaneModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: LaneType) -> None:
        super().__init__(manager, fe_type, fe_type.llvm)  # type: ignore[no-untyped-call]


@register_model(ElementPointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: ElementPointer) -> None:
        super().__init__(manager, fe_type, BYTES)  # type: ignore[no-untyped-call]  # Numba needs a pointee


def llvm_suffix(t: ir.Type) -> str:
    """The type's part of an overloaded intrinsic's name: v16f32, i64, p0, ..."""
    match t:
        case ir.VectorType():
            return f"v{t.count}{llvm_suffix(t.element)}"
        case ir.FloatType():
            return "f32"
        case ir.DoubleType():
            return "f64"
        case ir.PointerType():
            return "p0"
        case _:
            return f"i{t.width}"


def declare(module: ir.Module, name: str, result: ir.Type, arguments: Sequence[ir.Type]) -> ir.Function:
    """An external function of the module. llvmlite's `declare_intrinsic` refuses vectors, so intrinsics are named in full."""
    known = module.globals.get(name)
    return known if known is not None else ir.Function(module, ir.FunctionType(result, list(arguments)), name)


def constant(t: ir.Type, value: float | int | Sequence[float | int]) -> ir.Constant:
    """A scalar or vector constant; one number fills every lane."""
    if isinstance(t, ir.VectorType) and isinstance(value, (int, float)):
        return ir.Constant(t, [value] * t.count)
    return ir.Constant(t, value)


def splat(builder: ir.IRBuilder, scalar: ir.Value, width: int) -> ir.Value:
    """All lanes = scalar; a constant stays a constant, so later code can see it."""
    vector = ir.VectorType(scalar.type, width)
    if isinstance(scalar, ir.Constant):
        return ir.Constant(vector, [scalar] * width)
    undefined = ir.Constant(vector, ir.Undefined)
    lane0 = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(lane0, undefined, constant(ir.VectorType(I32, width), 0))


Operand = "Lanes | float | int"


class Lanes:
    """An LLVM vector value with its builder: `a * b + 1.0` emits fmul and fadd; comparisons give masks (`<W x i1>`).

    Numbers on either side become constants of the vector's type. Integers are signed where it matters
    (comparison, `>>`, conversion); `lshr` and `ult` are the unsigned forms.
    """

    __slots__ = ("b", "v")

    def __init__(self, b: ir.IRBuilder, v: ir.Value) -> None:
        self.b = b
        self.v = v

    @property
    def type(self) -> ir.VectorType:
        return self.v.type

    @property
    def width(self) -> int:
        return int(self.v.type.count)

    @property
    def is_float(self) -> bool:
        return isinstance(self.v.type.element, (ir.FloatType, ir.DoubleType))

    def const(self, value: float | int | Sequence[float | int]) -> Lanes:
        """A constant of this vector's type."""
        if self.is_float and isinstance(value, int):
            value = float(value)
        return Lanes(self.b, constant(self.type, value))

    def _operand(self, other: Any) -> ir.Value:
        return other.v if isinstance(other, Lanes) else self.const(other).v

    def _binary(self, other: Any, floating: str, integer: str, swap: bool = False) -> Lanes:
        x, y = self.v, self._operand(other)
        if swap:
            x, y = y, x
        return Lanes(self.b, getattr(self.b, floating if self.is_float else integer)(x, y))

    def __add__(self, other: Any) -> Lanes:
        return self._binary(other, "fadd", "add")

    def __radd__(self, other: Any) -> Lanes:
        return self._binary(other, "fadd", "add", swap=True)

    def __sub__(self, other: Any) -> Lanes:
        return self._binary(other, "fsub", "sub")

    def __rsub__(self, other: Any) -> Lanes:
        return self._binary(other, "fsub", "sub", swap=True)

    def __mul__(self, other: Any) -> Lanes:
        return self._binary(other, "fmul", "mul")

    def __rmul__(self, other: Any) -> Lanes:
        return self._binary(other, "fmul", "mul", swap=True)

    def __truediv__(self, other: Any) -> Lanes:
        return Lanes(self.b, self.b.fdiv(self.v, self._operand(other)))

    def __rtruediv__(self, other: Any) -> Lanes:
        return Lanes(self.b, self.b.fdiv(self._operand(other), self.v))

    def __neg__(self) -> Lanes:
        return Lanes(self.b, self.b.fneg(self.v)) if self.is_float else self.const(0) - self

    def __and__(self, other: Any) -> Lanes:
        return Lanes(self.b, self.b.and_(self.v, self._operand(other)))

    def __or__(self, other: Any) -> Lanes:
        return Lanes(self.b, self.b.or_(self.v, self._operand(other)))

    def __xor__(self, other: Any) -> Lanes:
        return Lanes(self.b, self.b.xor(self.v, self._operand(other)))

    def __invert__(self) -> Lanes:
        return Lanes(self.b, self.b.not_(self.v))

    def __lshift__(self, other: Any) -> Lanes:
        return Lanes(self.b, self.b.shl(self.v, self._operand(other)))

    def __rshift__(self, other: Any) -> Lanes:
        return Lanes(self.b, self.b.ashr(self.v, self._operand(other)))

    def lshr(self, other: Any) -> Lanes:
        return Lanes(self.b, self.b.lshr(self.v, self._operand(other)))

    def compare(self, operation: str, other: Any) -> Lanes:
        """Ordered comparison (false for NaN), except that != is true for NaN."""
        y = self._operand(other)
        if not self.is_float:
            return Lanes(self.b, self.b.icmp_signed(operation, self.v, y))
        emit = self.b.fcmp_unordered if operation == "!=" else self.b.fcmp_ordered
        return Lanes(self.b, emit(operation, self.v, y))

    def __lt__(self, other: Any) -> Lanes:
        return self.compare("<", other)

    def __le__(self, other: Any) -> Lanes:
        return self.compare("<=", other)

    def __gt__(self, other: Any) -> Lanes:
        return self.compare(">", other)

    def __ge__(self, other: Any) -> Lanes:
        return self.compare(">=", other)

    def equals(self, other: Any) -> Lanes:
        return self.compare("==", other)

    def differs(self, other: Any) -> Lanes:
        return self.compare("!=", other)

    def ult(self, other: Any) -> Lanes:
        return Lanes(self.b, self.b.icmp_unsigned("<", self.v, self._operand(other)))

    def is_nan(self) -> Lanes:
        return Lanes(self.b, self.b.fcmp_unordered("uno", self.v, self.v))

    def where(self, then: Any, otherwise: Any) -> Lanes:
        """Lane by lane: `then` where this mask holds, else `otherwise`; one of the two must be Lanes."""
        shape = then if isinstance(then, Lanes) else otherwise
        return Lanes(self.b, self.b.select(self.v, shape._operand(then), shape._operand(otherwise)))

    def where_rarely(self, slow: Callable[[], Sequence[Lanes]], otherwise: Sequence[Lanes]) -> list[Lanes]:
        """`where` for each pair of slow() and otherwise; the code of slow() is skipped unless some lane of this mask needs it."""
        b, fast = self.b, self.b.block
        rare, done = b.append_basic_block("rare"), b.append_basic_block("done")
        b.cbranch(self.any(), rare, done)
        b.position_at_end(rare)
        chosen = [self.where(x, y) for x, y in zip(slow(), otherwise, strict=True)]
        rare_end = b.block
        b.branch(done)
        b.position_at_end(done)
        merged = []
        for x, y in zip(chosen, otherwise, strict=True):
            phi = b.phi(y.type)
            phi.add_incoming(y.v, fast)
            phi.add_incoming(x.v, rare_end)
            merged.append(Lanes(b, phi))
        return merged

    def lookup(self, words: Sequence[int], name: str) -> Lanes:
        """Lane by lane words[index] of a table of unsigned 32-bit numbers, as i64 lanes; `name` is unique for the table."""
        b, module = self.b, self.b.module
        table = module.globals.get(f"dslc.{name}")
        if table is None:
            array = ir.ArrayType(I32, len(words))
            table = ir.GlobalVariable(module, array, f"dslc.{name}")
            table.linkage, table.global_constant = "internal", True
            table.initializer = ir.Constant(array, list(words))
        values, addresses, mask = (ir.VectorType(t, self.width) for t in (I32, POINTER, I1))
        gather_name = f"llvm.masked.gather.{llvm_suffix(values)}.{llvm_suffix(addresses)}"
        gather = declare(module, gather_name, values, [addresses, I32, mask, values])
        pointers = b.gep(table, [self.v], source_etype=I32)
        pointers.type = addresses
        word = b.call(gather, [pointers, ir.Constant(I32, 4), constant(mask, 1), ir.Constant(values, None)])
        return Lanes(b, word).cast("zext", I64)

    def call(self, name: str, *others: Any) -> Lanes:
        """An LLVM intrinsic overloaded on this vector's type alone: `llvm.<name>.v16f32`."""
        arguments = [self.v, *(self._operand(o) for o in others)]
        function = declare(self.b.module, f"llvm.{name}.{llvm_suffix(self.type)}", self.type, [a.type for a in arguments])
        return Lanes(self.b, self.b.call(function, arguments))

    def fma(self, factor: Any, addend: Any) -> Lanes:
        """self * factor + addend, rounded once."""
        return self.call("fma", factor, addend)

    def abs(self) -> Lanes:
        return self.call("fabs")

    def sqrt(self) -> Lanes:
        """The square root, correctly rounded; in f32 by a function that `roots.py` defines for the processor."""
        if self.type.element != F32:
            return self.call("sqrt")
        function = declare(self.b.module, f"dslc.sqrt.{llvm_suffix(self.type)}", self.type, [self.type])
        return Lanes(self.b, self.b.call(function, [self.v]))

    def rint(self) -> Lanes:
        """The nearest integer, ties to even."""
        return self.call("rint")

    def copysign(self, sign: Any) -> Lanes:
        return self.call("copysign", sign)

    def polynomial(self, *coefficients: float) -> Lanes:
        """Horner's scheme by fma; the highest power comes first."""
        result = self.const(coefficients[0])
        for c in coefficients[1:]:
            result = result.fma(self, c)
        return result

    def at_most(self, limit: float) -> Lanes:
        """min(x, limit) for a limit that is no NaN; NaN stays. One instruction on x86."""
        bound = self.const(limit)
        return (bound < self).where(bound, self)

    def at_least(self, limit: float) -> Lanes:
        """max(x, limit) for a limit that is no NaN; NaN stays."""
        bound = self.const(limit)
        return (bound > self).where(bound, self)

    def bits(self) -> Lanes:
        """The same bits as integers."""
        return Lanes(
            self.b, self.b.bitcast(self.v, ir.VectorType(I64 if isinstance(self.type.element, ir.DoubleType) else I32, self.width))
        )

    def as_float(self) -> Lanes:
        """Integer bits as the floats of the same size."""
        element = ir.FloatType() if self.type.element == I32 else ir.DoubleType()
        return Lanes(self.b, self.b.bitcast(self.v, ir.VectorType(element, self.width)))

    def shuffle(self, other: Lanes | None, lanes: Sequence[int]) -> Lanes:
        """Lanes of self and other (numbered on from self's) in a new order."""
        second = ir.Constant(self.type, ir.Undefined) if other is None else other.v
        return Lanes(self.b, self.b.shuffle_vector(self.v, second, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))))

    def any(self) -> ir.Value:
        """Whether some lane of a mask holds, as an i1."""
        bits = self.b.bitcast(self.v, ir.IntType(self.width))
        return self.b.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    def cast(self, instruction: str, element: ir.Type) -> Lanes:
        """An LLVM conversion (sext, zext, trunc, sitofp, fptosi, fpext, ...) to another element type."""
        return Lanes(self.b, getattr(self.b, instruction)(self.v, ir.VectorType(element, self.width)))


Formula = Callable[..., Lanes]


def call_formula(
    builder: ir.IRBuilder, name: str, formula: Formula, arguments: Sequence[ir.Value], result: ir.Type | None = None
) -> ir.Value:
    """Call `formula` as a private function of the module, emitted there once and always inlined by LLVM.

    The function is named `<name>.<type of the first argument>`; its result has that type unless `result` says otherwise.
    """
    module = builder.module
    full_name = f"dslc.{name}.{llvm_suffix(arguments[0].type)}"
    result = result or arguments[0].type
    function = module.globals.get(full_name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(result, [a.type for a in arguments]), full_name)
        function.linkage = "internal"
        function.attributes.add("alwaysinline")
        body = ir.IRBuilder(function.append_basic_block("entry"))
        value = formula(*(Lanes(body, a) for a in function.args))
        value.b.ret(value.v)
    return builder.call(function, list(arguments))


def define_intrinsic(name: str, arity: int, typing: Callable[..., Typing], doc: str, **options: Any) -> Any:
    """numba.extending.intrinsic for a typing function that takes *args: Numba wants to see named parameters."""
    names = ", ".join(f"a{i}" for i in range(arity))
    scope: dict[str, Any] = {"typing": typing}
    exec(f"def {name}(typingctx, {names}):\n    return typing(typingctx, {names})", scope)
    scope[name].__doc__ = doc
    return intrinsic(**options)(scope[name]) if options else intrinsic(scope[name])
