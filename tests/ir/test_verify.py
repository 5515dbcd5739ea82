"""The verifier accepts what the builder makes and names each broken rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import dslc.ops  # noqa: F401  (fills the registry)
from dslc.ir.builder import Builder
from dslc.ir.dims import name
from dslc.ir.graph import Graph, Op, Value
from dslc.ir.module import Buffer, Initial, Module, Port, PortKind, Program, Role
from dslc.ir.types import DType, TensorType
from dslc.ir.verify import Stage, VerificationError, verify, verify_module

F32, I64 = DType.F32, DType.I64


def network() -> Graph:
    b = Builder()
    x, w = b.input(F32, name("N"), 4), b.input(F32, 4, 3)
    y = b.softmax(b.dot_general(x, w, contract=((1,), (0,))), axis=1)
    return b.graph(y, b.reshape(y, shape=(3 * name("N"),)))


def test_a_built_graph_is_accepted_unchanged() -> None:
    graph = network()
    assert verify(graph) is graph
    assert verify(graph, Stage(names=frozenset({"N"}), differentiated=True)) is graph


def changed(position: int, **parts: object) -> Callable[[Graph], Graph]:
    def apply(graph: Graph) -> Graph:
        ops = list(graph.ops)
        ops[position] = replace(ops[position], **parts)  # type: ignore[arg-type]
        return replace(graph, ops=tuple(ops))

    return apply


def reordered(graph: Graph) -> Graph:
    return replace(graph, ops=graph.ops[::-1])


STRANGER = Value(99, TensorType(F32, (4, 3)))
X = Value(0, TensorType(F32, (name("N"), 4)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (reordered, "%3: .* is not defined before"),
        (changed(0, inputs=(X, STRANGER)), "%99: .* is not defined before"),
        (changed(0, inputs=(X, Value(1, TensorType(F32, (4, 5))))), r"%1 is f32\[4, 3\], not f32\[4, 5\]"),
        (changed(0, outputs=(Value(2, TensorType(F32, (name("N"), 4))),)), r"the result is f32\[N, 3\]"),
        (changed(0, outputs=(Value(0, TensorType(F32, (name("N"), 3))),)), "%0 is defined twice"),
        (changed(1, outputs=(Value(1, TensorType(F32, (name("N"), 3))),)), "%1 is defined twice"),
        (changed(1, kind="softmin"), "there is no operator softmin"),
        (changed(1, attrs=()), r"the attributes are \[\], not \['axis'\]"),
        (changed(1, attrs=(("axis", 7),)), "axis 7"),
        (changed(1, attrs=(("axis", [1]),)), "unhashable"),
        (lambda g: replace(g, outputs=(STRANGER,)), "%99: .* is not defined"),
        (lambda g: replace(g, inputs=(X, Value(0, TensorType(F32, (4, 3))))), "%0 is defined twice"),
        (lambda g: replace(g, inputs=(*g.inputs, Value(50, TensorType(F32, (-1,))))), "negative size"),
    ],
)
def test_each_broken_rule_is_named(change: Callable[[Graph], Graph], message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        verify(change(network()))


def test_regions_are_verified_too() -> None:
    inner = Graph((), (), (STRANGER,))
    graph = changed(1, regions=(inner,))(network())
    with pytest.raises(VerificationError, match=r"%99: .* is not defined"):
        verify(graph)


def test_stage_rules() -> None:
    graph = network()
    with pytest.raises(VerificationError, match="the name N, which should be bound"):
        verify(graph, Stage(names=frozenset()))
    with pytest.raises(VerificationError, match=r"a composite is left after expansion: .*softmax"):
        verify(graph, Stage(expanded=True))
    verify(graph, Stage(expanded=True, whole=frozenset({"softmax"})))
    b = Builder()
    x = b.input(F32, 3)
    loss = b.sum(b.mul(x, x))
    graph = b.graph(b.grad(loss, x))
    verify(graph)
    with pytest.raises(VerificationError, match="a gradient is left"):
        verify(graph, Stage(differentiated=True))


def module(**parts: object) -> Module:
    b = Builder()
    x, w, seed = b.input(F32, name("N"), 4), b.input(F32, 4), b.input(I64)
    graph = b.graph(b.mul(x, w), b.neg(w))
    program = Program(
        "run",
        graph,
        (Port(PortKind.INPUT, "x"), Port(PortKind.BUFFER, "m.w"), Port(PortKind.SEED, "seed")),
        (Port(PortKind.RESULT, "y"), Port(PortKind.BUFFER, "m.w")),
        "N",
        256,
    )
    assert seed in graph.inputs
    buffers = {"m.w": Buffer("m.w", TensorType(F32, (4,)), Role.PARAMETER, Initial("constant", (("value", 0.0),)))}
    return Module("m", {"run": replace(program, **parts)}, buffers)  # type: ignore[arg-type]


def test_a_module_is_accepted_unchanged() -> None:
    whole = module()
    assert verify_module(whole) is whole


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"inputs": (Port(PortKind.INPUT, "x"),)}, "program run: 1 input ports for 3 inputs"),
        ({"outputs": (Port(PortKind.RESULT, "y"), Port(PortKind.BUFFER, "m.v"))}, "no buffer m.v"),
        ({"outputs": (Port(PortKind.BUFFER, "m.w"), Port(PortKind.BUFFER, "m.w"))}, r"the buffer m.w is f32\[4\], the output f32\[N, 4\]"),
        ({"inputs": (Port(PortKind.INPUT, "x"), Port(PortKind.COUNTER, "step"), Port(PortKind.SEED, "seed"))}, "the counter is f32"),
        ({"bound": None}, "needs a bound"),
    ],
)
def test_each_broken_rule_of_a_module_is_named(parts: dict[str, object], message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        verify_module(module(**parts))


def test_a_buffer_is_updated_once() -> None:
    whole = module()
    program = whole.programs["run"]
    graph = replace(program.graph, outputs=(program.graph.outputs[1],) * 2)
    twice = replace(program, graph=graph, outputs=(Port(PortKind.BUFFER, "m.w"),) * 2)
    with pytest.raises(VerificationError, match="updated twice"):
        verify_module(replace(whole, programs={"run": twice}))


def test_an_operation_without_results_is_printed_in_the_message() -> None:
    graph = Graph((), (Op("nothing", (), (), ()),), ())
    with pytest.raises(VerificationError, match=r"no operator nothing: nothing\(\)"):
        verify(graph)
