"""dslc against PyTorch: the same networks, batches, initial values and dropout masks.

In f64 every output, gradient, running statistic and parameter after three optimizer steps agrees to 1e-9 of the tensor's largest
element. In f32 each tensor's error against f64 is at most twice PyTorch's own:

- in the median over draws of data, initial values and masks: every tensor;
- in every single draw, with a twentieth more for chance: results, gradients, running statistics, and parameters after steps that are
  linear in the gradient. PyTorch's own error is that of the draw or its usual one, the median, whichever is larger: where it was
  lucky dslc need not be.

What a single draw cannot say, and what is asked instead:

- A tensor of fewer than `TINY` elements, such as the bias of ten classes, has a largest error of few rounding errors: 5 times.
- A loss is one number, and its error half a dozen rounding errors that may cancel; after Adam, AdamW and RMSProp a parameter has moved
  by a quotient of gradients, which for a gradient near 0 is noise in any precision. There dslc exceeds twice PyTorch's error hardly
  more often than PyTorch exceeds twice dslc's (`CHANCE`). The median says nothing of them either where draws are few (`MANY`): the
  largest error is that of the smallest gradient, and one draw in which rounding decides moves all tensors; so many may then exceed.
- A sum so near 0 that rounding decides its sign, at a ReLU, or which of two is larger, at a pool, makes errors a thousand times the
  usual ones, in dslc as in PyTorch, but in other draws. A draw with an error above `DECIDED` times dslc's usual one does not count:
  at most one of eight more than PyTorch has of such draws. Deep networks, and all narrow ones of the zoo, are compared in their
  medians alone: most of their draws have such a sum.

Where PyTorch's error is less than half a unit in the last place, half a unit stands for it.

Narrow networks are compared with the arrays in `stored/` (see `make.py`). The full ones are compared with PyTorch live:
`DSLC_TWIN_PYTHON=/path/to/python pytest -m peer tests/twins`, with an interpreter that has PyTorch.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tests.twins.cases import CASES, Array, Arrays, Case, inputs, relative_error, results
from tests.twins.make import STORED, errors, twin

AGREE = 1e-9
ROUNDING = 1e-12  # what a vanishing tensor may hold, where gradients are of the order of 1
FACTOR = 2.0
SINGLE = 2.1
TINY, TINY_FACTOR = 256, 5.0
DECIDED = 20.0
MANY = 16
CHANCE = 0.1  # of all (tensor, draw) pairs of losses and of parameters after a division
HALF_ULP = 2.0**-25
DIVIDES = ("adam", "adamw", "rmsprop")
NARROW = {name: case for name, case in CASES.items() if case.has_narrow}
PYTHON = os.environ.get("DSLC_TWIN_PYTHON", "")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Object code that the networks share."""
    return tmp_path_factory.mktemp("cache")


def agree(found: list[Arrays], expected: list[Arrays], vanishing: str = "nothing") -> None:
    for got, want in zip(found, expected, strict=False):
        assert got.keys() == want.keys()
        wrong: dict[str, str] = {}
        for name in want:
            if re.fullmatch(vanishing, name):
                small = max(np.abs(got[name]).max(), np.abs(want[name]).max()) <= ROUNDING
                wrong |= {} if small else {name: "not 0"}
            elif not (error := relative_error(got[name], want[name])) <= AGREE:
                wrong[name] = f"{error:.2g}"
        assert wrong == {}


def as_exact(found: Arrays, peer: Arrays, sizes: dict[str, int], vanishing: str = "nothing", deep: bool = False) -> None:
    """Errors of dslc in f32 beside PyTorch's, in each draw; `deep` networks in the median alone, or by counting."""
    assert found.keys() == peer.keys()
    names = [name for name in peer if not re.fullmatch(vanishing, name)]
    noisy = [name for name in names if name.endswith("loss") or name.startswith(DIVIDES)]
    own = {name: np.maximum(peer[name], HALF_ULP) for name in names}
    wrong: dict[str, str] = {}
    few = len(next(iter(found.values()))) < MANY
    for name in names:
        if few and name in noisy:
            continue
        middle = float(np.median(found[name]) / np.median(own[name]))
        if not middle <= FACTOR:
            wrong[name] = f"{middle:.2f} times PyTorch's error in the median of {len(found[name])} draws"
    if not deep:
        steady = [name for name in names if name not in noisy]
        decided, theirs = _decided(found, steady), int(np.sum(~_decided(own, steady)))
        if np.sum(~decided) > theirs + len(decided) // 8:
            wrong["draws"] = f"rounding decides in {np.sum(~decided)} of {len(decided)}, in PyTorch in {theirs}"
        for name in steady:
            most = float((found[name] / np.maximum(own[name], np.median(own[name])))[decided].max(initial=0))
            if not most <= (SINGLE if sizes[name] >= TINY else TINY_FACTOR):
                wrong.setdefault(name, f"{most:.2f} times PyTorch's error in one of {len(decided)} draws")
    if few or not deep:
        pairs = sum(len(found[name]) for name in noisy)
        allowed = max(CHANCE * pairs, len(noisy) * few)
        beyond = sum(int(np.sum(found[name] > FACTOR * own[name])) for name in noisy)
        behind = sum(int(np.sum(own[name] > FACTOR * np.maximum(found[name], HALF_ULP))) for name in noisy)
        if not beyond <= behind + allowed:
            wrong["losses and quotients"] = f"{beyond} of {pairs} beyond twice PyTorch's error, {behind} of PyTorch's beyond twice ours"
    assert wrong == {}, wrong


