"""Which tensor of a file goes to which parameter: renaming, fresh parameters, and the layout of PyTorch.

`match_weights` decides by names and shapes alone; it reads no file and moves no number. What it returns, a `WeightPlan`, is carried out by
`WeightPlan.assemble`. It serves `load_weights` in Python and the `load` clause of a recipe.

Nothing is loaded in part: every wanted tensor is found or said to be fresh, and every tensor of the file is taken or said to be dropped;
anything else is DL0804, which lists it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from dslc.data.definition_order import Ambiguous, definition_order
from dslc.diagnostics import Diagnostic, DiagnosticError, Span
from dslc.ir.graph import Graph, Value
from dslc.ir.module import Module, PortKind, Program
from dslc.ir.patterns import captures, fits
from dslc.ir.scan import is_scan, parts

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
Rename = Sequence[tuple[str, str | None]]

LAYOUTS = ("torch",)
_SHOWN = 12
_UNTRACKED = "num_batches_tracked"  # PyTorch's batch norm counts batches; nothing here reads that


@dataclass(frozen=True, slots=True)
class Taken:
    """The tensor of the file that a parameter takes; `transpose` where the file has its two axes the other way round."""

    name: str
    transpose: bool = False


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """What `match_weights` decided.

    `taken` maps the path of a wanted tensor to its source; `fresh` are the wanted paths that keep their initial values; `dropped` are the
    tensors of the file that are passed over because the user said so.
    """

    taken: Mapping[str, Taken]
    fresh: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def assemble(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """The taken tensors by wanted path, contiguous; `fresh` paths are left out."""
        return {path: np.ascontiguousarray(tensors[t.name].T if t.transpose else tensors[t.name]) for path, t in self.taken.items()}


def match_weights(
    wanted: Mapping[str, Shape],
    found: Mapping[str, Shape],
    rename: Rename = (),
    fresh: Sequence[str] = (),
    layout: str | None = None,
    *,
    model: str | None = None,
    linear: Collection[str] | None = None,
    ordered: bool = False,
    where: str = "the weights",
    span: Span | None = None,
) -> WeightPlan:
    """The source of every wanted tensor.

    `wanted` maps paths (`Net.head.w`) to shapes, in the order of definition; `found` maps the names in the file to shapes.
    Names in patterns are relative to `model` where one is given: `head.w` is `Net.head.w`, in the file as in the program.

    - `rename` is a sequence of (pattern, replacement): the first pattern that fits a name of the file renames it, `None` drops the tensor.
      `*` stands for any characters, and each `*` of the replacement for what the `*` at its place in the pattern stood for.
    - `fresh` are patterns of wanted paths that keep their initial values, whatever the file has under these names.
    - `layout="torch"` is for a state dict of PyTorch: the matrices in `linear` (see `linear_weights`), which it keeps as [out, in], are
      transposed, `num_batches_tracked` is dropped, and what `rename` does not bring to the name of a wanted tensor is paired in the order
      of definition, where every shape must fit. `ordered` says that `found` is in that order. A file has lost it: there
      the order is what names and shapes determine, and DL0804 says where they leave a choice.

    `where` names the source in messages, `span` is the statement's place. Errors: DL0804 for what is missing, left over, of another shape or
    named twice; DL0806 for a `rename`, `fresh` or `layout` that cannot be meant.
    """
    assert layout is None or linear is not None, "the layout of PyTorch needs to know which matrices are linear weights"
    found = {name: tuple(shape) for name, shape in found.items()}
    refuse = _Refusal(where, span)
    _check_arguments(rename, fresh, layout, refuse)
    new = {path: _relative(path, model) for path in wanted}
    kept = tuple(path for path in wanted if any(fits(pattern, new[path]) for pattern in fresh))
    for pattern in fresh:
        if not any(fits(pattern, name) for name in new.values()):
            raise refuse("DL0806", f"`fresh` has {_quoted(pattern)}, and no tensor of the program is called so", _called(new.values()))
    needed = {path: tuple(shape) for path, shape in wanted.items() if path not in kept}

    renamed, dropped, touched = _rename(found, rename, model, refuse)
    if layout == "torch":
        dropped += [name for name in renamed if name.rpartition(".")[2] == _UNTRACKED]
        renamed = {name: to for name, to in renamed.items() if name not in dropped}
    by_name = _sources(renamed, refuse)
    passed = {by_name[new[path]] for path in kept if new[path] in by_name}
    dropped += passed
    sources = {to: name for to, name in by_name.items() if name not in passed}
    if layout != "torch":
        _check_fit({p: (new[p], s) for p, s in needed.items()}, {to: (name, found[name]) for to, name in sources.items()}, refuse)
        return WeightPlan(MappingProxyType({path: Taken(sources[new[path]]) for path in needed}), kept, tuple(dropped))

    turned = {path for path in needed if path in (linear or ()) and len(needed[path]) == 2}
    named = {path: sources[new[path]] for path in needed if new[path] in sources and sources[new[path]] in touched}
    rest = [path for path in needed if path not in named]
    left = [name for name in sources.values() if name not in named.values()]
    there = {path: shape[::-1] if path in turned else shape for path, shape in needed.items()}
    _check_shapes([(path, there[path], name, found[name]) for path, name in named.items()], refuse)
    paired = _pair({path: there[path] for path in rest}, {name: found[name] for name in left}, renamed, ordered, refuse)
    chosen = named | paired
    return WeightPlan(MappingProxyType({path: Taken(chosen[path], path in turned) for path in needed}), kept, tuple(dropped))


# --------------------------------------------------------------------------------------------------------------- names


class _Refusal:
    """Makes the error of one call."""

    def __init__(self, where: str, span: Span | None):
        self.where, self.span = where, span

    def __call__(self, code: str, message: str, hint: str | None) -> DiagnosticError:
        return DiagnosticError(Diagnostic(code, message, self.span, hint=hint))

    def fit(self, parts: Iterable[str], hint: str) -> DiagnosticError:
        return self("DL0804", f"{self.where} do not fit: {'; '.join(parts)}", hint)


def _check_arguments(rename: Rename, fresh: Sequence[str], layout: str | None, refuse: _Refusal) -> None:
    if layout is not None and layout not in LAYOUTS:
        raise refuse("DL0806", f"there is no layout {_quoted(layout)}", 'the layout is "torch", or none for files of dslc')
    if isinstance(fresh, str) or not all(isinstance(pattern, str) for pattern in fresh):
        raise refuse("DL0806", "`fresh` is a list of patterns", 'write fresh = ["head.*"]')
    for rule in rename:
        whole = isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)
        if not whole or not isinstance(rule[1], str | None):
            raise refuse("DL0806", "`rename` is a list of pairs: a pattern, and a name or none", 'write rename = [("fc.*", none)]')
        if rule[1] is not None and rule[1].count("*") > rule[0].count("*"):
            hint = "each * of the new name is what the * at its place in the pattern stands for"
            raise refuse("DL0806", f"{_quoted(rule[1])} has more * than {_quoted(rule[0])}", hint)


def _rename(
    found: Mapping[str, Shape], rename: Rename, model: str | None, refuse: _Refusal
) -> tuple[dict[str, str], list[str], frozenset[str]]:
    """The names of the file with what they are called from here on; what is dropped; and what a rule has renamed."""
    renamed: dict[str, str] = {}
    dropped: list[str] = []
    touched: set[str] = set()
    used: set[str] = set()
    for name in found:
        relative = _relative(name, model)
        renamed[name] = relative
        for pattern, replacement in rename:
            stood_for = captures(pattern, relative)
            if stood_for is None:
                continue
            used.add(pattern)
            if replacement is None:
                dropped.append(name)
                del renamed[name]
            else:
                first, *parts = replacement.split("*")
                renamed[name] = _relative(first + "".join(c + p for c, p in zip(stood_for, parts, strict=False)), model)
                touched.add(name)
            break
    for pattern, _ in rename:
        if pattern not in used:
            nothing = not any(fits(pattern, _relative(name, model)) for name in found)
            why = "no tensor there is called so" if nothing else "earlier patterns leave it nothing"
            raise refuse("DL0806", f"`rename` has {_quoted(pattern)}, and {why}", _called(_relative(name, model) for name in found))
    return renamed, dropped, frozenset(touched)


def _sources(renamed: Mapping[str, str], refuse: _Refusal) -> dict[str, str]:
    """The name in the file for each new name."""
    sources: dict[str, str] = {}
    for name, to in renamed.items():
        if to in sources:
            what = f"{refuse.where} do not fit: `{sources[to]}` and `{name}` would both be `{to}`"
            raise refuse("DL0804", what, f'drop one: rename = [("{name}", none)]')
        sources[to] = name
    return sources


def _relative(name: str, model: str | None) -> str:
    return name.removeprefix(f"{model}.") if model else name


# ----------------------------------------------------------------------------------------------------------- by names


def _check_fit(wanted: Mapping[str, tuple[str, Shape]], sources: Mapping[str, tuple[str, Shape]], refuse: _Refusal) -> None:
    """`wanted`: path -> (name, shape); `sources`: name -> (name in the file, shape)."""
    names = {name for name, _ in wanted.values()}
    missing = [path for path, (name, _) in wanted.items() if name not in sources]
    left_over = [name for to, (name, _) in sources.items() if to not in names]
    other = [(p, shape, *sources[name]) for p, (name, shape) in wanted.items() if name in sources and sources[name][1] != shape]
    if missing or left_over:
        raise refuse.fit(_parts(missing, left_over, other), _advice(missing, left_over))
    _check_shapes(other, refuse)


def _check_shapes(pairs: Sequence[tuple[str, Shape, str, Shape]], refuse: _Refusal) -> None:
    """`pairs`: path, the shape that it takes, name in the file, shape in the file."""
    other = [pair for pair in pairs if pair[1] != pair[3]]
    if other:
        raise refuse.fit(_parts([], [], other), _advice([], [], other))


def _parts(missing: Sequence[str], left_over: Sequence[str], other: Sequence[tuple[str, Shape, str, Shape]]) -> Iterable[str]:
    if missing:
        yield f"missing: {_listed(f'`{n}`' for n in missing)}"
    if left_over:
        yield f"left over: {_listed(f'`{n}`' for n in left_over)}"
    if other:
        shown = (f"{_both(path, name)} is {list(there)} there and {list(here)} here" for path, here, name, there in other)
        yield f"of another shape: {_listed(shown)}"


def _both(path: str, name: str) -> str:
    return f"`{path}`" if path == name else f"`{path}` (`{name}`)"


def _advice(missing: Sequence[str], left_over: Sequence[str], other: Sequence[tuple[str, Shape, str, Shape]] = ()) -> str:
    if any(here == there[::-1] for _, here, _, there in other):
        return 'a network of PyTorch keeps its matrices the other way round: layout = "torch"'
    if missing and left_over:
        mine, theirs = missing[0].split(".")[0], left_over[0].split(".")[0]
        if mine != theirs:
            return f"these are weights of `{theirs}`, the program has `{mine}`; `rename` and `fresh` bring them together"
        near = difflib.get_close_matches(missing[0], left_over, 1, 0.5)
        if near:
            return f"is `{near[0]}` the former name of `{missing[0]}`?"
    return "they were saved from another version of the model"


# ------------------------------------------------------------------------------------------------------------ by order


def _pair(
    wanted: Mapping[str, Shape], found: Mapping[str, Shape], names: Mapping[str, str], ordered: bool, refuse: _Refusal
) -> dict[str, str]:
    """Wanted path -> name in the file, in the order of definition. `names` are what the tensors of the file are called here."""
    shapes = list(wanted.values())
    order = list(found)
    if not ordered:
        try:
            order = definition_order({names[n]: n for n in found}, found, shapes) or order
        except Ambiguous as choice:
            what = f"`{list(wanted)[choice.position]}` could be `{choice.first}` or `{choice.second}`: a file keeps no order of definition"
            hint = f'say which: rename = [("{choice.first}", "...")], or give the state dict itself, which has the order'
            raise refuse("DL0804", f"{refuse.where} do not fit in one way only: {what}", hint) from None
    if len(order) == len(shapes) and all(found[n] == s for n, s in zip(order, shapes, strict=True)):
        return dict(zip(wanted, order, strict=True))
    missing, left_over, other = _differences(wanted, found, order)
    hint = "in the order of definition; name what stands elsewhere with `rename`, and what the file does not have with `fresh`"
    raise refuse.fit(_parts(missing, left_over, other), hint)


def _differences(
    wanted: Mapping[str, Shape], found: Mapping[str, Shape], order: Sequence[str]
) -> tuple[list[str], list[str], list[tuple[str, Shape, str, Shape]]]:
    """Where the two sequences of shapes part, by their longest common runs."""
    missing: list[str] = []
    left_over: list[str] = []
    other: list[tuple[str, Shape, str, Shape]] = []
    paths = list(wanted)
    matcher = difflib.SequenceMatcher(None, [wanted[p] for p in paths], [found[n] for n in order], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "replace" and b - a == d - c:
            other += [(p, wanted[p], n, found[n]) for p, n in zip(paths[a:b], order[c:d], strict=True)]
        elif kind != "equal":
            missing += paths[a:b]
            left_over += order[c:d]
    return missing, left_over, other


# ------------------------------------------------------------------------------------------------------ linear weights


_SAME_AXES = ("cast", "identity", "stop_gradient")


def linear_weights(module: Module) -> frozenset[str]:
    """Paths of the matrices that a vector is multiplied with from the left, `x @ w` with `w` as [in, out]: PyTorch's Linear has [out, in].

    Read off the typed graphs, in which `@` is a `matmul`; an `einsum` that sums over the first axis of a matrix alone counts too.
    """
    return frozenset(path for program in module.programs.values() for path in _linear_in(program))


def _linear_in(program: Program) -> Iterable[str]:
    ports = zip(program.graph.inputs, program.inputs, strict=True)
    return _linear_among(program.graph, {value: port.name for value, port in ports if port.kind == PortKind.BUFFER})


def _linear_among(graph: Graph, paths: dict[Value, str]) -> Iterable[str]:
    for node in graph.ops:
        if is_scan(node):
            loop = parts(node)
            captured = zip(loop.captures, loop.captured, strict=True)
            yield from _linear_among(loop.body, {inside: paths[value] for value, inside in captured if value in paths})
        elif node.kind in _SAME_AXES and node.inputs[0] in paths:
            paths[node.outputs[0]] = paths[node.inputs[0]]
        elif node.kind == "matmul" and node.inputs[1] in paths and node.inputs[1].type.rank == 2:
            yield paths[node.inputs[1]]
        elif node.kind == "einsum":
            left, _, result = str(node.attr("equation")).replace(" ", "").partition("->")
            for labels, value in zip(left.split(","), node.inputs, strict=False):
                if value in paths and len(labels) == 2 and labels[0] not in result and labels[1] in result:
                    yield paths[value]


# ------------------------------------------------------------------------------------------------------------ messages


def _called(names: Iterable[str]) -> str | None:
    found = list(names)
    return f"there are {_listed(f'`{n}`' for n in found)}" if found else None


def _quoted(text: object) -> str:
    return f'"{str(text)[:80]}"'


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
