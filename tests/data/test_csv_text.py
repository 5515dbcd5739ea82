"""Tables of any text: what is written comes back, and what is no table is refused with a code of its own."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dslc.data import Field, open_data
from dslc.diagnostics import DiagnosticError

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6).filter(
    lambda w: w.strip() == w and w.lower() not in ("na", "n/a", "nan", "null", "none", "?") and not _number(w)
)


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


@given(st.lists(st.tuples(NUMBERS, st.integers(-(2**63), 2**63 - 1), WORDS), min_size=1, max_size=12), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_comes_back(tmp_path: Path, rows: list[tuple[float, int, str]], end: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerows([("x", "n", "word"), *((repr(x), n, w) for x, n, w in rows)])
    (tmp_path / "t.csv").write_bytes(text.getvalue().encode())
    data = open_data("csv:t.csv", [Field("x", "f64"), Field("n", "i64"), Field("word", "i64")], base=tmp_path)
    arrays = data.train.arrays
    assert arrays["x"].tolist() == [x for x, _, _ in rows] and arrays["n"].tolist() == [n for _, n, _ in rows]
    assert [data.description["word"].classes[i] for i in arrays["word"]] == [w for _, _, w in rows]


@given(st.binary(max_size=80) | st.text("x,y01.5\"'\n\r \0nae-+", max_size=80).map(str.encode))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    for head in (b"", b"x,y\n"):
        (tmp_path / "t.csv").write_bytes(head + content)
        try:
            data = open_data("csv:t.csv", [Field("x", "f32"), Field("y", "i64")], base=tmp_path)
            assert np.isfinite(data.train.arrays["x"]).all() and data.train.count >= 1
        except DiagnosticError as error:
            assert error.diagnostics[0].code in ("DL0703", "DL0707", "DL0708")
