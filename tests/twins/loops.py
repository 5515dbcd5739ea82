"""The zoo's networks that stand in loops of their own, as cases of `cases.py`: rows of its `Case`. Symbols and times are from 0 to 9."""

from __future__ import annotations

from typing import Any


def _translates(width: int, length: int) -> str:
    return (
        f"model Around(source: i64[N, {length}], target: i64[N, {length}]) -> f32[N, 11, {length}] {{\n"
        f"  return transpose[0, 2, 1]((Translate[11, {width}](source, target) as net).logits)\n}}\n"
    )


def _denoises(channels: int, groups: int, size: int) -> str:
    image = f"f32[N, 1, {size}, {size}]"
    return (
        f"model Around(image: {image}, noise: {image}, time: i64[N]) -> {image} {{\n"
        f"  return noisy(image, noise, 20 * time) |> Denoise[{channels}, {groups}](20 * time) as net\n}}\n"
    )


ROWS: tuple[dict[str, Any], ...] = (
    {
        "model": "Translator",
        "file": "seq2seq.dl",
        "narrow": {"L": 5},
        "full": {"L": 12},
        "zoo": True,
        "extra": (_translates(6, 5), _translates(64, 12)),
        "data": "source: i64[N, {L}], target: i64[N, {L}]",
        "loss": "cross_entropy({model}(source, target), target)",
        "stored": 1,
        "full_draws": 8,
    },
    {
        "model": "Denoiser",
        "file": "diffusion.dl",
        "narrow": {"s": 4},
        "full": {"s": 8},
        "zoo": True,
        "extra": (_denoises(4, 2, 4), _denoises(32, 8, 8)),
        "data": "image: f32[N, 1, {s}, {s}], noise: f32[N, 1, {s}, {s}], time: i64[N]",
        "loss": "mse({model}(image, noise, time), noise)",
        "stored": 1,
        "full_batches": (16, 16, 9),
        "full_draws": 12,
    },
)