def _decided(errors: Arrays, names: list[str]) -> Array:
    """Which draws have no error far above the usual one."""
    usual: Array = ~np.any([errors[name] > DECIDED * max(np.median(errors[name]), HALF_ULP) for name in names], axis=0)
    return usual


def sizes_of(draw: Arrays) -> dict[str, int]:
    return {name: array.size for name, array in draw.items()}


@pytest.mark.parametrize("case", NARROW.values(), ids=list(NARROW))
def test_narrow_networks_agree_with_stored_arrays(case: Case, cache: Path) -> None:
    with np.load(STORED / f"{case.model}.npz") as file:
        stored = dict(file)
    peer = {name.removeprefix("error:"): array for name, array in stored.items() if name.startswith("error:")}
    draws = [inputs(case, False, n) for n in range(len(next(iter(peer.values()))))]
    wide = results(case, False, "f64", draws, cache)
    agree(wide, [{name: stored[f"{n}:{name}"] for name in peer} for n in range(case.stored)], case.vanishing)
    as_exact(errors(wide, results(case, False, None, draws, cache)), peer, sizes_of(wide[0]), case.vanishing, case.zoo)


@pytest.mark.peer
@pytest.mark.skipif(not PYTHON, reason="DSLC_TWIN_PYTHON names no interpreter with PyTorch")
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_full_networks_agree_with_pytorch(case: Case, cache: Path) -> None:
    draws = [inputs(case, True, n) for n in range(case.full_draws)]
    expected, single = twin(case, draws, PYTHON)
    wide = results(case, True, "f64", draws, cache)
    agree(wide, expected, case.vanishing)
    found = errors(wide, results(case, True, None, draws, cache))
    as_exact(found, errors(expected, single), sizes_of(wide[0]), case.vanishing, case.deep)


def test_stored_arrays_are_small() -> None:
    assert sum(file.stat().st_size for file in STORED.iterdir()) < 5e6


def test_a_wrong_result_is_found() -> None:
    """The comparison itself: an error of 2e-9 and one of three times PyTorch's do not pass."""
    right = {"x": np.array([1.0, 0.5])}
    agree([right], [right])
    with pytest.raises(AssertionError):
        agree([{"x": np.array([1.0, 0.5 + 2e-9])}], [right])
    with pytest.raises(AssertionError):
        agree([{"x": np.array([1.0, np.nan])}], [right])
    agree([{"x": np.array([1e-15])}], [{"x": np.array([-2e-15])}], "x")
    with pytest.raises(AssertionError):
        agree([{"x": np.array([1e-9])}], [{"x": np.array([-2e-15])}], "x")
    peer, sizes = {"x": np.full(16, 1e-6), "y": np.full(16, 1e-6), "adam/x": np.full(16, 1e-6)}, {"x": 1000, "y": 10}
    twice = {name: 1.9 * array for name, array in peer.items()}
    as_exact(twice, peer, sizes)
    once = np.full(16, 1e-6)
    for name, wrong in (
        ("x", 3 * once),
        ("adam/x", 3 * once),
        ("x", at(once, 1, 2.2)),
        ("y", at(once, 1, 5.1)),
        ("x", at(once, 3, 1e3)),
        ("adam/x", at(once, 2, 2.1)),
    ):
        with pytest.raises(AssertionError):
            as_exact(twice | {name: wrong}, peer, sizes)
    as_exact(twice | {"x": at(once, 2, 1e3), "y": at(once, 1, 4.9), "adam/x": at(once, 1, 2.1)}, peer, sizes)
    as_exact(twice | {"x": at(once, 3, 1e3)}, peer | {"x": at(once, 1, 1e3)}, sizes)
    few = {name: array[:3] for name, array in peer.items()}
    as_exact(few | {"adam/x": at(once, 1, 1e3)[-3:]}, few, sizes, deep=True)
    for name, wrong in (("x", at(once, 2, 2.2)), ("adam/x", at(once, 2, 2.1))):
        with pytest.raises(AssertionError):
            as_exact(few | {name: wrong[-3:]}, few, sizes, deep=True)


def at(errors: np.ndarray, draws: int, factor: float) -> np.ndarray:
    """The errors, in the last draws so many times as large."""
    return np.concatenate([errors[:-draws], factor * errors[-draws:]])
