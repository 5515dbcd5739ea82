"""Train a network on handwritten digits, then show what it makes of images that it has never seen.

    make demo

The network is `models/digits.dl`: 30 lines, compiled here to native code, trained within a second or so.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import dslc
from dslc.training.progress import progress_for

SHOWN = 6  # images
FULL = 16.0  # the brightest pixel


def main() -> None:
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer = dslc.Trainer("digits", folder=folder, observers=[progress_for(color=color)])
        history = trainer.fit()
        net = dslc.compile("digits")
        net.load_weights(Path(folder) / "digits.safetensors")
    seconds = time.perf_counter() - began
    accuracy = history[-1].test_metrics["accuracy"]
    print(f"\ncompiled and trained in {seconds:.1f} s; {accuracy:.1%} of {trainer.data.test.count} held-out images are right\n")

    test = trainer.data.test
    chosen = np.random.default_rng(int(time.time())).choice(test.count, SHOWN, replace=False)
    images = (test.arrays["image"][chosen] / np.float32(FULL)).astype(np.float32)
    logits = net(image=images)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    for image, label, row in zip(images, test.arrays["label"][chosen], shares, strict=True):
        best = int(row.argmax())
        said = [f"this is a {best}", f"with probability {row[best]:.1%}", "", "" if best == label else f"but it is a {label}"]
        for line, text in zip(picture(image[0], color), said, strict=True):
            print(f"   {line}   {text}".rstrip())
        print()


def picture(pixels: np.ndarray, color: bool) -> list[str]:
    """An 8 x 8 image on four lines: half blocks in shades of grey on a terminal, else characters from light to dark."""
    if not color:
        shades = " .:-=+*#%@"
        upper, lower = pixels[0::2], pixels[1::2]
        rows = np.maximum(upper, lower)
        return ["".join(shades[int(v * (len(shades) - 1))] * 2 for v in row) for row in rows]
    lines = []
    for upper, lower in zip(pixels[0::2], pixels[1::2], strict=True):
        cells = [f"\x1b[38;5;{grey(a)};48;5;{grey(b)}m\u2580\u2580" for a, b in zip(upper, lower, strict=True)]
        lines.append("".join(cells) + "\x1b[0m")
    return lines


def grey(value: float) -> int:
    """The terminal's colour number of a brightness from 0 to 1."""
    return 232 + round(float(value) * 23)


if __name__ == "__main__":
    main()
