"""The kernels of a plan, linked."""

from __future__ import annotations

from collections.abc import Mapping

from dslc.ir.plan import ExecutablePlan
from dslc.runtime.convert import refuse
from dslc.runtime.loader import Library, LoadError, load_objects


def linked(plan: ExecutablePlan, objects: Mapping[str, bytes]) -> tuple[list[Library], dict[str, int]]:
    """Link what the plan names; the libraries to keep and the kernels' addresses. DL0662 where code is missing or does not fit."""
    again = "compile the program again"
    for kernel in plan.kernels:
        if not all(key in objects for key in (kernel.key, *kernel.needs)):
            raise refuse("DL0662", f"the object code of kernel `{kernel.name}` is missing", again)
    try:
        libraries = load_objects({key: objects[key] for key in plan.object_keys}, {k.key: k.needs for k in plan.kernels})
    except LoadError as error:
        raise refuse("DL0662", f"the object code cannot be used: {error}", again) from error
    for kernel in plan.kernels:
        if kernel.symbol not in libraries[kernel.key].addresses:
            raise refuse("DL0662", f"the object code of kernel `{kernel.name}` does not define it", again)
    return list(libraries.values()), {k.name: libraries[k.key].addresses[k.symbol] for k in plan.kernels}
