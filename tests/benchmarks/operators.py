"""Single operators against the copy limit of this machine, and against PyTorch where it is installed.

    python tests/benchmarks/operators.py [part of a name ...] [--rounds 5] [--threads 2] [--json] [--no-torch]

Each operator works on more than the caches hold. A row says what the operator must read and write at least, each element once, how
fast its own steps move that inside a program, and their share of the speed at which a kernel copies memory, measured in the same run
between the operators. Operators on images stand between two depthwise convolutions there, so that they meet values as networks
have them: channels last, in the program's own memory. Zeros around an image, which the next convolution wants, and the other
operators' copies of inputs and results are not counted. The best of several runs counts.

Then the whole call of a model with this one operator, which also copies from and to the caller's memory; with PyTorch (eager, the
better of both memory formats for images) its time and the best error of the results beside.
The contenders take turns of a third of a second, each in a process of its own, as in `dslc bench --against`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import dslc
from dslc.api.contest import Comparison, Task, compare
from dslc.api.measure import random_inputs
from dslc.api.sources import Source
from dslc.options import from_environment


@dataclass(frozen=True, slots=True)
class Case:
    """`body` is a model's body over x, `inputs` the types of its inputs and `result` of its result, `batch` the examples.

    `between`: the channels of x and of the result where the operator is timed between two depthwise convolutions.
    """

    inputs: str
    result: str
    body: str
    batch: int = 1
    between: tuple[int, int] | None = None

    def text(self) -> str:
        return f"dim N <= 256\nmodel Net({self.inputs}) -> {self.result} {{\n  {self.body}\n}}\n"

    def timed_text(self) -> str:
        """The model in which the operator's steps are timed; those of the operator itself stem from its line OWN_LINE."""
        if self.between is None:
            return self.text()
        declared, _, made = self.body.rpartition("return ")
        first, last = self.between
        lines = (
            "dim N <= 256",
            f"model Net({self.inputs}) -> f32[N] {{",
            f"  param before: f32[{first}, 1, 3, 3] ~ normal",
            f"  param after: f32[{last}, 1, 3, 3] ~ normal",
            f"  {declared.strip()}",
            f"  a = conv2d[padding = 1, groups = {first}](x, before)",
            f"  b = {made.replace('(x', '(a')}",
            f"  c = conv2d[padding = 1, groups = {last}](b, after)",
            "  return sum[axis = (1, 2, 3)](c * c)",
            "}",
        )
        return "\n".join(lines) + "\n"


OWN_LINE = 7
COPIES = ("copy", "transpose", "pack")  # between the caller's memory and the program's, and of weights


def depthwise(channels: int, size: int, stride: int, batch: int) -> Case:
    """A depthwise 3x3 convolution of MobileNet at `channels` and `size`."""
    out = size // stride
    body = f"param w: f32[{channels}, 1, 3, 3] ~ normal\n  return conv2d[stride = {stride}, padding = 1, groups = {channels}](x, w)"
    return Case(f"x: f32[N, {channels}, {size}, {size}]", f"f32[N, {channels}, {out}, {out}]", body, batch, (channels, channels))


def same(shape: str, body: str, batch: int) -> Case:
    return Case(f"x: f32[N, {shape}]", f"f32[N, {shape}]", body, batch)


NORM = "param scale: f32[64] = 1\n  param bias: f32[64] = 0\n  "
CASES: dict[str, Case] = {
    "depthwise 3x3 32 112": depthwise(32, 112, 1, 32),
    "depthwise 3x3/2 96 112": depthwise(96, 112, 2, 16),
    "depthwise 3x3 144 56": depthwise(144, 56, 1, 32),
    "depthwise 3x3 192 28": depthwise(192, 28, 1, 64),
    "depthwise 3x3 384 14": depthwise(384, 14, 1, 128),
    "depthwise 3x3 960 7": depthwise(960, 7, 1, 256),
    "max pool 2x2": Case("x: f32[N, 64, 112, 112]", "f32[N, 64, 56, 56]", "return max_pool2d[2](x)", 32, (64, 64)),
    "max pool 3x3/2": Case(
        "x: f32[N, 64, 112, 112]", "f32[N, 64, 56, 56]", "return max_pool2d[3, stride = 2, padding = 1](x)", 32, (64, 64)
    ),
    "average pool 2x2": Case("x: f32[N, 64, 112, 112]", "f32[N, 64, 56, 56]", "return avg_pool2d[2](x)", 32, (64, 64)),
    "global average pool": Case("x: f32[N, 512, 28, 28]", "f32[N, 512]", "return global_avg_pool(x)", 64),
    "batch norm": same("64, 56, 56", "return x |> BatchNorm", 64),
    "layer norm": same("256, 512", "return x |> LayerNorm", 64),
    "resize bilinear x2": Case(
        "x: f32[N, 64, 56, 56]", "f32[N, 64, 112, 112]", 'return resize[scale = 2, mode = "bilinear"](x)', 32, (64, 64)
    ),
    "resize nearest x2": Case("x: f32[N, 64, 56, 56]", "f32[N, 64, 112, 112]", "return resize[scale = 2](x)", 32, (64, 64)),
    "softmax 1000": same("128, 1000", "return softmax(x)", 64),
    "embedding": Case("x: i64[N, 512]", "f32[N, 512, 256]", "param w: f32[30000, 256] ~ normal\n  return gather(w, x)", 64),
    "elementwise chain": same("1048576", "return relu(x * 2.0 + 1.0) * sigmoid(x)", 16),
    "sort 1024": same("256, 1024", "return sort(x)[0]", 16),
    "top_k 10 of 1024": Case("x: f32[N, 256, 1024]", "f32[N, 256, 10]", "return top_k[10](x)[0]", 64),
    "transpose": Case("x: f32[N, 1024, 1024]", "f32[N, 1024, 1024]", "return transpose[0, 2, 1](x)", 16),
    "channels last": Case("x: f32[N, 64, 112, 112]", "f32[N, 112, 112, 64]", 'return rearrange["n c h w -> n h w c"](x)', 32),
}


