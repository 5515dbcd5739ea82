"""Where data files may lie: in the folder of the `.dl` file and in those of `--data`, links included; and how much may be read.

A `.dl` file may come from anywhere, so nothing that it names leads out of these folders, and nothing is allocated on a file's word.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from dslc.data.description import refuse


def find_file(name: str, folders: Sequence[Path]) -> Path:
    """The file of that name in the first of the folders that has it. Errors: DL0702, DL0705."""
    for path in _candidates(name, folders):
        if path.is_file():
            return path
    raise _missing("file", name, folders)


def find_folder(name: str, folders: Sequence[Path]) -> tuple[Path, Path]:
    """The folder of that name in the first of the folders that has it, and the folder that no link in it may leave."""
    for path, root in zip(_candidates(name, folders), folders, strict=True):
        if path.is_dir():
            return path, root.resolve()
    raise _missing("folder", name, folders)


def _candidates(name: str, folders: Sequence[Path]) -> list[Path]:
    if not name or "\0" in name:
        raise refuse("DL0702", "the data source names no file", 'write it as "npz:data.npz" or "images:pets/"')
    for folder in folders:
        if not _leads_within(folder / name, folder.resolve()):
            raise refuse(
                "DL0705", f"'{name}' leads out of {folder}", "data files lie in the folder of the .dl file or in one given with --data"
            )
    return [folder / name for folder in folders]


def _missing(what: str, name: str, folders: Sequence[Path]) -> Exception:
    looked = ", ".join(str(f) for f in folders)
    return refuse(
        "DL0702", f"there is no {what} '{name}' (looked in {looked})", "put it beside the .dl file, or name its folder with --data"
    )


def subfolders(folder: Path, root: Path) -> list[Path]:
    """The folders in `folder` by name, without hidden ones. A link that leaves `root` is refused (DL0705)."""
    return _entries(folder, root, folders=True)


def files(folder: Path, root: Path, endings: Sequence[str]) -> list[Path]:
    """The regular files in `folder` whose names end so, by name, without hidden ones. A link that leaves `root` is refused."""
    return [p for p in _entries(folder, root, folders=False) if p.suffix.lower() in endings]


def _entries(folder: Path, root: Path, folders: bool) -> list[Path]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and (entry.is_dir() if folders else entry.is_file()):
                    found.append(entry.name)
                    if entry.is_symlink():
                        inside(Path(entry.path), root)
    except OSError as error:
        raise refuse("DL0702", f"cannot read {folder}: {error.strerror or error}", "check that it is a folder that may be read") from error
    return [folder / name for name in sorted(found)]


def inside(path: Path, root: Path) -> Path:
    """`path`, if it lies in `root` (resolved) once its links are followed; else DL0705."""
    if not _leads_within(path, root):
        raise refuse("DL0705", f"{path} leads out of {root}", "put the files themselves there, or name their folder with --data")
    return path


def _leads_within(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # links in a circle; Python 3.13 resolves them nevertheless
        return False


def machine_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of main memory, or what a container may take of it."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        text = limit.read_text().strip()
    except OSError:
        return most
    return min(most, int(text)) if text.isdigit() else most


def check_memory(needed: int, what: str) -> None:
    """Refuses (DL0715) what this machine cannot hold, before memory is taken for it."""
    most = machine_memory()
    if needed > most:
        raise refuse(
            "DL0715",
            f"{what} takes {needed:,} bytes of memory, and this machine has {most:,}",
            "check the file; use fewer or smaller examples, or a folder of pictures or sounds, which are read as they are needed",
        )
