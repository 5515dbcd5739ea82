"""WAVE files: every format, mixing, cropping, padding, rates, and refusal of damaged and hostile files."""

from __future__ import annotations

import io
import struct
import wave as standard
from pathlib import Path

import numpy as np
import pytest
from files import wave
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dslc.data import DataDescription, Field, open_data
from dslc.data.sound import read_sound
from dslc.diagnostics import DiagnosticError

SOUND, LABEL = Field("sound", "f32", (100,)), Field("label", "i64")


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DiagnosticError) as caught:
        read_sound(path, 10)
    assert [d.code for d in caught.value.diagnostics] == ["DL0714"] and str(path) in caught.value.render()
    return caught.value.render()


def test_every_format_is_exact(tmp_path: Path) -> None:
    exact = np.array([0.0, 0.5, -0.5, -1.0, 0.25, 127 / 128])
    wide = (exact * 2**23).astype("<i4")
    written = {
        (1, 8): (exact * 128 + 128).astype(np.uint8).tobytes(),
        (1, 16): (exact * 2**15).astype("<i2").tobytes(),
        (1, 24): b"".join(int(v).to_bytes(3, "little", signed=True) for v in wide),
        (1, 32): (exact * 2**31).astype("<i4").tobytes(),
        (3, 32): exact.astype("<f4").tobytes(),
        (3, 64): exact.astype("<f8").tobytes(),
    }
    for (kind, bits), samples in written.items():
        for extensible in (False, True):
            (tmp_path / "a.wav").write_bytes(wave(samples, kind, bits=bits, extensible=extensible))
            values, rate = read_sound(tmp_path / "a.wav", 8)
            assert rate == 8000 and values.dtype == np.float32 and values.tolist() == [*exact, 0.0, 0.0], (kind, bits)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_what_the_standard_library_writes(tmp_path: Path, width: int, channels: int) -> None:
    samples = np.random.default_rng(width).integers(0, 256, 30 * width * channels, np.uint8).tobytes()
    with standard.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(44100)
        file.writeframes(samples)
    values, rate = read_sound(tmp_path / "a.wav", 20)
    with standard.open(io.BytesIO((tmp_path / "a.wav").read_bytes())) as file:
        raw = file.readframes(20)
    numbers = [int.from_bytes(raw[i : i + width], "little", signed=width > 1) for i in range(0, len(raw), width)]
    full = 2.0 ** (8 * width - 1)
    each = np.array(numbers, np.float64).reshape(20, channels) / full - (width == 1)
    assert rate == 44100 and np.array_equal(values, each.mean(axis=1).astype(np.float32))


def tones(base: Path, rate: int = 8000) -> Path:
    for c, name in enumerate(("high", "low")):
        (base / "tones" / name).mkdir(parents=True)
        for i in range(3):
            samples = np.full(60 + 40 * i, 1000 * c + i, "<i2")
            (base / "tones" / name / f"{i}.wav").write_bytes(wave(samples.tobytes(), rate=rate))
    return base


def test_a_folder_of_sounds(tmp_path: Path) -> None:
    for shape in ((100,), (1, 100)):
        data = open_data("wav:tones/", [Field("sound", "f32", shape), LABEL], base=tones(tmp_path / str(len(shape))))
        assert data.train.count == 6 and data.description["label"].classes == ("high", "low")
        assert data.description["sound"].rate == 8000 and DataDescription.from_json(data.description.to_json()) == data.description
        sounds = data.train.arrays["sound"].reshape(6, 100)
        assert sounds[3].tolist() == [np.float32(1000 / 2**15)] * 60 + [0.0] * 40 and (sounds[5] == np.float32(1002 / 2**15)).all()
        assert data.train.arrays["label"].tolist() == [0, 0, 0, 1, 1, 1]


def test_sounds_of_different_rates_are_refused(tmp_path: Path) -> None:
    base = tones(tmp_path)
    (base / "tones" / "low" / "9.wav").write_bytes(wave(bytes(20), rate=16000))
    with pytest.raises(DiagnosticError, match="16,000 samples a second") as caught:
        open_data("wav:tones/", [SOUND, LABEL], base=base)
    assert "9.wav" in caught.value.render()
    for field in (Field("sound", "i64", (100,)), Field("sound", "f32", (2, 100)), Field("sound", "f32")):
        with pytest.raises(DiagnosticError, match="DL0704"):
            open_data("wav:tones/", [field, LABEL], base=base)


def test_damaged_and_hostile_files(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    good = wave(bytes(40))
    assert "no RIFF" in refused(path, b"") and "no RIFF" in refused(path, b"OggS" + bytes(60))
    for cut in (13, 20, 30, 50, len(good) - 1):
        refused(path, good[:cut])
    assert "cut off" in refused(path, good[:-40] + bytes(4)), "a shorter file than announced"
    huge = good[:-44] + struct.pack("<I", 0xFFFFFFF0) + bytes(40)
    assert "cut off" in refused(path, huge)
    assert "not whole" in refused(path, wave(bytes(41)))
    assert "compressed (format 2)" in refused(path, wave(bytes(40), kind=2, bits=4))
    for options in ({"bits": 12}, {"bits": 0}, {"channels": 0}, {"channels": 30000}, {"rate": 0}, {"kind": 3, "bits": 16}):
        refused(path, wave(bytes(40), **{"channels": 1, "rate": 8000, **options}))
    assert "no numbers" in refused(path, wave(struct.pack("<f", float("nan")), kind=3, bits=32))
    assert "before their description" in refused(path, b"RIFF\x20\0\0\0WAVEdata\x04\0\0\0" + bytes(4))
    read, _ = read_sound(_written(path, wave(b"")), 5)
    assert read.tolist() == [0.0] * 5, "silence is a sound"


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(wave(bytes(range(40)), extensible=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = _written(tmp_path / "a.wav", bytes(content))
    try:
        values, _ = read_sound(path, 10)
        assert values.shape == (10,) and np.isfinite(values).all()
    except DiagnosticError as error:
        assert [d.code for d in error.diagnostics] == ["DL0714"]