def run(case: Case, threads: int, rounds: int, peers: tuple[str, ...]) -> tuple[Comparison, int]:
    """The comparison, and the bytes that the operator must move."""
    from dslc.ir.module_text import print_module

    source = Source(case.text(), "operator.dl")
    program = dslc.compile(source, threads=threads)
    inputs = random_inputs(program.runtime.plan, case.batch, 30000)
    task = Task(case.text(), "operator.dl", None, None, "", False, case.batch, threads, {}, None, from_environment().width)
    weights = program.weights
    result = program(**inputs)
    moved = sum(a.nbytes for a in inputs.values()) + _bytes(result)
    if "gather" in case.body:
        moved += _bytes(result)  # the rows that are read
    else:
        moved += sum(a.nbytes for a in weights.values())
    module = print_module(program.module)
    made = compare(task, "Net", module, weights, inputs, program.flops(case.batch), 0, peers, rounds, {"operator.dl": case.text()})
    return replace(made, weights=moved), moved


def own_seconds(case: Case, threads: int, seconds: float = 2.0) -> float:
    """What the operator's own steps take inside a program, at best."""
    program = dslc.compile(Source(case.timed_text(), "operator.dl"), threads=threads)
    inputs = random_inputs(program.runtime.plan, case.batch, 30000)

    def once() -> float:
        steps = [s for s in program.profile(**inputs) if s.label not in COPIES and not s.label.endswith(" border")]
        if case.between is not None:
            steps = [s for s in steps if f":{OWN_LINE}:" in s.span]
        return sum(s.seconds for s in steps)

    once()
    begin, best = time.perf_counter(), once()
    while time.perf_counter() - begin < seconds:
        best = min(best, once())
    assert best > 0, f"no step of {case.body} is its own"
    return best


def _bytes(result: Any) -> int:
    return sum(a.nbytes for a in result.values()) if isinstance(result, Mapping) else int(result.nbytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="parts of their names; all without")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="a line of JSON an operator")
    parser.add_argument("--no-torch", action="store_true")
    said = parser.parse_args()
    torch = not said.no_torch and importlib.util.find_spec("torch") is not None
    for name, case in CASES.items():
        if said.cases and not any(part in name for part in said.cases):
            continue
        images = case.inputs.count(",") == 3
        peers = ("torch", "torch channels-last") if images else ("torch",)
        own = own_seconds(case, said.threads) * 1e3
        found, moved = run(case, said.threads, said.rounds, peers if torch else ())
        speed = moved / own / 1e6
        whole = found.standings[0].milliseconds
        row: dict[str, Any] = {"operator": name, "own ms": own, "MB": moved / 1e6, "GB/s": speed, "copy GB/s": found.copied,
                               "share": speed / found.copied, "ms": whole}  # fmt: skip
        if torch:
            row |= {"torch ms": min(s.milliseconds for s in found.standings[1:]), "torch / dslc": found.ratio,
                    "error": min(s.error or 0.0 for s in found.standings[1:])}  # fmt: skip
        if said.json:
            print(json.dumps(row), flush=True)
            continue
        beside = f", torch {row['torch ms']:9.3f} ms, torch / dslc {found.ratio:6.3f}, error {row['error']:.0e}" if torch else ""
        print(
            f"{name:24s} {own:9.3f} ms  {moved / 1e6:7.1f} MB  {speed:6.1f} of {found.copied:5.1f} GB/s  {speed / found.copied:5.0%}"
            f"   whole call {whole:9.3f} ms{beside}",
            flush=True,
        )


if __name__ == "__main__":
    main()
