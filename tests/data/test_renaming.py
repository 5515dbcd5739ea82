"""Which tensor of a file goes to which parameter: by name, by renaming, and by the order of definition."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dslc.data.definition_order import Ambiguous, definition_order
from dslc.data.renaming import WeightPlan, linear_weights, match_weights
from dslc.diagnostics import DiagnosticError, Span
from dslc.frontend import elaborate
from dslc.ir.patterns import fits

Shapes = Mapping[str, tuple[int, ...]]

WANTED: Shapes = {"Net.stem.w": (8, 3, 3, 3), "Net.stem.b": (8,), "Net.head.w": (8, 10), "Net.head.b": (10,)}
TORCH: Shapes = {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,), "fc.weight": (10, 8), "fc.bias": (10,)}
LINEAR = ("Net.head.w",)


def sources(plan: WeightPlan) -> dict[str, str]:
    return {path: taken.name for path, taken in plan.taken.items()}


def refused(code: str, *arguments: object, **options: object) -> str:
    with pytest.raises(DiagnosticError) as raised:
        match_weights(*arguments, **options)  # type: ignore[arg-type]
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.code == code
    return diagnostic.message + " | " + (diagnostic.hint or "")


# ----------------------------------------------------------------------------------------------------------- by names


def test_equal_names() -> None:
    plan = match_weights(WANTED, dict(reversed(list(WANTED.items()))))
    assert sources(plan) == {n: n for n in WANTED} and not plan.fresh and not plan.dropped
    assert list(plan.taken) == list(WANTED) and not any(t.transpose for t in plan.taken.values())


def test_names_are_relative_to_the_model() -> None:
    relative = {name.removeprefix("Net."): shape for name, shape in WANTED.items()}
    assert sources(match_weights(WANTED, relative, model="Net")) == {f"Net.{n}": n for n in relative}
    assert sources(match_weights(WANTED, WANTED, model="Net")) == {n: n for n in WANTED}
    assert "missing" in refused("DL0804", WANTED, relative)


def test_everything_that_does_not_fit_is_listed() -> None:
    found = {"Net.stem.w": (8, 1, 3, 3), "Net.stem.b": (8,), "Net.fc.w": (8, 10), "Net.fc.b": (10,), "Net.old": (1,)}
    message = refused("DL0804", WANTED, found, where="the weights in f", span=Span("a.dl", 1, 1, 1, 2))
    assert "the weights in f do not fit" in message
    assert "missing: `Net.head.w`, `Net.head.b`; left over: `Net.fc.w`, `Net.fc.b`, `Net.old`" in message
    assert "`Net.stem.w` is [8, 1, 3, 3] there and [8, 3, 3, 3] here" in message


def test_renaming() -> None:
    found = {"Old.trunk.w": (8, 3, 3, 3), "Old.trunk.b": (8,), "Old.fc.w": (8, 100), "Old.fc.b": (100,)}
    rename = [("Old.fc.*", None), ("Old.trunk.*", "stem.*")]
    plan = match_weights(WANTED, found, rename, ["head.*"], model="Net")
    assert sources(plan) == {"Net.stem.w": "Old.trunk.w", "Net.stem.b": "Old.trunk.b"}
    assert plan.fresh == ("Net.head.w", "Net.head.b") and plan.dropped == ("Old.fc.w", "Old.fc.b")


def test_fresh_passes_over_what_the_file_has() -> None:
    found = {**WANTED, "Net.head.w": (8, 100), "Net.head.b": (100,)}
    plan = match_weights(WANTED, found, fresh=["head.*"], model="Net")
    assert set(plan.dropped) == set(plan.fresh) == {"Net.head.w", "Net.head.b"}


def test_the_first_pattern_renames() -> None:
    plan = match_weights({"a": (1,), "b": (1,)}, {"x": (1,), "y": (1,)}, [("x", "a"), ("*", "b")])
    assert sources(plan) == {"a": "x", "b": "y"}


def test_two_names_for_one_parameter() -> None:
    assert "`x` and `y` would both be `a`" in refused("DL0804", {"a": (1,)}, {"x": (1,), "y": (1,)}, [("*", "a")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rename": [("stem.q", None)]}, 'has "stem.q", and no tensor there is called so'),
        ({"rename": [("*", "*"), ("stem.w", None)]}, "earlier patterns leave it nothing"),
        ({"rename": [("stem.w", "*")]}, "more * than"),
        ({"rename": ["ab"]}, "list of pairs"),
        ({"rename": [("a", 1)]}, "list of pairs"),
        ({"rename": [("a", "b", "c")]}, "list of pairs"),
        ({"fresh": "head.*"}, "a list of patterns"),
        ({"fresh": ["tail.*"]}, "no tensor of the program is called so"),
        ({"layout": "keras", "linear": ()}, 'no layout "keras"'),
    ],
)
def test_what_cannot_be_meant(options: dict[str, object], message: str) -> None:
    assert message in refused("DL0806", WANTED, WANTED, model="Net", **options)


@given(st.text("ab.*", max_size=10), st.text("ab.", max_size=12))
def test_patterns(pattern: str, name: str) -> None:
    assert fits(pattern, name) == bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name))


def test_patterns_take_no_time() -> None:
    assert not fits("*a" * 5000 + "b", "a" * 10_000)


NAMES = st.lists(st.text("ab.", min_size=1, max_size=4), unique=True, max_size=6)
PATTERNS = st.text("ab.*", min_size=1, max_size=3)


@given(NAMES, NAMES, st.lists(st.tuples(PATTERNS, PATTERNS | st.none()), max_size=3), st.lists(PATTERNS, max_size=2), st.booleans())
def test_nothing_is_forgotten(
    wanted: list[str], found: list[str], rename: list[tuple[str, str | None]], fresh: list[str], torch: bool
) -> None:
    """Every wanted tensor has a source or stays; every tensor of the file is taken once or dropped - or it is an error."""
    here, there = ({name: (1 + i % 2,) for i, name in enumerate(names)} for names in (wanted, found))
    try:
        plan = match_weights(here, there, rename, fresh, "torch" if torch else None, linear=())
    except DiagnosticError as error:
        assert error.diagnostics[0].code in ("DL0804", "DL0806")
        return
    assert sorted([*plan.taken, *plan.fresh]) == sorted(wanted)
    assert sorted([*sources(plan).values(), *plan.dropped]) == sorted(found)
    assert all(here[path] == there[name] for path, name in sources(plan).items())


# ------------------------------------------------------------------------------------------------------------ PyTorch


def test_torch_layout() -> None:
    plan = match_weights(WANTED, TORCH, layout="torch", linear=LINEAR, ordered=True)
    assert list(sources(plan).values()) == list(TORCH)
    assert [path for path, taken in plan.taken.items() if taken.transpose] == ["Net.head.w"]
    there = {name: np.random.default_rng(0).standard_normal(shape) for name, shape in TORCH.items()}
    here = plan.assemble(there)
    assert {path: array.shape for path, array in here.items()} == WANTED
    assert (here["Net.head.w"] == there["fc.weight"].T).all() and here["Net.head.w"].flags.c_contiguous


def test_torch_layout_from_a_file() -> None:
    """A file has its tensors by name: `fc` is not before `head`, but `bn` before `conv`."""
    wanted = {
        "M.c.w": (4, 3, 3, 3),
        "M.n.scale": (4,),
        "M.n.bias": (4,),
        "M.n.running_mean": (4,),
        "M.n.running_var": (4,),
        "M.d.w": (4, 2),
    }
    found: dict[str, tuple[int, ...]] = {f"bn.{leaf}": (4,) for leaf in ("bias", "running_mean", "running_var", "weight")}
    found |= {"bn.num_batches_tracked": (), "conv.weight": (4, 3, 3, 3), "fc.weight": (2, 4)}
    plan = match_weights(wanted, found, layout="torch", linear=["M.d.w"])
    assert list(sources(plan).values()) == ["conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "fc.weight"]
    assert plan.dropped == ("bn.num_batches_tracked",)


def test_torch_layout_with_a_new_head() -> None:
    plan = match_weights(WANTED, TORCH, [("fc.*", None)], ["head.*"], "torch", model="Net", linear=LINEAR)
    assert sources(plan) == {"Net.stem.w": "conv.weight", "Net.stem.b": "conv.bias"} and plan.dropped == ("fc.weight", "fc.bias")


def test_a_square_matrix_is_transposed_where_it_is_linear() -> None:
    wanted = {"M.table": (5, 5), "M.w": (5, 5)}
    plan = match_weights(wanted, {"0.weight": (5, 5), "1.weight": (5, 5)}, layout="torch", linear=["M.w"])
    assert [(p, t.name, t.transpose) for p, t in plan.taken.items()] == [("M.table", "0.weight", False), ("M.w", "1.weight", True)]


def test_nothing_is_guessed() -> None:
    wanted = {"M.q": (5, 5), "M.k": (5, 5)}
    found = {"key.weight": (5, 5), "query.weight": (5, 5)}
    assert "`M.q` could be `key.weight` or `query.weight`" in refused("DL0804", wanted, found, layout="torch", linear=wanted)
    assert sources(match_weights(wanted, found, layout="torch", linear=wanted, ordered=True))["M.q"] == "key.weight"
    plan = match_weights(wanted, found, [("query.weight", "q")], layout="torch", linear=wanted, model="M")
    assert sources(plan) == {"M.q": "query.weight", "M.k": "key.weight"} and all(t.transpose for t in plan.taken.values())


def test_wrong_shapes_in_the_layout_of_torch() -> None:
    message = refused("DL0804", WANTED, {**TORCH, "fc.weight": (8, 10)}, layout="torch", linear=LINEAR, ordered=True)
    assert "of another shape: `Net.head.w` (`fc.weight`) is [8, 10] there and [10, 8] here" in message
    message = refused(
        "DL0804", WANTED, {"conv.weight": (8, 3, 3, 3), "fc.weight": (10, 8), "fc.bias": (10,)}, layout="torch", linear=LINEAR
    )
    assert "missing: `Net.stem.b`" in message and "left over" not in message
    message = refused("DL0804", WANTED, {**TORCH, "x.weight": (7,)}, layout="torch", linear=LINEAR)
    assert "left over: `x.weight`" in message and "missing" not in message
    renamed = refused("DL0804", WANTED, TORCH, [("conv.bias", "head.b"), ("fc.bias", "stem.b")], layout="torch", linear=LINEAR, model="Net")
    assert "`Net.head.b` (`conv.bias`) is [8] there and [10] here" in renamed


def test_linear_weights() -> None:
    source = """
    model M(x: f32[N, 4], i: i64[N]) -> f32[N, 4] {
      param table: f32[4, 4] = 0
      param tied: f32[6, 4] = 0
      param left: f32[4, 4] = 0
      param e: f32[4, 4] = 0
      param batch: f32[3, 4, 4] = 0
      h = Dense[4](x) + gather[axis = 0](table, i)
      h = h @ transpose(tied) @ tied
      h = transpose(left @ transpose(h))
      return einsum["ni,io->no"](h, e) + (h @ batch)[0]
    }
    """
    assert linear_weights(elaborate("dim N <= 8\n" + source).module) == {"M.dense.w", "M.e", "M.tied"}


# ------------------------------------------------------------------------------------------------------ order of definition

LEAVES = ("weight", "bias", "running_mean", "running_var")


@st.composite
def networks(draw: st.DrawFn, depth: int = 2) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes in order of definition, as a network of PyTorch has them."""
    count = draw(st.integers(0, 2))
    own: list[tuple[str, tuple[int, ...]]] = [(leaf, (draw(st.integers(1, 3)),)) for leaf in LEAVES[:count]]
    if not depth:
        return own or [("weight", (draw(st.integers(1, 3)),))]
    names = draw(st.lists(st.sampled_from(["a", "b", "layer1", "layer2", "layer10", "0", "1"]), unique=True, max_size=3))
    numbered = sorted((n for n in names if n.startswith("layer")), key=lambda n: int(n[5:]))
    plain = sorted(n for n in names if n.isdigit())
    ordered = [numbered.pop(0) if n.startswith("layer") else plain.pop(0) if n.isdigit() else n for n in names]
    return own + [(f"{name}.{below}", shape) for name in ordered for below, shape in draw(networks(depth - 1))]


