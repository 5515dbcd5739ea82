"""What recipes of the zoo learn, where no metric of a recipe can say it: `python learning.py [detector] [embedding] [--epochs N] [--seeds N]`.

detector   mean average precision of what `Detect` finds, at an intersection over union of 0.5
embedding  the share of held-out images whose nearest neighbour among the others is of their class, by cosine
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import dslc
from dslc.data import Field
from dslc.data.sources import open_data

Array = np.ndarray[Any, Any]
BATCH = 50


def overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of a box with others [n, 4]."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    result: Array = both / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(-1) - both)
    return result


def average_precision(found: list[tuple[float, bool]], wanted: int) -> float:
    """The area under the precision-recall curve, precision at a recall being the best at that recall or a larger one (Pascal VOC 2010)."""
    right = np.cumsum([hit for _, hit in sorted(found, key=lambda f: -f[0])])
    precision = right / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    recall = right / wanted
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def mean_average_precision(boxes: Array, kinds: Array, scores: Array, true_boxes: Array, true_kinds: Array, classes: int) -> float:
    """Of detections [n, K, ...] against the truth [n, M, ...]; a class of -1 is none. Each true box is found once, by the best score."""
    result = []
    for kind in range(classes):
        found: list[tuple[float, bool]] = []
        for image in range(len(boxes)):
            truth = true_boxes[image][true_kinds[image] == kind]
            open_ones = np.ones(len(truth), bool)
            for which in np.flatnonzero(kinds[image] == kind):  # best first
                share = np.where(open_ones, overlaps(boxes[image, which], truth), 0.0)
                hit = bool(len(truth)) and share.max() >= 0.5
                if hit:
                    open_ones[share.argmax()] = False
                found.append((float(scores[image, which]), hit))
        result.append(average_precision(found, int((true_kinds == kind).sum())))
    return statistics.mean(result)


def detector(weights: Path, trainer: dslc.Trainer) -> float:
    net = dslc.compile("detector", model="Detect")
    net.load_weights(weights)
    assert trainer.data.test is not None
    test = trainer.data.test.arrays
    made = [net(image=image.astype(np.float32) / 255) for image in np.array_split(test["image"], trainer.data.test.count // BATCH)]
    boxes, kinds, scores = (np.concatenate([m[name] for m in made]) for name in ("boxes", "kinds", "scores"))
    return mean_average_precision(boxes, kinds, scores, test["boxes"], test["kinds"], 3)


def embedding(weights: Path, trainer: dslc.Trainer) -> float:
    net = dslc.compile("embedding", model="Embed")
    net.load_weights(weights)
    data = open_data("fashion-mnist", [Field("image", "f32", (1, 28, 28)), Field("label", "i64")]).test
    assert data is not None
    images, labels = data.arrays["image"], data.arrays["label"]
    points = np.concatenate([net(image=i.astype(np.float32) / 255) for i in np.array_split(images, data.count // BATCH)])
    likeness = points @ points.T
    np.fill_diagonal(likeness, -2.0)
    return float(np.mean(labels[likeness.argmax(1)] == labels))


FIGURES: dict[str, Callable[[Path, dslc.Trainer], float]] = {"detector": detector, "embedding": embedding}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipes", nargs="*", default=list(FIGURES))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for name in options.recipes or FIGURES:
        figures = []
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                trainer = dslc.Trainer(name, folder=folder, seed=seed, epochs=options.epochs)
                trainer.fit()
                assert trainer.path is not None
                figures.append(FIGURES[name](trainer.path, trainer))
        print(f"{name}: {statistics.median(figures):.3f}, of {', '.join(f'{f:.3f}' for f in figures)}", flush=True)


if __name__ == "__main__":
    main()
