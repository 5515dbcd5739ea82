"""Names and data that several of these tests use."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
Python = Callable[..., "subprocess.CompletedProcess[str]"]


def fashion(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random pictures and labels in the form of Fashion-MNIST."""
    rng = np.random.default_rng(seed)
    return rng.random((count, 1, 28, 28), np.float32), rng.integers(0, 10, count)
