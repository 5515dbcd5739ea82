"""What a start costs when the program is cached, and what a change makes the compiler do again."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import numpy as np
import pytest
import spent
from surroundings import ROOT, Python, fashion

import dslc
from dslc.api.sources import zoo

RUN = """
import sys
from dslc.cli import run
status = run(["run", "lenet", "--input", "image=" + sys.argv[1], "-o", sys.argv[2]])
print(sorted({m.split(".")[0] for m in sys.modules} & {"numba", "lark"}))
print([line.split("/")[-1] for line in open("/proc/self/maps") if any(w in line for w in ("libgomp", "libomp", "libiomp", "libtbb"))])
sys.exit(status)
"""


@pytest.fixture
def picture(tmp_path: Path, cache: Path) -> Path:
    """A picture in a file, and LeNet in the cache."""
    dslc.compile("lenet", cache=cache)
    np.save(tmp_path / "x.npy", fashion(1)[0])
    return tmp_path / "x.npy"


def test_a_cached_lenet_needs_no_compiler(picture: Path, python: Python) -> None:
    result = picture.with_name("y.npz")
    assert python(RUN, picture, result).stdout.splitlines()[-2:] == ["[]", "[]"]
    logits = np.load(result)["logits" if "logits" in np.load(result) else np.load(result).files[0]]
    assert logits.shape == (1, 10) and np.isfinite(logits).all()


def test_a_cached_lenet_answers_within_200_ms(picture: Path, cache: Path) -> None:
    """Processor time, so that other processes do not decide: the median of runs that take turns, less that of `import numpy`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DSLC_CACHE": str(cache)}
    # One thread for OpenBLAS, which NumPy starts: how long its threads wait for work is no part of either.
    environment["OPENBLAS_NUM_THREADS"] = "1"

    def seconds(*arguments: object) -> float:
        cost = spent.python(*arguments, folder=picture.parent, environment=environment)
        assert cost.status == 0, cost.output
        return cost.seconds

    answer = ("-m", "dslc", "run", "lenet", "--input", f"image={picture}", "-o", "y.npz")
    seconds(*answer)
    pairs = [(seconds(*answer), seconds("-c", "import numpy")) for _ in range(9)]
    more = statistics.median(a for a, _ in pairs) - statistics.median(b for _, b in pairs)
    print(f"a cached LeNet answers {1000 * more:.0f} ms after `import numpy`")
    assert more <= 0.2


# --------------------------------------------------------------------------------------------- what is compiled again


def trainer(source: str, cache: Path, **options: object) -> dslc.Trainer:
    return dslc.Trainer(source, data=fashion(128), save=False, cache=cache, **options)  # type: ignore[arg-type]


def test_settings_compile_nothing(cache: Path) -> None:
    trainer("lenet", cache)
    for options in ({"settings": {"lr": 1e-4}}, {"seed": 11}, {"epochs": 2}, {"steps": 3}, {"batch": 17}, {"batch": 128}):
        changed = trainer("lenet", cache, **options)
        assert changed.compiled_kernels == 0 and changed.cached, options
    changed.fit()


@pytest.mark.parametrize(("old", "new"), [("2e-3", "1e-3"), ("epochs 5", "epochs 3"), ("batch 64", "batch 32"), ("seed 7", "seed 8")])
def test_settings_in_the_text_compile_nothing(cache: Path, old: str, new: str) -> None:
    """The text is another one, so it is read again; every kernel is found."""
    trainer("lenet", cache)
    text = zoo()["lenet"].read_text()
    assert old in text
    assert trainer(text.replace(old, new), cache).compiled_kernels == 0


def kernels(trained: dslc.Trainer) -> dict[str, list[str]]:
    """Keys of the training step's kernels by operator and line."""
    found: dict[str, list[str]] = {}
    for step in trained.ready.plan.program("train").steps:
        found.setdefault(f"{step.label} {step.span.split(':', 1)[-1]}", []).append(step.kernel)
    return found


def test_a_changed_layer_compiles_only_what_it_changes(cache: Path) -> None:
    """With 80 instead of 84 units in the last hidden layer, no kernel of the convolutions, the poolings or the loss changes."""
    text = zoo()["lenet"].read_text()
    whole = trainer(text, cache)
    changed = trainer(text.replace("Dense[84, relu]", "Dense[80, relu]"), cache)
    before, after = kernels(whole), kernels(changed)
    same = {place for place in before if before[place] == after.get(place)}
    for place in before:
        if any(word in place for word in ("conv2d", "max_pool2d", "argmax", "exp")):
            assert place in same, place
    old = {k.key for k in whole.ready.plan.kernels}
    new = {k.key for k in changed.ready.plan.kernels}
    print(f"{len(new - old)} of {len(new)} kernels changed, {changed.compiled_kernels} were compiled")
    assert 0 < changed.compiled_kernels <= len(new - old) < len(new) / 2
    assert changed.compiled_kernels == len(new - old) or changed.cached
