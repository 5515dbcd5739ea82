"""What callers hand in, as arrays that kernels can read: right, or refused with a Diagnostic that names the argument.

A C-contiguous, aligned array of the right dtype is used as it is. Anything else is copied: strided, misaligned and byte-swapped arrays,
lists, DLPack objects, arrays of `ml_dtypes.bfloat16`. Values may be converted where nothing is lost (u8 to f32, i32 to i64, integers that fit) and between floating
types; a float never becomes an integer, a number never a bool.
"""

from __future__ import annotations

import ctypes
import difflib
import struct
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from dslc.diagnostics import Diagnostic, DiagnosticError
from dslc.ir.plan import PortPlan, Shape

Array = np.ndarray[Any, Any]

# bf16 has no NumPy type: its bits travel as uint16
DTYPES: dict[str, np.dtype[Any]] = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "i8": np.dtype(np.int8),
    "u8": np.dtype(np.uint8),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "bool": np.dtype(np.bool_),
}
_PACK = {"f16": "e", "f32": "f", "f64": "d", "i8": "b", "u8": "B", "i32": "i", "i64": "q", "bool": "?"}
_DATA_OFFSET = object.__basicsize__  # NumPy's PyArrayObject: the object's head, then the pointer to the data


def _address_slow(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _address_fast(array: Array) -> int:
    return _read_pointer(id(array) + _DATA_OFFSET).value


_read_pointer = ctypes.c_size_t.from_address


def _choose() -> Any:
    probe = np.arange(64, dtype=np.float32)
    views = (probe, probe[3:], probe[::2].reshape(4, 8), np.zeros(()), np.zeros((2, 0)))
    return _address_fast if all(_address_fast(v) == _address_slow(v) for v in views) else _address_slow


address_of = _choose()
"""Where an array's data is. The slow documented way takes 1 us; the pointer is read directly where a probe shows that this agrees."""


def refuse(code: str, message: str, hint: str | None = None) -> DiagnosticError:
    """The error to raise."""
    return DiagnosticError(Diagnostic(code, message, hint=hint))


def bf16_values(bits: Array) -> Array:
    """The f32 values of bf16 numbers given by their bits; exact."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def did_you_mean(name: object, names: Iterable[str]) -> str | None:
    """A hint with the nearest of `names`, or all of them."""
    known = sorted(names)
    lower = {n.lower(): n for n in known}
    near = difflib.get_close_matches(str(name).lower(), lower, 1)
    if near:
        return f"did you mean `{lower[near[0]]}`?"
    return f"there are: {', '.join(f'`{n}`' for n in known[:12])}" + (", ..." if len(known) > 12 else "") if known else "there are none"


def show(dtype: str, shape: Shape) -> str:
    """`f32[N, 3, 8]`."""
    extents = ", ".join(str(e) if isinstance(e, int) else ("N" if e[1] == 1 else f"{e[1]} * N") for e in shape)
    return f"{dtype}[{extents}]"


def show_array(array: Array) -> str:
    """The type of an array in the same form."""
    names = {value: key for key, value in DTYPES.items() if key != "bf16"}
    return f"{names.get(array.dtype, array.dtype)}[{', '.join(map(str, array.shape))}]"


def convert(name: str, dtype: str, value: Any) -> Array:
    """`value` as a C-contiguous, aligned array of `dtype`, whatever its shape; DL0652 or DL0656 where that is not right."""
    array = _as_array(name, value)
    if array.dtype.name == "bfloat16":  # the package ml_dtypes
        array = bf16_values(array.view(np.uint16))
    if array.dtype.kind not in "biuf":
        raise refuse("DL0656", f"`{name}` is no array of numbers but {type(value).__name__}")
    wanted = DTYPES[dtype]
    if array.dtype != wanted:
        array = _cast(name, dtype, array, wanted)
    if not (array.flags.c_contiguous and array.flags.aligned) or array.dtype.byteorder == ">":
        shape = array.shape  # ascontiguousarray makes a 0-d array 1-d
        array = np.ascontiguousarray(array, wanted).reshape(shape)
        if not array.flags.aligned:
            array = array.copy()
    return array if type(array) is np.ndarray else array.view(np.ndarray)


def _as_array(name: str, value: Any) -> Array:
    masked = sys.modules.get("numpy.ma")  # who has a masked array has imported it, and nobody else pays for that
    if masked is not None and isinstance(value, masked.MaskedArray):
        raise refuse("DL0656", f"`{name}` is a masked array", "fill it: `array.filled(0)`")
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "__dlpack__") and not isinstance(value, np.generic):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError, BufferError, OverflowError, AttributeError) as error:
        reason = str(error).split("\n")[0][:200]
        hint = "hand in an array in the CPU's memory, without a gradient"
        raise refuse("DL0656", f"`{name}` cannot be read as an array: {reason}", hint) from error


def _cast(name: str, dtype: str, array: Array, wanted: np.dtype[Any]) -> Array:
    source = array.dtype
    kinds = source.kind + wanted.kind
    if dtype != "bf16" and (kinds in ("ff", "bb") or (source.kind in "iu" and wanted.kind in "iuf" and _same(array, wanted))):
        with np.errstate(over="ignore"):
            result = array.astype(wanted)
        if kinds != "ff" or bool(np.isinf(result).any() <= np.isinf(array).any()):
            return result
    fits = kinds == "ff" or (source.kind in "iu" and wanted.kind in "iuf")
    lossy = "some of its values do not fit" if fits else "that would change its values"
    raise refuse(
        "DL0652",
        f"`{name}` is an array of {source}, the program wants {dtype}: {lossy}",
        f"convert it yourself: `array.astype({wanted.name!r})`",
    )


def _same(array: Array, wanted: np.dtype[Any]) -> bool:
    """Whether every integer survives the cast; told in Python's integers at the edges, where i64 and f64 both round."""
    if array.size == 0:
        return True
    low, high = int(array.min()), int(array.max())
    if wanted.kind == "f":
        exact = 2 ** (np.finfo(wanted).nmant + 1)
        return bool(-exact <= low and high <= exact)
    return int(np.iinfo(wanted).min) <= low and high <= int(np.iinfo(wanted).max)


def check_shape(port: PortPlan, array: Array, what: str = "input") -> int:
    """The batch that an array's leading extent says, or 0 where the port does not scale; DL0651 for a wrong shape."""
    shape = array.shape
    if len(shape) == len(port.shape):
        wrong = [axis for axis, (have, want) in enumerate(zip(shape, port.shape, strict=True)) if isinstance(want, int) and have != want]
        if not wrong:
            if not port.shape or isinstance(port.shape[0], int):
                return 0
            factor = port.shape[0][1]
            if shape[0] % factor == 0:
                return int(shape[0]) // factor
            wrong = [0]
        where = f"axis {wrong[0]} is {shape[wrong[0]]}"
    else:
        where = f"it has {len(shape)} axes, not {len(port.shape)}"
    wanted = show(port.dtype, port.shape)
    hint = None
    if len(shape) == len(port.shape) - 1 and not isinstance(port.shape[0], int):
        hint = "one example needs a leading axis of size 1: `array[None]`"
    raise refuse("DL0651", f"{what} `{port.name}` is {show_array(array)}, the program wants {wanted}: {where}", hint)


class Scalar:
    """Packs a setting into the program's setting block."""

    __slots__ = ("_dtype", "_pack", "name", "offset")

    def __init__(self, port: PortPlan, offset: int):
        self.name, self.offset, self._dtype = port.name, offset, port.dtype
        self._pack = struct.Struct("=" + _PACK[port.dtype]).pack_into

    def write(self, block: Any, value: Any) -> None:
        """Write `value`; DL0654 where it is not a number of the setting's kind or does not fit."""
        if isinstance(value, np.ndarray) and value.shape == ():
            value = value[()]
        kind = DTYPES[self._dtype].kind
        good = (
            isinstance(value, bool | np.bool_)
            if kind == "b"
            else isinstance(value, int | np.integer) or (kind == "f" and isinstance(value, float | np.floating))
        )
        if kind != "b" and isinstance(value, bool | np.bool_):
            good = False
        if not good:
            raise refuse("DL0654", f"setting `{self.name}` is {str(value)[:40]!r}, it takes a value of type {self._dtype}")
        try:
            self._pack(block, self.offset, value)
        except (struct.error, OverflowError) as error:
            raise refuse("DL0654", f"setting `{self.name}` = {str(value)[:40]} does not fit {self._dtype}") from error
