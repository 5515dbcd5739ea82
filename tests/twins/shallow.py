"""The zoo's smallest networks, and points without labels, as cases of `cases.py`: rows of its `Case`."""

from __future__ import annotations

from typing import Any

# Which of these is the other view of the image: the partner, or some of the other images?
_PARTNERS = """block partners[Model](image: f32[N, 1, SIZE, SIZE], other: f32[N, 1, SIZE, SIZE], picks: i64[N, 6]) -> f32[] {
  a, b = Model(image), Model(other)
  likeness = concat[axis = 1](sum[axis = 1, keep = true](a * b), einsum["n d, n k d -> n k"](a, gather(b, picks % 4)))
  return cross_entropy(10.0 * likeness, zeros[N, dtype = i64])
}
"""

ROWS: tuple[dict[str, Any], ...] = (
    {
        "model": "Digits",
        "file": "digits.dl",
        "narrow": {},
        "full": {},
        "zoo": True,
        "shallow": True,
        "block": "Digits",
        "data": "image: f32[N, 1, 8, 8], label: i64[N]",
        "stored": 1,
    },
    {
        "model": "Autoregressive",
        "file": "autoregressive.dl",
        "narrow": {},
        "optimizers": ("momentum",),
        "full": {},
        "zoo": True,
        "shallow": True,
        "block": "Autoregressive",
        "data": "past: f32[N, 9], next: f32[N, 1]",
        "loss": "mse({model}(past), next)",
    },
    {
        "model": "Embed",
        "file": "embedding.dl",
        "narrow": {"s": 8},
        "full": {"s": 28},
        "zoo": True,
        "shallow": True,
        "extra": (
            _PARTNERS.replace("SIZE", "8")
            + "model Around(image: f32[N, 1, 8, 8]) -> f32[N, 5] {\n  return image |> Points[3, 9, 5] as net\n}\n",
            _PARTNERS.replace("SIZE", "28")
            + "model Around(image: f32[N, 1, 28, 28]) -> f32[N, 64] {\n  return image |> Points[16, 128, 64] as net\n}\n",
        ),
        "data": "image: f32[N, 1, {s}, {s}], other: f32[N, 1, {s}, {s}], picks: i64[N, 6]",
        "loss": "partners[{model}](image, other, picks)",
        "stored": 1,
    },
)
