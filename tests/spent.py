"""What a command costs, told so that a busy machine does not decide: processor time, its own and that of its children, and peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Spent:
    """Exit status, all output, seconds of processor time (user and system), peak of resident bytes."""

    status: int
    output: str
    seconds: float
    peak: int


def python(*arguments: object, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Spent:
    """Runs this Python with these arguments."""
    command = [sys.executable, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # waited for here, not by `subprocess`
        output.seek(0)
        return Spent(process.returncode, output.read(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