def all_orders(names: list[str]) -> Iterator[tuple[str, ...]]:
    """Every order that the rules allow, by trying all permutations of the members of each module."""

    def key(name: str) -> tuple[str, list[int]]:
        return re.sub("[0-9]+", "#", name), [int(n) for n in re.findall("[0-9]+", name)]

    own = sorted((n for n in names if "." not in n), key=LEAVES.index)
    below: dict[str, list[str]] = {}
    for name in names:
        if "." in name:
            below.setdefault(name.split(".")[0], []).append(name.split(".", 1)[1])
    for order in itertools.permutations(below):
        if all(key(a)[0] != key(b)[0] or key(a)[1] <= key(b)[1] for a, b in itertools.combinations(order, 2)):
            parts = [[tuple(f"{m}.{n}" for n in inner) for inner in all_orders(below[m])] for m in order]
            for choice in itertools.product(*parts):
                yield tuple(own) + tuple(n for part in choice for n in part)


def consistent(names: tuple[str, ...]) -> bool:
    """Whether modules whose members have the same names have them in the same order."""
    members: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        for depth in range(len(parts)):
            below = members.setdefault(".".join(parts[:depth]) + ("" if depth < len(parts) - 1 else "!"), [])
            below += [parts[depth]] if parts[depth] not in below else []
    orders: dict[frozenset[str], list[str]] = {}
    return all(orders.setdefault(frozenset(order), order) == order for at, order in members.items() if not at.endswith("!"))


