"""Boxes in COCO's format: layouts, fitting, padding, and refusal of what does not hold together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files import noise, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dslc.data import DataSet, Field, open_data
from dslc.diagnostics import DiagnosticError

FIELDS = [
    Field("image", "f32", (3, 40, 20)),
    Field("boxes", "f32", (3, 4)),
    Field("classes", "i64", (3,)),
    Field("count", "i64"),
]


def instances() -> dict[str, Any]:
    """Two pictures of 20 x 10 pixels; the categories' ids have a gap."""
    return {
        "images": [
            {"id": 9, "file_name": "b.png", "width": 20, "height": 10},
            {"id": 4, "file_name": "a.png", "width": 20, "height": 10},
        ],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 7, "bbox": [2, 1, 4, 3]},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0.5, 0, 19.5, 10], "iscrowd": 0},
            {"id": 3, "image_id": 9, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            {"id": 4, "image_id": 9, "category_id": 3, "bbox": [5, 5, 0, 2]},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }


def folder(base: Path, raw: object | None = None, json_at: str = "annotations.json", pictures: str = "images") -> Path:
    (base / "pets" / json_at).parent.mkdir(parents=True, exist_ok=True)
    (base / "pets" / json_at).write_text(json.dumps(instances() if raw is None else raw))
    for i, name in enumerate(("a.png", "b.png")):
        picture(base / "pets" / pictures / name, noise(i, 10, 20, 3))
    return base


def opened(base: Path, **options: object) -> DataSet:
    return open_data("coco:pets/", FIELDS, base=base, options=options)  # type: ignore[arg-type]


def test_boxes_are_corners_in_the_fitted_picture(tmp_path: Path) -> None:
    data = opened(folder(tmp_path))
    arrays = data.train.arrays
    assert data.train.count == 2 and data.description["classes"].classes == ("cat", "dog")
    assert arrays["count"].tolist() == [0, 2] and arrays["classes"].tolist() == [[-1, -1, -1], [1, 0, -1]]
    assert arrays["boxes"].dtype == np.float32
    assert arrays["boxes"][1].tolist() == [[2.0, 4.0, 6.0, 16.0], [0.5, 0.0, 20.0, 40.0], [0.0] * 4]
    assert not arrays["boxes"][0].any()
    assert arrays["image"].shape == (2, 3, 40, 20)


def test_boxes_follow_cropping_and_padding(tmp_path: Path) -> None:
    """20 x 10 into 20 wide and 40 high: cropped, 5 columns of the middle remain, four times as large; padded, 15 rows go above."""
    base = folder(tmp_path)
    cropped = opened(base, fit="crop").train.arrays
    assert cropped["boxes"][1].tolist() == [[0.0, 0.0, 20.0, 40.0], [0.0] * 4, [0.0] * 4] and cropped["count"].tolist() == [0, 1]
    assert cropped["classes"][1].tolist() == [0, -1, -1]
    padded = opened(base, fit="pad").train.arrays
    assert padded["boxes"][1].tolist() == [[2.0, 16.0, 6.0, 19.0], [0.5, 15.0, 20.0, 25.0], [0.0] * 4]
    assert not padded["image"][:, :, :15].any() and not padded["image"][:, :, 25:].any() and padded["image"][:, :, 15:25].any()


def test_layouts(tmp_path: Path) -> None:
    beside = opened(folder(tmp_path / "1", json_at="instances.json", pictures="."))
    assert beside.train.count == 2 and beside.test is None
    folder(tmp_path / "2", json_at="train/annotations.json", pictures="train/images")
    parts = opened(folder(tmp_path / "2", json_at="val/annotations.json", pictures="val/images"))
    assert parts.test is not None and parts.test.count == 2
    folder(tmp_path / "3", json_at="annotations/instances_train2017.json", pictures="train2017")
    (tmp_path / "3" / "pets" / "annotations" / "captions_train2017.json").write_text("{}")
    published = opened(folder(tmp_path / "3", json_at="annotations/instances_val2017.json", pictures="val2017"))
    assert published.test is not None and published.test.count == 2
    assert published.fingerprint() == parts.fingerprint() == beside.fingerprint()


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    raw = instances()
    change(raw)
    return raw


