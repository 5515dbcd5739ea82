"""Patterns of names with `*` as their only wildcard: in `freeze`, `minimize ... over`, `rename` and `fresh`."""

from __future__ import annotations


def fits(pattern: str, name: str) -> bool:
    """Whether a pattern fits a whole name."""
    return captures(pattern, name) is not None


def captures(pattern: str, name: str) -> list[str] | None:
    """What each `*` stands for, the first ones as little as possible; None where the pattern does not fit. Linear in both."""
    first, *parts = pattern.split("*")
    if not parts:
        return [] if name == pattern else None
    if not name.startswith(first):
        return None
    found, at = [], len(first)
    for part in parts[:-1]:
        begin = name.find(part, at)
        if begin < 0:
            return None
        found.append(name[at:begin])
        at = begin + len(part)
    end = len(name) - len(parts[-1])
    if end < at or not name.endswith(parts[-1]):
        return None
    return [*found, name[at:end]]
