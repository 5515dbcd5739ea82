"""The vocabulary of generated kernels: `namespace(width)` is the set of globals their source runs in.

A kernel is ordinary Numba Python over explicit vectors. Names that must know the vector's width (loads, constants, reductions)
are made once per width; operators and functions of vectors work at every width. Each one is lowered straight to LLVM
instructions, never through another Numba function, which keeps compilation fast.

T stands for f32, f64, i8, i32, i64, u8, bool (a mask: bytes of 0 and 1 in memory), or f16 and bf16, which are moved and converted
only; p is a pointer, i a position in elements, n a number of lanes from 0 to W, s a stride in elements, v a vector, iv a vector of i64.

    W, ACCUMULATORS                                     lanes of a vector; vectors that make 16 canonical lanes
    arg(row, i)  ptr_T(address)  offset(p, i)           argument words and pointers
    prefetch(p, i)  prefetch_write(p, i)  apart()       a cache line that will be read, or written; loads before and after stay apart
    load_T(p, i)  store_T(p, i, x)                      one element as a plain number
    vload_T(p, i)  vload_part_T(p, i, n)                contiguous; vbroadcast_T(p, i) fills all lanes
    vload_stride_T(p, i, s)  vload_stride_part_T(p, i, s, n)
    vload_between_T(p, i, n, n)  vload_stride_between_T(p, i, s, n, n)    lanes of which some lie outside; vstore_pair_T(p, i, v, v)
    vgather_T(p, iv)  vgather_part_T(p, iv, n)  vstore_pair_part_T(p, i, v, v, n)
    vstore_T(p, i, v)  vstore_part_T(p, i, v, n)  vstore_stride_T(p, i, s, v)  vstore_stride_part_T(p, i, s, v, n)
    splat_T(x)  iota_i32(x)  iota_i64(x)                constants; first_lanes(n) is a mask
    + - * / & | ^ ~ << >> == != < <= > >=               on equal types, or a vector and a number
    beside(v, v)  left(v)  right(v)                     two vectors as one of twice the lanes, and its halves
    where(mask, v, v)  some(mask)  vmax  vmin  vabs  to_T(v)
    fma  vsqrt  vrsqrt  vfloor  vceil  vtrunc  vrint  copysign
    vexp  vexp2  vexpm1  vlog  vlog2  vlog10  vlog1p  vsinh  vcosh  vtanh  vasinh  vacosh  vatanh  vsigmoid  verf
    vsin  vcos  vtan  vasin  vacos  vatan  vatan2  vpow  vfmod
    ifloordiv  imod  ushr                               integers; NumPy's floor division and remainder
    reduce_add_T(v, ...)  reduce_mul_T  reduce_max_T  reduce_min_T    of 16 canonical lanes; reduce_any, reduce_all of masks
    stack_T(n)  transpose_T(p, i, s, q, j, t)  vlarger_T  vexp_flushed_T  reduce_top_T    for kernels that work on blocks: `blocks.py`
    philox_bits(seed, stream, counter, iv)  uniform_f32(bits)  uniform_f64(bits)
    @tile("void(ptr_T, intp, T, ...)")                  a function that the kernel calls
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeGuard

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, lower_builtin, type_callable

from dslc.backends.cpu import halves, integers, mathlib, random
from dslc.backends.cpu.addresses import apart, arg, offset, pointer_to, prefetch, prefetch_write
from dslc.backends.cpu.blocks import block_functions
from dslc.backends.cpu.lanes import (
    CANONICAL_LANES,
    ELEMENTS,
    F32,
    I16,
    I64,
    WIDTHS,
    Element,
    ElementPointer,
    Lanes,
    LaneType,
    Signature,
    Typing,
    call_formula,
    constant,
    declare,
    define_intrinsic,
    llvm_suffix,
    splat,
)
from dslc.backends.cpu.memory import first_lanes, memory_functions
from dslc.backends.cpu.trees import tree_functions

# A generated kernel raises nothing and divides integers as NumPy does; no fast-math flag.
EXACT: dict[str, Any] = {"error_model": "numpy", "nogil": True, "boundscheck": False}


def is_lanes(t: types.Type, kinds: str = "fhiub") -> TypeGuard[LaneType]:
    return isinstance(t, LaneType) and t.element.kind in kinds


# ---------------------------------------------------------------- operators


def _binary_operator(op: Callable[..., Any], kinds: str, emit: Callable[[Lanes, Lanes, str], Lanes], mask: bool = False) -> None:
    """Define `op` for two vectors of one type, or a vector and a number (which fills a vector)."""

    @type_callable(op)
    def typing(context: Any) -> Callable[..., Signature | None]:
        def typer(x: types.Type, y: types.Type) -> Signature | None:
            lanes, other = (x, y) if isinstance(x, LaneType) else (y, x)
            if not is_lanes(lanes, kinds) or (x != y and not isinstance(other, types.Number)):
                return None
            result = lanes.with_element("bool") if mask else lanes
            return result(*(a if a == lanes else lanes.element.scalar for a in (x, y)))

        return typer

    def lower(context: Any, builder: ir.IRBuilder, sig: Signature, args: list[ir.Value]) -> ir.Value:
        lanes = sig.args[0] if isinstance(sig.args[0], LaneType) else sig.args[1]
        x, y = (a if t == lanes else splat(builder, a, lanes.width) for a, t in zip(args, sig.args, strict=True))
        return emit(Lanes(builder, x), Lanes(builder, y), lanes.element.kind).v

    for first, second in ((LaneType, LaneType), (LaneType, types.Number), (types.Number, LaneType)):
        lower_builtin(op, first, second)(lower)


def _compare(operation: str) -> Callable[[Lanes, Lanes, str], Lanes]:
    def emit(x: Lanes, y: Lanes, kind: str) -> Lanes:
        if kind in "ub":
            return Lanes(x.b, x.b.icmp_unsigned(operation, x.v, y.v))
        return x.compare(operation, y)

    return emit


def _shift(left: bool) -> Callable[[Lanes, Lanes, str], Lanes]:
    """Shifts as in NumPy: a count of the element's bits or more shifts everything out."""

    def emit(x: Lanes, y: Lanes, kind: str) -> Lanes:
        bits = x.type.element.width
        valid = y.ult(bits)
        if not left and kind == "i":
            return x >> valid.where(y, bits - 1)
        shifted = x << y if left else x.lshr(y)
        return valid.where(shifted, 0)

    return emit


