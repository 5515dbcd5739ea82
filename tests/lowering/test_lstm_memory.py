"""Training an LSTM over 8 and over 512 steps: the same code, and no more memory than its gradient must keep beside what loops work in."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from dslc.api.stages import lives
from dslc.backends.cpu.target import host_target, kernel_sources
from dslc.compiler import compile_module, transform
from dslc.ir.plan import ProgramPlan
from dslc.lowering.lower import lower
from dslc.lowering.plan import plan_program
from dslc.lowering.steps import Lowered
from dslc.options import Options
from dslc.runtime.cache import Cache
from tests.frontend.from_text import made

D, LENGTHS = 128, (8, 512)
GATES, CARRIES = 4 * D * 4, 2 * D * 4  # bytes an example and step
NETS = {
    "the last state": ("f32[N, 3]", "_, h, _ = LSTM[D](x) as cell  return Dense[3](h)"),
    "all states": ("f32[N, 3]", "y, _, _ = LSTM[D](x) as cell  return mean[axis = 1](Dense[3](y))"),
    "recomputed": (
        "f32[N, 3]",
        "param cell = LSTMCell[D]\n"
        "  h, c = scan[axis = 1, recompute = true] v in x carry h = zeros[N, D], c = zeros[N, D] { h, c = cell(v, h, c)  return h, c }\n"
        "  return Dense[3](h)",
    ),
}


def text(net: str, length: int) -> str:
    result, body = NETS[net]
    return f"""
      dim N <= 64
      const D = {D}
      model Net(x: f32[N, {length}, 32]) -> {result} {{ {body} }}
      train t {{
        data x: f32[N, {length}, 32], y: i64[N] from "npz:none.npz"
        minimize cross_entropy(Net(x), y) over Net with SGD[0.1]
        epochs 1
      }}"""


@cache
def training(net: str, length: int) -> tuple[Lowered, ProgramPlan]:
    program = made(text(net, length), recipe="t").module.programs["train"]
    lowered = lower(transform(program, {})[0])
    return lowered, plan_program(lowered, {n: str(n) for n in range(len(lowered.steps))})[0]


def kept(plan: ProgramPlan) -> int:
    """Bytes an example that lie there from the loop of the forward pass until that of the backward pass."""
    forward, backward = plan.loops
    through = [life for life in lives(plan) if life.first < forward.end and life.last >= backward.begin]
    return sum(life.buffer.nbytes for life in through if life.buffer.region == "batch")


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("net", ["the last state", "all states"])
def test_gates_and_carries_are_all_that_is_kept(net: str, length: int) -> None:
    _, plan = training(net, length)
    needed = length * (GATES + CARRIES)
    before = D * 4 if net == "all states" else 0  # h before the first step, in the stack of all
    assert needed <= kept(plan) - before <= 1.005 * needed + 2 * D * 4
    # the loops work in what goes into the gates, then in their gradients, in one place, padded by a line a row; in the gradients of y
    # and for one step
    workspace = length * (GATES + 64) + (length * D * 4 if net == "all states" else 0) + 3 * GATES
    assert plan.batch_bytes <= 1.1 * needed + workspace


def test_recomputing_lowers_it() -> None:
    for length in LENGTHS:
        stored, again = (training(net, length)[1] for net in ("the last state", "recomputed"))
        assert length * CARRIES <= kept(again) <= 1.005 * length * CARRIES + 2 * D * 4
        assert again.batch_bytes < 0.8 * stored.batch_bytes


def test_kernels_are_as_long_for_8_steps_as_for_512() -> None:
    target = host_target(Options(width=16))
    for net in NETS:
        few, many = ([len(k.text) for k in kernel_sources(training(net, length)[0], target)] for length in LENGTHS)
        assert sum(many) <= 1.05 * sum(few) + max(many), "but for one, which adds up longer sums"


@pytest.mark.slow
def test_machine_code_is_as_long_for_8_steps_as_for_512(tmp_path: Path) -> None:
    sizes = []
    for length in LENGTHS:
        module = made(text("the last state", length), recipe="t").module
        sizes.append(sum(map(len, compile_module(module, Options(width=16), cache=Cache(tmp_path)).objects.values())))
    assert abs(sizes[1] - sizes[0]) <= 0.05 * sizes[0]
