"""Text: codings there and back, windows, packing, documents, the held-out end, buckets, and what is stored and refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dslc.api.pictures import read_inputs, texts_of
from dslc.data import Batches, DataDescription, Field, open_data
from dslc.data.coding import UNKNOWN, Coding, listed_coding, read_coding
from dslc.data.text import untagged
from dslc.diagnostics import DiagnosticError
from dslc.ir.plan import PortPlan, batch_times

TEXT = "the cat sat on the mat. the dog sat on the log, and the cat sat on the dog.\n"
X, Y = Field("x", "i64", (8,)), Field("y", "i64", (8,))


def opened(folder: Path, source: str, *fields: Field, **options: Any) -> Any:
    return open_data(source, fields, options=options, base=folder)


def rows(split: Any, description: DataDescription) -> list[dict[str, np.ndarray]]:
    """Every example once, by field."""
    batches = Batches(split, description.fields, 1)
    return [{name: array[0].copy() for name, array in batch.items()} for batch, _ in batches.in_order()]


def code_of(source: str, folder: Path, fields: tuple[Field, ...] = (X,), options: Mapping[str, Any] | None = None) -> str:
    with pytest.raises(DiagnosticError) as caught:
        open_data(source, fields, options=options or {}, base=folder)
    return caught.value.diagnostics[0].code


# ---- codings --------------------------------------------------------------------------------------------------------


def test_bytes_and_characters_come_back() -> None:
    text = "Aé€😀\n"
    coding = Coding("bytes")
    assert coding.encode(text).tolist() == list(text.encode()) and coding.decode(coding.encode(text)) == text
    coding = listed_coding("characters", [text], 10)
    assert coding.symbols == tuple(sorted(text)) and coding.decode(coding.encode(text)) == text
    with pytest.raises(DiagnosticError, match="DL0716"):
        coding.encode("B")


def test_a_small_vocabulary_keeps_what_is_frequent() -> None:
    coding = listed_coding("characters", ["aaabbcd"], 3)
    assert coding.symbols == (UNKNOWN, "a", "b") and coding.encode("abcx").tolist() == [1, 2, 0, 0]
    coding = listed_coding("words", ["The cat's hat. The END"], 4)
    assert coding.symbols == (UNKNOWN, ".", "cat's", "the") and coding.encode("the hat .").tolist() == [3, 0, 1]
    assert coding.decode([3, 2, 9]) == "the cat's"


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "cafe", ",", "!", "日", "b"]


def test_word_pieces_are_the_longest_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    coding = read_coding(tmp_path / "vocab.txt")
    numbers = coding.encode("Unaffable,\tCAFÉ! 日b xyz\u200d", whole=True)
    assert [coding.symbols[n] for n in numbers] == ["[CLS]", "un", "##aff", "##able", ",", "cafe", "!", "日", "b", "[UNK]", "[SEP]"]
    assert coding.decode(numbers) == "unaffable , cafe ! 日 b [UNK]"
    assert coding.encode("b" * 101).tolist() == [1]
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(DiagnosticError, match="DL0703"):
        read_coding(tmp_path / "vocab.txt")


def tokenizer_file(path: Path) -> Path:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.train_from_iterator([TEXT] * 5, tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=["<end>"], show_progress=False))
    made.enable_truncation(4)
    made.save(str(path))
    return path


def test_a_tokenizer_file_is_read_without_its_truncation(tmp_path: Path) -> None:
    coding = read_coding(tokenizer_file(tmp_path / "t.json"))
    numbers = coding.encode(TEXT)
    assert 4 < len(numbers) < len(TEXT) and coding.decode(numbers) == TEXT
    (tmp_path / "f.txt").write_text(TEXT * 10)
    data = opened(tmp_path, "text:f.txt", X, Y, level="t.json")
    assert data.description.coding is not None and DataDescription.from_json(data.description.to_json()) == data.description
    (tmp_path / "t.json").write_text('{"version": "1.0"}')
    with pytest.raises(DiagnosticError, match="DL0703"):
        read_coding(tmp_path / "t.json")


def test_without_its_library_a_tokenizer_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.json").write_text('{"version": "1.0", "other": 1}')
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DiagnosticError, match="DL0717"):
        read_coding(tmp_path / "t.json")


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_windows_and_what_follows(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_bytes(bytes(range(100)))
    data = opened(tmp_path, "text:f.txt", X, Y, Field("next", "i64"), test=0.3, stride=5)
    train, test = rows(data.train, data.description), rows(data.test, data.description)
    assert [r["x"][0] for r in train] == list(range(0, 62, 5))  # the last needs 8 symbols and one more, of 70
    assert [r["x"][0] for r in test] == [70, 78, 86]  # the held-out end, each symbol once
    for row in train + test:
        np.testing.assert_array_equal(row["x"], row["x"][0] + np.arange(8))
        np.testing.assert_array_equal(row["y"], row["x"] + 1)
        assert row["next"] == row["x"][-1] + 1
    batches = Batches(data.train, data.description.fields, 4)
    assert not batches.threaded
    assert 70 < data.train.nbytes < 70 + 8 * 4 * len(train)  # the text once, and where windows begin
    whole = [b["x"].copy() for b, _ in batches.shuffled(3, 1)]
    again = [b["x"].copy() for b, _ in batches.shuffled(3, 1, start=8)]
    np.testing.assert_array_equal(np.concatenate(whole)[8:], np.concatenate(again))
    assert sorted(np.concatenate(whole)[:, 0]) == [r["x"][0] for r in train]
    other = opened(tmp_path, "text:f.txt", X, Y, Field("next", "i64"), test=0.3, stride=4)
    assert data.fingerprint() != other.fingerprint()


def test_packing_keeps_documents_whole_and_apart(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("abc\ndefg\n\nhijklmnopqr\nst\nu\n")
    fields = (X, Y, Field("segments", "i64", (8,)), Field("positions", "i64", (8,)), Field("mask", "bool", (8,)), Field("length", "i64"))
    data = opened(tmp_path, "text:f.txt", *fields, rows="packed", documents="lines")
    found = rows(data.train, data.description)
    assert [bytes(r["x"].astype(np.uint8)).rstrip(b"\0") for r in found] == [b"abcdefg", b"hijklmno", b"pqrstu"]
    first = found[0]
    assert bytes(np.where(first["y"] < 0, ord("."), first["y"]).astype(np.uint8)) == b"bc.efg.."
    assert first["segments"].tolist() == [1, 1, 1, 2, 2, 2, 2, 0] and first["positions"].tolist() == [0, 1, 2, 0, 1, 2, 3, 0]
    assert first["mask"].tolist() == [True] * 7 + [False] and first["length"] == 7
    assert found[2]["segments"].tolist() == [1, 1, 1, 2, 2, 3, 0, 0]


def test_documents_in_rows_of_like_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 12, 90)
    (tmp_path / "f.txt").write_text("\n".join("abcdefghijkl"[:n] for n in lengths))
    fields = (X, Y, Field("length", "i64"), Field("mask", "f32", (8,)))
    data = opened(tmp_path, "text:f.txt", *fields, rows="documents", documents="lines", bucket=4, test=0.2)
    found = rows(data.train, data.description)
    np.testing.assert_array_equal([r["length"] for r in found], lengths[:72].clip(max=8))
    for row, n in zip(found, lengths, strict=False):
        text = b"abcdefghijkl"[: min(n, 8)]
        assert bytes(row["x"].astype(np.uint8)) == text.ljust(8, b"\0")
        assert row["y"].tolist() == [*b"abcdefghijkl"[1 : min(n, 9)], *[-1] * (8 - len(b"abcdefghijkl"[1 : min(n, 9)]))]
        assert row["mask"].tolist() == [1.0] * len(text) + [0.0] * (8 - len(text))
    batches = Batches(data.train, data.description.fields, 8)
    seen = [b["length"].copy() for b, _ in batches.shuffled(1, 0)]
    assert sum(int(b.max() - b.min()) for b in seen) < 0.5 * sum(int(b.max() - b.min()) for b in np.split(lengths[:72].clip(max=8), 9))
    assert sorted(np.concatenate(seen)) == sorted(lengths[:72].clip(max=8))
    assert [b.tolist() for b in seen] != [b["length"].tolist() for b, _ in batches.shuffled(1, 1)]
    resumed = [b["length"].copy() for b, _ in batches.shuffled(1, 0, start=16)]
    np.testing.assert_array_equal(np.concatenate(resumed), np.concatenate(seen[2:]))


def test_a_folder_of_classes_gives_windows_within_one_text(tmp_path: Path) -> None:
    for name, text in {"cats/1": "c" * 20, "cats/2": "C" * 25, "dogs/1": "d" * 9, "dogs/2": "D" * 30}.items():
        path = tmp_path / "animals" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    data = opened(tmp_path, "text:animals/", X, Field("label", "i64"), test=0.5)
    assert data.description["label"].classes == ("cats", "dogs")
    train, test = rows(data.train, data.description), rows(data.test, data.description)
    assert [(chr(r["x"][0]), int(r["label"])) for r in train] == [("c", 0), ("c", 0), ("d", 1)]
    assert [(chr(r["x"][0]), int(r["label"])) for r in test] == [("C", 0)] * 3 + [("D", 1)] * 3
    assert all(len(set(r["x"].tolist())) == 1 for r in train + test)
    joined = opened(tmp_path, "text:animals/cats/", X)
    assert b"".join(bytes(r["x"].astype(np.uint8)) for r in rows(joined.train, joined.description)).startswith(
        b"c" * 20 + b"\n" + b"C" * 19
    )


def test_tags_of_the_brown_corpus_are_taken_off(tmp_path: Path) -> None:
    tagged = "\n\n\tThe/at jury/nn said/vbd ,/, ``/`` No/at !/. !/. ''/'' It/pps\n\tagreed/vbd (/( 1/2/cd )/) ./.\n\n\n\tA/at -/-- b/nn\n"
    assert untagged(tagged) == 'The jury said, "No!" It agreed (1/2).\nA - b\n'
    for letter in "ab":
        for n in range(1, 4):
            (tmp_path / f"c{letter}0{n}").write_text(f"\tWord{letter}{n}/nn here/rb ./.\n")
    data = open_data("brown", (X, Field("label", "i64")), folders=[tmp_path], options={"rows": "documents"})
    assert [int(r["label"]) for r in rows(data.train, data.description)] == [0, 0, 1, 1] and data.test is not None and data.test.count == 2
    assert data.description["label"].classes[:2] == ("press: reportage", "press: editorial")


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text(TEXT)
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES))
    label, mask = Field("label", "i64"), Field("mask", "bool", (8,))
    assert code_of("text:nowhere.txt", tmp_path) == "DL0702"
    assert code_of("text:../f.txt", tmp_path / "sub") == "DL0705"
    assert code_of("text:latin.txt", tmp_path, options={"level": "characters", "vocabulary": 9}) == "DL0703"
    assert code_of("text:f.txt", tmp_path, (X, label)) == "DL0704"  # a file has no classes
    assert code_of("text:f.txt", tmp_path, (X, mask)) == "DL0704"
    assert code_of("text:f.txt", tmp_path, (X, Field("y", "i64", (9,)))) == "DL0704"
    assert code_of("text:f.txt", tmp_path, (X, Y, Field("z", "i64", (8,)))) == "DL0704"
    assert code_of("text:f.txt", tmp_path, (label,)) == "DL0704"
    assert code_of("text:f.txt", tmp_path, (Field("x", "i64", (80,)),)) == "DL0706"
    assert code_of("text:f.txt", tmp_path, options={"level": "characters"}) == "DL0710"
    assert code_of("text:f.txt", tmp_path, options={"level": "vocab.txt", "vocabulary": 5}) == "DL0710"
    assert code_of("text:f.txt", tmp_path, options={"vocabulary": 100}) == "DL0710"
    assert code_of("text:f.txt", tmp_path, options={"bucket": 4}) == "DL0710"
    assert code_of("text:f.txt", tmp_path, options={"rows": "packed", "stride": 4}) == "DL0710"
    assert code_of("text:f.txt", tmp_path, options={"rows": "columns"}) == "DL0710"
    assert code_of("text:f.txt", tmp_path, options={"normalize": True}) == "DL0710"
    assert code_of("text:f.txt", tmp_path, options={"test": 0.001}) == "DL0706"
    assert code_of("brown", tmp_path) == "DL0702"


# ---- in and out of a program --------------------------------------------------------------------------------------------


def test_texts_go_in_as_in_training_and_come_out(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text(TEXT * 3)
    data = opened(tmp_path, "text:f.txt", X, Y, level="characters", vocabulary=30)
    description = DataDescription.from_json(data.description.to_json())
    assert description == data.description
    ports = [PortPlan("x", "i64", (batch_times(), 8), 0), PortPlan("length", "i32", (batch_times(),), 0)]
    (tmp_path / "a.txt").write_text("the cat sat")
    found = read_inputs([("x", tmp_path / "a.txt"), ("x", "dog")], ports, description)
    assert (
        texts_of(description, found["x"][:1]) == ["the cat "] and found["length"].tolist() == [8, 3] and found["length"].dtype == np.int32
    )
    np.testing.assert_array_equal(found["x"][1, 3:], 0)
    assert texts_of(description, np.zeros((2, 3), np.float32)) is None and texts_of(None, found["x"]) is None
    for given, told in ((("x", "€"), description), (("x", "a"), None), (("length", "a"), description)):
        with pytest.raises(DiagnosticError, match="DL0716" if given[1] == "€" else "DL0808"):
            read_inputs([given], ports, told)
