"""The front ends of `std/audio.dl` against NumPy's Fourier transform and the published formulas of the mel scale."""

from __future__ import annotations

import numpy as np
import pytest

import dslc

RATE, SIZE, STEP, MELS = 8000, 64, 20, 10
SOURCE = f"""
import "std/audio.dl" as audio

model Mel(x: f32[N, 200]) -> f32[N, {MELS}, 11] {{
  return audio.mel_spectrogram[{MELS}, {RATE}, {SIZE}, {STEP}, scale = "slaney", norm = true](x)
}}
model Log(x: f32[N, 200]) -> f32[N, {MELS}, 11] {{
  return audio.log_mel[{MELS}, {RATE}, {SIZE}, {STEP}, low = 100.0, high = 3500.0, floor = 1e-3](x)
}}
model Magnitude(x: f32[N, 200]) -> f32[N, 33, 11] {{
  return audio.spectrogram[{SIZE}, {STEP}, "hamming", power = 1](x)
}}
"""


def sound() -> np.ndarray:
    t = np.arange(200) / RATE
    tones = [np.sin(2 * np.pi * 440 * t) + 0.3 * np.cos(2 * np.pi * 1500 * t), np.random.default_rng(1).standard_normal(200)]
    return np.array(tones, np.float32)


def power(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    padded = np.pad(x.astype(np.float64), ((0, 0), (SIZE // 2, SIZE // 2)), mode="reflect")
    frames = np.stack([padded[:, f * STEP : f * STEP + SIZE] * weights for f in range(11)], 1)
    return np.abs(np.fft.rfft(frames)).swapaxes(1, 2) ** 2


def run(model: str) -> np.ndarray:
    return np.asarray(dslc.compile(SOURCE, model, dims={"N": 2})(x=sound()))


def slaney(hertz: float) -> float:
    return hertz / (200 / 3) if hertz < 1000 else 15 + np.log(hertz / 1000) / (np.log(6.4) / 27)


def test_magnitudes_are_those_of_the_fourier_transform() -> None:
    want = np.sqrt(power(sound(), 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(SIZE) / SIZE)))
    np.testing.assert_allclose(run("Magnitude"), want, rtol=1e-4, atol=2e-4)


def test_a_tone_is_loudest_in_the_filter_that_is_centred_nearest_to_it() -> None:
    points = np.linspace(0, slaney(RATE / 2), MELS + 2)[1:-1]
    loudest = run("Mel")[0].mean(-1) / np.array(filters(0, RATE / 2, True)).sum(0)
    assert loudest.argmax() == np.abs(points - slaney(440)).argmin()


def filters(low: float, high: float, is_slaney: bool) -> np.ndarray:
    """Triangles by their corners, one frequency at a time."""
    if is_slaney:
        marks = np.linspace(slaney(low), slaney(high), MELS + 2)
        corners = [m * 200 / 3 if m < 15 else 1000 * np.exp((m - 15) * np.log(6.4) / 27) for m in marks]
    else:
        ends = [2595 * np.log10(1 + f / 700) for f in (low, high)]
        corners = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(*ends, MELS + 2)]
    table = np.zeros((SIZE // 2 + 1, MELS))
    for k in range(SIZE // 2 + 1):
        f = k * RATE / SIZE
        for m in range(MELS):
            left, top, right = corners[m : m + 3]
            table[k, m] = max(0.0, min((f - left) / (top - left), (right - f) / (right - top)))
            if is_slaney:
                table[k, m] *= 2 / (right - left)
    return table


@pytest.mark.parametrize("model", ["Mel", "Log"])
def test_mel_spectra_are_filtered_power_spectra(model: str) -> None:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SIZE) / SIZE)
    table = filters(0, RATE / 2, True) if model == "Mel" else filters(100, 3500, False)
    want = np.einsum("km,nkt->nmt", table, power(sound(), hann))
    if model == "Log":
        want = np.log(np.maximum(want, 1e-3))
    np.testing.assert_allclose(run(model), want, rtol=2e-3, atol=1e-3 if model == "Log" else 1e-5)
