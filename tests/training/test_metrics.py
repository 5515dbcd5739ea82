"""Metrics of an evaluation: the library's, one in the language, and functions in Python."""

from __future__ import annotations

import numpy as np
import pytest
from small_recipes import DATA, METRICS, NET, Array, recipe, trained

import dslc
from dslc.diagnostics import DiagnosticError

pytestmark = pytest.mark.usefixtures("own_cache")


def scores(matrix: Array) -> dict[str, float]:
    """By the definitions, from a confusion matrix with rows of labels."""
    right, labelled, called = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    occurs = labelled + called > 0
    with np.errstate(invalid="ignore"):
        p, r, iou = (np.nan_to_num(right / n) for n in (called, labelled, called + labelled - right))
        f1 = np.nan_to_num(2 * right / (called + labelled))
    values = {"iou": iou, "precision_": p, "recall": r, "f1": f1}
    return {k: float(v[occurs].mean()) for k, v in values.items()} | {"iou2": float(iou[2]), "f1_of_1": float(f1[1])}


@pytest.mark.parametrize("batch", [16, 50])
def test_metrics_over_an_evaluation(batch: int) -> None:
    trainer = trained(recipe("SGD[0.5]", *METRICS, batch=batch))
    x, y = DATA["test"]
    net = dslc.compile(NET)
    net.load_weights(trainer.weights)
    logits = net(x=x)
    matrix = np.zeros((3, 3), np.int64)
    np.add.at(matrix, (y, logits.argmax(axis=1)), 1)
    report = trainer.history[-1]
    assert report.test_tables == {"table": matrix.tolist()}
    expected = scores(matrix) | {"top": float((np.argsort(-logits, axis=1)[:, :2] == y[:, None]).any(axis=1).mean())}
    for name, value in expected.items():
        assert report.test_metrics[name] == pytest.approx(value, abs=1e-6), name
    assert set(report.metrics) == {"loss", "accuracy", "top"}, "what is counted over an evaluation is left out of training"


PAIRS = """
dim N <= 64
model Net(x: f32[N, 3]) -> f32[N, 3] { return x |> Dense[3] }
train t {
  data x: f32[N, 3], y: i64[N], p: i64[N] from "npz:none.npz"
  minimize mean(Net(zeros[2, 3])) over Net with SGD[0.0]
  METRICS
  epochs 1  batch 5
}
"""


def measured(clauses: str, scores_: Array, label: Array, pred: Array) -> dslc.EpochReport:
    data = (scores_, label, pred)
    [report] = dslc.Trainer(PAIRS.replace("METRICS", clauses), data={"train": data, "test": data}, save=False, threads=1).fit()
    return report


def test_metrics_at_the_edges() -> None:
    """A class that never occurs, labels to leave out, ties and NaN."""
    label = np.array([0, 0, 2, 2, 255, -1, 2])
    pred = np.array([0, 2, 2, 2, 0, 1, 0])
    x = np.array([[3, 2, 1], [1, 1, 1], [1, 1, 1], [0, 2, np.nan], [1, 2, 3], [1, 2, 3], [0, 1, 1]], np.float32)
    clauses = """
  metric table = ConfusionMatrix[3](p, y)
  metric iou = MeanIoU[3](p, y)
  metric absent = F1[3, of = 1](p, y)
  metric first = top_k_accuracy[1](x, y)
  metric second = top_k_accuracy[2](x, y)"""
    report = measured(clauses, x, label, pred)
    assert report.test_tables["table"] == [[1, 0, 1], [0, 0, 0], [1, 0, 2]]
    assert report.test_metrics["iou"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert report.test_metrics["absent"] == 0
    # of equal scores the first counts as the larger one, as in argmax; NaN and labels outside are wrong
    assert report.test_metrics["first"] == pytest.approx(2 / 7) and report.test_metrics["second"] == pytest.approx(3 / 7)


def test_metrics_of_pictures() -> None:
    """Segmentation: every pixel counts, over batches of different sizes."""
    text = """
dim N <= 8
model Net(x: f32[N, 1, 4, 4]) -> f32[N, 3, 4, 4] { return x |> Conv2D[3, 3, padding = 1] }
train t {
  data x: f32[N, 1, 4, 4], y: i64[N, 4, 4] from "npz:none.npz"
  scores = Net(x)
  minimize mean(scores) over Net with SGD[0.1]
  pred = argmax[axis = 1](scores)
  metric iou = MeanIoU[3](pred, y)
  metric table = ConfusionMatrix[3](pred, y)
  epochs 1  batch 4
}
"""
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((6, 1, 4, 4)).astype(np.float32), rng.integers(0, 3, (6, 4, 4))
    trainer = dslc.Trainer(text, data={"train": (x, y), "test": (x, y)}, save=False)
    [report] = trainer.fit()
    net = dslc.compile(text)
    net.load_weights(trainer.weights)
    matrix = np.zeros((3, 3), np.int64)
    np.add.at(matrix, (y.ravel(), net(x=x).argmax(axis=1).ravel()), 1)
    assert report.test_tables["table"] == matrix.tolist() and report.test_metrics["iou"] == pytest.approx(scores(matrix)["iou"])


def test_a_metric_written_in_the_language() -> None:
    """A state of any kind: here the largest value that was seen."""
    text = recipe("SGD[0.1]", "metric largest = Largest(x)").replace(
        "train t",
        "block Largest(x: f32[N, D]) -> f32[] {\n  state seen: f32[] = 0\n  update seen = maximum(seen, max(x))\n  return seen\n}\ntrain t",
    )
    trainer = trained(text)
    assert [r.test_metrics["largest"] for r in trainer.history] == [pytest.approx(DATA["test"][0].max())] * 3


def test_counts_begin_anew_with_each_evaluation() -> None:
    trainer = trained(recipe("SGD[0.1]", *METRICS))
    assert [np.sum(r.test_tables["table"]) for r in trainer.history] == [50, 50, 50]
    assert not any("metric" in name or "confusion" in name for name in trainer.program.state())


def test_metrics_in_python() -> None:
    seen: list[tuple[Array, Array]] = []

    def right(logits: Array, y: Array) -> float:
        seen.append((logits, y))
        return float((logits.argmax(axis=1) == y).mean())

    text = recipe("SGD[0.1]", "unread = logits * 2.0", "metric mean_ = mean(unread)")
    trainer = dslc.Trainer(text, data=DATA, save=False, metrics={"right": right, "rows": lambda y: len(y)})
    trainer.fit()
    for report, (logits, y) in zip(trainer.history, seen, strict=True):
        assert logits.shape == (50, 3) and (y == DATA["test"][1]).all()
        assert report.test_metrics["right"] == pytest.approx(report.test_metrics["accuracy"]) and report.test_metrics["rows"] == 50


def test_metrics_in_python_are_refused() -> None:
    for code, metrics in (
        ("DL0518", {"a": lambda nothing: 0.0}),
        ("DL0731", {"accuracy": lambda y: 0.0}),
        ("DL0731", {"a": lambda: 0.0}),
        ("DL0731", {"a": lambda *y: 0.0}),
        ("DL0731", {"a": lambda y: "high"}),
    ):
        with pytest.raises(DiagnosticError) as caught:
            dslc.Trainer(recipe("SGD[0.1]"), data=DATA, save=False, metrics=metrics).fit()  # type: ignore[arg-type]
        assert [d.code for d in caught.value.diagnostics] == [code]
