"""The built-in digits and the IDX files: contents, splits, scaling, and refusal of damaged files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from dslc.data import Batches, DataDescription, Field, open_data
from dslc.data import idx as idx_files
from dslc.diagnostics import DiagnosticError, Span

IMAGE, LABEL = Field("image", "f32", (1, 28, 28)), Field("label", "i64")


def refused(code: str, source: str, fields: list[Field], **options: object) -> DiagnosticError:
    with pytest.raises(DiagnosticError) as caught:
        open_data(source, fields, **options)  # type: ignore[arg-type]
    assert [d.code for d in caught.value.diagnostics] == [code], caught.value.render()
    return caught.value


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small MNIST: 20 training and 5 test examples, one file of each pair compressed."""
    rng = np.random.default_rng(3)
    for stem, count in (("train", 20), ("t10k", 5)):
        images, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return tmp_path


def test_digits_split_is_fixed_and_stratified() -> None:
    data = open_data("digits", [Field("x", "f32", (1, 8, 8)), Field("y", "i64")])
    assert data.train.count == 1437 and data.test is not None and data.test.count == 360
    assert data.train.arrays["x"].shape == (1437, 1, 8, 8) and data.train.arrays["x"].dtype == np.uint8
    assert np.bincount(data.test.arrays["y"]).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert np.bincount(data.train.arrays["y"]).sum() + 360 == 1797
    assert data.fingerprint() == "8be41cd8", "the split or the figures have changed"
    assert data.description["x"].scale == 1 / 16 and data.description["y"].classes == tuple("0123456789")
    assert "10.24432/C50P49" in data.description.attribution
    everything = np.concatenate([data.train.arrays["x"], data.test.arrays["x"]])
    assert len(np.unique(everything.reshape(1797, 64), axis=0)) == 1797, "an example is in both parts"


@pytest.mark.parametrize("shape", [(64,), (8, 8), (1, 8, 8)])
def test_digits_take_the_declared_shape(shape: tuple[int, ...]) -> None:
    data = open_data("digits", [Field("image", "f32", shape), Field("label", "i32")])
    batch, count = next(Batches(data.train, data.description.fields, 32).in_order())
    assert count == 32 and batch["image"].shape == (32, *shape) and batch["image"].dtype == np.float32
    assert batch["image"].min() == 0.0 and batch["image"].max() == 1.0
    assert batch["label"].dtype == np.int32


def test_a_field_that_the_set_does_not_have() -> None:
    span = Span("a.dl", 3, 8, 3, 20)
    error = refused("DL0704", "digits", [Field("image", "f32", (3, 8, 8))], span=span)
    assert error.diagnostics[0].span == span
    assert "f32[N, 64]" in (error.diagnostics[0].hint or "")
    refused("DL0704", "digits", [Field("label", "f32")])


