"""What stands behind the `with` of a `data` statement: a share held out, normalisation, columns; and data from Python with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dslc.data import Batches, DataDescription, Field, from_python, open_data
from dslc.data import places as data_places
from dslc.data.splits import held_out
from dslc.diagnostics import DiagnosticError

X, Y = Field("x", "f32", (3,)), Field("y", "i64")


def refused(code: str, source: str, fields: list[Field], **options: object) -> str:
    with pytest.raises(DiagnosticError) as caught:
        open_data(source, fields, **options)  # type: ignore[arg-type]
    assert [d.code for d in caught.value.diagnostics] == [code], caught.value.render()
    return caught.value.render()


def plants(base: Path, rows: int = 20) -> Path:
    rng = np.random.default_rng(2)
    lines = ["length,width,kind,name,height"]
    lines += [f"{rng.normal(5, 2)},{rng.normal(-1, 0.1)},{'ab'[i % 2]},{'rose' if i % 4 else 'lily'},7" for i in range(rows)]
    (base / "plants.csv").write_text("\n".join(lines) + "\n")
    return base


# --- columns -------------------------------------------------------------------------------------------------------------


def test_listed_columns_are_packed_in_the_fields_order(tmp_path: Path) -> None:
    base = plants(tmp_path)
    listed = ("width", "height", "length", "name")
    data = open_data("csv:plants.csv", [X, Y], base=base, options={"columns": listed})
    rows = [line.split(",") for line in (base / "plants.csv").read_text().splitlines()[1:]]
    assert data.train.arrays["x"].tolist() == [[np.float32(r[1]), 7.0, np.float32(r[0])] for r in rows]
    assert data.train.arrays["y"].tolist() == [["lily", "rose"].index(r[3]) for r in rows]
    assert data.description["y"].classes == ("lily", "rose")
    assert "'depth'" in refused("DL0708", "csv:plants.csv", [X, Y], base=base, options={"columns": ("depth", *listed[1:])})
    assert "4 numbers" in refused("DL0708", "csv:plants.csv", [X, Y], base=base, options={"columns": listed[:3]})


def test_a_vector_of_words_has_one_list_of_names(tmp_path: Path) -> None:
    base = plants(tmp_path)
    data = open_data("csv:plants.csv", [Field("z", "i32", (2,))], base=base, options={"columns": ("kind", "name")})
    assert data.description["z"].classes == ("a", "b", "lily", "rose")
    assert data.train.arrays["z"][:3].tolist() == [[0, 2], [1, 3], [0, 3]]
    with (base / "plants.csv").open("a") as file:
        file.write("1,2,,rose,3\n")
    says = refused("DL0707", "csv:plants.csv", [Field("z", "i32", (2,))], base=base, options={"columns": ("kind", "name")})
    assert "line 22: the value of 'kind' is missing" in says


def test_a_wide_table_is_read_in_reasonable_time(tmp_path: Path) -> None:
    """Twenty thousand columns: looking each up among those before it would take minutes."""
    (tmp_path / "wide.csv").write_text(",".join(f"x{i}" for i in range(20_000)) + "\n" + ",".join(["1"] * 20_000) + "\n")
    data = open_data("csv:wide.csv", [Field("x", "f32", (20_000,))], base=tmp_path)
    assert data.train.arrays["x"].sum() == 20_000


# --- holding out ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.data())
@settings(max_examples=80, deadline=None)
def test_every_class_gives_its_share(labels: list[int], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, len(labels) - 1))
    chosen = held_out(np.array(labels), wanted, 3)
    assert chosen.sum() == wanted
    for value in set(labels):
        share = labels.count(value) * wanted / len(labels)
        assert int(share) <= chosen[np.array(labels) == value].sum() <= share + 1


def test_the_share_takes_the_place_of_the_sources_own_test() -> None:
    fields = [Field("image", "f32", (64,)), Field("label", "i64")]
    plain = open_data("digits", fields)
    data = open_data("digits", fields, options={"test": 0.1})
    assert data.train.count == 1293 and data.test is not None and data.test.count == 144
    assert len(set(np.bincount(data.test.arrays["label"]).tolist())) <= 3
    assert plain.test is not None
    own = {row.tobytes() for row in plain.test.arrays["image"]}
    assert not own & {row.tobytes() for row in data.test.arrays["image"]}, "the source's test examples are not looked at"
    assert open_data("digits", fields, options={"test": 0.1}).fingerprint() == data.fingerprint() != plain.fingerprint()


# --- normalisation -------------------------------------------------------------------------------------------------------


def test_columns_are_normalized_and_the_factors_are_stored(tmp_path: Path) -> None:
    options: Mapping[str, object] = {"columns": ("length", "width", "height", "name"), "normalize": True, "test": 0.2}
    data = open_data("csv:plants.csv", [X, Y], base=plants(tmp_path, 400), options=options)  # type: ignore[arg-type]
    assert DataDescription.from_json(data.description.to_json()) == data.description
    batch, _ = next(Batches(data.train, data.description.fields, 400).in_order())
    assert np.allclose(batch["x"].mean(axis=0), 0, atol=1e-5)
    assert np.allclose(batch["x"].std(axis=0), [1, 1, 0], atol=1e-5), "a column that never changes is not divided by 0"
    assert batch["y"].tolist() == data.train.arrays["y"].tolist()
    for stored, value in zip(data.train.arrays["x"], batch["x"], strict=True):
        assert data.description["x"].from_stored(stored).tobytes() == value.tobytes()


def test_channels_are_normalized_and_large_offsets_do_not_cancel() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (600, 3, 4, 4), np.uint8)
    images[:, 1] //= 4
    field = Field("image", "f32", (3, 4, 4))
    data = from_python((images,), [field], options={"normalize": True})
    described = data.description["image"]
    assert isinstance(described.scale, tuple) and len(described.scale) == 3
    batch, _ = next(Batches(data.train, data.description.fields, 600).in_order())
    assert np.allclose(batch["image"].mean(axis=(0, 2, 3)), 0, atol=1e-5) and np.allclose(batch["image"].std(axis=(0, 2, 3)), 1, atol=1e-5)
    far = from_python((1e9 + rng.normal(size=(600, 2)),), [Field("x", "f64", (2,))], options={"normalize": True})
    batch, _ = next(Batches(far.train, far.description.fields, 600).in_order())
    assert np.allclose(batch["x"].std(axis=0), 1, atol=1e-6)
    with pytest.raises(DiagnosticError, match="DL0710"):
        from_python((np.arange(4),), [Field("n", "i64")], options={"normalize": True})


def test_damaged_descriptions_are_refused() -> None:
    data = from_python((np.arange(6.0).reshape(2, 3),), [X], options={"normalize": True})
    text = data.description.to_json()
    for old, new in (
        ('"fit": "stretch"', '"fit": "x"'),
        ('"scale": [', '"scale": [1.0, '),
        ('"scale": [', '"scale": ["a", '),
        ('"fields"', '"f"'),
    ):
        assert old in text
        with pytest.raises(ValueError, match=r"."):
            DataDescription.from_json(text.replace(old, new))
    older = text.replace('"fit": "stretch", ', "").replace('"rate": null, ', "")
    assert "fit" not in older and DataDescription.from_json(older) == data.description, "descriptions of older weights are read"


# --- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("digits", {"tset": 0.2}, "did you mean `test`?"),
        ("digits", {"columns": ("a",)}, "they have `test`, `normalize`"),
        ("digits", {"fit": "crop"}, "no option `fit`"),
        ("digits", {"test": 2}, "a share between 0 and 1"),
        ("digits", {"test": 1.0}, "a share between 0 and 1"),
        ("digits", {"test": float("nan")}, "a share between 0 and 1"),
        ("digits", {"test": 1e-9}, "at least one example"),
        ("digits", {"normalize": 1}, "true or false"),
        ("csv:a.csv", {"columns": "x"}, "a list of names"),
        ("csv:a.csv", {"columns": ()}, "a list of names"),
        ("images:a/", {"fit": "squeeze"}, "'crop', 'stretch', 'pad'"),
        ("shapes", {"count": True}, "a positive whole number"),
    ],
)
def test_options_that_are_refused(source: str, options: dict[str, object], says: str) -> None:
    fields = [Field("image", "f32", (64,)), Field("label", "i64")] if source == "digits" else [X]
    assert says in refused("DL0710", source, fields, options=options)


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 3), np.float32))
    (tmp_path / "b.csv").write_text("x0,x1,x2\n" + "1,2,3\n" * 2000)
    assert open_data("npz:a.npz", [X], base=tmp_path).train.count == 1000
    monkeypatch.setattr(data_places, "machine_memory", lambda: 10_000)
    for source in ("npz:a.npz", "csv:b.csv"):
        assert "10,000" in refused("DL0715", source, [X], base=tmp_path)


def test_a_container_has_less_memory(tmp_path: Path) -> None:
    whole = data_places.machine_memory(tmp_path / "none")
    for text, want in (("max\n", whole), ("1048576\n", 1 << 20), (f"{whole * 8}\n", whole), ("", whole)):
        (tmp_path / "memory.max").write_text(text)
        assert data_places.machine_memory(tmp_path / "memory.max") == want


# --- from Python ---------------------------------------------------------------------------------------------------------


class Numbered:
    """Examples by number, as many libraries' data sets have them; no iterator."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, int]:
        return np.full(3, i), np.eye(2) * i, i


def test_examples_by_number_with_several_inputs() -> None:
    data = from_python(Numbered(), [X, Field("m", "f32", (2, 2)), Y])
    assert (
        data.train.count == 5
        and data.train.arrays["m"][3].tolist() == [[3, 0], [0, 3]]
        and data.train.arrays["y"].tolist() == [0, 1, 2, 3, 4]
    )


def test_a_share_is_held_out_where_no_test_is_given() -> None:
    given_arrays = (np.arange(30.0).reshape(10, 3), np.arange(10))
    data = from_python(given_arrays, [X, Y], options={"test": 0.3, "columns": ("a",), "count": 5})
    assert data.train.count == 7 and data.test is not None and data.test.count == 3
    both = from_python({"train": given_arrays, "test": given_arrays}, [X, Y], options={"test": 0.3})
    assert both.train.count == 10 and both.test is not None and both.test.count == 10
