"""Random colours and noise: every image with a brightness, contrast and saturation of its own, every element with its own noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dslc.ir.builder import Builder
from dslc.ir.graph import Value
from dslc.ir.operator import Attr, BadSample, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.augment import Augmentation, check_images
from dslc.ops.random import KEY, KEY_TYPES, STREAM, check_key, reference_draw
from dslc.ops.shapes import Array, cut, f32, require, reshaped

I64 = DType.I64
LUMA = (0.2989, 0.587, 0.114)  # how bright red, green and blue are; ITU-R BT.601


def _brightness(b: Builder, x: Value) -> Value:
    """[N, 1, H, W]: how bright each pixel is; x itself where it has one channel."""
    if x.type.shape[1] == 1:
        return x
    weights = b.constant(np.array(LUMA).reshape(1, 3, 1, 1), x.type.dtype)
    value: Value = b.sum(b.mul(x, weights), axis=1, keep=True)
    return value


@operator
class ColorJitter(Augmentation):
    """Each image of x[N, C, H, W] with another brightness, contrast and saturation, in this order; C is 1 or 3.

    Each is a factor of the image's own from max(0, 1 - amount) to 1 + amount: brightness times the image, contrast times its
    distance from the mean brightness, saturation times its distance from its own grey. Nothing is clipped.
    """

    attrs = {
        "brightness": Attr("float", 0.0, "how far its factor is from 1 at most"),
        "contrast": Attr("float", 0.0, "how far its factor is from 1 at most"),
        "saturation": Attr("float", 0.0, "how far its factor is from 1 at most"),
        "stream": STREAM,
    }
    samples = [
        Sample(((5, 3, 2, 3), *KEY), {"brightness": 0.4, "contrast": 0.3, "saturation": 0.2, "stream": 1}),
        Sample(((5, 1, 2, 3), *KEY), {"contrast": 1.5, "stream": 2}),
        Sample(((2, 3, 2, 2), *KEY), {"saturation": 0.5, "stream": 2}),
    ]
    errors = [
        BadSample((f32(3, 4, 4), *KEY_TYPES), {"stream": 0}, "[N, C, H, W]"),
        BadSample((f32(1, 2, 4, 4), *KEY_TYPES), {"stream": 0}, "1 or 3 channels"),
        BadSample((f32(1, 3, 4, 4), *KEY_TYPES), {"contrast": -0.5, "stream": 0}, "at least 0"),
        BadSample((TensorType(DType.U8, (1, 3, 4, 4)), *KEY_TYPES), {"stream": 0}, "floating-point"),
    ]

    def infer(
        self, x: TensorType, seed: TensorType, counter: TensorType, brightness: float, contrast: float, saturation: float, stream: int
    ) -> TensorType:
        check_images("color_jitter", x, seed, counter)
        if x.shape[1] not in (1, 3):
            raise TypeFailure(f"color_jitter needs images of 1 or 3 channels, not {x}", inputs=(0,), axes=(1,))
        for name, amount in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if not 0 <= amount < math.inf:
                raise TypeFailure(f"color_jitter: {name} must be at least 0, not {amount}")
        return x

    def expand(
        self,
        b: Builder,
        x: Value,
        seed: Value,
        counter: Value,
        brightness: float,
        contrast: float,
        saturation: float,
        stream: int,
    ) -> Value:
        n, dtype = x.type.shape[0], x.type.dtype
        drawn = b.random_uniform(seed, counter, shape=(n, 3), dtype=dtype, stream=stream)

        def factor(column: int, amount: float) -> Value:
            u = reshaped(b, cut(b, drawn, 1, column, column + 1), (n, 1, 1, 1))
            low = max(0.0, 1 - amount)
            value: Value = b.add(b.mul(u, b.scalar(1 + amount - low, dtype)), b.scalar(low, dtype))
            return value

        if brightness:
            x = b.mul(x, factor(0, brightness))
        if contrast:
            mean = b.mean(_brightness(b, x), axis=(1, 2, 3), keep=True)
            x = b.add(b.mul(b.sub(x, mean), factor(1, contrast)), mean)
        if saturation and x.type.shape[1] == 3:
            grey = _brightness(b, x)
            x = b.add(b.mul(b.sub(x, grey), factor(2, saturation)), grey)
        return x

    def reference(self, x: Array, seed: Array, counter: Array, brightness: float, contrast: float, saturation: float, stream: int) -> Any:
        u = reference_draw(seed, counter, stream, np.arange(3 * len(x))).astype(x.dtype).reshape(-1, 3)
        result = x.copy()
        for n, image in enumerate(result):
            f = [max(0.0, 1 - a) + (1 + a - max(0.0, 1 - a)) * u[n, k] for k, a in enumerate((brightness, contrast, saturation))]
            image *= f[0]
            image[:] = f[1] * image + (1 - f[1]) * _reference_grey(image).mean()
            image[:] = f[2] * image + (1 - f[2]) * _reference_grey(image)
        return result


def _reference_grey(image: Array) -> Array:
    return image if len(image) == 1 else np.einsum("c,chw->hw", np.array(LUMA, image.dtype), image)[None]


@operator
class RandomNoise(Augmentation):
    """x with normal noise of deviation `std` added to every element."""

    attrs = {"std": Attr("float", doc="the standard deviation"), "stream": STREAM}
    samples = [Sample(((5, 3), *KEY), {"std": 0.5, "stream": 1}), Sample(((2, 1, 3, 4), *KEY), {"std": 0.0, "stream": 1})]
    errors = [
        BadSample((f32(1, 3), *KEY_TYPES), {"std": -1.0, "stream": 0}, "deviation"),
        BadSample((TensorType(I64, (1, 3)), *KEY_TYPES), {"std": 1.0, "stream": 0}, "floating-point"),
    ]

    def infer(self, x: TensorType, seed: TensorType, counter: TensorType, std: float, stream: int) -> TensorType:
        check_key(seed, counter)
        require("floating", "random_noise", x)
        if not 0 <= std < math.inf:
            raise TypeFailure(f"random_noise needs a finite deviation of at least 0, not {std}")
        return x

    def expand(self, b: Builder, x: Value, seed: Value, counter: Value, std: float, stream: int) -> Value:
        noise = b.random_normal(seed, counter, shape=x.type.shape, std=std, dtype=x.type.dtype, stream=stream)
        value: Value = b.add(x, noise)
        return value

    def reference(self, x: Array, seed: Array, counter: Array, std: float, stream: int) -> Any:
        first = 2 * np.arange(x.size, dtype=np.int64).reshape(x.shape)
        u, v = (reference_draw(seed, counter, stream, first + k).astype(x.dtype) for k in (0, 1))
        return np.asarray(x + std * np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * np.pi * v), x.dtype)
