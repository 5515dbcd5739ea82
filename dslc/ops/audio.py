"""Sound: windows, frames, the short-time Fourier transform as a contraction with cosines and sines, mel filters.

(Spectrograms and the log-mel front end are blocks of `std/audio.dl`.) What depends on settings alone is a constant, made when
the program is compiled.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dslc.ir import dims
from dslc.ir.builder import Builder
from dslc.ir.dims import Dim
from dslc.ir.graph import Value
from dslc.ir.loops import Expr, IndexValue, Reader, binary, const, reduce
from dslc.ir.operator import Attr, BadSample, Operator, Sample, TypeFailure, operator
from dslc.ir.types import DType, TensorType
from dslc.ops.shapes import Array, Index, cut, require
from dslc.ops.windows import both, guarded, inside

F32, F64, I64 = DType.F32, DType.F64, DType.I64
_DTYPE = Attr("dtype", F32, "the element type")


# ---- windows ------------------------------------------------------------------------------------------------------


class Window(Operator):
    """Base of the windows: a + b cos(2 pi n / period), with period size, or size - 1 where it is not `periodic`."""

    family = "audio"
    inputs = ()
    differentiable = False
    attrs = {
        "size": Attr("int", doc="how many samples"),
        "periodic": Attr("bool", True, "one period of a periodic function, as spectra need; else symmetric"),
        "dtype": _DTYPE,
    }
    samples = [
        Sample((), {"size": 8}),
        Sample((), {"size": 19, "periodic": False, "dtype": F64}),
        Sample((), {"size": 1, "periodic": False}),
    ]
    errors = [BadSample((), {"size": 0}, "at least 1"), BadSample((), {"size": 4, "dtype": I64}, "floating-point")]

    def infer(self, size: int, periodic: bool, dtype: DType) -> TensorType:
        if size < 1:
            raise TypeFailure(f"{self.name}: size must be at least 1, not {size}")
        if not dtype.floating:
            raise TypeFailure(f"{self.name} has floating-point numbers, not {dtype.value}")
        return TensorType(dtype, (size,))

    def expand(self, b: Builder, size: int, periodic: bool, dtype: DType) -> Value:
        return b.constant(window(self.name, size, periodic), dtype)

    def reference(self, size: int, periodic: bool, dtype: DType) -> Any:
        # By NumPy's own: a periodic window is a symmetric one of a sample more, without its last.
        made = {"hann_window": np.hanning, "hamming_window": np.hamming}[self.name]
        return (made(size + 1)[:-1] if periodic else made(size)).astype(dtype.numpy)


def window(name: str, size: int, periodic: bool) -> Array:
    """A window by its operator's name, in f64."""
    if size == 1:
        return np.ones(1)
    mean, swing = {"hann_window": (0.5, -0.5), "hamming_window": (0.54, -0.46)}[name]
    return mean + swing * np.cos(2 * np.pi * np.arange(size) / (size if periodic else size - 1))


@operator
class HannWindow(Window):
    """The window of von Hann, 0.5 - 0.5 cos(2 pi n / size)."""

    onnx = "HannWindow"


@operator
class HammingWindow(Window):
    """Hamming's window, 0.54 - 0.46 cos(2 pi n / size)."""

    onnx = "HammingWindow"


# ---- frames -------------------------------------------------------------------------------------------------------


@operator
class Frame(Operator):
    """Overlapping parts of x[..., T], each `size` samples long and `step` after the last: [..., (T - size) // step + 1, size]."""

    family = "audio"
    attrs = {"size": Attr("int", doc="samples of a frame"), "step": Attr("int", doc="samples from frame to frame")}
    samples = [
        Sample(((5, 11),), {"size": 4, "step": 2}),
        Sample(((2, 2, 10),), {"size": 3, "step": 4}),
        Sample(((25,),), {"size": 20, "step": 5}),
    ]
    errors = [
        BadSample((TensorType(F32, ()),), {"size": 4, "step": 1}, "[..., T]"),
        BadSample((TensorType(F32, (3,)),), {"size": 4, "step": 1}, "does not fit"),
        BadSample((TensorType(F32, (3,)),), {"size": 2, "step": 0}, "at least 1"),
    ]

    def infer(self, x: TensorType, size: int, step: int) -> TensorType:
        if x.rank < 1:
            raise TypeFailure(f"frame needs samples [..., T], not {x}", inputs=(0,))
        if min(size, step) < 1:
            raise TypeFailure(f"frame: size and step must be at least 1, not {size} and {step}")
        room = x.shape[-1] - size
        if isinstance(room, int) and room < 0:
            raise TypeFailure(f"a frame of {size} samples does not fit into {x}", inputs=(0,), axes=(x.rank - 1,))
        return x.with_shape((*x.shape[:-1], dims.floor_divide(room, step) + 1, size))

    def body(self, index: Index, x: Reader, size: int, step: int) -> Expr:
        return x[(*index[:-2], index[-2] * step + index[-1])]

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, size: int, step: int) -> tuple[Value]:
        return (b.overlap_add(dy, step=step, length=x.type.shape[-1]),)

    def reference(self, x: Array, size: int, step: int) -> Any:
        return np.lib.stride_tricks.sliding_window_view(x, size, axis=-1)[..., ::step, :].copy()


