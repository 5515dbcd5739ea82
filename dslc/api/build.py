"""`Builder`: a network from Python calls instead of text, for programs that generate networks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir import dims
from dslc.ir.builder import Builder as GraphBuilder
from dslc.ir.dims import Dim
from dslc.ir.graph import Graph, Value
from dslc.ir.module import Buffer, Initial, Module, Port, PortKind, Role
from dslc.ir.module import Program as GraphProgram
from dslc.ir.operator import OPERATORS, TypeFailure
from dslc.ir.scan import build_scan, free_values, without_axis
from dslc.ir.types import DType, TensorType

if TYPE_CHECKING:
    from dslc.api.program import Program

RUN = "infer"


class Tensor:
    """A value of the network under construction: has `+ - * / @`, and can be passed to the builder's operators."""

    __slots__ = ("_builder", "value")

    def __init__(self, builder: Builder, value: Value):
        self._builder = builder
        self.value = value

    @property
    def type(self) -> TensorType:
        """Element type and shape."""
        return self.value.type

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Sizes; the batch is a name."""
        return self.value.type.shape

    def __add__(self, other: Tensor | float) -> Tensor:
        return self._binary("add", other)

    def __radd__(self, other: float) -> Tensor:
        return self._binary("add", other)

    def __sub__(self, other: Tensor | float) -> Tensor:
        return self._binary("sub", other)

    def __rsub__(self, other: float) -> Tensor:
        return self._builder.like(self, other)._binary("sub", self)

    def __mul__(self, other: Tensor | float) -> Tensor:
        return self._binary("mul", other)

    def __rmul__(self, other: float) -> Tensor:
        return self._binary("mul", other)

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return self._binary("div", other)

    def __rtruediv__(self, other: float) -> Tensor:
        return self._builder.like(self, other)._binary("div", self)

    def __matmul__(self, other: Tensor) -> Tensor:
        return self._binary("matmul", other)

    def __neg__(self) -> Tensor:
        result: Tensor = self._builder.neg(self)
        return result

    def _binary(self, kind: str, other: Tensor | float) -> Tensor:
        right = other if isinstance(other, Tensor) else self._builder.like(self, other)
        result: Tensor = self._builder.apply(kind, self, right)
        return result

    def __repr__(self) -> str:
        return f"<dslc.Tensor {self.type}>"


class Builder:
    """Builds one model. Operators are methods with their names in the language: `b.relu(x)`, `b.softmax(x, axis=-1)`.

        b = dslc.Builder("Tiny", batch=256)
        x = b.input("x", "f32", ("N", 4))
        w = b.parameter("w", "f32", (4, 3), "xavier_uniform")
        program = b.compile(y=b.softmax(x @ w, axis=-1))

    `batch` is the largest batch: the dimension named N stays open up to it. Errors are those of the language (DL0210).
    """

    def __init__(self, name: str = "Model", batch: int | None = 256):
        from dslc.ops import register_operators

        register_operators()
        if not name.isidentifier() or not name.isascii():
            raise _refused(f"{name!r} is no name of a model", "use letters, digits and _")
        self.name = name
        self.batch = batch
        self._graph = self._root = GraphBuilder()  # that of the loop whose body is being built, and that of the program
        self._ports: list[Port] = []
        self._buffers: dict[str, Buffer] = {}
        self._updates: dict[str, Value] = {}

    def input(self, name: str, dtype: str = "f32", shape: Sequence[int | str] = ()) -> Tensor:
        """A tensor that the caller gives. Sizes are integers or "N", the batch, which can only be the first."""
        if any(p.name == name for p in self._ports):
            raise _refused(f"there are two inputs or parameters named {name!r}", "give each a name of its own")
        return self._input(Port(PortKind.INPUT, name), _type(dtype, shape, self.batch is not None))

    def parameter(self, name: str, dtype: str = "f32", shape: Sequence[int] = (), initial: str | float = 0.0, **settings: float) -> Tensor:
        """A trained tensor named `MODEL.name`. `initial` is a number, or an initialiser of the language with its settings."""
        return self._buffer(Role.PARAMETER, name, dtype, shape, initial, settings)

    def state(self, name: str, dtype: str = "f32", shape: Sequence[int] = (), initial: str | float = 0.0, **settings: float) -> Tensor:
        """A tensor named `MODEL.name` that persists and is not trained, such as a running mean."""
        return self._buffer(Role.STATE, name, dtype, shape, initial, settings)

    def update(self, state: Tensor, value: Tensor) -> None:
        """What a state becomes when the model is trained. Running the model leaves it as it is, as in a file."""
        port = next((p for p, v in zip(self._ports, self._root.inputs, strict=True) if v is state.value), None)
        if port is None or port.name not in self._buffers or self._buffers[port.name].role != Role.STATE:
            raise _refused("only a state is updated", "make it with `b.state(...)`")
        if state.type != value.type:
            raise _refused(f"the state {port.name} is {state.type}, and this is {value.type}", "give a value of the same type")
        self._updates[port.name] = value.value

    def _buffer(
        self, role: Role, name: str, dtype: str, shape: Sequence[int], initial: str | float, settings: Mapping[str, float]
    ) -> Tensor:
        path = f"{self.name}.{name}"
        if path in self._buffers:
            raise _refused(f"there are two {role}s named {name!r}", "give each a name of its own")
        type_ = _type(dtype, shape, False)
        if type_.dtype.half:
            raise _refused(
                f"the {role} {name!r} is {type_.dtype}", 'what is stored is "f32"; convert it on use: b.cast(w, dtype=DType.BF16)'
            )
        self._buffers[path] = Buffer(path, type_, role, _initial(initial, settings, path))
        return self._input(Port(PortKind.BUFFER, path), type_)

    def _input(self, port: Port, type_: TensorType) -> Tensor:
        self._ports.append(port)
        if type_.dtype != DType.BF16:
            return Tensor(self, self._root.input(type_.dtype, *type_.shape))
        given = self._root.input(DType.F32, *type_.shape)  # NumPy has no bf16
        return Tensor(self, self._root.cast(given, dtype=DType.BF16))

    def like(self, tensor: Tensor, value: float) -> Tensor:
        """A 0-d constant of the tensor's element type."""
        return Tensor(self, self._graph.scalar(value, tensor.type.dtype))

    def constant(self, array: Any, dtype: str = "f32") -> Tensor:
        """A constant from an array."""
        import numpy as np

        kind = _dtype(dtype)
        return Tensor(self, self._graph.constant(np.asarray(array), kind))

    def apply(self, kind: str, *inputs: Tensor, **settings: Any) -> Any:
        """The result of an operator: a Tensor, or a tuple of them where it has several."""
        if kind not in OPERATORS or OPERATORS[kind].internal:
            raise _refused(f"there is no operator {kind!r}", "`dslc ops` lists them")
        for name, value in settings.items():
            if isinstance(value, list):
                settings[name] = tuple(value)
        try:
            result = self._graph.apply(kind, *(t.value for t in inputs), **settings)
        except TypeFailure as failure:
            raise DiagnosticError(Diagnostic("DL0210", f"{kind}: {failure.message}", hint=failure.hint)) from None
        return tuple(Tensor(self, v) for v in result) if isinstance(result, tuple) else Tensor(self, result)

    def scan(
        self,
        body: Callable[..., tuple[Sequence[Tensor], Sequence[Tensor]]],
        sequences: Sequence[Tensor] = (),
        carry: Sequence[Tensor] = (),
        *,
        length: int | None = None,
        axis: int = 0,
        reverse: bool = False,
        recompute: bool = False,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The loop at run time; gives the last carries, and the yields stacked along `axis`.

            def step(index, x, h):
                h = b.tanh(x @ w + h @ u)
                return [h], [h]
            (last,), (every,) = b.scan(step, [xs], [start], axis=1)

        `body` is called once, with the number of the iteration, an element of each sequence along `axis` and the carries; it returns
        the carries of the next iteration and what it yields. Without sequences `length` says how often it runs.
        """
        if any(not -t.type.rank <= axis < t.type.rank for t in sequences):
            raise _refused(
                f"a scan along axis {axis} walks over {', '.join(str(t.type) for t in sequences)}", "choose an axis that they have"
            )
        outer = self._graph
        self._graph = inner = outer.inner()
        try:
            index = inner.input(DType.I64)
            axes = [axis % t.type.rank for t in sequences]
            elements = [inner.value(without_axis(t.type, a)) for t, a in zip(sequences, axes, strict=True)]
            before = [inner.value(t.type) for t in carry]
            after, yields = body(Tensor(self, index), *(Tensor(self, v) for v in (*elements, *before)))
        finally:
            self._graph = outer
        outputs = [t.value for t in (*after, *yields)]
        given = (index, *elements, *before)
        free = free_values(inner.ops, outputs, given)
        try:
            if len(after) != len(before):
                raise TypeFailure(f"the body takes {len(before)} carries and gives {len(after)}")
            op = build_scan(
                outer,
                Graph((*given, *free), tuple(inner.ops), tuple(outputs)),
                length=sequences[0].shape[axes[0]] if length is None and sequences else length or 0,
                sequences=[t.value for t in sequences],
                elements=axes,
                initial=[t.value for t in carry],
                captures=free,
                yields=[axis % (t.type.rank + 1) for t in yields],
                reverse=reverse,
                recompute=recompute,
            )
        except TypeFailure as failure:
            raise DiagnosticError(Diagnostic("DL0210", f"scan: {failure.message}", hint=failure.hint)) from None
        results = tuple(Tensor(self, v) for v in op.outputs)
        return results[: len(before)], results[len(before) :]

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        if kind.startswith("_") or kind not in OPERATORS:
            raise AttributeError(f"there is no operator {kind!r}")
        return lambda *inputs, **settings: self.apply(kind, *inputs, **settings)

    def module(self, **results: Tensor) -> Module:
        """The typed graph with these results."""
        if not results:
            raise _refused("the model has no result", "name at least one: `b.compile(y=y)`")
        values = [self._graph.cast(t.value, dtype=DType.F32) if t.type.dtype == DType.BF16 else t.value for t in results.values()]
        graph = self._graph.graph(*values)
        batched = any("N" in dims.names(n) for v in graph.inputs for n in v.type.shape if not isinstance(n, int))
        outputs = tuple(Port(PortKind.RESULT, name) for name in results)
        program = GraphProgram(RUN, graph, tuple(self._ports), outputs, "N" if batched else None, self.batch if batched else None)
        return Module(self.name, {RUN: program}, dict(self._buffers))

    def to_dl(self, results: Mapping[str, Tensor] | None = None, **named: Tensor) -> str:
        """The model as a `.dl` source, which gives the same graph again. DL0807 where something has no spelling, such as an array."""
        from dslc.api.text import model_text

        module = self.module(**{**(results or {}), **named})
        updates = [(path.removeprefix(f"{self.name}."), value) for path, value in self._updates.items()]
        return model_text(module, module.programs[RUN], updates)

    def compile(
        self,
        results: Mapping[str, Tensor] | None = None,
        *,
        threads: int | None = None,
        width: int | None = None,
        seed: int = 0,
        **named: Tensor,
    ) -> Program:
        """The model as a program. Results are keywords, or a mapping where their names are no keywords."""
        from dslc.api.compilation import compile_graph, options_of

        module = self.module(**{**(results or {}), **named})
        return compile_graph(module, options_of(None, None, threads, width, True), seed)


def _type(dtype: str, shape: Sequence[int | str], batched: bool) -> TensorType:
    sizes: list[Dim] = []
    for axis, n in enumerate(shape):
        if isinstance(n, str):
            if n != "N" or axis != 0 or not batched:
                raise _refused(f"the size {n!r} on axis {axis}", 'only the first size of an input can be open: "N", with a `batch`')
            sizes.append(dims.name("N"))
        elif not 1 <= n < 2**31:
            raise _refused(f"a size of {n}", "sizes are from 1 to 2^31 - 1")
        else:
            sizes.append(int(n))
    return TensorType(_dtype(dtype), tuple(sizes))


def _dtype(dtype: str) -> DType:
    try:
        return DType(dtype)
    except ValueError:
        raise _refused(f"there is no element type {dtype!r}", f"there are {', '.join(d.value for d in DType)}") from None


def _initial(initial: str | float, settings: Mapping[str, float], path: str) -> Initial:
    stream = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=4).digest(), "little") >> 1
    if not isinstance(initial, str):
        return Initial("constant", (("value", float(initial)),), stream)
    known = ("zeros", "ones", "normal", "uniform", "truncated_normal", "orthogonal")
    fanned = tuple(f"{who}_{how}" for who in ("xavier", "kaiming") for how in ("uniform", "normal"))
    if initial not in (*known, *fanned):
        raise _refused(f"there is no initialiser {initial!r}", f"there are {', '.join((*known, *fanned))}")
    return Initial(initial, tuple(sorted(settings.items())), stream)


def _refused(message: str, hint: str) -> DiagnosticError:
    return DiagnosticError(Diagnostic("DL0807", message, hint=hint))
