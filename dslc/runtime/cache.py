"""The user's cache of object code and plans: files that are written whole, checked when read, and evicted by age of use.

The folder belongs to the user, mode 0700; where it does not, or cannot be written, there is no cache and `problem` says why. An entry
is named by its key, a hex digest of everything that its content depends on, and carries a hash of its own: a damaged entry is absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

MAGIC = b"dslc cache 1\n"
LIMIT_BYTES = 1 << 30
ENTRY_BYTES = 256 << 20
_KEEP_SHARE = 0.8
_TOUCH_SECONDS = 3600.0
_STALE_SECONDS = 3600.0
_KEY = re.compile(r"[0-9a-f]{16,128}\Z")
_KIND = re.compile(r"[a-z]{1,16}\Z")


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What the cache holds, and what this process asked of it."""

    folder: str
    entries: int
    bytes: int
    limit: int
    hits: int
    misses: int
    written: int
    problem: str | None


def default_folder() -> Path:
    """The user's cache folder for dslc, by the platform's convention."""
    return Path(platformdirs.user_cache_dir("dslc", appauthor=False))


class Cache:
    """Entries of bytes by (kind, key): `kind` is a short word such as `object` or `plan`. Safe for many threads and processes."""

    def __init__(self, folder: Path | str | None = None, limit: int = LIMIT_BYTES):
        self.folder = Path(folder) if folder is not None else default_folder()
        self.limit = limit
        self.hits = self.misses = self.written = 0
        self._total: int | None = None
        self.problem = _prepare(self.folder)

    def get(self, kind: str, key: str) -> bytes | None:
        """The entry's payload, or None where it is absent, truncated, altered or not the user's own."""
        payload = None if self.problem else self._read(self._path(kind, key), kind, key)
        if payload is None:
            self.misses += 1
        else:
            self.hits += 1
        return payload

    def put(self, kind: str, key: str, payload: bytes) -> bool:
        """Store an entry for later processes; False where there is no usable cache or no room. Never raises for the disk's sake."""
        path = self._path(kind, key)
        if self.problem or len(payload) > min(ENTRY_BYTES, self.limit):
            return False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with atomic_file(path) as temporary:
                temporary.write_bytes(_head(kind, key, payload) + payload)
        except OSError:
            return False
        self.written += 1
        self._grow(len(payload))
        return True

    def remove(self, kind: str, key: str) -> None:
        """Forget an entry."""
        with contextlib.suppress(OSError):
            self._path(kind, key).unlink()

    def stats(self) -> CacheStats:
        """Counts now; walks the folder."""
        sizes = [status.st_size for _, status in self._files()]
        return CacheStats(str(self.folder), len(sizes), sum(sizes), self.limit, self.hits, self.misses, self.written, self.problem)

    def clear(self) -> int:
        """Remove every entry; returns how many there were."""
        count = 0
        for path, _ in self._files():
            with contextlib.suppress(OSError):
                path.unlink()
                count += 1
        self._total = 0
        return count

    def evict(self) -> int:
        """Remove the entries used least recently until the rest takes 80% of the limit; returns how many went."""
        if self.problem:
            return 0
        import filelock  # here, since few processes ever evict and every start would pay for it

        try:
            with filelock.FileLock(self.folder / "lock", timeout=0):
                return self._evict()
        except (filelock.Timeout, OSError):
            return 0  # another process is at it

    def _evict(self) -> int:
        files = sorted(self._files(), key=lambda item: item[1].st_mtime)
        total, count = sum(status.st_size for _, status in files), 0
        for path, status in files:
            if total <= self.limit * _KEEP_SHARE:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total, count = total - status.st_size, count + 1
        self._total = total
        return count

    def _grow(self, size: int) -> None:
        if self._total is None:
            self._total = sum(status.st_size for _, status in self._files())
        else:
            self._total += size
        if self._total > self.limit:
            self.evict()

    def _path(self, kind: str, key: str) -> Path:
        if not _KIND.match(kind) or not _KEY.match(key):
            raise ValueError(f"not a cache key: {kind!r} {key!r}")
        return self.folder / kind / key[:2] / key

    def _read(self, path: Path, kind: str, key: str) -> bytes | None:
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if not _ours(status) or not stat.S_ISREG(status.st_mode) or status.st_size > ENTRY_BYTES + 1024:
                    return None
                content = file.read()
            if time.time() - status.st_mtime > _TOUCH_SECONDS:
                os.utime(path)
        except OSError:
            return None
        length = len(_head(kind, key, b""))
        payload = content[length:]
        if len(content) < length or content[:length] != _head(kind, key, payload):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return payload

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Entries; forgotten temporary files are removed on the way."""
        if self.problem:
            return
        for path in self.folder.glob("*/??/*"):
            try:
                status = path.lstat()
                if path.name.startswith("."):
                    if time.time() - status.st_mtime > _STALE_SECONDS:
                        path.unlink()
                elif stat.S_ISREG(status.st_mode):
                    yield path, status
            except OSError:
                continue


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A new file beside `path` to write; it is synced and takes the name at the end, so that a reader sees the old content or the new."""
    temporary = path.parent / f".{path.name[:40]}.{os.getpid()}.{os.urandom(6).hex()}"
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _head(kind: str, key: str, payload: bytes) -> bytes:
    digest = hashlib.sha256(b"\0".join((kind.encode(), key.encode(), payload))).hexdigest()
    return MAGIC + f"{kind} {key} {digest}\n".encode()


def _ours(status: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or status.st_uid == os.getuid()


def _prepare(folder: Path) -> str | None:
    """Make the folder; why it cannot serve, or None."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if not stat.S_ISDIR(status.st_mode):
            return f"{folder} is not a folder"
        if not _ours(status):
            return f"{folder} belongs to another user"
        if status.st_mode & 0o077:
            folder.chmod(0o700)
            if folder.stat().st_mode & 0o077:
                return f"{folder} is open to other users"
    except OSError as error:
        return f"{folder} cannot be used: {error.strerror or error}"
    return None if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else f"{folder} cannot be written"
