"""Sound from RIFF WAVE files: PCM of 8, 16, 24 and 32 bits and 32- or 64-bit floats, mixed to one channel of -1..1.

Formats: "Multimedia Programming Interface and Data Specifications 1.0", IBM and Microsoft, 1991; WAVE_FORMAT_EXTENSIBLE. The standard
library's `wave` reads no floats and, before Python 3.12, nothing extensible, so the chunks are walked here for all of them. Sizes are
checked against the file, and only the part that a field holds is read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dslc.data.description import Array, refuse
from dslc.data.images import names_and_sizes

ENDINGS = (".wav",)
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MOST_CHANNELS = 256
_FULL = {1: 2.0**7, 2: 2.0**15, 3: 2.0**23, 4: 2.0**31}  # by bytes a sample


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its samples; `start` and `frames` are where they are and how many a channel."""

    kind: int
    channels: int
    rate: int
    sample_bytes: int
    start: int
    frames: int


def read_sound(path: Path, length: int) -> tuple[NDArray[np.float32], int]:
    """The first `length` samples `[length]`, the channels' mean, with zeros behind a shorter sound; and the rate in Hz. Error: DL0714."""
    try:
        with path.open("rb") as file:
            header = read_header(file)
            count = min(length, header.frames)
            file.seek(header.start)
            data = file.read(count * header.channels * header.sample_bytes)
    except (OSError, ValueError, struct.error) as error:
        raise refuse(
            "DL0714", f"{path} cannot be read as sound: {error}", "give uncompressed WAVE files: PCM of 8, 16, 24 or 32 bits, or floats"
        ) from error
    mixed = _samples(data, header).reshape(count, header.channels).mean(axis=1)
    if not np.isfinite(mixed).all():
        raise refuse("DL0714", f"{path} holds samples that are no numbers", "write it again")
    result = np.zeros(length, np.float32)
    result[:count] = mixed
    return result, header.rate


def read_header(file: BinaryIO) -> Header:
    """Walks the chunks to the samples. Raises ValueError for what is not whole or of another kind."""
    size = file.seek(0, 2)
    file.seek(0)
    riff = file.read(12)
    if riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        raise ValueError("it is no RIFF WAVE file")
    form: tuple[int, int, int, int] | None = None
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends before its samples")
        name, length = head[:4], struct.unpack("<I", head[4:])[0]
        if file.tell() + length > size:
            raise ValueError(f"it ends within its chunk {name.decode('ascii', 'replace')!r}: it is cut off")
        if name == b"data":
            break
        start = file.tell()
        if name == b"fmt ":
            form = _form(file.read(min(length, 40)))
        file.seek(start + length + length % 2)
    if form is None:
        raise ValueError("its samples come before their description")
    kind, channels, rate, sample_bytes = form
    if length % (channels * sample_bytes):
        raise ValueError("its last sample is not whole")
    return Header(kind, channels, rate, sample_bytes, file.tell(), length // (channels * sample_bytes))


def _form(chunk: bytes) -> tuple[int, int, int, int]:
    """(kind, channels, rate, bytes a sample)"""
    kind, channels, rate, _, block, bits = struct.unpack("<HHIIHH", chunk[:16])
    if kind == _EXTENSIBLE:
        kind = struct.unpack("<H", chunk[24:26])[0]  # the first field of the sub-format's GUID
    allowed = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}.get(kind)
    if allowed is None:
        raise ValueError(f"it is compressed (format {kind})")
    if bits not in allowed or not 1 <= channels <= _MOST_CHANNELS or block != channels * bits // 8 or rate == 0:
        raise ValueError(f"its {bits}-bit samples in {channels} channels at {rate} Hz, {block} bytes each, are none that can be")
    return kind, channels, rate, bits // 8


def _samples(data: bytes, header: Header) -> NDArray[np.float64]:
    """The samples as numbers of -1..1; exact for every format."""
    if header.kind == _FLOAT:
        return np.frombuffer(data, f"<f{header.sample_bytes}").astype(np.float64)
    full = _FULL[header.sample_bytes]
    if header.sample_bytes == 1:  # the only unsigned one
        return (np.frombuffer(data, np.uint8).astype(np.float64) - full) / full
    if header.sample_bytes == 3:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return (wide.view("<i4")[:, 0] >> 8).astype(np.float64) / full
    return np.frombuffer(data, f"<i{header.sample_bytes}").astype(np.float64) / full


@dataclass(frozen=True, slots=True)
class Sounds:
    """A column of sounds that are read when they are needed; all have the same rate."""

    paths: tuple[Path, ...]
    length: int
    rate: int

    costly = True
    held = ()

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def size(self) -> int:
        return self.length

    def read(self, indices: NDArray[np.intp], out: Array) -> None:
        for row, index in enumerate(indices):
            path = self.paths[index]
            out[row], rate = read_sound(path, self.length)
            if rate != self.rate:
                raise refuse(
                    "DL0714",
                    f"{path} has {rate:,} samples a second, the first file {self.rate:,}",
                    "bring all files to one rate; sounds are not resampled",
                )

    def pick(self, indices: NDArray[np.intp]) -> Sounds:
        return replace(self, paths=tuple(self.paths[i] for i in indices))

    def checksum(self, start: int) -> int:
        return names_and_sizes(self.paths, zlib.crc32(f"{self.length} {self.rate}".encode(), start))


def rate_of(paths: Sequence[Path]) -> int:
    """The rate of the first sound in Hz."""
    return read_sound(paths[0], 0)[1]
