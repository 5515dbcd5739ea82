"""A part of a tensor replaced where it lies, from a start that is known when the program runs."""

from __future__ import annotations

from dslc.ir.routines import Routine


def update_slice(routine: Routine, width: int, head: list[str]) -> str:
    """Elements `start` to `start + count` of the middle axis of [outer, size, inner] replaced by an update [outer, count, inner].

    A start from which the update would leave the axis is moved until it fits. Threads share the outer axis, or what is inside it where that
    is long; nothing else of the tensor is touched.
    """
    dtype, index = routine.buffers[0].value, routine.buffers[1].value
    lines = [
        *head,
        f"    first = load_{index}(p1, 0) + 0",
        "    first = 0 if first < 0 else first",
        "    first = size - count if first > size - count else first",
        "    chunk = count * inner",
        "    low, high, left, right = 0, outer, 0, chunk",
    ]
    if not routine.serial:
        lines += [
            "    if outer >= threads:",
            "        low = thread * outer // threads",
            "        high = (thread + 1) * outer // threads",
            "    else:",
            "        left = thread * chunk // threads",
            "        right = (thread + 1) * chunk // threads",
        ]
    lines += [
        "    for o in range(low, high):",
        "        source = o * chunk",
        "        target = (o * size + first) * inner",
        f"        for j in range(left, right, {width}):",
        "            n = right - j",
        f"            if n >= {width}:",
        f"                vstore_{dtype}(p2, target + j, vload_{dtype}(p0, source + j))",
        "            else:",
        f"                vstore_part_{dtype}(p2, target + j, vload_part_{dtype}(p0, source + j, n), n)",
    ]
    return "\n".join(lines) + "\n"
