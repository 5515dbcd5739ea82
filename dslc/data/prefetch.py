"""A thread that makes the next batches while the program runs.

At most `AHEAD` batches are ready beside the one in use, each in buffers of its own, so memory is bounded. The thread makes exactly
what the reader would have made, in the same order: bits and positions do not depend on it. An error in the thread is raised where
the batch would have been read. Compiled programs and the decoders of pictures run without Python's lock, so both sides advance.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from time import perf_counter
from types import TracebackType
from typing import Generic, TypeVar

AHEAD = 2

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Iterates over `batches` from a thread that lives within the `with`; what it gives holds until the next is asked for.

    `waits` counts how often the reader came before its batch was ready, and `waited` the seconds that took; the first batch, which
    nothing can be ready for, is not counted.
    """

    def __init__(self, batches: Iterable[T]):
        self.waits = 0
        self.waited = 0.0
        self._batches = batches
        self._changed = threading.Condition()
        self._ready: deque[T] = deque()
        self._room = AHEAD  # batches that may be made before the reader gives one back
        self._given = 0
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="dslc-prefetch", daemon=True)

    def __enter__(self) -> Prefetch[T]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._room += 1
            self._changed.notify_all()
            if not self._ready and not self._ended:
                started = perf_counter()
                while not self._ready and not self._ended:
                    self._changed.wait()
                if self._given and self._ready:
                    self.waits += 1
                    self.waited += perf_counter() - started
            if self._ready:
                self._given += 1
                return self._ready.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def _work(self) -> None:
        try:
            batches = iter(self._batches)
            while self._may_go_on():
                batch = next(batches)
                with self._changed:
                    self._ready.append(batch)
                    self._changed.notify_all()
        except StopIteration:
            pass
        except BaseException as error:  # it is the reader's: raised there
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _may_go_on(self) -> bool:
        with self._changed:
            while not self._room and not self._stopped:
                self._changed.wait()
            self._room -= 1
            return not self._stopped