_binary_operator(operator.add, "fiu", lambda x, y, kind: x + y)
_binary_operator(operator.sub, "fiu", lambda x, y, kind: x - y)
_binary_operator(operator.mul, "fiu", lambda x, y, kind: x * y)
_binary_operator(operator.truediv, "f", lambda x, y, kind: x / y)
_binary_operator(operator.and_, "iub", lambda x, y, kind: x & y)
_binary_operator(operator.or_, "iub", lambda x, y, kind: x | y)
_binary_operator(operator.xor, "iub", lambda x, y, kind: x ^ y)
_binary_operator(operator.lshift, "iu", _shift(left=True))
_binary_operator(operator.rshift, "iu", _shift(left=False))
for _op, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _binary_operator(_op, "fiub", _compare(_sign), mask=True)


def _unary_operator(op: Callable[..., Any], kinds: str, emit: Callable[[Lanes], Lanes]) -> None:
    @type_callable(op)
    def typing(context: Any) -> Callable[..., Signature | None]:
        return lambda x: x(x) if is_lanes(x, kinds) else None

    lower_builtin(op, LaneType)(lambda context, builder, sig, args: emit(Lanes(builder, args[0])).v)


_unary_operator(operator.neg, "fiu", lambda x: -x)
_unary_operator(operator.invert, "iub", lambda x: ~x)


# ---------------------------------------------------------------- functions of vectors, any width