@settings(max_examples=200)
@given(networks(), st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_definition(network: list[tuple[str, tuple[int, ...]]], random: object, change: bool) -> None:
    """What is found is the one order that fits; none and several are told apart, as trying everything does."""
    found = dict(network)
    wanted = [shape for _, shape in network]
    if change and wanted:
        wanted[random.randrange(len(wanted))] = (random.randrange(1, 4),)  # type: ignore[attr-defined]
    shuffled = {name: found[name] for name in random.sample(sorted(found), len(found))}  # type: ignore[attr-defined]
    fitting = {order for order in all_orders(list(found)) if [found[n] for n in order] == wanted and consistent(order)}
    if len(fitting) > 1:
        with pytest.raises(Ambiguous) as raised:
            definition_order({n: n for n in shuffled}, shuffled, wanted)
        assert {order[raised.value.position] for order in fitting} >= {raised.value.first, raised.value.second}
        return
    order = definition_order({n: n for n in shuffled}, shuffled, wanted)
    assert (set() if order is None else {tuple(order)}) == fitting


def test_a_deep_residual_network() -> None:
    """The names of a published ResNet-50, sorted as a file has them."""
    names: dict[str, tuple[int, ...]] = {}

    def unit(conv: str, norm: str, outputs: int, inputs: int, k: int) -> None:
        names[f"{conv}.weight"] = (outputs, inputs, k, k)
        names.update({f"{norm}.{leaf}": (outputs,) for leaf in LEAVES})

    unit("conv1", "bn1", 64, 3, 7)
    inputs = 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            unit(f"{at}.conv1", f"{at}.bn1", width, inputs, 1)
            unit(f"{at}.conv2", f"{at}.bn2", width, width, 3)
            unit(f"{at}.conv3", f"{at}.bn3", 4 * width, width, 1)
            if block == 0:
                unit(f"{at}.downsample.0", f"{at}.downsample.1", 4 * width, inputs, 1)
            inputs = 4 * width
    names |= {"fc.weight": (1000, 2048), "fc.bias": (1000,)}
    found = {name: names[name] for name in sorted(names)}
    assert definition_order({n: n for n in found}, found, list(names.values())) == list(names)


def test_many_tensors_and_many_choices() -> None:
    chain = {f"layers.{i}.weight": (4,) for i in range(3000)}
    found = {name: chain[name] for name in sorted(chain)}
    assert definition_order({n: n for n in found}, found, list(chain.values())) == list(chain)
    branches = {f"{chr(97 + i // 26)}{chr(97 + i % 26)}.weight": (4,) for i in range(40)}
    with pytest.raises(Ambiguous):
        definition_order({n: n for n in branches}, branches, list(branches.values()))
    hopeless = [*list(branches.values())[:-1], (5,)]
    with pytest.raises(Ambiguous):
        definition_order({n: n for n in branches}, branches, hopeless)
