"""Weights as they are handed out: copies by path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.runtime.convert import Array


class Copies(Mapping[str, Array]):
    """Copies of weights by path, as they were when they were asked for. They are the caller's; setting one here would change no network, so it
    is refused (DL0822), with `hint` for what does."""

    __slots__ = ("_arrays", "_hint")

    def __init__(self, arrays: Mapping[str, Array], hint: str):
        self._arrays, self._hint = dict(arrays), hint

    def __getitem__(self, path: str) -> Array:
        return self._arrays[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        """A dictionary of these arrays and others in place of them."""
        return self._arrays | dict(other)

    def __setitem__(self, path: str, array: object) -> NoReturn:
        raise DiagnosticError(Diagnostic("DL0822", f"{path!r} cannot be set: these are copies of the weights", hint=self._hint))

    def __delitem__(self, path: str) -> NoReturn:
        raise DiagnosticError(Diagnostic("DL0822", f"{path!r} cannot be removed: these are copies of the weights", hint=self._hint))

    def __repr__(self) -> str:
        return repr(self._arrays)
