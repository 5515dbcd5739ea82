"""Inputs from files: arrays (.npy, .npz), tables of arrays by name, and pictures (.png, .jpg), sounds (.wav) and text prepared as in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.plan import PortPlan, concrete
from dslc.runtime.convert import DTYPES, Array, show

if TYPE_CHECKING:
    from dslc.data.description import DataDescription, FieldDescription

PICTURES = (".png", ".jpg", ".jpeg")
SOUNDS = (".wav",)
TEXTS = (".txt",)
ARRAYS = (".npy", ".npz")


def read_inputs(
    given: Sequence[tuple[str, Path | str]], ports: Sequence[PortPlan], description: DataDescription | None
) -> dict[str, Array]:
    """Arrays for a program's inputs from files by input name; several pictures, sounds or texts of one name are a batch.

    A `str` is text itself. An input `length` of the program, if it is not given, says how many symbols each text has.
    Errors: DL0808; DL0711, DL0714 for files that are damaged, DL0716 for text that cannot be spelt.

    An .npz file may hold several inputs: its arrays are taken by name for every input that is not given otherwise.
    """
    known = {p.name: p for p in ports}
    found: dict[str, Array] = {}
    examples: dict[str, list[Array]] = {}
    lengths: list[int] = []
    for name, path in given:
        if name not in known:
            raise _refused(f"the program has no input `{name}`", f"its inputs are {', '.join(f'`{n}`' for n in known) or 'none'}")
        if isinstance(path, str) or path.suffix.lower() in TEXTS:
            row, count = _text(path, known[name], description)
            examples.setdefault(name, []).append(row)
            lengths.append(count)
        elif path.suffix.lower() in PICTURES:
            examples.setdefault(name, []).append(_picture(path, known[name], description))
        elif path.suffix.lower() in SOUNDS:
            examples.setdefault(name, []).append(_sound(path, known[name], description))
        elif path.suffix.lower() in ARRAYS:
            found[name] = _array(path, name)
        else:
            raise _refused(
                f"{path} is neither an array nor a picture, sound or text", f"give {', '.join((*ARRAYS, *PICTURES, *SOUNDS, *TEXTS))}"
            )
    for name, parts in examples.items():
        found[name] = np.stack(parts)
    counted = known.get("length")
    if lengths and counted is not None and "length" not in found and not _example(counted):
        found["length"] = np.array(lengths, DTYPES[counted.dtype])
    return found


def _text(given: Path | str, port: PortPlan, description: DataDescription | None) -> tuple[Array, int]:
    """One example: a text's first symbols, zeros behind a shorter one; and how many there are."""
    shape, kind = _example(port), DTYPES[port.dtype]
    coding = description.coding if description is not None else None
    if kind.kind not in "iu" or len(shape) != 1:
        raise _refused(
            f"the input `{port.name}` is {show(port.dtype, port.shape)}, which is no text", "text goes to inputs such as i64[N, 64]"
        )
    if coding is None:
        raise _refused(
            "the weights do not say how text becomes numbers", "they do where the recipe trained on text; give an .npy file of numbers"
        )
    try:
        text = given if isinstance(given, str) else _there(given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(f"{given} cannot be read as text: {error}", "give a file of UTF-8 text") from error
    numbers = coding.encode(text, whole=True)[: shape[0]]
    row = np.zeros(shape, kind)
    row[: len(numbers)] = numbers
    return row, len(numbers)


def texts_of(description: DataDescription | None, array: Array) -> list[str] | None:
    """The texts that rows of numbers spell, where the data was text and the array may be that: integers [N, T]."""
    if description is None or description.coding is None or array.ndim != 2 or array.dtype.kind not in "iu":
        return None
    return [description.coding.decode(row.tolist()) for row in array]


def _array(path: Path, name: str) -> Array:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it holds no arrays of numbers"
        raise _refused(f"{path} cannot be read: {why}", "write it with numpy.save or numpy.savez") from error
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        names = list(loaded.files)
        if name not in names and len(names) != 1:
            raise _refused(f"{path} has no array `{name}`", f"it has {', '.join(f'`{n}`' for n in names[:12])}")
        try:
            array: Array = loaded[name if name in names else names[0]]
        except (OSError, ValueError, EOFError) as error:
            raise _refused(f"{path} cannot be read: {error}", "write it with numpy.savez") from error
        return array


def _picture(path: Path, port: PortPlan, description: DataDescription | None) -> Array:
    """One example: a picture in the size, channels and scale that the input wants."""
    from dslc.data.images import geometry, read_picture

    field, shape = _field(port.name, description), _example(port)
    wanted = geometry(shape, field.fit if field is not None else "stretch")
    if wanted is None:
        raise _refused(
            f"the input `{port.name}` is {show(port.dtype, port.shape)}, which is no picture",
            "pictures go to inputs such as f32[N, 1, 28, 28], f32[N, 3, 64, 64] or f32[N, 784]; give an .npy file",
        )
    pixels = read_picture(_there(path), wanted).reshape(shape)
    if field is not None:
        return field.from_picture(pixels)
    kind = DTYPES[port.dtype]
    values = (pixels / np.float32(255)).astype(kind) if kind.kind == "f" else pixels.astype(kind)
    return np.ascontiguousarray(values)


def _sound(path: Path, port: PortPlan, description: DataDescription | None) -> Array:
    """One example: the beginning of a sound, as long as the input wants, with silence behind a shorter one."""
    from dslc.data.sound import read_sound

    field, shape = _field(port.name, description), _example(port)
    if DTYPES[port.dtype].kind != "f" or not (len(shape) == 1 or (len(shape) == 2 and shape[0] == 1)):
        raise _refused(
            f"the input `{port.name}` is {show(port.dtype, port.shape)}, which is no sound", "sounds go to inputs such as f32[N, 16000]"
        )
    samples, rate = read_sound(_there(path), shape[-1])
    if field is not None and field.rate not in (None, rate):
        raise _refused(
            f"{path} has {rate:,} samples a second, those of training {field.rate:,}", "bring it to that rate; sounds are not resampled"
        )
    values = samples.reshape(shape)
    return field.from_stored(values) if field is not None else values.astype(DTYPES[port.dtype])


def _example(port: PortPlan) -> tuple[int, ...]:
    """The shape of one example."""
    return concrete(port.shape, 1)[1:]


def _there(path: Path) -> Path:
    if not path.is_file():
        raise _refused(f"{path} cannot be read: there is no such file", "check its name")
    return path


def _field(name: str, description: DataDescription | None) -> FieldDescription | None:
    return next((f for f in description.fields if f.field.name == name), None) if description is not None else None


def classes_of(description: DataDescription | None, width: int) -> Sequence[str] | None:
    """The names of the classes, where the data has a class field with as many as there are columns."""
    if description is None:
        return None
    return next((f.classes for f in description.fields if len(f.classes) == width), None)


def probabilities(logits: Array) -> Array:
    """Rows that are probabilities already, or their softmax."""
    values = logits.astype(np.float64)
    sums = values.sum(axis=-1, keepdims=True)
    if values.min() >= 0 and np.allclose(sums, 1.0, atol=1e-3):
        return values
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Arrays as .npz, or, if there is one, as .npy. DL0803 where the file cannot be written."""
    suffix = path.suffix.lower()
    if suffix not in ARRAYS or (suffix == ".npy" and len(results) != 1):
        raise _refused(f"results cannot be written as {path.name}", "give a name that ends in .npz; a single result may go to .npy")
    try:
        with path.open("wb") as file:
            if suffix == ".npy":
                np.save(file, next(iter(results.values())))
            else:
                np.savez(file, **results)
    except OSError as error:
        raise DiagnosticError(
            Diagnostic(
                "DL0803", f"{path} cannot be written: {error.strerror or error}", hint="give a folder that exists and may be written"
            )
        ) from error


def _refused(message: str, hint: str) -> DiagnosticError:
    return DiagnosticError(Diagnostic("DL0808", message, hint=hint))