def _same_type_function(name: str, arity: int, kinds: str, emit: Callable[..., Lanes], doc: str) -> Any:
    """An intrinsic whose arguments and result are vectors of one type."""

    def typing(typingctx: Any, *args: types.Type) -> Typing:
        if len(args) != arity or not is_lanes(args[0], kinds) or any(a != args[0] for a in args):
            return None

        def codegen(context: Any, builder: ir.IRBuilder, sig: Signature, values: list[ir.Value]) -> ir.Value:
            return emit(sig.args[0].element.kind, *(Lanes(builder, v) for v in values)).v

        return args[0](*args), codegen

    return define_intrinsic(name, arity, typing, doc)


def _larger(sign: str) -> Callable[..., Lanes]:
    def emit(kind: str, x: Lanes, y: Lanes) -> Lanes:
        if kind != "f":
            test = x.b.icmp_signed if kind == "i" else x.b.icmp_unsigned
            return Lanes(x.b, test(sign, y.v, x.v)).where(y, x)
        result = y.compare(sign, x).where(y, x)  # x where x is NaN, and for equal zeros
        return y.is_nan().where(y, result)  # LLVM drops this where y is a constant

    return emit


vmax = _same_type_function("vmax", 2, "fiub", _larger(">"), "Maximum; NaN in either argument gives NaN; x for equal zeros.")
vmin = _same_type_function("vmin", 2, "fiub", _larger("<"), "Minimum; NaN in either argument gives NaN; x for equal zeros.")
fma = _same_type_function("fma", 3, "fiu", lambda k, x, y, z: x.fma(y, z) if k == "f" else x * y + z, "x * y + z; floats round once.")
vsqrt = _same_type_function("vsqrt", 1, "f", lambda kind, x: x.sqrt(), "Square root, correctly rounded.")
vrsqrt = _same_type_function("vrsqrt", 1, "f", lambda kind, x: 1.0 / x.sqrt(), "1 / sqrt(x), both steps correctly rounded.")
vfloor = _same_type_function("vfloor", 1, "f", lambda kind, x: x.call("floor"), "Round towards minus infinity.")
vceil = _same_type_function("vceil", 1, "f", lambda kind, x: x.call("ceil"), "Round towards plus infinity.")
vtrunc = _same_type_function("vtrunc", 1, "f", lambda kind, x: x.call("trunc"), "Round towards zero.")
vrint = _same_type_function("vrint", 1, "f", lambda kind, x: x.rint(), "Round to nearest, ties to even.")
copysign = _same_type_function("copysign", 2, "f", lambda kind, x, y: x.copysign(y), "|x| with y's sign.")


def _abs(kind: str, x: Lanes) -> Lanes:
    if kind == "f":
        return x.abs()
    return (x < 0).where(-x, x) if kind == "i" else x


vabs = _same_type_function("vabs", 1, "fiu", _abs, "Absolute value; the most negative integer stays itself.")


def _math_function(name: str, arity: int = 1) -> Any:
    formula = mathlib.FORMULAS[name]

    def emit(kind: str, *args: Lanes) -> Lanes:
        return Lanes(args[0].b, call_formula(args[0].b, name, formula, [a.v for a in args]))

    return _same_type_function(f"v{name}", arity, "f", emit, formula.__doc__ or f"{name}(x)")


def _division(name: str, formula: Callable[..., Lanes]) -> Any:
    def emit(kind: str, x: Lanes, y: Lanes) -> Lanes:
        return Lanes(x.b, call_formula(x.b, f"{name}.{kind}", partial(formula, signed=kind == "i"), [x.v, y.v]))

    return _same_type_function(name, 2, "iu", emit, formula.__doc__ or "")


ifloordiv = _division("ifloordiv", integers.floor_divide)
imod = _division("imod", integers.modulo)


def _logical_shift(kind: str, x: Lanes, y: Lanes) -> Lanes:
    return y.ult(x.type.element.width).where(x.lshr(y), 0)