@operator
class OverlapAdd(Operator):
    """Frames x[..., F, size], each `step` samples after the last, added up: [..., (F - 1) * step + size], or `length` samples."""

    family = "audio"
    attrs = {
        "step": Attr("int", doc="samples from frame to frame"),
        "length": Attr("dim", None, "samples of the result: zeros behind the last frame, at most one step of them"),
    }
    samples = [
        Sample(((5, 4, 4),), {"step": 2, "length": 11}),
        Sample(((2, 2, 2, 3),), {"step": 4}),
        Sample(((2, 20),), {"step": 5}),
    ]
    errors = [
        BadSample((TensorType(F32, (4,)),), {"step": 1}, "[..., F, size]"),
        BadSample((TensorType(F32, (2, 4)),), {"step": 0}, "at least 1"),
        BadSample((TensorType(F32, (2, 4)),), {"step": 2, "length": 9}, "2 frames"),
    ]

    def infer(self, x: TensorType, step: int, length: Dim | None) -> TensorType:
        if x.rank < 2:
            raise TypeFailure(f"overlap_add needs frames [..., F, size], not {x}", inputs=(0,))
        require("number", "overlap_add", x)
        if step < 1:
            raise TypeFailure(f"overlap_add: step must be at least 1, not {step}")
        frames, size = x.shape[-2:]
        total = (frames - 1) * step + size
        if length is not None:
            if dims.floor_divide(length - size, step) + 1 != frames:
                raise TypeFailure(f"overlap_add: {length} samples are not {frames} frames of {size} in steps of {step}", inputs=(0,))
            total = length
        return x.with_shape((*x.shape[:-2], total))

    def body(self, index: Index, x: Reader, step: int, length: Dim | None) -> Expr:
        *lead, t = index
        frames, size = x.type.shape[-2:]
        assert isinstance(size, int)
        count = -(-size // step)  # frames that can hold a sample: the last that starts at or before it and those before

        def term(j: Dim) -> Expr:
            frame = dims.floor_divide(t, step) - (count - 1) + j
            place = t - frame * step
            condition = inside(frame, frames)
            if size % step:
                condition = both(condition, binary("lt", IndexValue(place), const(size, I64)))
            return guarded(condition, x[(*lead, frame, place)], 0)

        return reduce("add", (count,), term)

    def vjp(self, b: Builder, dy: Value, y: Value, x: Value, step: int, length: Dim | None) -> tuple[Value]:
        size = x.type.shape[-1]
        assert isinstance(size, int)
        return (b.frame(dy, size=size, step=step),)

    def reference(self, x: Array, step: int, length: int | None) -> Any:
        frames, size = x.shape[-2:]
        y = np.zeros((*x.shape[:-2], length or (frames - 1) * step + size), x.dtype)
        for f in range(frames):
            y[..., f * step : f * step + size] += x[..., f, :]
        return y


# ---- spectra ------------------------------------------------------------------------------------------------------


@operator
class Stft(Operator):
    """The short-time Fourier transform of x[..., T]: its real and its imaginary part, [..., size // 2 + 1, frames] each.

    Frames of `size` samples, weighted by a window; `centre` puts the middle of the first on sample 0 by mirroring half a frame
    at both ends. One contraction with cosines and sines. As torch.stft(onesided) of a window as long as a frame.
    """

    onnx = "STFT"
    family = "audio"
    attrs = {
        "size": Attr("int", doc="samples of a frame"),
        "step": Attr("int", None, "samples from frame to frame; a quarter of the size unless told"),
        "window": Attr("str", "hann", '"hann", "hamming" or "ones"'),
        "centre": Attr("bool", True, "mirror half a frame at both ends"),
    }
    samples = [
        Sample(((5, 12),), {"size": 8, "step": 3}),
        Sample(((2, 2, 9),), {"size": 6, "window": "hamming", "centre": False}),
        Sample(((11,),), {"size": 5, "window": "ones"}),
    ]
    errors = [
        BadSample((TensorType(F32, ()),), {"size": 4}, "[..., T]"),
        BadSample((TensorType(F32, (8,)),), {"size": 16}, "mirror 8 samples"),
        BadSample((TensorType(F32, (8,)),), {"size": 9, "centre": False}, "does not fit"),
        BadSample((TensorType(F32, (8,)),), {"size": 1}, "at least 2"),
        BadSample((TensorType(F32, (8,)),), {"size": 4, "window": "box"}, '"hamming"'),
        BadSample((TensorType(I64, (8,)),), {"size": 4}, "floating-point"),
    ]

    def padded(self, x: TensorType, size: int, centre: bool) -> TensorType:
        """The type of the samples with what is mirrored at both ends."""
        half = size // 2 if centre else 0
        length = x.shape[-1]
        if half and isinstance(length, int) and length <= half:
            raise TypeFailure(f"stft cannot mirror {half} samples of {x}", inputs=(0,), axes=(x.rank - 1,))
        return x.with_shape((*x.shape[:-1], length + 2 * half))

    def infer(self, x: TensorType, size: int, step: int | None, window: str, centre: bool) -> tuple[TensorType, TensorType]:
        require("floating", "stft", x)
        if x.rank < 1:
            raise TypeFailure(f"stft needs samples [..., T], not {x}", inputs=(0,))
        if size < 2:
            raise TypeFailure(f"stft: size must be at least 2, not {size}")
        if window not in ("hann", "hamming", "ones"):
            raise TypeFailure(f'stft: the window is "hann", "hamming" or "ones", not "{window}"')
        framed = Frame().infer(self.padded(x, size, centre), size, _step(size, step))
        part = x.with_shape((*x.shape[:-1], size // 2 + 1, framed.shape[-2]))
        return part, part

    def expand(self, b: Builder, x: Value, size: int, step: int | None, window: str, centre: bool) -> tuple[Value, Value]:
        if centre:
            x = b.pad(x, low=(size // 2,), high=(size // 2,), mode="reflect")
        frames = b.frame(x, size=size, step=_step(size, step))
        spectrum = b.matmul(frames, b.constant(_basis(size, window), x.type.dtype))
        rank, bins = spectrum.type.rank, size // 2 + 1
        turned = b.transpose(spectrum, axes=(*range(rank - 2), rank - 1, rank - 2))
        return cut(b, turned, rank - 2, 0, bins), cut(b, turned, rank - 2, bins, 2 * bins)

    def reference(self, x: Array, size: int, step: int | None, window: str, centre: bool) -> Any:
        if centre:
            x = np.pad(x, [*([(0, 0)] * (x.ndim - 1)), (size // 2, size // 2)], mode="reflect")
        weights = {"hann": np.hanning(size + 1)[:-1], "hamming": np.hamming(size + 1)[:-1], "ones": np.ones(size)}[window]
        frames = np.lib.stride_tricks.sliding_window_view(x, size, axis=-1)[..., :: _step(size, step), :]
        spectrum = np.swapaxes(np.fft.rfft(frames.astype(np.float64) * weights), -1, -2)
        return spectrum.real.astype(x.dtype), spectrum.imag.astype(x.dtype)


def _step(size: int, step: int | None) -> int:
    return max(1, size // 4) if step is None else step


def _basis(size: int, name: str) -> Array:
    """[size, 2 * bins]: the window times cosines, then times minus the sines."""
    bins = size // 2 + 1
    angle = 2 * np.pi / size * (np.outer(np.arange(size), np.arange(bins)) % size)
    weights = np.ones(size) if name == "ones" else window(f"{name}_window", size, True)
    return np.asarray(weights[:, None] * np.concatenate([np.cos(angle), -np.sin(angle)], 1))


@operator
class MelFilters(Operator):
    """Triangular filters at equal steps of the mel scale: [bins, mels], which turn a spectrum of `bins` frequencies into mels.

    The frequencies are from 0 to rate // 2. "htk" is 2595 log10(1 + f / 700); "slaney" is linear below 1 kHz and logarithmic
    above. With `norm` a filter's area is 1, as in Slaney's Auditory Toolbox. As torchaudio's melscale_fbanks.
    """

    onnx = "MelWeightMatrix"
    family = "audio"
    inputs = ()
    differentiable = False
    attrs = {
        "bins": Attr("int", doc="frequencies of the spectrum, size // 2 + 1"),
        "mels": Attr("int", doc="how many filters"),
        "rate": Attr("int", doc="samples a second"),
        "low": Attr("float", 0.0, "the lowest frequency, in Hz"),
        "high": Attr("float", None, "the highest frequency, in Hz; half of the rate unless told"),
        "scale": Attr("str", "htk", '"htk" or "slaney"'),
        "norm": Attr("bool", False, "filters of equal area"),
        "dtype": _DTYPE,
    }
    samples = [
        Sample((), {"bins": 33, "mels": 5, "rate": 16000}),
        Sample((), {"bins": 65, "mels": 8, "rate": 16000, "low": 50.0, "high": 7000.0, "scale": "slaney", "norm": True, "dtype": F64}),
    ]
    errors = [
        BadSample((), {"bins": 1, "mels": 5, "rate": 16000}, "at least"),
        BadSample((), {"bins": 9, "mels": 0, "rate": 16000}, "at least"),
        BadSample((), {"bins": 9, "mels": 5, "rate": 16000, "low": 9000.0}, "from 9000.0 to 8000.0"),
        BadSample((), {"bins": 9, "mels": 5, "rate": 16000, "scale": "bark"}, '"slaney"'),
    ]

    def infer(self, bins: int, mels: int, rate: int, low: float, high: float | None, scale: str, norm: bool, dtype: DType) -> TensorType:
        if bins < 2 or mels < 1 or rate < 2:
            raise TypeFailure(f"mel_filters needs at least 2 bins, 1 mel and a rate of 2, not {bins}, {mels} and {rate}")
        if scale not in ("htk", "slaney"):
            raise TypeFailure(f'mel_filters: the scale is "htk" or "slaney", not "{scale}"')
        top = rate / 2 if high is None else high
        if not 0 <= low < top:
            raise TypeFailure(f"mel_filters: frequencies from {low} to {top} are not in order")
        if not dtype.floating:
            raise TypeFailure(f"mel_filters has floating-point numbers, not {dtype.value}")
        return TensorType(dtype, (bins, mels))

    def expand(
        self, b: Builder, bins: int, mels: int, rate: int, low: float, high: float | None, scale: str, norm: bool, dtype: DType
    ) -> Value:
        to_mel, to_hertz = (_htk_mel, _htk_hertz) if scale == "htk" else (_slaney_mel, _slaney_hertz)
        corners = to_hertz(np.linspace(to_mel(low), to_mel(rate / 2 if high is None else high), mels + 2))
        distance = corners[None] - np.linspace(0, rate // 2, bins)[:, None]
        rising, falling = -distance[:, :-2] / np.diff(corners)[:-1], distance[:, 2:] / np.diff(corners)[1:]
        filters = np.maximum(0, np.minimum(rising, falling))
        return b.constant(filters * (2 / (corners[2:] - corners[:-2]) if norm else 1.0), dtype)

    def reference(self, bins: int, mels: int, rate: int, low: float, high: float | None, scale: str, norm: bool, dtype: DType) -> Any:
        # Each filter as a piecewise linear function through its three corners.
        top = rate / 2 if high is None else high
        if scale == "htk":
            ends = [2595 * math.log10(1 + f / 700) for f in (low, top)]
            corners = [700 * (10 ** ((ends[0] + (ends[1] - ends[0]) * k / (mels + 1)) / 2595) - 1) for k in range(mels + 2)]
        else:
            ends = [15 + 27 * math.log(f / 1000, 6.4) if f >= 1000 else 3 * f / 200 for f in (low, top)]
            points = [ends[0] + (ends[1] - ends[0]) * k / (mels + 1) for k in range(mels + 2)]
            corners = [1000 * 6.4 ** ((m - 15) / 27) if m >= 15 else 200 * m / 3 for m in points]
        frequencies = np.arange(bins) * (rate // 2) / (bins - 1)
        columns = [np.interp(frequencies, corners[k : k + 3], [0, 1, 0], 0, 0) for k in range(mels)]
        areas = [2 / (corners[k + 2] - corners[k]) if norm else 1.0 for k in range(mels)]
        return (np.stack(columns, 1) * areas).astype(dtype.numpy)


def _htk_mel(f: float) -> float:
    return 2595 * math.log10(1 + f / 700)


def _htk_hertz(m: Array) -> Array:
    return np.asarray(700 * (10 ** (m / 2595) - 1))


def _slaney_mel(f: float) -> float:
    """3 mels for 200 Hz up to 1 kHz, then 27 for a factor of 6.4."""
    return 15 + math.log(f / 1000) * 27 / math.log(6.4) if f >= 1000 else f * 3 / 200


def _slaney_hertz(m: Array) -> Array:
    return np.where(m >= 15, 1000 * np.exp(math.log(6.4) / 27 * (m - 15)), m * 200 / 3)
