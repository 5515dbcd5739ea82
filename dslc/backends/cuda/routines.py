"""The routines of `ir/routines.py` as Numba CUDA Python: a thread takes a row, or a column of a table, and does as the CPU does.

The order of additions is the CPU's, and so are the bits. A routine that has one row keeps one thread busy: correct, not fast.
"""

from __future__ import annotations

from collections.abc import Callable

from dslc.backends.cpu.lattices import edit_row
from dslc.backends.cpu.sorting import Words, sort_row, top_row, true_positions
from dslc.backends.cuda.expressions import Functions, NotCovered, extreme
from dslc.backends.cuda.formulas import constant_text, math_function
from dslc.backends.cuda.kernel import CudaKernel, Launch
from dslc.ir import dims
from dslc.ir.dims import Dim
from dslc.ir.routines import Routine
from dslc.ir.types import DType

THREADS = 128


class ArrayWords(Words):
    """Memory of CUDA kernels: arrays."""

    def element(self, dtype: DType, at: str) -> str:
        return f"i64(bits_{dtype.value}(p0[{at}]))" if dtype.floating else f"i64(p0[{at}])"

    def load(self, p: str, at: str) -> str:
        return f"{p}[{at}]"

    def store(self, p: str, at: str, value: str) -> str:
        return f"{p}[{at}] = {value}"


def emit(routine: Routine) -> CudaKernel:
    """The kernel of a routine. Raises NotCovered."""
    if routine.name not in ROUTINES:
        raise NotCovered(f"the algorithm {routine.name}")
    return ROUTINES[routine.name](routine)


def _head(routine: Routine) -> list[str]:
    lines = [f"def kernel({', '.join([*(f'p{n}' for n in range(len(routine.buffers))), 'batch'])}):"]
    lines += [f"    {name} = {size}" for name, size in routine.sizes]
    return [*lines, "    x, width = cuda.grid(1), cuda.gridsize(1)"]


def _launch(threads: Dim) -> Launch:
    return Launch((dims.floor_divide(threads + (THREADS - 1), THREADS), 1), (THREADS, 1))


def rows(lines: Callable[[Routine, Words], list[str]]) -> Callable[[Routine], CudaKernel]:
    """A thread takes a row."""

    def kernel(routine: Routine) -> CudaKernel:
        loop = "    if x == 0:" if routine.serial else "    for r in range(x, rows, width):"
        text = "\n".join([*_head(routine), loop, *lines(routine, ArrayWords())]) + "\n"
        return CudaKernel(text, routine.buffers, _launch(1 if routine.serial else routine.size("rows")))

    return kernel


def scatter(routine: Routine) -> CudaKernel:
    """A thread takes a column of the table and walks the updates in order."""
    based, adds, each = (bool(routine.setting(name)) for name in ("based", "adds", "each"))
    source, target = ("p2", "p3") if based else ("p0", "p2")
    dtype = routine.buffers[-1]
    start = "p0[(o * size + r) * inner + c]" if based else f"{_scalar(dtype)}(0)"
    change = f"{target}[to] + {source}[j]" if adds else f"{source}[j]"
    text = "\n".join(
        [
            *_head(routine),
            "    for e in range(x, outer * inner, width):",
            "        o = e // inner",
            "        c = e - o * inner",
            "        for r in range(size):",
            f"            {target}[(o * size + r) * inner + c] = {start}",
            "        for i in range(count):",
            "            j = (o * count + i) * inner + c",
            f"            at = i64(p1[{'j' if each else 'i'}])",
            "            at = 0 if at < 0 else size - 1 if at >= size else at",
            "            to = (o * size + at) * inner + c",
            f"            {target}[to] = {change}",
            "",
        ]
    )
    return CudaKernel(text, routine.buffers, _launch(routine.size("outer") * routine.size("inner")))


def _scalar(dtype: DType) -> str:
    return "bool" if dtype == DType.BOOL else dtype.value


def last(routine: Routine) -> CudaKernel:
    """A thread walks the whole index."""
    text = "\n".join(
        [
            *_head(routine),
            "    if x == 0:",
            "        for r in range(size):",
            "            p1[r] = -1",
            "        for i in range(count):",
            "            at = i64(p0[i])",
            "            at = 0 if at < 0 else size - 1 if at >= size else at",
            "            p1[at] = i",
            "",
        ]
    )
    return CudaKernel(text, routine.buffers, _launch(1))


