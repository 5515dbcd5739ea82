"""Mutants of everything in the zoo: never a traceback, and the error stands where the mistake is."""

from __future__ import annotations

import pytest
from mutants import KINDS, diagnose, is_near, mutants, zoo

from dslc.diagnostics import render

FILES = zoo()


def share_near(count: int, seed: int) -> float:
    """The share of mutants that are accepted or whose first error is within one line; any exception fails the test."""
    near = 0
    kinds = set()
    for mutant in mutants(FILES, count, seed):
        kinds.add(mutant.kind)
        errors = diagnose(mutant.text, mutant.file)
        for error in errors:
            assert error.code.startswith("DL0")
            assert render(error, {mutant.file.name: mutant.text})
        near += is_near(mutant, errors)
    assert kinds == set(KINDS)
    return near / count


def test_the_zoo_is_there_and_accepted() -> None:
    assert len(FILES) >= 5
    for file in FILES:
        assert [(d.code, d.message) for d in diagnose(file.read_text(encoding="utf-8"), file)] == [], file.name


def test_mutants() -> None:
    assert share_near(300, seed=7) >= 0.9


@pytest.mark.slow
def test_many_mutants() -> None:
    assert share_near(2000, seed=11) >= 0.9
