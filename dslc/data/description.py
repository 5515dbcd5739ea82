"""What a data set says about itself: the fields of an example, how stored numbers become values, and the class names.

The description is stored with trained weights, so that a picture given to `dslc run` gets the scaling of training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dslc.diagnostics import Diagnostic, DiagnosticError

if TYPE_CHECKING:
    from dslc.data.coding import Coding

Array = NDArray[np.generic]

NUMPY_TYPES = {"i8": "int8", "f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64", "u8": "uint8", "bool": "bool"}


@dataclass(frozen=True, slots=True)
class Field:
    """One tensor of an example as a recipe declares it: `image: f32[N, 1, 28, 28]` has the shape (1, 28, 28)."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def numpy(self) -> np.dtype[np.generic]:
        return np.dtype(NUMPY_TYPES[str(self.dtype)])

    @property
    def floating(self) -> bool:
        return str(self.dtype) in ("f32", "f64")

    @property
    def size(self) -> int:
        """Elements an example."""
        total = 1
        for extent in self.shape:
            total *= extent
        return total

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(['N', *map(str, self.shape)])}]"


FITS = ("crop", "stretch", "pad")

Factor = float | tuple[float, ...]
"""One number, or one for each place of an axis of an example: the channels of a picture, the columns of a vector or of a series."""


@dataclass(frozen=True, slots=True)
class FieldDescription:
    """A field and the way from what is stored to what a network reads: value = stored * scale + shift.

    `full` is the stored number of full intensity (255 in a photo, 16 in the digits); None where the field is no image.
    `classes` names the values of a class field, in order. `fit` says how a picture of another size comes to the declared one:
    "crop" scales it to cover and cuts the middle out, "pad" scales it to fit in and adds black, "stretch" changes its proportions.
    `rate` is the sampling rate of sound in Hz, None where the field is none. `axis` is that of scales and shifts that are several.
    """

    field: Field
    scale: Factor = 1.0
    shift: Factor = 0.0
    full: float | None = None
    classes: tuple[str, ...] = ()
    fit: str = "stretch"
    rate: int | None = None
    axis: int = 0

    @property
    def scaled(self) -> bool:
        return self.scale != 1.0 or self.shift != 0.0

    def factors(self, factor: Factor, neutral: float) -> Array | None:
        """The factor for the elements of a flat example `[size]`, or `[]` where it is one number; None where it changes nothing."""
        kind = self.field.numpy.type
        if isinstance(factor, tuple):
            each = np.array(factor, dtype=kind).reshape([-1 if a == self.axis else 1 for a in range(len(self.field.shape))])
            return np.broadcast_to(each, self.field.shape).reshape(-1)
        return None if factor == neutral else np.asarray(factor, dtype=kind)

    def from_stored(self, stored: Array) -> Array:
        """One example as stored, in the type and scale that training saw: the arithmetic of a batch, so that the bits agree."""
        values: Array = stored.astype(self.field.numpy).reshape(-1)
        if self.field.floating:
            scale, shift = self.factors(self.scale, 1.0), self.factors(self.shift, 0.0)
            values = values if scale is None else np.multiply(values, scale)
            values = values if shift is None else np.add(values, shift)
        return values.reshape(stored.shape)

    def from_picture(self, pixels: NDArray[np.uint8]) -> Array:
        """8-bit pixels as the values that training saw; the shape is kept, the result has the field's dtype."""
        if self.full in (None, 255.0):
            return self.from_stored(pixels)
        stored = pixels.astype(np.float64) * ((self.full or 255.0) / 255.0)
        return self.from_stored(stored if self.field.floating else np.rint(stored))


@dataclass(frozen=True, slots=True)
class DataDescription:
    """The name of a data set, its fields in the recipe's order, whom to credit, and how its text was made into numbers."""

    name: str
    fields: tuple[FieldDescription, ...]
    attribution: str = ""
    coding: Coding | None = None

    def __getitem__(self, name: str) -> FieldDescription:
        return next(f for f in self.fields if f.field.name == name)

    def to_json(self) -> str:
        """Stable text: the same description gives the same bytes."""
        return json.dumps(
            {
                "name": self.name,
                "attribution": self.attribution,
                "fields": [
                    {
                        "name": f.field.name,
                        "dtype": str(f.field.dtype),
                        "shape": list(f.field.shape),
                        "scale": f.scale,
                        "shift": f.shift,
                        "full": f.full,
                        "classes": list(f.classes),
                        "fit": f.fit,
                        "rate": f.rate,
                        "axis": f.axis,
                    }
                    for f in self.fields
                ],
                "coding": None if self.coding is None else self.coding.to_raw(),
            },
            sort_keys=True,
        )

    @staticmethod
    def from_json(text: str) -> DataDescription:
        """Reads `to_json`. Raises ValueError for anything else."""
        from dslc.data.coding import Coding  # here: only text has one

        try:
            raw = json.loads(text)
            fields = tuple(
                FieldDescription(
                    Field(str(f["name"]), str(f["dtype"]), tuple(int(s) for s in f["shape"])),
                    _factor(f["scale"], f["shape"], int(f.get("axis", 0))),
                    _factor(f["shift"], f["shape"], int(f.get("axis", 0))),
                    None if f["full"] is None else float(f["full"]),
                    tuple(str(c) for c in f["classes"]),
                    str(f.get("fit", "stretch")),
                    None if f.get("rate") is None else int(f["rate"]),
                    int(f.get("axis", 0)),
                )
                for f in raw["fields"]
            )
            unknown = {f.field.dtype for f in fields} - NUMPY_TYPES.keys()
            if unknown:
                raise ValueError(f"unknown dtype {min(unknown)!r}")
            if any(f.fit not in FITS for f in fields):
                raise ValueError("unknown fit of pictures")
            coding = None if raw.get("coding") is None else Coding.from_raw(raw["coding"])
            return DataDescription(str(raw["name"]), fields, str(raw["attribution"]), coding)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"no data description: {error!r}") from error


def _factor(raw: object, shape: list[int], axis: int) -> Factor:
    if isinstance(raw, int | float):
        return float(raw)
    if not isinstance(raw, list) or not 0 <= axis < len(shape) or len(raw) != shape[axis]:
        raise ValueError("scaling needs a number for each place of its axis")
    return tuple(float(number) for number in raw)


def refuse(code: str, message: str, hint: str | None = None) -> DiagnosticError:
    """The error for data that cannot be used; whoever knows the `data` statement adds its place."""
    return DiagnosticError(Diagnostic(code, message, hint=hint))
