"""Forecasting with a plot: carbon dioxide in the air at Mauna Loa, the next twelve months from three years of it (`models/rnn.dl`).

python examples/forecast.py        writes forecast.png; the plot needs matplotlib
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import dslc

MODELS = Path(__file__).resolve().parent.parent / "models"
PAST, FUTURE, YEARS = 36, 12, 8


def measured() -> tuple[np.ndarray, np.ndarray]:
    """Years, as numbers with a fraction, and parts per million, a row a month."""
    rows = [line.split(",") for line in (MODELS / "co2.csv").read_text(encoding="ascii").splitlines()[1:]]
    months = [month.split("-") for month, _ in rows]
    return np.array([int(year) + (int(month) - 0.5) / 12 for year, month in months]), np.array([float(ppm) for _, ppm in rows], np.float32)


def main() -> None:
    trainer = dslc.Trainer(MODELS / "rnn.dl", "forecast", save=False)
    for epoch in trainer:
        if epoch.epoch % 20 == 0:
            print(f"epoch {epoch.epoch}: {epoch.test_metrics['error']:.2f} ppm off on held-out months")
    network = dslc.compile(MODELS / "rnn.dl", "Lstm")
    network.load_weights(trainer.weights)

    # The last years, none of which it was trained on: each is told from the three before it.
    when, ppm = measured()
    starts = np.arange(len(ppm) - YEARS * FUTURE, len(ppm), FUTURE)
    forecast = network(past=np.stack([ppm[n - PAST : n] for n in starts])).ravel()
    last_year = ppm[starts[0] - FUTURE : -FUTURE]
    actual = ppm[starts[0] :]
    error, naive = (np.abs(guess - actual).mean() for guess in (forecast, last_year))
    print(f"the last {YEARS} years: {error:.2f} ppm off; {naive:.2f} for the same month of the year before")

    try:
        import matplotlib
    except ImportError:
        print("no plot: pip install matplotlib")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4))
    axes.plot(when[starts[0] - PAST :], ppm[starts[0] - PAST :], color="0.6", linewidth=3, label="measured")
    for number, year in enumerate(np.split(forecast, YEARS)):
        span = slice(starts[number], starts[number] + FUTURE)
        axes.plot(when[span], year, color="C0", label=None if number else "told a year ahead")
    axes.set(xlabel="year", ylabel="carbon dioxide, ppm", title=f"{error:.2f} ppm off on average")
    axes.legend()
    figure.tight_layout()
    figure.savefig("forecast.png", dpi=120)
    print("wrote forecast.png")


if __name__ == "__main__":
    main()