ushr = _same_type_function("ushr", 2, "iu", _logical_shift, "x >> y with zeros from the left, also for signed integers.")


@intrinsic
def philox_bits(typingctx: Any, seed: types.Type, stream: types.Type, counter: types.Type, index: types.Type) -> Typing:
    """32 random bits a lane as i32, from (seed, stream, counter, index); each of the first three is a plain integer or i64 lanes."""
    if not (is_lanes(index, "i") and index.element.size == 8):
        return None
    if not all(t == index or isinstance(t, types.Integer) for t in (seed, stream, counter)):
        return None

    def codegen(context: Any, builder: ir.IRBuilder, sig: Signature, args: list[ir.Value]) -> ir.Value:
        lanes = sig.args[3]
        vectors = [a if t == lanes else splat(builder, a, lanes.width) for a, t in zip(args, sig.args, strict=True)]
        return call_formula(builder, "philox_bits", random.philox_bits, vectors, lanes.with_element("i32").llvm)

    wanted = (t if t == index else types.int64 for t in (seed, stream, counter))
    return index.with_element("i32")(*wanted, index), codegen


def _uniform(target: str, formula: Callable[[Lanes], Lanes]) -> Any:
    def typing(typingctx: Any, bits: types.Type) -> Typing:
        if not (is_lanes(bits, "i") and bits.element.size == 4):
            return None
        return bits.with_element(target)(bits), lambda context, builder, sig, args: formula(Lanes(builder, args[0])).v

    return define_intrinsic(f"uniform_{target}", 1, typing, formula.__doc__ or "")


@intrinsic
def where(typingctx: Any, mask: types.Type, then: types.Type, otherwise: types.Type) -> Typing:
    """Lane by lane: then where the mask holds, else otherwise."""
    if not is_lanes(mask, "b") or not is_lanes(then) or then != otherwise:
        return None
    return then(mask, then, otherwise), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def beside(typingctx: Any, left: types.Type, right: types.Type) -> Typing:
    """Two vectors of one type as one of twice the lanes."""
    if not is_lanes(left) or left != right:
        return None
    wide = LaneType(left.element.name, 2 * left.width)

    def codegen(context: Any, b: ir.IRBuilder, sig: Signature, args: list[ir.Value]) -> ir.Value:
        return Lanes(b, args[0]).shuffle(Lanes(b, args[1]), range(wide.width)).v

    return wide(left, right), codegen


