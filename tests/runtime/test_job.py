"""How steps are grouped and whether a job is shared by threads."""

from __future__ import annotations

from dslc.ir.plan import StepPlan
from dslc.runtime.job import ALONE_FOR, DECIDED_FOR, TRIALS, Choice, group_steps


def test_serial_groups_are_merged() -> None:
    serial, split = StepPlan("a", (), serial=True), StepPlan("b", ())
    together = StepPlan("c", (), barrier=False)
    assert [len(g) for g in group_steps([serial, serial, split, together, split, serial, serial])] == [2, 1, 2, 2]
    assert [len(g) for g in group_steps([split, together])] == [1, 1]
    assert group_steps([]) == []


def test_small_jobs_run_where_they_are_faster() -> None:
    fast_alone, fast_shared, long = Choice(), Choice(), Choice()
    for _ in range(2 * TRIALS):
        assert not fast_alone.left
        fast_alone.note(9e-6 if fast_alone.trial() else 20e-6)
        fast_shared.note(30e-6 if fast_shared.trial() else 20e-6)
    for _ in range(TRIALS):
        assert not long.trial()
        long.note(1e-3)
    assert (fast_alone.left, fast_shared.left, long.left) == (ALONE_FOR, DECIDED_FOR, DECIDED_FOR)
    assert (fast_alone.alone, fast_shared.alone, long.alone) == (True, False, False)
    fast_alone.left = 0
    assert [fast_alone.trial() for _ in range(3)] == [False] * 3  # asked again


def test_calls_that_were_interrupted_do_not_decide() -> None:
    choice = Choice()
    for n in range(2 * TRIALS):
        choice.note(88e-6 if choice.trial() else (21e-6 if n in (3, 5, 6) else 120e-6))
    assert not choice.alone
