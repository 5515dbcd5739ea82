"""BERT's word pieces from a `vocab.txt`, without another library: text in lower case, accents dropped, words cut into the longest known pieces.

J. Devlin et al., "BERT: pre-training of deep bidirectional transformers", 2018; Y. Wu et al., "Google's neural machine translation system",
2016. As Hugging Face's `BertTokenizer` with its defaults, whose vocabularies are in lower case; where a vocabulary has pieces with
capital letters, text keeps its case and accents.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

UNKNOWN, FIRST, LAST, PADDING, MASK = "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"
MARKS = (UNKNOWN, FIRST, LAST, PADDING)
_LONGEST = 100  # characters of a word; a longer one is unknown


def encode(text: str, pieces: Mapping[str, int], cased: bool, whole: bool) -> list[int]:
    """The numbers of a text's pieces, with `whole` between [CLS] and [SEP]."""
    found = [n for word in split_words(text, cased) for n in _pieces(word, pieces)]
    return [pieces[FIRST], *found, pieces[LAST]] if whole else found


def decode(pieces: Sequence[str]) -> str:
    """The words again, without marks; a space before every piece that begins one."""
    text = " ".join(p for p in pieces if p not in (FIRST, LAST, PADDING))
    return text.replace(" ##", "")


@lru_cache(maxsize=4)
def is_cased(pieces: tuple[str, ...]) -> bool:
    """Whether a vocabulary knows capital letters."""
    return any(p != p.lower() for p in pieces if not p.startswith("["))


def split_words(text: str, cased: bool) -> Iterator[str]:
    """Words and signs: white space separates, and every sign and every Chinese character stands alone."""
    word: list[str] = []
    if not cased:
        text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    for c in text:
        kind = unicodedata.category(c)
        if c in "\t\n\r" or kind == "Zs":
            alone, dropped = "", False
        elif c in "\0\ufffd" or kind.startswith("C"):
            alone, dropped = "", True
        elif _sign(c, kind) or _chinese(ord(c)):
            alone, dropped = c, False
        else:
            word.append(c)
            continue
        if dropped:
            continue
        if word:
            yield "".join(word)
            word = []
        if alone:
            yield alone
    if word:
        yield "".join(word)


def _sign(c: str, kind: str) -> bool:
    return kind.startswith("P") or (c.isascii() and c.isprintable() and not c.isalnum() and c != " ")


def _chinese(point: int) -> bool:
    blocks = (
        (0x4E00, 0x9FFF),
        (0x3400, 0x4DBF),
        (0x20000, 0x2A6DF),
        (0x2A700, 0x2B81F),
        (0x2B820, 0x2CEAF),
        (0xF900, 0xFAFF),
        (0x2F800, 0x2FA1F),
    )
    return any(low <= point <= high for low, high in blocks)


def _pieces(word: str, pieces: Mapping[str, int]) -> list[int]:
    """The longest known piece from the left, again and again; the whole word is unknown where one is."""
    found: list[int] = []
    start = 0
    while start < len(word) <= _LONGEST:
        for stop in range(len(word), start, -1):
            number = pieces.get(word[start:stop] if start == 0 else "##" + word[start:stop])
            if number is not None:
                break
        else:
            return [pieces[UNKNOWN]]
        found.append(number)
        start = stop
    return found or [pieces[UNKNOWN]]
