"""Ctrl-C between steps: the running step ends, the state is saved, then `Interrupted` is raised."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user after `step` updates; `path` is the checkpoint, if the recipe saves. Exit status 130."""

    def __init__(self, step: int, path: Path | None):
        self.step = step
        self.path = path
        super().__init__(f"interrupted after step {step}" + (f", saved to {path}" if path else ""))


class InterruptGuard:
    """Turns the first SIGINT within its `with` into `requested`; a second one raises KeyboardInterrupt at once.

    May be entered again while it is active. Outside the main thread, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._depth = 0
        self._before: signal.Handlers | object = None
        self._installed = False

    def __enter__(self) -> InterruptGuard:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            self.requested = False
            self._before = signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._depth -= 1
        if self._depth == 0 and self._installed:
            self._installed = False
            signal.signal(signal.SIGINT, self._before or signal.SIG_DFL)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