def _half(name: str, second: bool) -> Any:
    def typing(typingctx: Any, wide: types.Type) -> Typing:
        if not is_lanes(wide):
            return None
        half = LaneType(wide.element.name, wide.width // 2)
        lanes = range(half.width, wide.width) if second else range(half.width)
        return half(wide), lambda context, b, sig, args: Lanes(b, args[0]).shuffle(None, lanes).v

    return define_intrinsic(name, 1, typing, f"The {name} half of a vector's lanes.")


left, right = _half("left", False), _half("right", True)


@intrinsic
def some(typingctx: Any, mask: types.Type) -> Typing:
    """1 where some lane of the mask holds, else 0, as a plain integer."""
    if not is_lanes(mask, "b"):
        return None
    return types.intp(mask), lambda context, builder, sig, args: builder.zext(Lanes(builder, args[0]).any(), I64)


# ---------------------------------------------------------------- conversions


def convert(x: Lanes, source: Element, target: Element) -> Lanes:
    """Value conversion, deterministic for every input: float to integer truncates, saturates and sends NaN to 0."""
    if source is target:
        return x
    if source.kind == "h":
        wide = call_formula(x.b, f"from_{source.name}", halves.WIDEN[source.name], [x.v], ir.VectorType(F32, x.width))
        return convert(Lanes(x.b, wide), ELEMENTS["f32"], target)
    if target.kind == "h":
        exact = x if source.kind == "f" else convert(x, source, ELEMENTS["f64"])
        return Lanes(x.b, call_formula(x.b, f"to_{target.name}", halves.NARROW[target.name], [exact.v], ir.VectorType(I16, x.width)))
    if target.kind == "b":
        return x.differs(0)
    match source.kind, target.kind:
        case "f", "f":
            return x.cast("fpext" if target.size > source.size else "fptrunc", target.register)
        case "f", _:
            result = ir.VectorType(target.register, x.width)
            name = f"llvm.fpto{'u' if target.kind == 'u' else 's'}i.sat.{llvm_suffix(result)}.{llvm_suffix(x.type)}"
            return Lanes(x.b, x.b.call(declare(x.b.module, name, result, [x.type]), [x.v]))
        case kind, "f":
            return x.cast("sitofp" if kind == "i" else "uitofp", target.register)
        case kind, _ if target.size < source.size:
            return x.cast("trunc", target.register)
        case kind, _:
            return x.cast("sext" if kind == "i" else "zext", target.register)


def _conversion(target: str) -> Any:
    def typing(typingctx: Any, x: types.Type) -> Typing:
        if not is_lanes(x):
            return None

        def codegen(context: Any, builder: ir.IRBuilder, sig: Signature, args: list[ir.Value]) -> ir.Value:
            return convert(Lanes(builder, args[0]), sig.args[0].element, ELEMENTS[target]).v

        return x.with_element(target)(x), codegen

    return define_intrinsic(f"to_{target}", 1, typing, f"Convert to {target}; floats truncate, saturate, NaN gives 0.")


# ---------------------------------------------------------------- constants, reductions, the namespace


_FUNCTIONS: tuple[Any, ...] = (
    vmax,
    vmin,
    fma,
    vsqrt,
    vrsqrt,
    vfloor,
    vceil,
    vtrunc,
    vrint,
    vabs,
    copysign,
    where,
    beside,
    left,
    right,
    some,
    arg,
    offset,
    apart,
    prefetch,
    prefetch_write,
    ifloordiv,
    imod,
    ushr,
    philox_bits,
)
GENERIC: dict[str, Any] = {f.__name__: f for f in _FUNCTIONS}
GENERIC |= {f"v{name}": _math_function(name, 2 if name in mathlib.TWO_ARGUMENTS else 1) for name in mathlib.FORMULAS}
GENERIC |= {f"uniform_{e}": _uniform(e, f) for e, f in (("f32", random.uniform_f32), ("f64", random.uniform_f64))}
GENERIC |= {f"to_{e}": _conversion(e) for e in ELEMENTS}
GENERIC |= {f"ptr_{e}": pointer_to(e) for e in ELEMENTS}


def _splat(element: Element, width: int) -> Any:
    lanes = LaneType(element.name, width)

    def typing(typingctx: Any, x: types.Type) -> Typing:
        if not isinstance(x, (types.Number, types.Boolean)):
            return None
        return lanes(x), codegen

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        value = args[0]
        if element.kind == "f" and isinstance(value, ir.Constant) and isinstance(value.type, ir.DoubleType):
            return constant(lanes.llvm, value.constant)
        return splat(b, context.cast(b, value, sig.args[0], element.scalar), width)

    return define_intrinsic(f"splat_{element.name}", 1, typing, f"All {width} lanes = x, converted to {element.name}.")


def _iota(element: Element, width: int) -> Any:
    lanes = LaneType(element.name, width)

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        return b.add(splat(b, args[0], width), ir.Constant(lanes.llvm, list(range(width))))

    def typing(typingctx: Any, start: types.Type) -> Typing:
        return (lanes(element.scalar), codegen) if isinstance(start, types.Integer) else None

    return define_intrinsic(f"iota_{element.name}", 1, typing, "start, start + 1, ...")


def _first_lanes(width: int) -> Any:
    def typing(typingctx: Any, n: types.Type) -> Typing:
        return LaneType("bool", width)(types.intp), lambda c, b, s, a: first_lanes(b, a[0], width)

    return define_intrinsic("first_lanes", 1, typing, "The mask of lanes 0 .. n-1, 0 <= n <= W.")


def _reduction(name: str, element: Element, width: int, combine: Callable[[Lanes, Lanes], Lanes]) -> Any:
    """Reduce 16 canonical lanes, given as 16/W vectors, by the fixed tree: lanes 0..7 with 8..15, then 4, 2, 1."""
    lanes, count = LaneType(element.name, width), CANONICAL_LANES // width

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> ir.Value:
        vectors = [Lanes(b, a) for a in args]
        while len(vectors) > 1:
            half = len(vectors) // 2
            vectors = [combine(x, y) for x, y in zip(vectors[:half], vectors[half:], strict=True)]
        last, n = vectors[0], width
        while n > 1:
            n //= 2
            last = combine(last.shuffle(None, range(n)), last.shuffle(None, range(n, 2 * n)))
        return last.shuffle(None, [0] * width).v

    def typing(typingctx: Any, *args: types.Type) -> Typing:
        return (lanes(*args), codegen) if all(a == lanes for a in args) else None

    return define_intrinsic(f"{name}_{element.name}", count, typing, _reduction.__doc__ or "")


@cache
def _vectors(width: int) -> dict[str, Any]:
    made: dict[str, Any] = {"W": width, "ACCUMULATORS": CANONICAL_LANES // width, "first_lanes": _first_lanes(width)}
    for element in ELEMENTS.values():
        made |= memory_functions(element, width)
        made[f"splat_{element.name}"] = _splat(element, width)
        kind = element.kind
        for name, sign in () if kind == "h" else (("reduce_max", ">"), ("reduce_min", "<")):
            made[f"{name}_{element.name}"] = _reduction(name, element, width, partial(_larger(sign), kind))
        if kind not in "bh":
            made[f"reduce_add_{element.name}"] = _reduction("reduce_add", element, width, operator.add)
            made[f"reduce_mul_{element.name}"] = _reduction("reduce_mul", element, width, operator.mul)
        if kind == "f" or element.name in ("i32", "i64"):
            made |= tree_functions(element, width) | block_functions(element, width)
    for name in ("i32", "i64"):
        made[f"iota_{name}"] = _iota(ELEMENTS[name], width)
    made["reduce_any"] = _reduction("reduce_any", ELEMENTS["bool"], width, operator.or_)
    made["reduce_all"] = _reduction("reduce_all", ELEMENTS["bool"], width, operator.and_)
    return made


def parse_signature(text: str, width: int) -> Any:
    """Numba's signature of a tile: `void(ptr_f32, intp, f32)`, where a bare element name is a vector of it."""
    result, _, rest = text.partition("(")
    if result.strip() != "void" or not rest.endswith(")"):
        raise ValueError(f"not a tile's signature: {text!r}")
    known: dict[str, types.Type] = {"intp": types.intp, "uintp": types.uintp}
    known |= {f"ptr_{e}": ElementPointer(e) for e in ELEMENTS} | {e: LaneType(e, width) for e in ELEMENTS}
    return types.void(*(known[a.strip()] for a in rest[:-1].split(",") if a.strip()))


def namespace(width: int) -> dict[str, object]:
    """The globals of generated kernel source for vectors of `width` lanes (16, 8 or 4); a fresh dict each time.

    `W` is the width and `ACCUMULATORS` the number of vectors that make 16 canonical lanes. `@tile("void(...)")` compiles a
    helper function that the kernel calls.
    """
    if width not in WIDTHS:
        raise ValueError(f"no vectors of {width} lanes; the widths are {WIDTHS}")

    def tile(signature: str) -> Callable[[Callable[..., None]], Any]:
        return lambda function: njit(parse_signature(signature, width), **EXACT)(function)

    return {**GENERIC, **_vectors(width), "tile": tile, "inf": float("inf"), "nan": float("nan")}
