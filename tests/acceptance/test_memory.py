"""Memory is what the plan says: no byte beyond it is touched, the last one is, and a process holds little else."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from surroundings import Python

from dslc.api.compilation import Ready, obtain, options_of, request_of
from dslc.api.program import initialise
from dslc.lowering.memory import ALIGNMENT, Interval, aligned, assign
from dslc.runtime.executable import Executable

MIB = 1 << 20


def ready(name: str, training: bool, cache: Path) -> Ready:
    return obtain(request_of(name, None, training, None, options_of(None, None, None, None, cache)))


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize(("name", "training"), [("digits", False), ("digits", True), ("lenet", False), ("lenet", True)])
def test_the_touched_high_water_mark_is_the_plan(cache: Path, name: str, training: bool, batch: int) -> None:
    """Between guard pages, over a pattern: a byte outside kills the test, a byte too many in the plan fails it."""
    module = ready(name, training, cache)
    rng = np.random.default_rng(0)
    for plan in module.plan.programs:
        executable = Executable(module.plan, module.objects, module.artifact.constants, 2, module.cache, guarded=True)
        initialise(executable, 7)
        shapes = {p.name: (p.dtype, (batch, *p.shape[1:])) for p in plan.inputs}
        inputs = {
            n: rng.integers(0, 10, shape) if dtype == "i64" else rng.random(shape, np.float32) for n, (dtype, shape) in shapes.items()
        }
        settings = {p.name: 10 if p.name == "total" else 1 for p in plan.settings if p.default is None}
        for _ in range(2):
            executable.call(plan.name, inputs, settings)
        report = executable.memory(plan.name, batch)
        assert executable.arena.touched_high_water() == report.arena == report.fixed + report.batch_part, plan.name
        assert executable.arena.intact_before()


def test_a_write_beyond_the_plan_is_found(cache: Path) -> None:
    """The mark sees one byte more: the comparison can fail."""
    module = ready("digits", False, cache)
    executable = Executable(module.plan, module.objects, module.artifact.constants, 1, module.cache, guarded=True)
    executable.call("infer", {"image": np.zeros((3, 1, 8, 8), np.float32)})
    mark = executable.memory("infer", 3).arena
    executable.arena._words().view(np.uint8)[mark - 1] ^= 0xFF
    executable.arena.reserve(executable.arena.size + 1)
    assert executable.arena.touched_high_water() == 0, "a new arena"
    executable.arena._words().view(np.uint8)[mark] ^= 0xFF
    assert executable.arena.touched_high_water() == mark + 1


# ------------------------------------------------------------------------------------------------- the greedy choice


def overlap_free(intervals: list[Interval], offsets: dict[object, int]) -> bool:
    ranges = [(i, offsets[i.key], offsets[i.key] + i.nbytes) for i in intervals]
    return all(a[2] <= b[1] or b[2] <= a[1] or not a[0].overlaps(b[0]) for a, b in itertools.combinations(ranges, 2))


def best_total(intervals: list[Interval]) -> int:
    """The least arena of all: some order of placing each buffer at its lowest free place gives it."""
    best = sum(aligned(i.nbytes) for i in intervals)
    for order in itertools.permutations(intervals):
        placed: list[tuple[Interval, int, int]] = []
        for interval in order:
            at = 0
            for start, end in sorted((s, e) for i, s, e in placed if i.overlaps(interval)):
                if at + aligned(interval.nbytes) <= start:
                    break
                at = max(at, end)
            placed.append((interval, at, at + aligned(interval.nbytes)))
        best = min(best, max(s + i.nbytes for i, s, _ in placed))
    return best


def test_greedy_against_exhaustive_search() -> None:
    rng = np.random.default_rng(3)
    ratios = []
    for _ in range(60):
        intervals = []
        for key in range(6):
            first = int(rng.integers(0, 8))
            intervals.append(Interval(key, first, first + int(rng.integers(0, 4)), int(rng.integers(1, 40)) * ALIGNMENT))
        offsets, total = assign(intervals)
        assert overlap_free(intervals, offsets) and all(o % ALIGNMENT == 0 for o in offsets.values())
        assert total == max(offsets[i.key] + i.nbytes for i in intervals)
        ratios.append(total / best_total(intervals))
    assert min(ratios) >= 1.0
    assert np.mean(np.array(ratios) == 1.0) >= 0.8 and max(ratios) <= 1.4, sorted(ratios)[-8:]


@pytest.mark.parametrize(("name", "training"), [("digits", True), ("lenet", False), ("lenet", True)])
def test_plans_are_close_to_the_lower_bound(cache: Path, name: str, training: bool) -> None:
    """No region can be smaller than what is alive in it at one step; the greedy one is at most 15% larger."""
    for plan in ready(name, training, cache).plan.programs:
        for region, total in (("fixed", plan.fixed_bytes), ("batch", plan.batch_bytes)):
            life: dict[int, tuple[int, int]] = {}
            for number, step in enumerate(plan.steps):
                for index, _ in step.args:
                    if index >= 0 and plan.buffers[index].region == region:
                        life[index] = (life.get(index, (number, 0))[0], number)
            sizes = {i: plan.buffers[i].nbytes for i in life}
            alive = [sum(sizes[i] for i, (first, last) in life.items() if first <= n <= last) for n in range(len(plan.steps))]
            slack = ALIGNMENT * len(life)
            assert max(alive) <= total <= 1.15 * max(alive) + slack, (plan.name, region)


# ---------------------------------------------------------------------------------------------------- resident memory

GROWTH = """
import json, resource, sys
import numpy, llvmlite.binding, safetensors.numpy, importlib, pkgutil
import dslc, dslc.training, dslc.data
for package in (dslc.training, dslc.data):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not found.name.endswith("plot"):
            importlib.import_module(found.name)
