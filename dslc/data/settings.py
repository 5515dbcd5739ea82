"""The options of a `data` statement: `from "csv:plants.csv" with test = 0.2, normalize = true`."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dslc.data.description import FITS, refuse
from dslc.ir.recipe import DataOption


@dataclass(frozen=True, slots=True)
class Settings:
    """`test` is the share of the training examples to hold out; `normalize` brings the first field to mean 0 and deviation 1.

    The others are for some sources only: `fit` of pictures, `columns` of a table, `count` and `seed` of generated examples; of text the
    `level` of its symbols or the file of a tokenizer, the most symbols of a `vocabulary`, how its `rows` are laid out, from symbol to symbol
    the `stride` of windows, what `documents` are, and how many batches of like length come from one `bucket`.
    """

    test: float | None = None
    normalize: bool = False
    fit: str | None = None
    columns: tuple[str, ...] = ()
    count: int | None = None
    seed: int | None = None
    level: str | None = None
    vocabulary: int | None = None
    rows: str | None = None
    stride: int | None = None
    documents: str | None = None
    bucket: int | None = None


ROWS = ("windows", "packed", "documents")
DOCUMENTS = ("file", "lines", "paragraphs")
ALWAYS = ("test", "normalize")


def read_settings(options: Mapping[str, DataOption], source: str, taken: Collection[str]) -> Settings:
    """The options that `source` takes, of those in `taken` beside `test` and `normalize`. Error: DL0710."""
    allowed = (*ALWAYS, *taken)
    for name, value in options.items():
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            raise refuse(
                "DL0710",
                f"data from '{source[:80]}' have no option `{name}`",
                f"did you mean `{near[0]}`?" if near else f"they have {_listed(allowed)}",
            )
        wanted = _wrong(name, value)
        if wanted is not None:
            raise refuse("DL0710", f"the option `{name}` of the data is {_shown(value)}", f"it is {wanted}")
    checked: dict[str, Any] = dict(options)
    return Settings(**checked)


def _wrong(name: str, value: DataOption) -> str | None:
    """What the option should be, if the value is not that."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    match name:
        case "test":
            ok, wanted = isinstance(value, float) and 0 < value < 1, "a share between 0 and 1, such as 0.2"
        case "normalize":
            ok, wanted = isinstance(value, bool), "true or false"
        case "fit":
            ok, wanted = value in FITS, f"one of {', '.join(repr(f) for f in FITS)}"
        case "columns":
            ok, wanted = (
                isinstance(value, tuple) and bool(value) and all(isinstance(v, str) for v in value),
                'a list of names, such as ["x", "y"]',
            )
        case "level":
            ok, wanted = isinstance(value, str) and bool(value), '"bytes", "characters", "words" or the file of a tokenizer'
        case "rows" | "documents":
            listed = ROWS if name == "rows" else DOCUMENTS
            ok, wanted = value in listed, f"one of {', '.join(repr(v) for v in listed)}"
        case "count" | "vocabulary" | "stride" | "bucket":
            ok, wanted = whole and isinstance(value, int) and value > 0, "a positive whole number"
        case _:
            ok, wanted = whole and isinstance(value, int) and 0 <= value < 2**63, "a whole number, not negative"
    return None if ok else wanted


def _shown(value: DataOption) -> str:
    return repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"`{n}`" for n in names)
