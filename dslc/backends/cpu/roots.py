"""Square roots of f32 lanes from an estimate and fma, correctly rounded: twice as fast as the divider where AVX-512 is.

P. Markstein, "Software division and square root using Goldschmidt's algorithms", 2004: the residual of an estimate that is right
to one unit in the last place, added by fma, gives the correctly rounded root. The test goes through every mantissa. Kernels call
`dslc.sqrt.v16f32`; its definition for the processor that a kernel is compiled for is linked in.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir

from dslc.backends.cpu.lanes import F32, Lanes, declare, llvm_suffix

LEAST, MOST = 0x0D800000, 0x72000000  # 2**-100 and 2**101: between them no step under- or overflows


def name_of(width: int) -> str:
    return f"dslc.sqrt.v{width}f32"


@cache
def definition(width: int, features: str) -> str:
    """LLVM IR of the function for a processor with these features (LLVM's comma-separated `+name`)."""
    known = set(features.split(","))
    module = ir.Module("roots")
    vector = ir.VectorType(F32, width)
    function = ir.Function(module, ir.FunctionType(vector, [vector]), name_of(width))
    set.add(function.attributes, "alwaysinline")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    x = Lanes(b, function.args[0])
    fast = "+avx512f" in known and (width == 16 or "+avx512vl" in known)
    b.ret((_by_estimate(x) if fast else _by_divider(x)).v)
    return str(module)


def _by_divider(x: Lanes) -> Lanes:
    sqrt = declare(x.b.module, f"llvm.sqrt.{llvm_suffix(x.type)}", x.type, [x.type])
    return Lanes(x.b, x.b.call(sqrt, [x.v]))


def _by_estimate(x: Lanes) -> Lanes:
    mask = ir.IntType(max(8, x.width))
    estimate = declare(x.b.module, f"llvm.x86.avx512.rsqrt14.ps.{32 * x.width}", x.type, [x.type, x.type, mask])
    y = Lanes(x.b, x.b.call(estimate, [x.v, ir.Constant(x.type, None), ir.Constant(mask, -1)]))  # right to 2**-14
    g, h = x * y, y * 0.5
    r = (-g).fma(h, 0.5)
    g, h = g.fma(r, g), h.fma(r, h)
    residual = (-g).fma(g, x)
    bits = x.bits()
    zero = bits.equals(0)
    root = zero.where(0.0, residual.fma(h, g))
    usual = zero | (bits - LEAST).ult(MOST - LEAST)
    return (~usual).where_rarely(lambda: [_by_divider(x)], [root])[0]
