"""Folders of images, pairs of image and mask: contents, fitting, splits, and refusal of damaged and hostile files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from files import noise, picture, png_bomb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dslc.data import Batches, DataDescription, Field, images, open_data
from dslc.data.images import Geometry, Pictures, read_mask, read_picture
from dslc.diagnostics import DiagnosticError

IMAGE, LABEL = Field("image", "f32", (3, 8, 8)), Field("label", "i64")


def refused(code: str, source: str, fields: list[Field], **options: object) -> str:
    with pytest.raises(DiagnosticError) as caught:
        open_data(source, fields, **options)  # type: ignore[arg-type]
    assert [d.code for d in caught.value.diagnostics] == [code], caught.value.render()
    return caught.value.render()


def pets(base: Path, part: str = "", count: int = 5) -> Path:
    """A folder of cats and dogs, some PNG, some JPEG, one of another size; hidden and other files are beside them."""
    for c, name in enumerate(("cat", "dog")):
        for i in range(count):
            picture(base / "pets" / part / name / f"{i}.{'png' if i % 2 else 'jpg'}", noise(10 * c + i, 8, 8, 3))
        (base / "pets" / part / name / ".hidden.png").write_bytes(b"nonsense")
        (base / "pets" / part / name / "readme.txt").write_text("pictures of pets")
    return base


def test_classes_are_subfolders_and_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    data = open_data("images:pets/", [IMAGE, LABEL], base=pets(tmp_path))
    assert data.train.count == 10 and data.test is None
    assert data.description["label"].classes == ("cat", "dog")
    assert data.train.arrays["label"].tolist() == [0] * 5 + [1] * 5
    assert data.train.arrays["image"].dtype == np.uint8
    first = np.asarray(Image.open(tmp_path / "pets" / "cat" / "1.png")).transpose(2, 0, 1)
    assert np.array_equal(data.train.arrays["image"][1], first)
    batch, _ = next(Batches(data.train, data.description.fields, 10).in_order())
    assert batch["image"].dtype == np.float32 and np.array_equal(batch["image"][1], first.astype(np.float32) * np.float32(1 / 255))
    described = data.description["image"]
    assert described.from_picture(first).tobytes() == batch["image"][1].tobytes(), "`run` sees other values than training"
    assert (described.fit, described.full) == ("crop", 255.0)
    assert DataDescription.from_json(data.description.to_json()) == data.description


def test_parts_and_classes_of_the_test(tmp_path: Path) -> None:
    pets(pets(tmp_path, "train"), "val", 2)
    data = open_data("images:pets", [IMAGE, LABEL], folders=[tmp_path])
    assert data.train.count == 10 and data.test is not None and data.test.count == 4
    for path in sorted((tmp_path / "pets" / "val" / "cat").iterdir()):
        path.unlink()
    (tmp_path / "pets" / "val" / "cat").rmdir()
    data = open_data("images:pets", [IMAGE, LABEL], folders=[tmp_path])
    assert data.test is not None and data.test.arrays["label"].tolist() == [1, 1]
    picture(tmp_path / "pets" / "val" / "fox" / "a.png", noise(0, 8, 8, 3))
    assert "fox" in refused("DL0712", "images:pets", [IMAGE, LABEL], base=tmp_path)


def test_without_labels_a_folder_needs_no_classes(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "faces" / f"{i}.png", noise(i, 16, 16))
    data = open_data("images:faces", [Field("x", "f32", (16, 16))], base=tmp_path)
    assert data.train.count == 3 and np.array_equal(data.train.arrays["x"][2], noise(2, 16, 16))
    assert "no subfolders" in refused("DL0712", "images:faces", [Field("x", "f32", (16, 16)), LABEL], base=tmp_path)


def test_the_share_that_is_held_out_is_fixed_and_stratified(tmp_path: Path) -> None:
    base = pets(tmp_path, count=10)
    data = open_data("images:pets/", [IMAGE, LABEL], base=base, options={"test": 0.2})
    again = open_data("images:pets/", [IMAGE, LABEL], base=base, options={"test": 0.2})
    assert data.test is not None and again.test is not None
    assert data.test.count == 4 and np.bincount(data.test.arrays["label"]).tolist() == [2, 2] and data.train.count == 16
    assert np.array_equal(data.test.arrays["image"], again.test.arrays["image"]) and data.fingerprint() == again.fingerprint()
    seen = np.concatenate([data.train.arrays["image"], data.test.arrays["image"]]).reshape(20, -1)
    assert len(np.unique(seen, axis=0)) == 20
    for share in (0.01, 0.99):
        refused("DL0710", "images:pets/", [IMAGE, LABEL], base=base, options={"test": share})


def test_too_many_to_hold_are_read_as_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = pets(tmp_path)
    held = open_data("images:pets/", [IMAGE, LABEL], base=base, options={"test": 0.4, "normalize": True})
    monkeypatch.setattr(images, "machine_memory", lambda: 1000)
    streamed = open_data("images:pets/", [IMAGE, LABEL], base=base, options={"test": 0.4, "normalize": True})
    assert streamed.train.count == held.train.count == 6 and "image" in streamed.train.columns and streamed.nbytes < 100
    assert streamed.description == held.description
    for a, b in ((held.train, streamed.train), (held.test, streamed.test)):
        assert a is not None and b is not None
        one, other = Batches(a, held.description.fields, 4), Batches(b, streamed.description.fields, 4)
        assert other.threaded and not one.threaded
        with other.ahead(other.shuffled(1, 2)) as batches:
            for (x, n), (y, m) in zip(one.shuffled(1, 2), batches, strict=True):
                assert n == m and all(x[k].tobytes() == y[k].tobytes() for k in x)
    first = streamed.fingerprint()
    picture(tmp_path / "pets" / "cat" / "6.png", noise(99, 8, 8, 3))
    assert open_data("images:pets/", [IMAGE, LABEL], base=base).fingerprint() != first
    (tmp_path / "pets" / "dog" / "4.jpg").write_bytes(b"no picture any more")
    with pytest.raises(DiagnosticError, match="DL0711"):
        assert streamed.test is not None
        for split in (streamed.train, streamed.test):
            batches_of = Batches(split, streamed.description.fields, 4)
            with batches_of.ahead(batches_of.in_order()) as ahead:
                list(ahead)


# --- fitting -------------------------------------------------------------------------------------------------------------


def test_fits(tmp_path: Path) -> None:
    wide = np.zeros((4, 8), np.uint8)
    wide[:, 2:6] = 200
    path = picture(tmp_path / "wide.png", wide)
    assert read_picture(path, Geometry(1, 4, 4, "crop")).tolist() == [[[200] * 4] * 4]
    stretched = read_picture(path, Geometry(1, 4, 4, "stretch"))[0]
    assert stretched[0].tolist() == stretched[3].tolist() and stretched[0][1] > 100 > stretched[0][0]
    padded = read_picture(path, Geometry(1, 8, 8, "pad"))[0]
    assert (padded[2:6] == wide).all() and padded[:2].max() == padded[6:].max() == 0
    for fit in ("crop", "stretch", "pad"):
        assert np.array_equal(read_picture(path, Geometry(1, 4, 8, fit))[0], wide), "a picture of the right size is not touched"


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20), st.sampled_from(["crop", "stretch", "pad"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_size_fits_every_other(tmp_path: Path, h: int, w: int, to_h: int, to_w: int, fit: str) -> None:
    gray = picture(tmp_path / "a.png", np.full((h, w), 77, np.uint8))
    fitted = read_picture(gray, Geometry(3, to_h, to_w, fit))
    assert fitted.shape == (3, to_h, to_w) and set(np.unique(fitted)) <= ({0, 77} if fit == "pad" else {77})
    classes = picture(tmp_path / "b.png", (np.arange(h * w) % 5 * 50).astype(np.uint8).reshape(h, w))
    assert set(np.unique(read_mask(classes, Geometry(1, to_h, to_w, fit)))) <= {0, 50, 100, 150, 200}, "classes are blended"


def test_modes(tmp_path: Path) -> None:
    deep = (np.arange(16, dtype=np.uint16) * 4369).reshape(4, 4)
    assert read_picture(picture(tmp_path / "deep.png", deep), Geometry(1, 4, 4))[0].tolist() == (deep >> 8).tolist()
    rgba = np.dstack([np.full((4, 4, 3), 90, np.uint8), np.zeros((4, 4), np.uint8)])
    assert (read_picture(picture(tmp_path / "clear.png", rgba), Geometry(3, 4, 4)) == 90).all()
    palette = Image.new("P", (4, 4))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png")
    assert read_picture(tmp_path / "palette.png", Geometry(3, 4, 4))[:, 0, 1].tolist() == [255, 0, 0]
    assert read_mask(tmp_path / "palette.png", Geometry(1, 4, 4))[0].tolist() == [[0, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]


# --- pairs ---------------------------------------------------------------------------------------------------------------

PAIR = [Field("image", "f32", (3, 8, 8)), Field("mask", "i64", (8, 8))]


def pairs(base: Path) -> Path:
    for i in range(4):
        picture(base / "street" / "images" / f"{i}.jpg", noise(i, 8, 8, 3))
        picture(base / "street" / "mask" / f"{i}.png", noise(i, 8, 8) % 3)
    return base


def test_pairs(tmp_path: Path) -> None:
    data = open_data("pairs:street/", PAIR, base=pairs(tmp_path), options={"test": 0.25})
    assert data.train.count == 3 and data.test is not None and data.test.count == 1
    everything = np.concatenate([data.train.arrays["mask"], data.test.arrays["mask"]])
    assert {m.tobytes() for m in everything} == {(noise(i, 8, 8) % 3).tobytes() for i in range(4)}
    batch, _ = next(Batches(data.train, data.description.fields, 4).in_order())
    assert batch["mask"].dtype == np.int64 and batch["mask"].max() == 2 and 0.5 < batch["image"].max() <= 1.0
    for kind, values in (("f32", {0.0, 1 / 255, 2 / 255}), ("bool", {False, True}), ("u8", {0, 1, 2})):
        shape = (1, 8, 8)
        data = open_data("pairs:street/", [PAIR[0], Field("mask", kind, shape)], base=tmp_path)
        batch, _ = next(Batches(data.train, data.description.fields, 4).in_order())
        assert set(np.unique(batch["mask"])) == {np.float32(v) if kind == "f32" else v for v in values}


def test_pairs_that_do_not_match(tmp_path: Path) -> None:
    base = pairs(tmp_path)
    assert "no folder 'depth' or 'depths'" in refused("DL0712", "pairs:street/", [PAIR[0], Field("depth", "f32", (8, 8))], base=base)
    (base / "street" / "mask" / "2.png").unlink()
    assert "2.jpg has no partner" in refused("DL0712", "pairs:street/", PAIR, base=base)
    picture(base / "street" / "mask" / "2.jpg", noise(2, 8, 8))
    assert "2.jpg cannot be read" in refused("DL0711", "pairs:street/", PAIR, base=base)
    picture(base / "street" / "mask" / "2.png", noise(2, 8, 8, 3))
    assert "have one name" in refused("DL0712", "pairs:street/", PAIR, base=base)
    (base / "street" / "mask" / "2.jpg").unlink()
    assert "one class from 0 to 255" in refused("DL0711", "pairs:street/", PAIR, base=base)
    refused("DL0704", "pairs:street/", [PAIR[0], LABEL], base=base)


# --- refusals ------------------------------------------------------------------------------------------------------------


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    base = pets(tmp_path)
    place = base / "pets" / "dog" / "9.png"
    whole = (base / "pets" / "dog" / "1.png").read_bytes()
    jpeg = (base / "pets" / "dog" / "0.jpg").read_bytes()
    gif = tmp_path / "a.gif"
    Image.fromarray(noise(0, 8, 8)).save(gif)
    for content in (b"", b"\x89PNG", whole[:60], whole[:-60], jpeg[: len(jpeg) // 2], b"GIF89a" + bytes(50), gif.read_bytes(), b"<svg/>"):
        place.write_bytes(content)
        assert str(place) in refused("DL0711", "images:pets/", [IMAGE, LABEL], base=base)
    for side, says in ((60_000, "decompression bomb"), (9_000, "9000 x 9000")):
        png_bomb(place, side, side)
        assert says in refused("DL0711", "images:pets/", [IMAGE, LABEL], base=base)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from(["png", "jpg"]))
    path = picture(tmp_path / f"a.{ending}", noise(5, 12, 12, 3))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (read_picture, read_mask):
        try:
            assert read(path, Geometry(1, 8, 8)).shape == (1, 8, 8)
        except DiagnosticError as error:
            assert [d.code for d in error.diagnostics] == ["DL0711"] and str(path) in str(error)


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    base = pets(tmp_path / "base")
    outside = picture(tmp_path / "secret" / "a.png", noise(0, 8, 8, 3))
    link = base / "pets" / "cat" / "link.png"
    link.symlink_to(outside)
    refused("DL0705", "images:pets/", [IMAGE, LABEL], base=base)
    link.unlink()
    link.symlink_to(base / "pets" / "dog" / "1.png")
    assert open_data("images:pets/", [IMAGE, LABEL], base=base).train.count == 11
    (base / "pets" / "cow").symlink_to(outside.parent)
    refused("DL0705", "images:pets/", [IMAGE, LABEL], base=base)
    (base / "pets" / "cow").unlink()
    (base / "all").symlink_to(outside.parent)
    for name in ("all", "../secret", str(outside.parent)):
        refused("DL0705", f"images:{name}", [Field("x", "f32", (8, 8))], base=base)
    (base / "pets" / "train").symlink_to(outside.parent)
    refused("DL0705", "images:pets/", [IMAGE, LABEL], base=base)


def test_what_is_no_regular_file_is_passed_over(tmp_path: Path) -> None:
    base = pets(tmp_path)
    os.mkfifo(base / "pets" / "cat" / "pipe.png")
    (base / "pets" / "cat" / "folder.png").mkdir()
    assert open_data("images:pets/", [IMAGE, LABEL], base=base).train.count == 10
    (base / "pets" / "cat" / "loop.png").symlink_to(base / "pets" / "cat" / "loop.png")
    refused("DL0702", "images:pets/", [IMAGE, LABEL], base=base)


def test_layouts_that_are_refused(tmp_path: Path) -> None:
    base = pets(tmp_path)
    refused("DL0702", "images:nowhere/", [IMAGE, LABEL], base=base)
    refused("DL0702", "images:", [IMAGE, LABEL], base=base)
    refused("DL0702", "images:a\0b", [IMAGE, LABEL], base=base)
    for field in (Field("image", "f32", (2, 8, 8)), Field("image", "bool", (8, 8)), Field("image", "f32", (7,)), Field("y", "f32")):
        refused("DL0704", "images:pets/", [field, LABEL], base=base)
    (base / "pets" / "empty").mkdir()
    assert "empty holds no images" in refused("DL0712", "images:pets/", [IMAGE, LABEL], base=base)


def test_many_columns_share_their_files(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{i}.png", noise(i, 8, 8)) for i in range(70)]
    column = Pictures(tuple(paths), Geometry(1, 8, 8))
    stored = images.held(column, 64, (8, 8))
    assert isinstance(stored, np.ndarray) and all(np.array_equal(stored[i], noise(i, 8, 8)) for i in range(70))
    assert column.pick(np.array([3, 1])).paths == (paths[3], paths[1])
