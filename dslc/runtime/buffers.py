"""Arrays that outlive calls: at multiples of a cache line, rows of parameters padded where the plan says so."""

from __future__ import annotations

import numpy as np

from dslc.ir.plan import ALIGNMENT, ConstantPlan, PersistentPlan
from dslc.runtime.convert import DTYPES, Array, address_of, refuse, show_array


def aligned_zeros(dtype: str, shape: tuple[int, ...]) -> Array:
    """A C-contiguous array of zeros at a multiple of 64 bytes."""
    wanted = DTYPES[dtype]
    size = int(np.prod(shape, dtype=object)) * wanted.itemsize
    try:
        raw = np.zeros(size + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError) as error:
        raise refuse("DL0660", f"there is no room for a buffer of {size:,} bytes") from error
    start = -address_of(raw) % ALIGNMENT
    return raw[start : start + size].view(wanted).reshape(shape)


def persistent_buffer(plan: PersistentPlan) -> Array:
    """Zeros, without what rows are padded by."""
    array = aligned_zeros(plan.dtype, plan.allocated)
    return array[..., : plan.shape[-1]] if plan.pitch else array


def constant_buffer(plan: ConstantPlan, value: Array | None) -> Array:
    """The values of a constant, read-only; DL0663 where they are missing or of another type."""
    if value is None:
        raise refuse("DL0663", f"the values of constant `{plan.name}` are missing")
    array = aligned_zeros(plan.dtype, plan.shape)
    if value.dtype != array.dtype or value.shape != plan.shape:
        raise refuse("DL0663", f"constant `{plan.name}` is {show_array(value)}, the program wants {plan.dtype}{list(plan.shape)}")
    array[...] = value
    array.flags.writeable = False
    return array
