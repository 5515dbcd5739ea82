"""How text becomes numbers and back: bytes, characters, words, the word pieces of a `vocab.txt`, or a tokenizer file.

A coding is part of a data set's description, so that it is stored with trained weights: text given to `dslc run` is encoded as in
training, and numbers that a network generates are decoded.

| level | a symbol is |
|---|---|
| bytes | one of the 256 bytes of UTF-8 |
| characters | a character of the text; in the order of code points |
| words | a word in lower case, or a sign; in the order of the alphabet |
| wordpiece | a line of BERT's `vocab.txt` |
| tokenizer | whatever a `tokenizer.json` says, through the library `tokenizers` |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dslc.data import wordpiece
from dslc.data.description import refuse
from dslc.data.places import check_memory

LEVELS = ("bytes", "characters", "words")
UNKNOWN = "\ufffd"
"""Stands for what a vocabulary of limited size leaves out; its number is 0."""
_MOST_BYTES = 64 << 20  # of a tokenizer's file
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")

Numbers = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Coding:
    """`symbols` are those of levels that list them, by number; `definition` is the content of a tokenizer file."""

    level: str
    symbols: tuple[str, ...] = ()
    definition: str = ""

    @property
    def size(self) -> int:
        """How many symbols there are."""
        if self.level == "bytes":
            return 256
        if self.level == "tokenizer":
            size: int = _tokenizer(self.definition).get_vocab_size()
            return size
        return len(self.symbols)

    def encode(self, text: str, whole: bool = False) -> Numbers:
        """The numbers of a text; `whole` adds the marks that a tokenizer puts around a text. DL0716 for what has no number."""
        match self.level:
            case "bytes":
                return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)
            case "characters":
                return _characters(self.symbols, text)
            case "words":
                table = _positions(self.symbols)
                return np.array([table.get(word, -1) for word in words(text)], np.int32).clip(0)
            case "wordpiece":
                return np.array(wordpiece.encode(text, _positions(self.symbols), wordpiece.is_cased(self.symbols), whole), np.int32)
            case _:
                return np.array(_tokenizer(self.definition).encode(text, add_special_tokens=whole).ids, np.int32)

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of numbers; what is no symbol's number is left out."""
        kept = [int(n) for n in numbers if 0 <= n < self.size]
        match self.level:
            case "bytes":
                return bytes(kept).decode("utf-8", "replace")
            case "characters":
                return "".join(self.symbols[n] for n in kept)
            case "words":
                return " ".join(self.symbols[n] for n in kept)
            case "wordpiece":
                return wordpiece.decode([self.symbols[n] for n in kept])
            case _:
                text: str = _tokenizer(self.definition).decode(kept)
                return text

    def to_raw(self) -> dict[str, object]:
        """What goes into JSON."""
        return {"level": self.level, "symbols": list(self.symbols), "definition": self.definition}

    @staticmethod
    def from_raw(raw: Mapping[str, Any]) -> Coding:
        """Reads `to_raw`. Raises ValueError, KeyError or TypeError for anything else."""
        coding = Coding(str(raw["level"]), tuple(str(s) for s in raw["symbols"]), str(raw["definition"]))
        if coding.level not in (*LEVELS, "wordpiece", "tokenizer"):
            raise ValueError(f"unknown level of text {coding.level!r}")
        if coding.level in ("characters", "words", "wordpiece") and not coding.symbols:
            raise ValueError("a vocabulary without symbols")
        if coding.level == "characters" and any(len(s) != 1 for s in coding.symbols):
            raise ValueError("a character that is none")
        return coding


def words(text: str) -> list[str]:
    """The words of a text in lower case, and its signs."""
    found: list[str] = _WORD.findall(text.lower())
    return found


def listed_coding(level: str, texts: Sequence[str], most: int) -> Coding:
    """The coding of the characters or words of these texts: all where there are at most `most`, else the most frequent ones and `UNKNOWN`.

    Words always have `UNKNOWN`, as further texts have further words.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text if level == "characters" else words(text))
    kept = sorted(counts)
    if level == "words" or len(kept) > most:
        room = most - 1
        kept = [UNKNOWN, *sorted(sorted(counts.keys() - {UNKNOWN}, key=lambda s: (-counts[s], s))[:room])]
    return Coding(level, tuple(kept))


def read_coding(path: Path) -> Coding:
    """The coding of a tokenizer file: `vocab.txt`, one piece a line, or a `tokenizer.json`. Errors: DL0702, DL0703, DL0717."""
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise refuse("DL0703", f"{path} has {size:,} bytes, more than a tokenizer", "give a tokenizer.json or a vocab.txt")
        check_memory(8 * size, str(path))
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise refuse("DL0703", f"{path} is no UTF-8 text: {error}", "give a tokenizer.json or a vocab.txt") from error
    except OSError as error:
        raise refuse("DL0702", f"cannot read {path}: {error.strerror or error}", "check the file's permissions") from error
    if path.suffix.lower() == ".txt":
        pieces = tuple(text.split("\n"))
        pieces = pieces[:-1] if pieces and not pieces[-1] else pieces
        pieces = tuple(p.removesuffix("\r") for p in pieces)
        missing = next((m for m in wordpiece.MARKS if m not in pieces), None)
        if missing is not None:
            raise refuse(
                "DL0703", f"{path} has no line {missing}, so it is no vocabulary of word pieces", "give BERT's vocab.txt, one piece a line"
            )
        return Coding("wordpiece", pieces)
    coding = Coding("tokenizer", definition=text)
    try:
        _tokenizer(text)
    except ImportError as error:
        raise refuse("DL0717", f"{path} is read by the library 'tokenizers', which is not installed", "pip install 'dslc[text]'") from error
    except Exception as error:  # the library raises no narrower class
        raise refuse(
            "DL0703", f"{path} is no tokenizer: {str(error)[:200]}", "give a tokenizer.json as Hugging Face's libraries write it"
        ) from error
    return coding


@lru_cache(maxsize=4)
def _tokenizer(definition: str) -> Any:
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(definition)
    made.no_padding()
    made.no_truncation()
    return made


@lru_cache(maxsize=4)
def _positions(symbols: tuple[str, ...]) -> dict[str, int]:
    return {symbol: n for n, symbol in reversed(list(enumerate(symbols)))}


def _characters(symbols: tuple[str, ...], text: str) -> Numbers:
    points = np.array([ord(s) for s in symbols], np.uint32)
    order = np.argsort(points, kind="stable")
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    place = order[np.searchsorted(points[order], codes).clip(0, len(points) - 1)]
    known = points[place] == codes
    if not known.all():
        if symbols[0] != UNKNOWN:
            alien = text[int(np.argmin(known))]
            raise refuse("DL0716", f"the vocabulary has no character {alien!r}", f"it has {len(symbols)}: {''.join(symbols)[:80]!r}")
        place = np.where(known, place, 0)
    numbers: Numbers = place.astype(np.int32)
    return numbers
