"""Fine-tuning: a trained trunk under a new head, in the language's own words, on the digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dslc
from dslc.data.digits import load

TRUNK = """
dim N <= 64
block Trunk(image: f32[N, 1, 8, 8]) -> f32[N, 64] {
  return image |> Conv2D[16, 3, padding = 1] |> BatchNorm |> relu |> MaxPool2D[2] |> flatten |> Dense[64, relu]
}
"""
FIRST = f"""{TRUNK}
model Net(image: f32[N, 1, 8, 8]) -> f32[N, 5] {{ return (Trunk(image) as trunk) |> Dense[5] as head }}
train first {{
  data image: f32[N, 1, 8, 8], label: i64[N] from "digits"
  logits = Net(image)
  minimize cross_entropy(logits, label) over Net with AdamW[3e-3]
  metric accuracy = mean(argmax[axis = 1](logits) == label)
  epochs 8  batch 32  seed 1
  save "first.safetensors" with every = 8
}}
"""
SECOND = f"""{TRUNK}
model Other(image: f32[N, 1, 8, 8]) -> f32[N, 5] {{ return (Trunk(image) as trunk) |> Dense[5] as head }}
train second {{
  LOAD
  data image: f32[N, 1, 8, 8], label: i64[N] from "digits"
  logits = Other(image)
  minimize cross_entropy(logits, label)
    over Other with AdamW[1e-3], clip = 1.0
    over "Other.head.*" with AdamW[2e-2]
  metric accuracy = mean(argmax[axis = 1](logits) == label)
  epochs 4  batch 16  seed 2
}}
"""
FROM_FIRST = """load Other from "first.safetensors" with rename = [("Net.head.*", none), ("Net.*", "*")], fresh = ["head.*"]
  freeze "Other.trunk.*" """


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network that was trained on the digits 0 to 4."""
    made = tmp_path_factory.mktemp("fine")
    patch = pytest.MonkeyPatch()
    patch.setenv("DSLC_CACHE", str(made / "cache"))
    dslc.Trainer(FIRST, data=digits(0, 1000), folder=made).fit()
    patch.undo()
    return made


def digits(first: int, count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Examples of the five digits from `first` on, as labels 0 to 4; `count` of them to train."""
    found = {}
    for name, part in zip(("train", "test"), load(), strict=True):
        image, label = part["image"].reshape(-1, 1, 8, 8), part["label"]
        chosen = (label >= first) & (label < first + 5)
        found[name] = (image[chosen].astype(np.float32) / 16, label[chosen].astype(np.int64) - first)
    return {"train": (found["train"][0][:count], found["train"][1][:count]), "test": found["test"]}


def test_a_new_head_on_a_frozen_trunk(folder: Path) -> None:
    source = folder / "second.dl"
    source.write_text(SECOND.replace("LOAD", FROM_FIRST))
    trainer = dslc.Trainer(source, data=digits(5, 100), save=False)
    before = trainer.weights
    first = dslc.compile(FIRST)
    first.load_weights(folder / "first.safetensors")
    for name, array in first.weights.items():
        if ".trunk." in name:
            assert before[name.replace("Net", "Other")].tobytes() == array.tobytes()
    tuned = trainer.fit()[-1]
    parameters = dslc.compile(source).parameters
    for name, array in trainer.weights.items():
        if name in parameters:
            assert (array.tobytes() == before[name].tobytes()) == (".trunk." in name), name
        else:  # freezing changes gradients alone
            assert array.tobytes() != before[name].tobytes(), f"{name} is a running moment"
    assert tuned.test_metrics["accuracy"] > 0.75, "100 examples, the head alone"
