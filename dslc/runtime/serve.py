"""A process that answers its parent: a line for each line that it reads, for as long as there is someone who asks and listens."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TextIO


def serve(answer: Callable[[str], str], out: TextIO, greeting: str = "") -> None:
    """Writes the `greeting`, if any, and the answer to each line of standard input to `out`, until either is closed.

    A parent that was killed closes both. It has nobody to tell any more, so that is an end like any other.
    """
    try:
        if greeting:
            print(greeting, file=out, flush=True)
        for line in sys.stdin:
            print(answer(line), file=out, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # for what is left in the buffer, which Python writes as it ends
