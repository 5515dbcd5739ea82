"""A compiled network inside a Python program: compile, load weights, call, save, ask what it takes.

python examples/embed.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import dslc

TEXT = """
dim N <= 64

model Rings(x: f32[N, 2]) -> f32[N, 3] {
  return softmax(x |> Dense[32, tanh] |> Dense[3])
}
"""


def main() -> None:
    net = dslc.compile(TEXT)  # a path or the name of a network that comes with dslc serves as well
    print(net)

    rng = np.random.default_rng(0)
    points = rng.standard_normal((5, 2)).astype(np.float32)
    print(net(x=points))  # any batch up to the bound, fresh arrays back

    result = np.empty((5, 3), np.float32)
    net(x=points, out=result)  # or into arrays of one's own

    report = net.memory(batch=64)
    print(f"a call with 64 points takes {report.total:,} bytes and {net.flops(64):,} floating-point operations")

    with tempfile.TemporaryDirectory() as folder:
        net.save(Path(folder) / "rings.dlc")  # graph, weights and plan in one file
        same = dslc.load(Path(folder) / "rings.dlc")
        assert (same(x=points) == result).all()

    broken = dslc.parse(TEXT.replace("Dense[3]", "Dense[4]"))
    print(broken.render())  # errors are objects, `broken.errors`, and this is how they look


if __name__ == "__main__":
    main()
