"""The memory of values: what is touched is what the plan says, a stray write is stopped, no room is said."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import batch_of, executable, expected, refused

from dslc.runtime.arena import Arena
from dslc.runtime.buffers import aligned_zeros


def test_touched_memory_is_the_plan() -> None:
    made = executable(guarded=True)
    for n in (3, 50):
        made.call("forward", {"x": batch_of(n)})
        report = made.memory("forward", n)
        assert made.arena.size == report.arena == 64 + 64 * n
        # the last buffer holds n * 16 of its n * 64 bytes
        assert made.arena.touched_high_water() == 64 + 16 * n
    assert made.arena.intact_before()
    made.arena.fill()
    assert made.arena.touched_high_water() == 0


def test_arena_grows_and_keeps_other_programs_right() -> None:
    made = executable()
    x = batch_of(2)
    made.call("forward", {"x": x})
    generation = made.arena.generation
    made.call("forward", {"x": batch_of(1)})
    assert made.arena.generation == generation, "a smaller batch needs nothing new"
    made.arena.reserve(1 << 20)
    assert np.array_equal(made.call("forward", {"x": x})["y"], expected(x))


@pytest.mark.parametrize("offset", [-8, 1 << 16])
def test_guard_pages_stop_a_stray_write(offset: int) -> None:
    script = f"""
import ctypes
from dslc.runtime.arena import Arena
arena = Arena(guarded=True)
arena.reserve(1 << 16)
ctypes.memset(arena.address, 1, 1 << 16)
print("inside", flush=True)
ctypes.memset(arena.address + {offset}, 1, 8)
print("outside", flush=True)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.stdout == "inside\n"
    assert ran.returncode < 0


def test_untouched_arena_is_not_resident() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    arena, before = Arena(), resident()
    arena.reserve(1 << 30)
    assert resident() - before < 8 << 20


def test_no_room_is_a_diagnostic() -> None:
    with refused("DL0660"):
        Arena().reserve(1 << 62)
    with refused("DL0660"):
        aligned_zeros("f64", (1 << 59,))
