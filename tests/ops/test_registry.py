"""Every operator is whole: it has kernels, an oracle, a gradient or its explicit absence, and a page in the reference.

That kernels and gradients are right is tested elsewhere; here, that none can be forgotten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.backends.cpu.mathlib import FORMULAS
from dslc.backends.cpu.simd import namespace
from dslc.backends.cpu.target import host_target, kernel_sources
from dslc.backends.cpu.vocabulary import FUNCTIONS
from dslc.backends.cuda.expressions import Functions, text_of
from dslc.cli.ops import signature
from dslc.compiler import transform
from dslc.ir import loops
from dslc.ir.loops import COMPARISONS, SIGNS, Const, Expr, Reader
from dslc.ir.operator import OPERATORS, BadSample, Operator, Sample
from dslc.ir.types import DType, TensorType
from dslc.lowering.lower import lower
from dslc.options import Options
from tests.backends.test_kernels import KINDS, program_of
from tests.ops.test_operators import differentiable

PAGE = (Path(__file__).parent.parent.parent / "docs" / "operators.md").read_text(encoding="utf-8")
NO_KERNEL_OF_ITS_OWN = {"constant", "grad", "scan"}  # data, a note to a transform, a loop over the kernels of its body
WIDTHS = (16, 8, 4)


def kernel_fault(kind: str) -> str:
    """Why a sample of an operator does not become kernel sources at every width; nothing where all do."""
    for number, sample in enumerate(OPERATORS[kind].samples):
        program, _ = program_of(kind, number, sample, DType.F32)
        try:
            lowered = lower(transform(program, {})[0])
            sources = [kernel_sources(lowered, host_target(Options(width=width))) for width in WIDTHS]
        except Exception as error:
            return f"sample {number}: {type(error).__name__} {error}"
        if not all(sources) and any(v.type.size != 0 for v in program.graph.outputs):
            return f"sample {number}: nothing to run"
    return ""


def lacking(kind: str) -> list[str]:
    """What an operator of the registry lacks."""
    op, found = OPERATORS[kind], []
    if not op.meta:
        if not op.has("reference"):
            found.append("an oracle")
        if not op.samples:
            found.append("samples")
        elif fault := kernel_fault(kind):
            found.append(f"a kernel ({fault})")
    if op.differentiable and not op.regions and not ((op.has("vjp") or op.has("expand")) and any(differentiable(op, s) for s in op.samples)):
        found.append("a gradient that is tested, or its absence")
    if not (op.internal or op.meta):
        head = f"### `{signature(op)}`\n"
        page = PAGE.partition(head)[2].partition("\n### ")[0]
        if not page:
            found.append("a page")
        elif op.differentiable == ("It has no gradient." in page):
            found.append("a page that says whether there is a gradient")
    return found


@pytest.mark.parametrize("kind", sorted(k for k, op in OPERATORS.items() if type(op).__module__.startswith("dslc.")))
def test_operators_are_whole(kind: str) -> None:
    assert lacking(kind) == []


def test_every_operator_is_among_those_whose_kernels_are_run() -> None:
    assert set(OPERATORS) - set(KINDS) == NO_KERNEL_OF_ITS_OWN


# ---- the test itself ----------------------------------------------------------------------------------------------


class Whole(Operator):
    """Twice x."""

    name = "whole"
    internal = True
    samples = [Sample(((5, 4),))]
    errors = [BadSample((TensorType(DType.I32, (2,)),), {}, "")]

    def infer(self, x: TensorType) -> TensorType:
        return x

    def body(self, index: Any, x: Reader) -> Expr:
        return loops.binary("add", x[index], x[index])

    def vjp(self, b: Any, dy: Any, y: Any, x: Any) -> Any:
        return (b.add(dy, dy),)

    def reference(self, x: np.ndarray) -> np.ndarray:
        return x + x


class NoKernel(Whole):
    def body(self, index: Any, x: Reader) -> Expr:
        return loops.Unary("unheard_of", x[index], x.type.dtype)


class NoGradientTested(Whole):
    samples = [Sample(((5, 4),), gradient=False)]


class NoPage(Whole):
    internal = False


class NoGradient(Whole):
    vjp = None  # type: ignore[assignment]


class NoOracle(Whole):
    reference = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (Whole, ""),
        (NoKernel, "a kernel (sample 0"),
        (NoGradientTested, "a gradient"),
        (NoGradient, "a gradient"),
        (NoOracle, "an oracle"),
        (NoPage, "a page"),
    ],
)
def test_what_is_missing_is_found(cls: type[Operator], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "whole", cls())
    found = lacking("whole")
    assert len(found) == bool(expected) and all(f.startswith(expected) for f in found)


# ---- functions of the loop language ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(loops.UNARY | loops.ARITHMETIC | loops.COMPARE))
def test_both_back_ends_print_every_function(name: str) -> None:
    """A function of the vocabulary on the CPU, a sign, or one of the few that the printer writes out; text on the other."""
    written_out = {"neg", "not", "isnan"}
    assert name in written_out or name in SIGNS or name in COMPARISONS or FUNCTIONS[name] in namespace(16)
    x = Const(True, DType.BOOL) if name in ("and", "or", "not") else Const(1.5, DType.F32)
    e = loops.unary(name, x) if name in loops.UNARY else loops.binary(name, x, x)
    assert text_of(e, ["x", "y"], str, Functions())


def test_the_vocabulary_names_the_whole_math_library() -> None:
    assert {n for n, f in FUNCTIONS.items() if f == f"v{n}"} >= set(FORMULAS) & (loops.UNARY | loops.ARITHMETIC) == set(FORMULAS)
