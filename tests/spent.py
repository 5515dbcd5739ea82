"""What a command costs, told so that a busy machine does not decide: processor time, its own and that of its children, and peak memory."""

from __future__ import annotations

import json
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


# A process counts the pages of the one that started it until it runs its own program, so that whatever a test worker holds would be charged
# to the command: a small process of its own starts it and tells what it took.
_START = """
import json, resource, subprocess, sys
status = subprocess.call(sys.argv[2:], stderr=subprocess.STDOUT)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as account:
    json.dump([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024], account)
"""


def python(*arguments: object, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Spent:
    """Runs this Python with these arguments."""
    with tempfile.TemporaryDirectory() as room:
        account, output = Path(room, "account"), Path(room, "output")
        start = [sys.executable, "-I", "-S", "-c", _START, account, sys.executable]
        with output.open("wb") as out:
            subprocess.run([*start, *map(str, arguments)], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, check=True)
        status, seconds, peak = json.loads(account.read_text())
        return Spent(status, output.read_text(), seconds, peak)
