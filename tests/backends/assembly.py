"""Reads x86 assembly: what is wrong with the inner loops of a contraction's machine code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import llvmlite.binding as llvm

FEATURES = llvm.get_host_cpu_features()
WIDTH = 16 if FEATURES.get("avx512f") else 8
REGISTER = {16: "%zmm", 8: "%ymm"}[WIDTH]
ARITHMETIC = re.compile(r"^\s+v(fn?m(add|sub)\w*|add|sub|mul|div|max|min|sqrt)[ps][sd]\s")


@dataclass(frozen=True)
class Loop:
    """An innermost loop: its instructions from the label that is jumped back to."""

    lines: tuple[str, ...]

    @property
    def arithmetic(self) -> list[str]:
        return [line for line in self.lines if ARITHMETIC.match(line)]


def innermost_loops(assembly: str) -> Iterator[Loop]:
    lines = [line for line in assembly.splitlines() if not re.match(r"\s*(\.(?!LBB)|#|$)", line)]
    labels = {m.group(1): n for n, line in enumerate(lines) if (m := re.match(r"(\.LBB\w+):", line))}
    spans = set()
    for n, line in enumerate(lines):
        jump = re.match(r"\s+j\w+\s+(\.LBB\w+)", line)
        if jump and jump.group(1) in labels and labels[jump.group(1)] <= n:
            spans.add((labels[jump.group(1)], n))
    for start, end in sorted(spans):
        if not any((start, end) != other and start <= other[0] and other[1] <= end for other in spans):
            yield Loop(tuple(lines[start : end + 1]))


def complaints(assembly: str) -> list[str]:
    """What is wrong with a contraction's machine code; empty where nothing is."""
    found = []
    stack = r"\(%r[sb]p" if re.search(r"mov\w*\s+%rsp, %rbp", assembly) else r"\(%rsp"  # else rbp is a register like the others
    hot = [loop for loop in innermost_loops(assembly) if any("fmadd" in line for line in loop.arithmetic)]
    if not hot:
        found.append("no inner loop multiplies and adds")
    for loop in hot:
        full = [line for line in loop.arithmetic if REGISTER in line]
        if len(full) < 0.9 * len(loop.arithmetic):
            found.append(f"{len(full)} of {len(loop.arithmetic)} floating-point instructions are full width")
        found += [f"stack access: {line.strip()}" for line in loop.lines if re.search(stack, line)]
    defined = set(re.findall(r"^(\w[\w.$]*):", assembly, re.M))
    for target in re.findall(r"\scall\w*\s+(\S+)", assembly):
        if target.split("@")[0] not in defined:
            found.append(f"calls {target}")
    return found
