"""`docs/tour.md` is a session that runs: its files, its commands with what they print, and its Python."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.conftest import Run

PAGE = Path(__file__).parent.parent.parent / "docs" / "tour.md"


def said(line: str) -> str:
    """A line of output without its numbers, which may be times, and without the widths of columns."""
    return " ".join(re.sub(r"\d[\d,.]*( [kM]\b)?", "#", line).split())


def test_the_tour(dslc: Run, tmp_path: Path) -> None:
    names: dict[str, object] = {}
    commands = 0
    for language, block in re.findall(r"^```(\w+)(?: \w+)?\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        match language:
            case "dl":
                name = re.match(r"# (\w+\.dl)\n", block)
                assert name is not None, "every file says its name"
                (tmp_path / name[1]).write_text(block, encoding="utf-8")
            case "python":
                exec(compile(block, "tour.md", "exec"), names)
            case _:
                for command, shown in re.findall(r"^\$ dslc (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
                    status, out, err = dslc(*command.split())
                    assert status == ("error" in shown and "no errors" not in shown), out + err
                    printed = [said(line) for line in (out + err).splitlines()]
                    missing = [line for line in shown.splitlines() if line.strip() not in ("", "...") and said(line) not in printed]
                    assert missing == [], f"{command}: {printed}"
                    commands += 1
    assert commands >= 8
