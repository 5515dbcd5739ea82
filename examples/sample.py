"""A sheet of drawn pictures as a PNG file, from the variational autoencoder or the diffusion model of the zoo.

    dslc train diffusion
    python examples/sample.py diffusion diffusion.safetensors       # writes diffusion.png
    python examples/sample.py vae vae.safetensors

Either network's `Sample` turns normal numbers into pictures: `vae.dl` decodes a code of 20, `diffusion.dl` takes the noise out of a picture
in one compiled loop, by the moving averages of its parameters. Without weights, the script says what it would do.
"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image

import dslc

NUMBERS = {"vae": ("code", (20,)), "diffusion": ("noise", (1, 8, 8))}  # the input of `Sample`, and its shape for one picture
BORDER = 2


def drawn(network: str, weights: str, count: int, seed: int) -> np.ndarray:
    """Pictures [count, H, W] with intensities from 0 to 1."""
    name, shape = NUMBERS[network]
    numbers = np.random.default_rng(seed).standard_normal((count, *shape), dtype=np.float32)
    program = dslc.compile(network, "Sample")
    diffusion = network == "diffusion"
    program.load_weights(weights, ema=diffusion)
    pictures: np.ndarray = program(**{name: numbers}, **({"seed": seed} if diffusion else {}))
    return pictures[:, 0]


def sheet(pictures: np.ndarray, columns: int, scale: int) -> Image.Image:
    """The pictures in rows, each pixel a square of `scale`."""
    count, height, width = pictures.shape
    rows = -(-count // columns)
    shown = np.full((rows * (height + BORDER) + BORDER, columns * (width + BORDER) + BORDER), 0.5)
    for number, picture in enumerate(pictures):
        top, left = BORDER + number // columns * (height + BORDER), BORDER + number % columns * (width + BORDER)
        shown[top : top + height, left : left + width] = picture
    large = shown.repeat(scale, 0).repeat(scale, 1)
    return Image.fromarray(np.rint(255 * large.clip(0, 1)).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw pictures.")
    parser.add_argument("network", nargs="?", default="diffusion", choices=list(NUMBERS))
    parser.add_argument("weights", nargs="?", help="what `dslc train NETWORK` has saved")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.weights is None:
        print(f"give weights: {options.network}.safetensors, as `dslc train {options.network}` saves them")
        return
    pictures = drawn(options.network, options.weights, options.count, options.seed)
    sheet(pictures, options.columns, options.scale).save(f"{options.network}.png")
    print(f"wrote {options.network}.png: {len(pictures)} pictures")


if __name__ == "__main__":
    main()
