"""The cache gives back exactly what was stored, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dslc.runtime import cache as caches
from dslc.runtime.cache import Cache, atomic_file, default_folder

KEY = "ab" * 32


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "c")


def entry(cache: Cache, kind: str = "object", key: str = KEY) -> Path:
    return cache.folder / kind / key[:2] / key


def test_round_trip_and_counts(cache: Cache) -> None:
    assert cache.get("object", KEY) is None
    assert cache.put("object", KEY, b"payload\n")
    assert cache.get("object", KEY) == b"payload\n"
    assert Cache(cache.folder).get("object", KEY) == b"payload\n"
    assert cache.get("plan", KEY) is None, "kinds are apart"
    stats = cache.stats()
    assert (stats.entries, stats.hits, stats.misses, stats.written, stats.problem) == (1, 1, 2, 1, None)
    assert stats.bytes == entry(cache).stat().st_size
    cache.remove("object", KEY)
    assert cache.get("object", KEY) is None


def test_empty_payload_and_replacement(cache: Cache) -> None:
    cache.put("object", KEY, b"")
    assert cache.get("object", KEY) == b""
    cache.put("object", KEY, b"new")
    assert cache.get("object", KEY) == b"new"


@pytest.mark.parametrize("damage", ["truncate", "flip", "append", "empty", "swap"])
def test_damaged_entries_are_absent(cache: Cache, damage: str) -> None:
    other = "cd" * 32
    cache.put("object", KEY, b"x" * 1000)
    cache.put("object", other, b"y" * 1000)
    path, content = entry(cache), entry(cache).read_bytes()
    changed = {
        "truncate": content[:-1],
        "flip": content[:500] + bytes([content[500] ^ 1]) + content[501:],
        "append": content + b"z",
        "empty": b"",
        "swap": entry(cache, key=other).read_bytes(),
    }
    path.write_bytes(changed[damage])
    assert cache.get("object", KEY) is None
    assert not path.exists(), "a damaged entry is forgotten"
    assert cache.put("object", KEY, b"again")
    assert cache.get("object", KEY) == b"again"


def test_folder_is_the_users_own(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o777)
    loose.chmod(0o777)
    assert Cache(loose).problem is None
    assert loose.stat().st_mode & 0o777 == 0o700
    assert Cache(tmp_path / "new").folder.stat().st_mode & 0o777 == 0o700


def test_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "c")
    cache.put("object", KEY, b"x")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert cache.get("object", KEY) is None, "an entry of another user is absent"
    stranger = Cache(tmp_path / "c")
    assert "another user" in str(stranger.problem)
    assert stranger.get("object", KEY) is None
    assert not stranger.put("object", KEY, b"y")


def test_unusable_folder_is_no_cache(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "below"):
        cache = Cache(folder)
        assert cache.problem
        assert not cache.put("object", KEY, b"x")
        assert cache.get("object", KEY) is None
        assert cache.stats().entries == cache.clear() == cache.evict() == 0


@pytest.mark.parametrize(
    ("kind", "key"), [("object", "../../etc/passwd"), ("object", "AB" * 20), ("../x", KEY), ("object", ""), ("object", KEY + "\n")]
)
def test_keys_cannot_leave_the_folder(cache: Cache, kind: str, key: str) -> None:
    with pytest.raises(ValueError, match="not a cache key"):
        cache.put(kind, key, b"")
    with pytest.raises(ValueError, match="not a cache key"):
        cache.get(kind, key)


def test_oldest_entries_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", limit=10_000)
    keys = [f"{i:02x}" * 16 for i in range(20)]
    for age, key in enumerate(keys[:8]):
        cache.put("object", key, bytes(1000))
        os.utime(entry(cache, key=key), (time.time() - 1000 + age,) * 2)
    assert cache.stats().entries == 8
    for key in keys[8:]:
        cache.put("object", key, bytes(1000))
    assert cache.stats().bytes <= 10_000
    assert cache.get("object", keys[0]) is None
    assert cache.get("object", keys[-1]) == bytes(1000)


def test_use_makes_young(cache: Cache) -> None:
    cache.put("object", KEY, b"x")
    os.utime(entry(cache), (1e9, 1e9))
    cache.get("object", KEY)
    assert entry(cache).stat().st_mtime > time.time() - 60


def test_too_large_is_not_stored(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", limit=100)
    assert not cache.put("object", KEY, bytes(101))


def test_clear_and_forgotten_temporaries(cache: Cache) -> None:
    cache.put("object", KEY, b"x")
    stale = entry(cache).parent / ".old.1.abc"
    stale.write_bytes(b"half")
    os.utime(stale, (1e9, 1e9))
    assert cache.stats().entries == 1
    assert not stale.exists()
    assert cache.clear() == 1
    assert cache.stats().entries == 0


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_file(path) as temporary:
            temporary.write_bytes(b"new")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_is_not_an_error(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caches.os, "fsync", full)
    assert not cache.put("object", KEY, b"x")
    assert cache.get("object", KEY) is None


def test_threads_and_processes_at_once(cache: Cache) -> None:
    script = f"""
from dslc.runtime.cache import Cache
cache = Cache({str(cache.folder)!r})
for i in range(100):
    key = f"{{i % 5:02x}}" * 16
    cache.put("object", key, bytes([i % 5]) * 5000)
    got = cache.get("object", key)
    assert got is None or got == bytes([i % 5]) * 5000
"""
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    wrong: list[bytes] = []

    def read() -> None:
        for i in range(300):
            got = cache.get("object", f"{i % 5:02x}" * 16)
            if got is not None and got != bytes([i % 5]) * 5000:
                wrong.append(got)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [p.wait(60) for p in processes] == [0, 0]
    assert not wrong
    assert cache.stats().entries == 5


def test_default_folder_is_the_platforms() -> None:
    assert default_folder().name == "dslc"
    assert default_folder().is_absolute()
