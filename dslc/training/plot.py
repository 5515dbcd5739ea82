"""Curves of training: an SVG drawn here, without a plotting library, or a PNG where matplotlib is installed.

One panel a metric, with the training curve and the test curve over epochs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.training.protocol import EpochReport, Observer, RunReport

_PANEL, _HEIGHT = 360, 260  # pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 34, 40  # margins of a panel
_COLORS = {"train": "#1f6fb4", "validation": "#3a8f5c", "test": "#d1495b"}


@dataclass(frozen=True, slots=True)
class Curve:
    """Values by epoch; `label` is "train", "validation" or "test"."""

    label: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    curves: tuple[Curve, ...]


class CurvePlot(Observer):
    """Keeps a picture of the run at `path` (.svg or .png), drawn anew when training ends and after each epoch of an SVG."""

    def __init__(self, path: Path):
        self.path = path
        self._title = ""
        self._history: list[EpochReport] = []
        if path.suffix == ".png":
            _matplotlib()  # refused now, not after hours

    def started(self, run: RunReport) -> None:
        self._title = f"{run.recipe} on {run.data}"
        self._history = list(run.history)

    def epoch(self, report: EpochReport) -> None:
        self._history.append(report)
        if self.path.suffix != ".png":
            write_curves(self.path, self._history, self._title)

    def finished(self, outcome: str, step: int) -> None:
        if self._history:
            write_curves(self.path, self._history, self._title)


def write_curves(path: Path, history: Sequence[EpochReport], title: str = "") -> None:
    """Writes the curves to `path`; its suffix, .svg or .png, chooses the format. Errors: DL0725, DL0729."""
    panels = panels_of(history)
    try:
        if path.suffix == ".png":
            _write_png(path, panels, title)
        else:
            path.write_text(svg(panels, title), encoding="utf-8")
    except OSError as error:
        raise DiagnosticError(
            Diagnostic("DL0725", f"cannot write the curves {path}: {error.strerror}", hint="give a folder that exists and may be written")
        ) from error


def panels_of(history: Sequence[EpochReport]) -> list[Panel]:
    """A panel for every metric, "loss" first."""
    names = list(dict.fromkeys(name for r in history for label in _COLORS for name in _measured(r, label)))
    names.sort(key=lambda name: name != "loss")
    panels = []
    for name in names:
        curves = []
        for label in _COLORS:
            points = [(r.epoch, _measured(r, label).get(name, math.nan)) for r in history]
            points = [p for p in points if math.isfinite(p[1])]
            if points:
                curves.append(Curve(label, tuple(p[0] for p in points), tuple(p[1] for p in points)))
        panels.append(Panel(name, tuple(curves)))
    return panels


def _measured(report: EpochReport, label: str) -> Mapping[str, float]:
    return {"train": report.metrics, "validation": report.validation_metrics, "test": report.test_metrics}[label]


def svg(panels: Sequence[Panel], title: str = "") -> str:
    """The panels side by side as a self-contained SVG document."""
    width = max(len(panels), 1) * _PANEL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT}" viewBox="0 0 {width} {_HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{_HEIGHT}" fill="white"/>',
    ]
    for i, panel in enumerate(panels):
        parts += [f'<g transform="translate({i * _PANEL} 0)">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> list[str]:
    right, bottom = _PANEL - _RIGHT, _HEIGHT - _BOTTOM
    values = [v for c in panel.curves for v in c.values] or [0.0]
    epochs = [e for c in panel.curves for e in c.epochs] or [1]
    marks = ticks(min(values), max(values))
    low, high = marks[0], marks[-1]
    first, last = min(epochs), max(max(epochs), min(epochs) + 1)

    def x(epoch: float) -> float:
        return _LEFT + (epoch - first) / (last - first) * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - _TOP)

    parts = [f'<text x="{_LEFT}" y="20" font-size="13" fill="#222">{escape(panel.title)}</text>']
    for mark in marks:
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end" fill="#555">{mark:.4g}</text>')
    for epoch in (e for e in ticks(first, last) if e == int(e) and first <= e <= last):
        parts.append(f'<text x="{x(epoch):.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555">{int(epoch)}</text>')
    parts.append(f'<text x="{(_LEFT + right) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle" fill="#555">epoch</text>')
    for i, curve in enumerate(panel.curves):
        color = _COLORS[curve.label]
        points = " ".join(f"{x(e):.1f},{y(v):.1f}" for e, v in zip(curve.epochs, curve.values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<circle cx="{x(curve.epochs[-1]):.1f}" cy="{y(curve.values[-1]):.1f}" r="3" fill="{color}"/>')
        parts.append(f'<text x="{right - 60 * (len(panel.curves) - i)}" y="20" fill="{color}">{curve.label}</text>')
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers (1, 2 or 5 times a power of ten apart) that span the range."""
    if not high - low > 1e-12 * max(abs(low), abs(high), 1e-300):
        low, high = low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    spacing = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / spacing + 1e-9), math.ceil(high / spacing - 1e-9)
    return [float(f"{i * spacing:.12g}") for i in range(first, last + 1)]


def _write_png(path: Path, panels: Sequence[Panel], title: str) -> None:
    _matplotlib()
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    figure = Figure(figsize=(4.2 * max(len(panels), 1), 3.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for curve in panel.curves:
            axes.plot(curve.epochs, curve.values, label=curve.label, color=_COLORS[curve.label])
        axes.set_title(panel.title)
        axes.set_xlabel("epoch")
        axes.legend()
    figure.savefig(path, dpi=120)


def _matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise DiagnosticError(
            Diagnostic(
                "DL0729", "a PNG of the curves needs matplotlib", hint="`pip install dslc[plot]`, or write an .svg, which needs nothing"
            )
        ) from None
