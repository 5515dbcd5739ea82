"""The recursions of sequence alignment over [rows, steps, states]: steps in order, lanes along the states, threads share the rows; and the
edit distance.

An element depends on elements of the step before alone, so that its bits depend neither on the width nor on the threads.
"""

from __future__ import annotations

from dslc.backends.cpu.sorting import Words
from dslc.ir.routines import Routine
from dslc.ir.types import DType


def ctc_row(routine: Routine, width: int) -> list[str]:
    """In row r: y[t, s] = e[t, s] + log(exp y[t-1, s] + exp y[t-1, s-1] + exp y[t-1, s-2]), the last where a mask of [rows, states] says so.

    Operands: e and the mask; result: y; scratch: the step before, with two places in front. Before the first step these hold the
    start, 0 in the second of them. The scratch is renewed from its end, where no later part of the step reads.
    """
    t = routine.buffers[0].value
    return [
        "        base = r * (states + 2)",
        f"        for s in range(0, states + 2, {width}):",
        f"            n = states + 2 - s if states + 2 - s < {width} else {width}",
        f"            vstore_part_{t}(p3, base + s, splat_{t}(-inf), n)",
        f"        vstore_part_{t}(p3, base + 1, splat_{t}(0.0), 1)",
        f"        blocks = (states + {width - 1}) // {width}",
        "        for step in range(steps):",
        "            for block in range(blocks):",
        f"                s = (blocks - 1 - block) * {width}",
        f"                n = states - s if states - s < {width} else {width}",
        "                j = base + s",
        "                at = (r * steps + step) * states + s",
        f"                a = vload_part_{t}(p3, j + 2, n)",
        f"                b = vload_part_{t}(p3, j + 1, n)",
        f"                c = where(vload_part_bool(p1, r * states + s, n), vload_part_{t}(p3, j, n), splat_{t}(-inf))",
        "                m = vmax(vmax(a, b), c)",
        f"                m = where(m == splat_{t}(-inf), splat_{t}(0.0), m)",
        "                total = vexp(a - m) + vexp(b - m) + vexp(c - m)",
        f"                y = vload_part_{t}(p0, at, n) + (m + vlog(total))",
        f"                vstore_part_{t}(p3, j + 2, y, n)",
        f"                vstore_part_{t}(p2, at, y, n)",
        f"            vstore_part_{t}(p3, base + 1, splat_{t}(-inf), 1)",
    ]


def band_row(routine: Routine, width: int) -> list[str]:
    """In row r: h[t, s] = d[t, s] + sum of w_k[t, s] * h[t-1, s-k], k = 0, 1, 2; with `reverse` w_k[t+1, s+k] * h[t+1, s+k].

    Operands: d, w_0, w_1, w_2; result: h. Products and sums are rounded one by one, in the order of k.
    """
    t, reverse = routine.buffers[0].value, bool(routine.setting("reverse"))
    lines = [
        "        for step in range(steps):",
        f"            base = (r * steps + {'steps - 1 - step' if reverse else 'step'}) * states",
        f"            for s in range(0, states, {width}):",
        f"                n = states - s if states - s < {width} else {width}",
        f"                h = vload_part_{t}(p0, base + s, n)",
        "                if step > 0:",
    ]
    for move in range(3):
        if reverse:
            there = f"base + states + s + {move}"
            lines += [
                f"                    n = states - s - {move}",
                f"                    n = n if n < {width} else {width}",
                "                    n = n if n > 0 else 0",
                f"                    h = h + vload_part_{t}(p{move + 1}, {there}, n) * vload_part_{t}(p4, {there}, n)",
            ]
        else:
            here = f"base + s - {move}"
            lines += [
                f"                    first = {move} - s if s < {move} else 0",
                f"                    w = vload_between_{t}(p{move + 1}, base + s, first, n)",
                f"                    h = h + w * vload_between_{t}(p4, {here} - states, first, n)",
            ]
    return [
        *lines,
        f"                n = states - s if states - s < {width} else {width}",
        f"                vstore_part_{t}(p4, base + s, h, n)",
    ]


def edit_row(routine: Routine, words: Words) -> list[str]:
    """The edit distance of the first p2[r] symbols of row r of [rows, count] and the first p3[r] of row r of [rows, most].

    Operands: both as i64, and both numbers; result: i64 [rows]; scratch: one row of the table, [rows, most + 1].
    """
    return [
        f"        long = {words.load('p2', 'r')}",
        f"        wide = {words.load('p3', 'r')}",
        "        long = count if long > count else long",
        "        wide = most if wide > most else wide if wide > 0 else 0",
        "        base = r * (most + 1)",
        "        for j in range(wide + 1):",
        f"            {words.store('p5', 'base + j', 'j')}",
        "        for i in range(long):",
        f"            symbol = {words.element(DType.I64, 'r * count + i')}",
        f"            corner = {words.load('p5', 'base')}",
        "            left = corner + 1",
        f"            {words.store('p5', 'base', 'left')}",
        "            for j in range(wide):",
        f"                above = {words.load('p5', 'base + j + 1')}",
        f"                best = corner if symbol == {words.load('p1', 'r * most + j')} else corner + 1",
        "                best = above + 1 if above + 1 < best else best",
        "                left = left + 1 if left + 1 < best else best",
        "                corner = above",
        f"                {words.store('p5', 'base + j + 1', 'left')}",
        f"        {words.store('p4', 'r', words.load('p5', 'base + wide'))}",
    ]