def test_unknown_source_suggests_a_name() -> None:
    assert refused("DL0701", "fashon-mnist", [IMAGE]).diagnostics[0].hint == "did you mean 'fashion-mnist'?"
    refused("DL0701", "zzz:file", [IMAGE])


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_plain_and_compressed(folder: Path, name: str) -> None:
    data = open_data(name, [IMAGE, LABEL], folders=[folder])
    assert data.train.count == 20 and data.test is not None and data.test.count == 5
    raw = np.frombuffer(gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    assert np.array_equal(data.train.arrays["image"].reshape(-1), raw)
    assert data.description["label"].classes[1] == {"mnist": "1", "fashion-mnist": "Trouser"}[name]
    assert data.nbytes == 25 * (784 + 1)


def test_only_declared_fields_are_read(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(b"junk")
    data = open_data("mnist", [Field("real", "f32", (784,))], folders=[folder])
    assert list(data.train.arrays) == ["real"]


def test_a_subfolder_of_the_name_is_found(folder: Path, tmp_path: Path) -> None:
    inner = tmp_path / "sets" / "mnist"
    inner.mkdir(parents=True)
    for file in folder.glob("*ubyte*"):
        file.rename(inner / file.name)
    assert open_data("mnist", [LABEL], folders=[tmp_path / "sets"]).train.count == 20


def test_missing_files_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx_files, "DEBIAN_FASHION", tmp_path / "none")
    hint = refused("DL0702", "fashion-mnist", [IMAGE], folders=[tmp_path]).diagnostics[0].hint or ""
    assert "apt install dataset-fashion-mnist" in hint and "--data" in hint
    refused("DL0702", "mnist", [IMAGE])


def test_one_of_the_files_missing(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").unlink()
    refused("DL0702", "mnist", [IMAGE, LABEL], folders=[folder])


def damaged(kind: str, whole: bytes) -> bytes:
    packed = gzip.compress(whole)
    huge = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 2**31, 28) + whole[16:]
    return {
        "cut": packed[: len(packed) // 2],
        "no end": packed[:-8],
        "checksum": packed[:-8] + bytes(b ^ 0x55 for b in packed[-8:-4]) + packed[-4:],
        "no gzip": whole,
        "junk inside": packed[:40] + bytes(64) + packed[104:],
        "empty": b"",
        "empty inside": gzip.compress(b""),
        "short header": gzip.compress(whole[:10]),
        "rank": gzip.compress(bytes((0, 0, 8, 1)) + whole[4:]),
        "type": gzip.compress(bytes((0, 0, 13, 3)) + whole[4:]),
        "too few": gzip.compress(whole[:-1]),
        "too many": gzip.compress(whole + b"\0"),
        "huge": gzip.compress(huge),
        "none": gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", 0, 28, 28)),
    }[kind]


KINDS = ["cut", "no end", "checksum", "no gzip", "junk inside", "empty", "empty inside", "short header", "rank", "type"]


@pytest.mark.parametrize("kind", [*KINDS, "too few", "too many", "huge", "none"])
def test_damaged_files_are_refused(folder: Path, kind: str) -> None:
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damaged(kind, gzip.decompress(path.read_bytes())))
    message = refused("DL0703", "mnist", [IMAGE], folders=[folder]).diagnostics[0].message
    assert str(path) in message


def test_plain_file_cut_off(folder: Path) -> None:
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-3])
    refused("DL0703", "mnist", [IMAGE, LABEL], folders=[folder])


def test_other_sizes_and_labels_are_refused(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(20, 17, np.uint8)))
    refused("DL0703", "mnist", [LABEL], folders=[folder])
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(19, np.uint8)))
    refused("DL0706", "mnist", [IMAGE, LABEL], folders=[folder])


@pytest.mark.skipif(
    not (idx_files.DEBIAN_FASHION / "train-images-idx3-ubyte.gz").is_file(), reason="dataset-fashion-mnist is not installed"
)
def test_the_installed_fashion_mnist() -> None:
    data = open_data("fashion-mnist", [IMAGE, LABEL])
    assert data.train.count == 60_000 and data.test is not None and data.test.count == 10_000
    assert np.bincount(data.train.arrays["label"]).tolist() == [6000] * 10
    assert abs(float(data.train.arrays["image"].mean()) / 255 - 0.2860) < 1e-3, "not the published mean"


def test_description_round_trip_and_photos() -> None:
    data = open_data("digits", [Field("image", "f32", (64,)), Field("label", "i64")])
    assert DataDescription.from_json(data.description.to_json()) == data.description
    for text in ("", "[]", "{}", '{"name": "x", "fields": [{"name": "a", "dtype": "q8", "shape": []}]}'):
        with pytest.raises(ValueError):
            DataDescription.from_json(text)
    photo = np.array([0, 255], np.uint8)
    assert data.description["image"].from_picture(photo).tolist() == [0.0, 1.0]


def test_a_photo_gets_the_bits_of_training(folder: Path) -> None:
    data = open_data("mnist", [IMAGE], folders=[folder])
    batch, _ = next(Batches(data.train, data.description.fields, 20).in_order())
    photo = data.description["image"].from_picture(data.train.arrays["image"])  # type: ignore[arg-type]
    assert photo.dtype == np.float32 and photo.tobytes() == batch["image"].tobytes()
