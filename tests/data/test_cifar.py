"""CIFAR-10 in both published forms, and a reader of pickles that cannot run code."""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
from files import noise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dslc.data import Batches, Field, open_data
from dslc.data.pickles import read_pickle
from dslc.diagnostics import DiagnosticError

IMAGE, LABEL = Field("image", "f32", (3, 32, 32)), Field("label", "i64")
NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def batch(i: int, count: int = 4) -> tuple[np.ndarray, list[int]]:
    return noise(i, count, 3072), [(i + j) % 10 for j in range(count)]


def python2_pickle(images: np.ndarray, labels: list[int]) -> bytes:
    """What Python 2's cPickle wrote with protocol 2: byte strings, and an array of the old module."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def large(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\0\x85" + text(b"b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    count = len(images).to_bytes(2, "little")
    array += b"(K\1M" + count + b"M\0\x0c\x86" + kind + b"\x89" + large(images.tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([n]) for n in labels) + b"e"
    names = b"](" + b"".join(text(b"%d.png" % i) for i in range(len(labels))) + b"e"
    items = (text(b"batch_label"), text(b"training batch 1 of 5"), text(b"labels"), listed, text(b"data"), array, text(b"filenames"), names)
    return b"\x80\x02}q\0(" + b"".join(items) + b"u."


def binary(images: np.ndarray, labels: list[int]) -> bytes:
    return np.concatenate([np.array(labels, np.uint8)[:, None], images], axis=1).tobytes()


def written(base: Path, ending: str) -> Path:
    base.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(NAMES):
        (base / f"{name}{ending}").write_bytes(binary(*batch(i)) if ending else python2_pickle(*batch(i)))
    return base


def refused(code: str, base: Path) -> str:
    with pytest.raises(DiagnosticError) as caught:
        open_data("cifar10", [IMAGE, LABEL], folders=[base])
    assert [d.code for d in caught.value.diagnostics] == [code], caught.value.render()
    return caught.value.render()


@pytest.mark.parametrize(
    ("place", "ending"), [("", ".bin"), ("cifar-10-batches-bin", ".bin"), ("cifar-10-batches-py", ""), ("cifar10", "")]
)
def test_both_forms(tmp_path: Path, place: str, ending: str) -> None:
    written(tmp_path / place, ending)
    data = open_data("cifar10", [IMAGE, LABEL], folders=[tmp_path])
    assert data.train.count == 20 and data.test is not None and data.test.count == 4
    images, labels = batch(2)
    assert np.array_equal(data.train.arrays["image"][8:12].reshape(4, 3072), images) and data.train.arrays["label"][8:12].tolist() == labels
    assert data.train.arrays["image"].dtype == np.uint8 and data.description["label"].classes[6] == "frog"
    made, _ = next(Batches(data.train, data.description.fields, 20).in_order())
    assert made["image"].max() == 1.0 and made["label"].dtype == np.int64
    flat = open_data("cifar10", [Field("x", "f32", (3072,)), LABEL], folders=[tmp_path])
    assert flat.fingerprint() and flat.train.count == 20
    with pytest.raises(DiagnosticError, match="DL0704"):
        open_data("cifar10", [Field("x", "f32", (32, 32))], folders=[tmp_path])


def test_missing_and_damaged(tmp_path: Path) -> None:
    assert "not on this machine" in refused("DL0702", tmp_path)
    for ending in (".bin", ""):
        base = written(tmp_path / ending.strip("."), ending)
        path = base / f"data_batch_3{ending}"
        whole = path.read_bytes()
        for content in (b"", whole[:-1], whole + b"x", bytes([10]) + whole[1:]) if ending else (b"", whole[:-1], whole[:100], whole[5:]):
            path.write_bytes(content)
            assert str(path) in refused("DL0703", base)
        with path.open("wb") as file:
            file.truncate(1 << 29)
        assert "more than a batch" in refused("DL0703", base)
        path.unlink()
        assert f"has no data_batch_3{ending}" in refused("DL0702", base)


@pytest.mark.parametrize("wrong", [{}, [], {"data": 1}, {"labels": [1]}, {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 2, 3]}])
def test_pickles_of_something_else(tmp_path: Path, wrong: object) -> None:
    (written(tmp_path, "") / "data_batch_2").write_bytes(pickle.dumps(wrong, protocol=2))
    refused("DL0703", tmp_path)


# --- the reader of pickles -----------------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=4) | st.binary(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(PLAIN, st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_plain_data_comes_back(value: object, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("kind", ["u1", "<i2", ">i4", "<f4", ">f8", "?"])
def test_arrays_come_back(protocol: int, kind: str) -> None:
    for array in (np.arange(24).reshape(2, 3, 4).astype(kind), np.asfortranarray(np.arange(6).reshape(2, 3).astype(kind))):
        try:
            found = read_pickle(pickle.dumps({"a": array}, protocol=protocol))["a"]
        except ValueError:
            assert kind == "?", "a truth value has another code"
            continue
        assert found.dtype == array.dtype and np.array_equal(found, array)


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str, how: object = os.system):
        self.command = command
        self.how = how

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return self.how, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("how", [os.system, eval, exec, Path.touch, getattr, np.load, np.frombuffer], ids=lambda f: f.__name__)
def test_nothing_is_run(tmp_path: Path, protocol: int, how: object) -> None:
    mark = tmp_path / "ran"
    with pytest.raises(ValueError, match=r"plain data|opcode"):
        read_pickle(pickle.dumps({"data": Runs(f"touch {mark}", how)}, protocol=protocol))
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02}q\0",
        b".",
        b"(.",
        b"0.",
        b"h\x05.",
        b"j\xff\xff\xff\x7f.",  # a memo of two thousand million entries
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",  # bytes without end
        b"\x80\x02]\x94h\x00a.",  # a list in itself is harmless, and no batch
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02cnumpy\ndtype\nU\x02O8K\0K\1\x87R.",
        b"\x80\x02cnumpy\ndtype\nU\x02u1\x85R}b.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nK\0\x85R(K\1J\xff\xff\xff\x7f\x85NNNtb.",
        b"\x80\x02" + b"]" * 100_000 + b".",
        b"Pabc\n.",
        b"I" + b"9" * 10_000 + b"\n.",
    ],
)
def test_hostile_pickles(data: bytes) -> None:
    try:
        value = read_pickle(data)
    except ValueError:
        return
    assert isinstance(value, list), "a list is all that one of them makes"


def test_an_array_is_no_larger_than_its_bytes() -> None:
    good = pickle.dumps(np.zeros((2, 3), np.uint8), protocol=2)
    found = [p for op, arg, p in pickletools.genops(good) if op.name == "BININT1" and arg == 3]
    for value in (4, 200):
        for place in found:
            bad = good[: place + 1] + bytes([value]) + good[place + 2 :]
            try:
                assert read_pickle(bad).size == 6
            except ValueError:
                continue


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_pickles_are_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(python2_pickle(noise(0, 1, 3072)[:, :3072], [3]))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, 300) | st.integers(len(content) - 60, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        read_pickle(bytes(content))
