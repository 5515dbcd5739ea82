"""Compiled programs among processes and threads: after a fork, from two threads, with more threads than cores."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from surroundings import Python

import dslc

START = """
import json, os, sys, threading, time
import numpy as np
import dslc

cache, threads = sys.argv[1], int(sys.argv[2])
image = np.random.default_rng(0).random((32, 1, 28, 28), np.float32)
net = dslc.compile("lenet", cache=cache, threads=threads)
"""

FORK = """
first = net(image=image)
for _ in range(5):
    child = os.fork()
    if child == 0:
        right = all((net(image=image) == first).all() for _ in range(20))
        os._exit(0 if right else 1)
    assert (net(image=image) == first).all()
    _, status = os.waitpid(child, 0)
    assert status == 0, status
trainer = dslc.Trainer("digits", cache=cache, threads=threads, epochs=1, save=False)
trainer.fit()
child = os.fork()
if child == 0:
    twin = dslc.Trainer("digits", cache=cache, threads=threads, epochs=1, save=False)
    twin.fit()
    os._exit(0 if all((a == twin.weights[n]).all() for n, a in trainer.weights.items()) else 1)
assert os.waitpid(child, 0)[1] == 0
print("right")
"""

TWO_CALLERS = """
images = [image[:9], image]
expected = [net(image=x) for x in images]
wrong = []

def call(number):
    for _ in range(300):
        if not (net(image=images[number]) == expected[number]).all():
            wrong.append(number)

callers = [threading.Thread(target=call, args=(n,)) for n in range(2)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
print("right" if not wrong else f"{len(wrong)} wrong")
"""

TIME = """
if len(sys.argv) > 3:
    os.sched_setaffinity(0, {int(c) for c in sys.argv[3].split(",")})
for _ in range(50):
    net(image=image)
best = []
for _ in range(15):
    begin = time.perf_counter()
    for _ in range(20):
        net(image=image)
    best.append((time.perf_counter() - begin) / 20)
print(sorted(best)[len(best) // 4])
"""


@pytest.fixture(scope="module", autouse=True)
def compiled(cache: Path) -> None:
    dslc.compile("lenet", cache=cache)
    dslc.Trainer("digits", cache=cache, save=False)


@pytest.mark.parametrize("threads", [1, 2])
def test_right_after_fork(python: Python, cache: Path, threads: int) -> None:
    """In children of a process that has run programs, and in the process itself meanwhile."""
    assert python(START + FORK, cache, threads, timeout=100).stdout == "right\n"


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_two_callers_of_one_program(python: Python, cache: Path, threads: int) -> None:
    assert python(START + TWO_CALLERS, cache, threads, timeout=100).stdout == "right\n"


def seconds(python: Python, cache: Path, threads: int, cores: str = "") -> float:
    return float(python(START + TIME, cache, threads, *([cores] if cores else []), timeout=100).stdout)


def ratio(python: Python, cache: Path, one: tuple[int, str], other: tuple[int, str], rounds: int) -> float:
    """How many times longer calls take the second way, at best over rounds that take turns."""
    pairs = [(seconds(python, cache, *one), seconds(python, cache, *other)) for _ in range(rounds)]
    found = min(b for _, b in pairs) / min(a for a, _ in pairs)
    print(f"{other[0]} threads take {found:.2f} times as long as {one[0]}")
    return found


def a_core() -> str:
    return str(min(os.sched_getaffinity(0)))


def test_two_threads_on_one_core(python: Python, cache: Path) -> None:
    assert ratio(python, cache, (1, a_core()), (2, a_core()), 2) < 2.5


@pytest.mark.slow
def test_two_threads_on_one_core_cost_little(python: Python, cache: Path) -> None:
    assert ratio(python, cache, (1, a_core()), (2, a_core()), 5) < 1.5


def test_eight_threads_end(python: Python, cache: Path) -> None:
    """On the cores that there are, and on one."""
    for cores in ("", a_core()):
        assert seconds(python, cache, 8, cores) < 0.1


@pytest.mark.slow
def test_eight_threads_on_two_cores_cost_little(python: Python, cache: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("needs two cores")
    both = ",".join(map(str, cores))
    assert ratio(python, cache, (2, both), (8, both), 5) < 1.5


# A call of about a millisecond: what a neighbour leaves of the caches and of sleeping processors costs each call the same 50 us.
NEIGHBOUR = """
image = np.random.default_rng(0).random((256, 1, 28, 28), np.float32)
alone = json.loads(sys.argv[3])
first = net(image=image)

def median():
    times = []
    for _ in range(100):
        begin = time.perf_counter()
        net(image=image)
        times.append(time.perf_counter() - begin)
        if alone is False:
            other()
    return sorted(times)[50]

if not alone:
    if sys.argv[4] == "torch":
        import torch
        matrix = torch.rand(200, 200)
        other = lambda: matrix @ matrix
    else:
        from sklearn.cluster import KMeans
        points = np.random.default_rng(0).random((200, 8))
        other = lambda: KMeans(4, n_init=1, max_iter=3, random_state=0).fit(points)
    other()
    assert (net(image=image) == first).all()
    other()
print(median())
assert (net(image=image) == first).all()
"""


@pytest.mark.peer
@pytest.mark.parametrize("neighbour", ["torch", "sklearn"])
def test_beside_other_libraries(python: Python, cache: Path, neighbour: str) -> None:
    """Right, and at most 1.2 times slower, with calls of another library before, after and between."""
    pytest.importorskip(neighbour)

    def median(alone: bool) -> float:
        return float(python(START + NEIGHBOUR, cache, 2, json.dumps(alone), neighbour, timeout=300).stdout)

    pairs = [(median(True), median(False)) for _ in range(5)]
    slower = min(b for _, b in pairs) / min(a for a, _ in pairs)
    print(f"beside {neighbour}: {slower:.2f} times as long")
    assert slower < 1.2