def suppress(routine: Routine) -> CudaKernel:
    """A thread takes a row."""
    dtype = routine.buffers[0]
    t = dtype.value
    functions = Functions()
    larger, smaller = (functions.use(extreme(op, dtype)) for op in ("max", "min"))
    overlap, least = (constant_text(dtype.numpy.type(routine.setting(s)).item(), t) for s in ("overlap", "least"))
    names = ("left", "top", "right", "bottom", "area")
    text = "\n".join(
        [
            *_head(routine),
            "    for r in range(x, rows, width):",
            "        found = 0",
            "        for i in range(count):",
            "            at = r * count + p2[r * count + i]",
            f"            if found < bound and p1[at] >= {least}:",
            *(f"                {name} = p0[at * 4 + {n}]" for n, name in enumerate(names[:4])),
            f"                area = mul_{t}(right - left, bottom - top)",
            "                hit = 0",
            "                for c in range(found):",
            "                    j = r * room * 5 + c",
            *(f"                    {name}1 = p4[j + {n} * room]" for n, name in enumerate(names)),
            f"                    wide = {larger}({smaller}(right, right1) - {larger}(left, left1), {t}(0.0))",
            f"                    high = {larger}({smaller}(bottom, bottom1) - {larger}(top, top1), {t}(0.0))",
            f"                    both = mul_{t}(wide, high)",
            f"                    if div_{t}(both, area + area1 - both) > {overlap}:",
            "                        hit = 1",
            "                if hit == 0:",
            "                    j = r * room * 5 + found",
            *(f"                    p4[j + {n} * room] = {name}" for n, name in enumerate(names)),
            "                    p3[r * bound + found] = at - r * count",
            "                    found += 1",
            "        for i in range(found, bound):",
            "            p3[r * bound + i] = -1",
            "",
        ]
    )
    return CudaKernel(f"{functions.text}\n\n{text}", routine.buffers, _launch(routine.size("rows")))


def ctc(routine: Routine) -> CudaKernel:
    """A thread takes a row; states from the last to the first, so that the scratch is renewed where nothing reads it any more."""
    dtype = routine.buffers[0]
    t = dtype.value
    functions = Functions()
    larger, exp, log = functions.use(extreme("max", dtype)), *(functions.use(math_function(f, dtype)) for f in ("exp", "log"))
    none, zero = constant_text(float("-inf"), t), constant_text(0.0, t)
    text = "\n".join(
        [
            *_head(routine),
            "    for r in range(x, rows, width):",
            "        base = r * (states + 2)",
            "        for s in range(states + 2):",
            f"            p3[base + s] = {none}",
            f"        p3[base + 1] = {zero}",
            "        for step in range(steps):",
            "            for k in range(states):",
            "                s = states - 1 - k",
            "                at = (r * steps + step) * states + s",
            "                a, b, c = p3[base + s + 2], p3[base + s + 1], p3[base + s]",
            "                if not p1[r * states + s]:",
            f"                    c = {none}",
            f"                m = {larger}({larger}(a, b), c)",
            f"                if m == {none}:",
            f"                    m = {zero}",
            f"                y = p0[at] + (m + {log}({exp}(a - m) + {exp}(b - m) + {exp}(c - m)))",
            "                p3[base + s + 2] = y",
            "                p2[at] = y",
            f"            p3[base + 1] = {none}",
            "",
        ]
    )
    return CudaKernel(f"{functions.text}\n\n{text}", routine.buffers, _launch(routine.size("rows")))


def band(routine: Routine) -> CudaKernel:
    """A thread takes a row."""
    t, reverse = routine.buffers[0].value, bool(routine.setting("reverse"))
    lines = []
    for move in range(3):
        there, inside = (f"at + states + {move}", f"s + {move} < states") if reverse else (f"at - states - {move}", f"s >= {move}")
        weight = f"p{move + 1}[{there if reverse else 'at'}]"
        lines += [f"                if step > 0 and {inside}:", f"                    h = h + mul_{t}({weight}, p4[{there}])"]
    text = "\n".join(
        [
            *_head(routine),
            "    for r in range(x, rows, width):",
            "        for step in range(steps):",
            f"            row = (r * steps + {'steps - 1 - step' if reverse else 'step'}) * states",
            "            for s in range(states):",
            "                at = row + s",
            "                h = p0[at]",
            *lines,
            "                p4[at] = h",
            "",
        ]
    )
    return CudaKernel(text, routine.buffers, _launch(routine.size("rows")))


ROUTINES: dict[str, Callable[[Routine], CudaKernel]] = {
    "scatter": scatter,
    "last": last,
    "sort": rows(sort_row),
    "top": rows(top_row),
    "nonzero": rows(true_positions),
    "edit": rows(edit_row),
    "suppress": suppress,
    "ctc": ctc,
    "band": band,
}