import dslc.api.trainer, dslc.api.compilation, dslc.runtime.loader, dslc.runtime.initial
import dslc.runtime.pool
dslc.Trainer
dslc.runtime.loader._linker()
from dslc.runtime.cache import Cache
dslc.runtime.pool.shared_pool(2, Cache(sys.argv[2]))

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

before = resident()
trainer = dslc.Trainer("lenet", data_folders=[sys.argv[1]], steps=200, epochs=None, save=False, cache=sys.argv[2], threads=2)
trainer.fit()
after = resident()
listed = trainer.memory().total + trainer.data.nbytes
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10
print(json.dumps({"cached": trainer.cached, "numba": "numba" in sys.modules, "before": before, "grown": after - before, "listed": listed, "peak": peak}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random pictures in the files and the sizes of Fashion-MNIST."""
    place = tmp_path_factory.mktemp("fashion-mnist")
    rng = np.random.default_rng(0)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        pictures, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        for name, array in (("images-idx3", pictures), ("labels-idx1", labels)):
            head = np.array([0x800 + array.ndim, *array.shape], ">i4").tobytes()
            (place / f"{part}-{name}-ubyte").write_bytes(head + array.tobytes())
    return place


def test_training_holds_what_is_listed(cache: Path, python: Python, folder: Path) -> None:
    """LeNet at a batch of 64, found in the cache: parameters, arena, ports and the data set, and at most 8 MiB.

    The runtime that this comes on top of is what every program uses: the modules, the linker (pages of LLVM's library), the pool.
    """
    ready("lenet", True, cache)
    python(GROWTH, folder, cache)  # the second run finds the thread pool's code in the cache, too
    seen = json.loads(python(GROWTH, folder, cache).stdout)
    print({name: f"{value / MIB:.1f} MiB" for name, value in seen.items() if value > 1})
    assert seen["cached"] and not seen["numba"]
    assert seen["listed"] > 70_000 * 784
    assert seen["grown"] <= seen["listed"] + 8 * MIB, seen


TORCH = """
import sys, torch
import numpy as np
torch.set_num_threads(2)
net = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(6, 16, 5),
    torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(400, 120), torch.nn.ReLU(), torch.nn.Linear(120, 84),
    torch.nn.ReLU(), torch.nn.Linear(84, 10))
raw = np.frombuffer(open(sys.argv[1] + "/train-images-idx3-ubyte", "rb").read()[16:], np.uint8).reshape(-1, 1, 28, 28)
images, labels = torch.tensor(raw).float() / 255, torch.randint(0, 10, (len(raw),))
optimizer = torch.optim.AdamW(net.parameters(), fused=True)
for step in range(200):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(images[64 * step : 64 * step + 64]), labels[64 * step : 64 * step + 64]).backward()
    optimizer.step()
print(int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10)
"""


@pytest.mark.peer
def test_the_peak_is_less_than_half_of_pytorchs(cache: Path, python: Python, folder: Path) -> None:
    pytest.importorskip("torch")
    ready("lenet", True, cache)
    ours = json.loads(python(GROWTH, folder, cache).stdout)["peak"]
    theirs = int(subprocess.run([sys.executable, "-c", TORCH, str(folder)], check=True, capture_output=True, text=True).stdout)
    print(f"peak: {ours / MIB:.0f} MiB, PyTorch {theirs / MIB:.0f} MiB")
    assert ours < theirs / 2
