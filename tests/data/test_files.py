"""npz and csv files, and data from Python."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dslc.data import DataSet, Field, from_python, open_data
from dslc.diagnostics import DiagnosticError

X, Y = Field("x", "f32", (4,)), Field("y", "i64")


def refused(code: str, source: str, fields: list[Field], **options: object) -> str:
    with pytest.raises(DiagnosticError) as caught:
        open_data(source, fields, **options)  # type: ignore[arg-type]
    assert [d.code for d in caught.value.diagnostics] == [code], caught.value.render()
    return caught.value.render()


def refused_python(code: str, data: object, fields: list[Field]) -> str:
    with pytest.raises(DiagnosticError) as caught:
        from_python(data, fields)
    assert [d.code for d in caught.value.diagnostics] == [code], caught.value.render()
    return caught.value.render()


def arrays(count: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {"x": rng.normal(size=(count, 4)), "y": rng.integers(0, 3, count)}


def test_npz_plain_and_with_both_parts(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays())
    data = open_data("npz:a.npz", [X, Y], base=tmp_path)
    assert data.train.count == 6 and data.test is None and data.train.arrays["x"].dtype == np.float32
    parts = {f"{part}_{k}": v for part, n in (("train", 6), ("test", 3)) for k, v in arrays(n).items()}
    np.savez_compressed(tmp_path / "b.npz", **parts)
    data = open_data("npz:b.npz", [X, Y], folders=[tmp_path])
    assert data.train.count == 6 and data.test is not None and data.test.count == 3


def test_npz_never_unpickles(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "exploded"),)

    np.savez(tmp_path / "a.npz", allow_pickle=True, x=np.array([Bomb()], dtype=object), y=np.zeros(1))
    refused("DL0703", "npz:a.npz", [X, Y], base=tmp_path)
    (tmp_path / "b.npz").write_bytes(pickle.dumps({"x": 1}))
    refused("DL0703", "npz:b.npz", [X, Y], base=tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_npz_damaged_missing_and_wrong(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", **arrays(500))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("cut", "flipped", "empty"):
        refused("DL0703", f"npz:{name}.npz", [X, Y], base=tmp_path)
    np.save(tmp_path / "single.npy", np.zeros(3))
    refused("DL0703", "npz:single.npy", [X, Y], base=tmp_path)
    refused("DL0702", "npz:nowhere.npz", [X, Y], base=tmp_path)
    refused("DL0702", "npz:", [X, Y], base=tmp_path)
    assert "'x', 'y'" in refused("DL0706", "npz:a.npz", [X, Field("label", "i64")], base=tmp_path)
    refused("DL0704", "npz:a.npz", [Field("x", "f32", (5,)), Y], base=tmp_path)


def test_paths_do_not_escape(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    np.savez(tmp_path / "a.npz", **arrays())
    (inner / "link.npz").symlink_to(tmp_path / "a.npz")
    for name in ("../a.npz", str(tmp_path / "a.npz"), "link.npz"):
        refused("DL0705", f"npz:{name}", [X, Y], base=inner)
    assert open_data("npz:inner/../a.npz", [X, Y], base=tmp_path).train.count == 6


def table(tmp_path: Path, text: str) -> Path:
    (tmp_path / "t.csv").write_text(text)
    return tmp_path


def test_csv_columns_by_name_by_number_and_what_is_left(tmp_path: Path) -> None:
    want = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.5]]
    for header in ("y,x0,x1,x2,x3", "y,x_0,x_1,x_2,x_3", "y,length,width,height,mass"):
        data = open_data("csv:t.csv", [X, Y], base=table(tmp_path, f"{header}\n0,1,2,3,4\n\n2,5,6,7,8.5\n"))
        assert data.train.arrays["x"].tolist() == want and data.train.arrays["y"].tolist() == [0, 2]
        assert data.train.arrays["x"].dtype == np.float32
    data = open_data("csv:t.csv", [X, Y], base=table(tmp_path, "x3,y,x1,x0,x2\n4,7,2,1,3\n"))
    assert data.train.arrays["x"].tolist() == want[:1]


def test_csv_words_become_classes(tmp_path: Path) -> None:
    rows = "".join(f"{i},1,2,3,{name}\n" for i, name in enumerate(["rose", "iris", "rose", "lily"]))
    data = open_data("csv:t.csv", [X, Y], base=table(tmp_path, "a,b,c,d,y\n" + rows))
    assert data.description["y"].classes == ("iris", "lily", "rose")
    assert data.train.arrays["y"].tolist() == [2, 0, 2, 1]


def test_csv_large_integers_are_exact(tmp_path: Path) -> None:
    data = open_data("csv:t.csv", [Field("n", "i64")], base=table(tmp_path, "n\n9007199254740993\n-3\n4.0\n"))
    assert data.train.arrays["n"].tolist() == [9007199254740993, -3, 4]


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("x0,x1,x2,x3,y\n1,2,3,4,0\n1,,3,4,0\n", "DL0707", "line 3: the value of 'x1' is missing"),
        ("x0,x1,x2,x3,y\n1,2,3,4,0\n\n1,2,nan,4,0\n", "DL0707", "line 4: the value of 'x2' is missing"),
        ("x0,x1,x2,x3,y\n1,2,3,4,\n", "DL0707", "line 2: the value of 'y' is missing"),
        ("x0,x1,x2,x3,y\n1,2,three,4,0\n", "DL0707", "line 2: 'x2' is 'three', not a number"),
        ("x0,x1,x2,x3,y\n1,2,1e999,4,0\n", "DL0707", "not a number"),
        ("x0,x1,x2,x3,y\n1,2,3,4,0\n1,2,3,-1e39,0\n", "DL0707", "line 3: 'x3' is '-1e39', not a number within f32"),
        ("x0,x1,x2,x3,y\n1,2,3,4,0.5\n", "DL0707", "line 2: 'y' is '0.5', not a whole number"),
        ("x0,x1,x2,x3,y\n1,2,3,4,9999999999999999999\n", "DL0707", "not a whole number"),
        ("x0,x1,x2,x3,y\n1,2,3,4\n", "DL0707", "line 2: 4 values where the header names 5 columns"),
        ("x0,x1,x2,x3,x0\n", "DL0708", "two columns named 'x0'"),
        ("x0,x1,x2,x3\n1,2,3,4\n", "DL0708", "does not have a column 'y'"),
        ("x0,x1,y\n1,2,0\n", "DL0708", "4 columns 'x0'..'x3'"),
        ("x0,x1,x2,x3,y\n", "DL0708", "no rows below its header"),
        ("", "DL0708", "is empty"),
        ('x0,x1,x2,x3,y\n1,2,3,4,"0\n', "DL0703", "unexpected end of data"),
        ("x0,x1,x2,x3,y\n1,2,3,4,rose\n1,2,3,4,\n", "DL0707", "line 3: the value of 'y' is missing"),
    ],
)
def test_csv_refusals(tmp_path: Path, text: str, code: str, says: str) -> None:
    assert says in refused(code, "csv:t.csv", [X, Y], base=table(tmp_path, text))


def test_csv_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"x0,y\n\xff\xfe\x00,1\n")
    refused("DL0703", "csv:t.csv", [Field("x0", "f32"), Y], base=tmp_path)


def test_python_arrays_are_not_copied() -> None:
    x, y = np.ones((5, 4), np.float32), np.zeros(5, np.int64)
    for given in ({"x": x, "y": y}, (x, y), {"train": (x, y), "test": None}):
        data = from_python(given, [X, Y])
        assert data.train.count == 5 and data.test is None
        assert np.shares_memory(data.train.arrays["x"], x)


def test_python_both_parts_and_strided_arrays() -> None:
    x, y = np.arange(40.0).reshape(4, 10).T, np.zeros(10, np.uint8)
    data: DataSet = from_python({"train": (x, y), "test": {"x": x[::2], "y": y[::2]}}, [X, Y])
    assert data.test is not None and data.test.count == 5
    assert data.train.arrays["x"].flags.c_contiguous and np.array_equal(data.train.arrays["x"], x)


def test_python_examples() -> None:
    def generated() -> Iterator[object]:
        for i in range(7):
            yield [i, 0, 0, 1], i % 2

    for given in (generated(), list(generated()), [{"x": e[0], "y": e[1]} for e in generated()]):  # type: ignore[index]
        data = from_python(given, [X, Y])
        assert data.train.count == 7 and data.train.arrays["x"][3].tolist() == [3.0, 0.0, 0.0, 1.0]
        assert data.train.arrays["y"].tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_shapes_that_differ_in_ones_only() -> None:
    data = from_python((np.ones((3, 28, 28)), np.zeros((3, 1), np.int32)), [Field("image", "f32", (1, 28, 28)), Field("label", "i64")])
    assert data.train.arrays["image"].shape == (3, 1, 28, 28) and data.train.arrays["label"].shape == (3,)


@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("DL0709", (np.ones((3, 4)),)),
        ("DL0709", "digits"),
        ("DL0709", 7),
        ("DL0709", [(np.ones(4), 1, 2)]),
        ("DL0709", [(np.ones(4), 1), (np.ones(3), 1)]),
        ("DL0709", [{"x": np.ones(4)}]),
        ("DL0709", [([1, [2, 3]], 0)]),
        ("DL0706", {"x": np.ones((3, 4))}),
        ("DL0706", (np.ones((3, 4)), np.zeros(2, int))),
        ("DL0706", (np.ones((0, 4)), np.zeros(0, int))),
        ("DL0706", []),
        ("DL0704", (np.ones((3, 5)), np.zeros(3, int))),
        ("DL0704", (np.float32(1), np.zeros(3, int))),
        ("DL0704", (np.ones((3, 4)), np.zeros(3))),
        ("DL0704", (np.ones((3, 4)), np.array(["a", "b", "c"]))),
        ("DL0704", (np.ones((3, 4)), np.array([1, None, 2], dtype=object))),
        ("DL0704", (np.ones((3, 4), complex), np.zeros(3, int))),
        ("DL0704", (np.ones((3, 4)), np.full(3, 2**63, np.uint64))),
    ],
)
def test_python_refusals(code: str, data: object) -> None:
    refused_python(code, data, [X, Y])