WRONG: dict[str, tuple[str, object, str]] = {
    "too many boxes": ("DL0713", changed(lambda r: r["annotations"].extend([r["annotations"][0]] * 2)), "4 boxes"),
    "no list": ("DL0713", {"images": []}, "categories"),
    "no object": ("DL0713", [1, 2], "no list"),
    "entries": ("DL0713", changed(lambda r: r["images"].append(3)), "no list 'images'"),
    "no images": ("DL0713", changed(lambda r: (r["images"].clear(), r["annotations"].clear())), "no images"),
    "unknown image": ("DL0713", changed(lambda r: r["annotations"][0].update(image_id=5)), "the image 5"),
    "unknown category": ("DL0713", changed(lambda r: r["annotations"][0].update(category_id=5)), "the category 5"),
    "id": ("DL0713", changed(lambda r: r["images"][0].update(id="9")), "no whole number"),
    "true": ("DL0713", changed(lambda r: r["images"][0].update(id=True)), "no whole number"),
    "name": ("DL0713", changed(lambda r: r["categories"][0].update(name=None)), "no text"),
    "size": ("DL0713", changed(lambda r: r["images"][0].update(width=0)), "positive"),
    "other size": ("DL0713", changed(lambda r: r["images"][0].update(width=10)), "b.png has 20 x 10 pixels, 10 x 10 in"),
    "short box": ("DL0713", changed(lambda r: r["annotations"][0].update(bbox=[1, 2, 3])), "the box"),
    "no box": ("DL0713", changed(lambda r: r["annotations"][0].pop("bbox")), "the box"),
    "nan": ("DL0713", changed(lambda r: r["annotations"][0].update(bbox=[0, 0, float("nan"), 1])), "the box"),
    "large": ("DL0713", changed(lambda r: r["annotations"][0].update(bbox=[0, 0, 10**400, 1])), "the box"),
    "negative": ("DL0713", changed(lambda r: r["annotations"][0].update(bbox=[0, 0, -1, 1])), "the box"),
    "words": ("DL0713", changed(lambda r: r["annotations"][0].update(bbox=["a", 0, 1, 1])), "the box"),
    "picture elsewhere": ("DL0705", changed(lambda r: r["images"][0].update(file_name="../../x.png")), "names the picture"),
    "absolute": ("DL0705", changed(lambda r: r["images"][0].update(file_name="/etc/passwd")), "names the picture"),
    "nul": ("DL0705", changed(lambda r: r["images"][0].update(file_name="a\0")), "names the picture"),
    "missing picture": ("DL0712", changed(lambda r: r["images"][0].update(file_name="c.png")), "not there"),
}


@pytest.mark.parametrize("case", WRONG)
def test_refusals(tmp_path: Path, case: str) -> None:
    code, raw, says = WRONG[case]
    with pytest.raises(DiagnosticError) as caught:
        opened(folder(tmp_path, raw))
    assert [d.code for d in caught.value.diagnostics] == [code] and says in caught.value.render()


def test_what_is_no_json(tmp_path: Path) -> None:
    base = folder(tmp_path)
    place = base / "pets" / "annotations.json"
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"images": 1e5'):
        place.write_bytes(content)
        with pytest.raises(DiagnosticError, match="DL0713"):
            opened(base)
    place.unlink()
    with pytest.raises(DiagnosticError, match="DL0712"):
        opened(base)
    place.symlink_to("/etc/hostname")
    with pytest.raises(DiagnosticError, match="DL0705"):
        opened(base)


def test_fields_that_it_does_not_have(tmp_path: Path) -> None:
    base = folder(tmp_path)
    for fields in ([FIELDS[1]], [FIELDS[0], Field("x", "f32", (5,))], [FIELDS[0], Field("x", "bool", (3,))]):
        with pytest.raises(DiagnosticError, match="DL0704"):
            open_data("coco:pets/", fields, base=base)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_anywhere_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    raw = instances()
    key = data.draw(st.sampled_from(list(raw)))
    entry = data.draw(st.sampled_from(raw[key]))
    entry[data.draw(st.sampled_from(list(entry)))] = data.draw(JSON)
    base = folder(tmp_path, raw)
    try:
        boxes = opened(base).train.arrays["boxes"]
        assert np.isfinite(boxes).all() and (boxes[..., 2] >= boxes[..., 0]).all() and (boxes[..., 3] <= 40).all()
    except DiagnosticError as error:
        assert error.diagnostics[0].code in ("DL0705", "DL0712", "DL0713")
