"""The UCI handwritten digits, which come with dslc: 1,797 images of 8 x 8 pixels with values 0..16.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, CC BY 4.0. `digits.npz` holds the repository's test part in its order: `images` u8[1797, 64],
`labels` u8[1797]. The 32 x 32 bitmaps of 13 writers were reduced to counts of set pixels in 4 x 4 blocks.

The held-out split is fixed: in every class the examples are put in the order of `epoch_order(1797, seed=1797, epoch=0)`, and the
first 20 % of them are the test examples, rounded by largest remainder so that there are 360 in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dslc.data.description import Array
from dslc.data.splits import held_out

COUNT = 1797
HELD_OUT = 360
FULL = 16  # the stored value of a pixel whose whole block is set
CLASSES = tuple("0123456789")
ATTRIBUTION = "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, doi:10.24432/C50P49, CC BY 4.0"


def load() -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """The training and the held-out examples: `image` u8[n, 8, 8] and `label` u8[n]."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        images: NDArray[np.uint8] = file["images"].reshape(COUNT, 8, 8)
        labels: NDArray[np.uint8] = file["labels"]
    test = held_out(labels, HELD_OUT, COUNT)
    return _pick(images, labels, ~test), _pick(images, labels, test)


def _pick(images: NDArray[np.uint8], labels: NDArray[np.uint8], which: NDArray[np.bool_]) -> Mapping[str, Array]:
    return {"image": images[which], "label": labels[which]}
