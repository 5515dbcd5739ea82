"""`"tones"`: spoken numbers of a made-up language, synthesised when the data are opened: sounds, and the symbols that they say.

| field | holds |
|---|---|
| f32[N, T] | the sound, 8,000 samples a second, then silence; T is at least 1,760 |
| i64[N, S] | the symbols 1 to 10 that are said, at most S of them and as many as T holds, then 0 |
| i64[N], named `samples` | how many samples the sound has |
| i64[N] | how many symbols are said |

A symbol is two tones at once, as a vowel has two formants. Voices differ by 4 % in pitch, symbols in length (80 to 160 ms), loudness and
glide; between them are 20 to 60 ms, and noise lies over all. An utterance follows from `seed`, its number and the declared sizes, by raw outputs of NumPy's
Philox 4x64-10 and arithmetic on integers, so that it is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dslc.data.dataset import DataSet, Split, make_split
from dslc.data.description import Array, DataDescription, Field, FieldDescription, refuse
from dslc.data.places import check_memory

RATE = 8000
COUNT = 2000
HELD_OUT_SHARE = 4  # a fourth of the number of training utterances is made for the test
FORMANTS = ((300, 900), (300, 1300), (300, 1900), (300, 2700), (420, 1300), (420, 1900), (420, 2700), (590, 1300), (590, 1900), (590, 2700))
"""Hz, of the symbols from 1 on."""
LONGEST = 1760  # samples of a symbol and what is behind it
_MOST_COUNT = 1_000_000
_TEST_KEY = 1 << 63
_FULL = 1 << 15
_SINE: NDArray[np.int64] = np.rint(np.sin(np.arange(4096) * (2 * np.pi / 4096)) * (1 << 14)).astype(np.int64)


def open_tones(fields: Sequence[Field], count: int, seed: int) -> DataSet:
    """The DataSet of `count` training utterances and a fourth as many for the test. Errors: DL0704, DL0710, DL0715."""
    if not 1 <= count <= _MOST_COUNT:
        raise refuse("DL0710", f"'tones' has no {count:,} utterances", f"`count` is a whole number from 1 to {_MOST_COUNT:,}")
    roles = _roles(fields)
    length = next(f.shape[0] for f in fields if roles[f.name] == "sound")
    most = min((f.shape[0] for f in fields if roles[f.name] == "symbols"), default=length)
    check_memory(2 * count * sum(8 * f.size for f in fields), "'tones'")
    described = tuple(
        FieldDescription(f, scale=1.0 / _FULL, rate=RATE) if roles[f.name] == "sound" else FieldDescription(f) for f in fields
    )
    most = min(most, length // LONGEST)
    held_out = max(1, count // HELD_OUT_SHARE)
    train, test = (_spoken(fields, roles, seed, first, n, length, most) for first, n in ((0, count), (_TEST_KEY, held_out)))
    return DataSet(DataDescription("tones", described), train, test)


def _roles(fields: Sequence[Field]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for field in fields:
        whole = field.dtype in ("i32", "i64")
        if field.floating and len(field.shape) == 1 and field.shape[0] >= LONGEST:
            role = "sound"
        elif whole and len(field.shape) == 1 and field.shape[0] >= 1:
            role = "symbols"
        elif whole and not field.shape:
            role = "samples" if field.name == "samples" else "count"
        else:
            role = ""
        if not role or role in roles.values():
            raise _unfit(field)
        roles[field.name] = role
    if "sound" not in roles.values():
        raise _unfit(fields[0])
    return roles


def _unfit(field: Field) -> Exception:
    return refuse(
        "DL0704",
        f"'tones' cannot give {field}",
        f"it has sounds, f32[N, T] with T of at least {LONGEST}, symbols, i64[N, S], their number, i64[N], and `samples`: i64[N]",
    )


def _spoken(fields: Sequence[Field], roles: Mapping[str, str], seed: int, first: int, count: int, length: int, most: int) -> Split:
    arrays: dict[str, Array] = {f.name: np.zeros((count, *f.shape), f.numpy if roles[f.name] == "sound" else np.int64) for f in fields}
    for number in range(count):
        random = np.random.Philox(key=np.array([seed, first + number], np.uint64))
        symbols = [1 + _below(random, len(FORMANTS)) for _ in range(1 + _below(random, most))]
        sound = _sound(random, symbols, length)
        for name, role in roles.items():
            if role == "sound":
                arrays[name][number, : len(sound)] = sound
            elif role == "symbols":
                arrays[name][number, : len(symbols)] = symbols
            else:
                arrays[name][number] = len(sound) if role == "samples" else len(symbols)
    return make_split(fields, arrays, "'tones'")


def _sound(random: np.random.Philox, symbols: Sequence[int], length: int) -> NDArray[np.int64]:
    """The samples of an utterance, -32768..32767; at most `length` of them, which no sequence of symbols exceeds."""
    voice = 960 + _below(random, 81)  # thousandths
    parts = []
    for symbol in symbols:
        count = 640 + _below(random, 641)
        glide, loudness = _below(random, 61) - 30, 40 + _below(random, 61)
        t = np.arange(count)
        wave = np.zeros(count, np.int64)
        for hertz, strength in zip(FORMANTS[symbol - 1], (3, 2), strict=True):
            step = hertz * voice * 2**32 // (1000 * RATE)
            steps = step + step * glide * t // (1000 * count)  # the pitch moves by 3 % at most
            wave += strength * _SINE[((np.cumsum(steps) >> 20) & 4095)]
        rise = np.minimum(np.minimum(t + 1, count - t), 128)  # 16 ms up and down
        parts += [(wave * rise * loudness) // (128 * 100 * 5), np.zeros(160 + _below(random, 321), np.int64)]
    clean = np.concatenate(parts)[:length]
    noise = random.random_raw((len(clean) + 3) // 4).astype("<u8").view("<u2")[: len(clean)].astype(np.int64)
    return np.clip(clean + (noise - _FULL) // 16, -_FULL, _FULL - 1)


def _below(random: np.random.Philox, bound: int) -> int:
    """A whole number from 0 to `bound` - 1; the bias of 2**-50 and less does not matter here."""
    return int(random.random_raw()) % bound
