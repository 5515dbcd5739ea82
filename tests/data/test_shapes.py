"""The generated shapes: the same everywhere, masks and boxes that agree with each other and with the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dslc.data import DataSet, Field, open_data
from dslc.diagnostics import DiagnosticError

FIELDS = [
    Field("image", "f32", (3, 32, 48)),
    Field("mask", "i64", (32, 48)),
    Field("boxes", "f32", (4, 4)),
    Field("classes", "i64", (4,)),
    Field("count", "i64"),
    Field("label", "i64"),
]


def opened(count: int = 40, seed: int = 0, fields: list[Field] = FIELDS) -> DataSet:
    return open_data("shapes", fields, options={"count": count, "seed": seed})


def test_they_are_pinned() -> None:
    """A model's published figures were made with these pictures."""
    assert opened().fingerprint() == PINNED[0] and opened(seed=1).fingerprint() == PINNED[1]


PINNED = ["240395ae", "6a0c6fc7"]


def test_parts_differ_and_more_begin_with_the_same() -> None:
    few, many = opened(8), opened(12)
    assert few.train.count == 8 and few.test is not None and few.test.count == 2 and many.test is not None
    for name, array in few.train.arrays.items():
        assert np.array_equal(array, many.train.arrays[name][:8])
    assert np.array_equal(few.test.arrays["image"], many.test.arrays["image"][:2])
    everything = np.concatenate([many.train.arrays["image"], many.test.arrays["image"]]).reshape(15, -1)
    assert len(np.unique(everything, axis=0)) == 15
    assert open_data("shapes", FIELDS[:2]).train.count == 2000


@given(st.integers(16, 64), st.integers(16, 64), st.integers(1, 6), st.integers(0, 2**63 - 1))
@settings(max_examples=25, deadline=None)
def test_mask_boxes_and_classes_agree(height: int, width: int, room: int, seed: int) -> None:
    shapes = [("image", "f32", (1, height, width)), ("mask", "i64", (height, width)), ("boxes", "f64", (room, 4))]
    shapes += [("classes", "i32", (room,)), ("count", "i64", ()), ("label", "i64", ())]
    arrays = opened(6, seed, [Field(*f) for f in shapes]).train.arrays  # type: ignore[arg-type]
    assert arrays["image"].dtype == np.uint8 and arrays["image"].shape == (6, 1, height, width)
    for image, mask, boxes, classes, count, label in zip(*(arrays[n] for n, _, _ in shapes), strict=True):
        assert 1 <= count <= min(room, 4)
        assert set(np.unique(mask)) == {0, *(c + 1 for c in classes[:count])}
        assert (classes[:count] >= 0).all() and (classes[count:] == -1).all() and not boxes[count:].any() and label == classes[0]
        covered = np.zeros_like(mask, bool)
        for (x1, y1, x2, y2), kind in zip(boxes[:count].astype(int), classes, strict=False):
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
            part = mask[y1:y2, x1:x2] == kind + 1
            assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any(), "the box is not tight"
            covered[y1:y2, x1:x2] = True
        assert covered[mask > 0].all()
        assert image[0][mask > 0].mean() > image[0][mask == 0].mean(), "shapes are lighter than the ground"


def test_every_class_and_number_occurs() -> None:
    arrays = opened(200).train.arrays
    assert np.bincount(arrays["classes"][arrays["classes"] >= 0]).min() > 60
    assert np.bincount(arrays["count"], minlength=5).tolist()[0] == 0 and (np.bincount(arrays["count"], minlength=5)[1:] > 10).all()


@pytest.mark.parametrize(
    ("code", "fields", "options"),
    [
        ("DL0704", [Field("mask", "i64", (32, 32, 3))], {}),
        ("DL0704", [Field("boxes", "f32", (4, 4))], {}),
        ("DL0704", [Field("image", "f32", (3, 8, 8))], {}),
        ("DL0704", [Field("image", "f32", (3, 32, 32)), Field("mask", "i64", (16, 32))], {}),
        ("DL0704", [Field("image", "f32", (3, 32, 32)), Field("x", "f32", (5,))], {}),
        ("DL0704", [Field("image", "f32", (3, 32, 32)), Field("x", "f32")], {}),
        ("DL0710", FIELDS, {"count": 10**9}),
        ("DL0710", FIELDS, {"count": 0}),
        ("DL0710", FIELDS, {"count": 2.5}),
        ("DL0710", FIELDS, {"seed": -1}),
        ("DL0710", FIELDS, {"sed": 1}),
        ("DL0715", [Field("image", "f32", (3, 60000, 60000))], {"count": 1_000_000}),
    ],
)
def test_refusals(code: str, fields: list[Field], options: dict[str, int]) -> None:
    with pytest.raises(DiagnosticError) as caught:
        open_data("shapes", fields, options=options)
    assert [d.code for d in caught.value.diagnostics] == [code]
