"""Series: windows of what was and what came next, the held-out end, statistics of training alone; and the synthesised tones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dslc.data import Batches, DataDescription, Field, open_data
from dslc.data.tones import FORMANTS, RATE
from dslc.diagnostics import DiagnosticError

PAST, NEXT, AT = Field("past", "f32", (4,)), Field("future", "f32", (2,)), Field("at", "i64")


def table(folder: Path, count: int = 40) -> Path:
    rows = [f"2000-{n:03},{n},{100 - n * n}" for n in range(count)]
    (folder / "f.csv").write_text("\n".join(["day,first,second", *rows]) + "\n")
    return folder


def test_the_future_lies_directly_behind(tmp_path: Path) -> None:
    data = open_data("series:f.csv", (PAST, NEXT, AT), options={"columns": ("first",), "test": 0.25, "stride": 3}, base=table(tmp_path))
    assert data.test is not None
    for split, first, last in ((data.train, 0, 29), (data.test, 30, 39)):
        ((batch, count),) = Batches(split, data.description.fields, 100).in_order()
        for n in range(count):
            at = int(batch["at"][n])
            assert batch["past"][n].tolist() == [at - 4, at - 3, at - 2, at - 1] and batch["future"][n].tolist() == [at, at + 1]
            assert at % 3 == 1 and at >= first and at + 1 <= last
        assert count == {0: 9, 30: 3}[first]


def test_columns_may_come_first_or_last_and_are_normalised_each(tmp_path: Path) -> None:
    fields = (Field("past", "f64", (5, 2)), Field("rows", "f64", (2, 3)))
    data = open_data("series:f.csv", fields, options={"columns": ("first", "second"), "normalize": True, "test": 0.5}, base=table(tmp_path))
    assert DataDescription.from_json(data.description.to_json()) == data.description
    n = np.arange(40.0)
    values = np.stack([n, 100 - n * n], 1)
    values = (values - values[:20].mean(0)) / values[:20].std(0)
    ((batch, count),) = Batches(data.train, data.description.fields, 100).in_order()
    assert count == 13
    for k in range(count):
        np.testing.assert_allclose(batch["past"][k], values[k : k + 5], atol=1e-12)
        np.testing.assert_allclose(batch["rows"][k], values[k + 5 : k + 8].T, atol=1e-12)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    def code(*fields: Field, **options: object) -> str:
        with pytest.raises(DiagnosticError) as caught:
            open_data("series:f.csv", fields, options=options, base=table(tmp_path))  # type: ignore[arg-type]
        return caught.value.diagnostics[0].code

    assert code(PAST, NEXT, columns=("third",)) == "DL0708"
    assert code(PAST, NEXT, columns=("day",)) == "DL0707"
    assert code(PAST, NEXT, NEXT, columns=("first",)) == "DL0704"
    assert code(AT, columns=("first",)) == "DL0704"
    assert code(Field("past", "i64", (4,)), columns=("first",)) == "DL0704"
    assert code(Field("past", "f32", (60,)), columns=("first",)) == "DL0706"
    assert code(PAST, NEXT, columns=("first",), test=0.02) == "DL0706"
    assert code(PAST, columns=("first",), count=3) == "DL0710"


# ---- tones ------------------------------------------------------------------------------------------------------------

SOUND, SAYS, COUNT, SAMPLES = Field("sound", "f32", (8000,)), Field("says", "i64", (4,)), Field("count", "i64"), Field("samples", "i64")


def test_tones_say_what_they_are_said_to() -> None:
    """By the two loudest of the formants, in each stretch between silences; and the same numbers again."""
    data = open_data("tones", (SOUND, SAYS, COUNT, SAMPLES), options={"count": 12, "seed": 5})
    assert data.test is not None and data.test.count == 3 and data.description["sound"].rate == RATE
    ((batch, _),) = Batches(data.train, data.description.fields, 12).in_order()
    again = open_data("tones", (SOUND, SAYS, COUNT, SAMPLES), options={"count": 12, "seed": 5})
    assert again.fingerprint() == data.fingerprint() != open_data("tones", (SOUND,), options={"count": 12, "seed": 6}).fingerprint()
    for n in range(12):
        sound, samples, count = batch["sound"][n], int(batch["samples"][n]), int(batch["count"][n])
        assert not sound[samples:].any() and np.abs(sound).max() <= 1 and 1 <= count <= 4
        assert (batch["says"][n, :count] > 0).all() and not batch["says"][n, count:].any()
        loud = np.convolve(sound**2, np.ones(80) / 80, "same") > 0.004
        edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
        parts = [sound[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 400]
        heard = []
        for part in parts:
            spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 8000))  # a bin is 1 Hz
            strength = [[spectrum[int(f * 0.93) : int(f * 1.07)].max() for f in pair] for pair in FORMANTS]
            heard.append(1 + int(np.argmax([min(a, 1.5 * b) for a, b in strength])))
        assert heard == batch["says"][n, :count].tolist()


@pytest.mark.parametrize("fields", [(SAYS,), (Field("sound", "f32", (1000,)),), (SOUND, SAYS, COUNT, Field("other", "i64"))])
def test_tones_refuse_what_they_lack(fields: tuple[Field, ...]) -> None:
    with pytest.raises(DiagnosticError, match="DL0704"):
        open_data("tones", fields)
