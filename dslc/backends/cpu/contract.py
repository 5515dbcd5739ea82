"""The kernel around a contraction's register tiles: loops over tiles and chunks, split statically over the threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from dslc.backends.cpu.tiles import Variant, address_text, chunk_arguments, print_tile
from dslc.lowering.contraction import LINE, Axis, Window, linear
from dslc.lowering.schedules import GridLoop, Schedule, Tiled


@dataclass(frozen=True, slots=True)
class KernelSource:
    """Numba source to run in `simd.namespace(width)`. Argument word i of `entry`'s row is the address of buffer `arguments[i]`."""

    text: str
    entry: str
    arguments: tuple[int, ...]
    width: int


def emit(s: Schedule, entry: str = "kernel") -> KernelSource:
    """Print a schedule."""
    printer = _Kernel(s, entry)
    body = printer.print()
    tiles = "\n\n".join(print_tile(s, v) for v in printer.variants)
    return KernelSource(f"{tiles}\n\n{body}", entry, tuple(b for b, _ in s.contraction.buffers), s.width)


class _Kernel:
    def __init__(self, s: Schedule, entry: str):
        self.s, self.c, self.entry = s, s.contraction, entry
        self.tiled: dict[str, Tiled] = {t.axis.name: t for t in (*s.rows, *s.columns, *((s.lanes,) if s.lanes else ()))}
        self.variants: dict[Variant, None] = {}
        self.lines: list[str] = []
        self.index = {axis.name: f"i{n}" for n, axis in enumerate(self.c.outputs)}
        self.chunks: list[tuple[str, Axis]] = []  # the variable of each loop over chunks and its axis

    def _say(self, text: str, depth: int) -> None:
        self.lines.append("    " * depth + text)

    # ---- counts

    def _count(self, g: GridLoop) -> str:
        if g.axis not in self.tiled:
            extent = self._extent(g.axis)
            if not g.block:
                return extent
            return str(g.block) if g.inner else f"({extent} + {g.block - 1}) // {g.block}"
        t = self.tiled[g.axis]
        if t.runtime:
            tiles = f"({self._extent(g.axis)} + {t.size - 1}) // {t.size}" if t.size > 1 else self._extent(g.axis)
            if not g.block:
                return tiles
            return str(g.block) if g.inner else f"({tiles} + {g.block - 1}) // {g.block}"
        count = sum(seg.count or 0 for seg in t.segments)
        if not g.block:
            return str(count)
        return str(g.block) if g.inner else str(-(-count // g.block))

    def _extent(self, name: str) -> str:
        axis = self.c.axis(name)
        if axis.extent is not None:
            return str(axis.extent)
        return "batch" if axis.per_batch == 1 else f"batch * {axis.per_batch}"

    # ---- the kernel

    def print(self) -> str:
        s, c = self.s, self.c
        self._say(f"def {self.entry}(row, thread, threads, batch):", 0)
        for word, (_buffer, dtype) in enumerate(c.buffers):
            self._say(f"P{word} = ptr_{dtype.value}(arg(row, {word}))", 1)
        loops = [g for g in s.grid if self._count(g) != "1"]
        self.names = names = {g: f"t{n}" for n, g in enumerate(loops)}
        for g in loops:
            self._say(f"n{names[g][1:]} = {self._even_block(g) or self._count(g)}", 1)
        total = " * ".join(f"n{names[g][1:]}" for g in loops) or "1"
        self._say(f"total = {total}", 1)
        if s.ahead is not None and not s.ahead.step:
            sharing = " * ".join(f"n{names[g][1:]}" for g in s.grid[len(s.grid) - s.ahead.loops :] if g in names)
            self._say(f"sharing = {sharing}", 1)
            self._say(f"far = ({s.lanes.size if s.lanes else 1} + sharing - 1) // sharing", 1)
            self._say(f"far = far if far < {LINE} else {LINE}", 1)  # no line in between is left out
        if "zero" in chunk_arguments(s):
            self._say("zero = 0 if threads > 0 else 1", 1)
        self._say("first = thread * total // threads", 1)
        self._say("after = (thread + 1) * total // threads", 1)
        depth = 1
        if s.chunks_outside:
            depth = self._group_loops(depth) if s.chunk_group > 1 else self._chunk_loops(depth)
        around: list[GridLoop] = []
        if s.ahead is not None and s.ahead.chunks:
            around = [g for g in s.grid[: len(s.grid) - s.ahead.loops] if g in names]
            loops = loops[len(around) :]
            depth = self._chunk_loops(self._panels(around, loops, depth))
        self._decode(loops, names, depth)
        self._say("for _ in range(first, after):", depth)
        inner = depth + 1
        guard = self._tile_indices([*around, *loops], names, inner)
        if guard:
            self._say(f"if {guard}:", inner)
            inner += 1
        step = inner
        if s.chunk_group > 1:
            step = self._chunks_of_group(step)
        elif not s.chunks_outside and not (s.ahead is not None and s.ahead.chunks):
            step = self._chunk_loops(step)
        self._dispatch(step)
        self._advance(loops, names, depth + 1)
        return "\n".join(self.lines) + "\n"

    def _panels(self, around: list[GridLoop], inside: list[GridLoop], depth: int) -> int:
        """A loop over panels; afterwards `first` and `after` are the thread's tiles of one."""
        names = self.names
        self._say(f"share = {' * '.join(f'n{names[g][1:]}' for g in inside) or '1'}", depth)
        self._say("begin = first", depth)
        self._say("end = after", depth)
        self._say("for panel in range(begin // share, (end + share - 1) // share):", depth)
        self._decode(around, names, depth + 1, "panel")
        self._say("first = begin - panel * share if begin > panel * share else 0", depth + 1)
        self._say("after = end - panel * share if end < (panel + 1) * share else share", depth + 1)
        return depth + 1

    def _even_block(self, g: GridLoop) -> str:
        """Tiles in a block of a run-time axis: its blocks are equal, so that a last short one leaves no thread idle. Else ""."""
        around = replace(g, inner=False)
        if not g.inner or self.c.axis(g.axis).extent is not None or around not in self.names:
            return ""
        count = f"n{self.names[around][1:]}"
        return f"({self._count(GridLoop(g.axis))} + {count} - 1) // {count}"

    def _block_text(self, g: GridLoop) -> str:
        within = replace(g, inner=True)
        return f"n{self.names[within][1:]}" if within in self.names and self._even_block(within) else str(g.block)

    def _chunk_loops(self, depth: int) -> int:
        """Loops over the chunks; afterwards q0, q1, ... are their positions and `steps`, `begun`, `last` are set."""
        r = self.s.reduction
        if r.single:
            return depth
        depth = self._outer_loops(depth)
        if r.cut is not None:
            self._say(f"for q{len(r.outside)} in range(0, {self._extent(r.cut.name)}, {r.block}):", depth)
        return self._in_chunk(depth)

    def _group_loops(self, depth: int) -> int:
        """Loops over groups of chunks, each of which a tile runs through before the next tile does."""
        r, depth = self.s.reduction, self._outer_loops(depth)
        assert r.cut is not None
        self._say(f"for group in range(0, {self._extent(r.cut.name)}, {r.block * self.s.chunk_group}):", depth)
        return depth + 1

    def _chunks_of_group(self, depth: int) -> int:
        r = self.s.reduction
        assert r.cut is not None
        extent, taken = r.cut.extent or 0, r.block * self.s.chunk_group
        end = f"group + {taken}"
        if extent % taken:
            self._say(f"end = {end} if {end} < {extent} else {extent}", depth)
            end = "end"
        self._say(f"for q{len(r.outside)} in range(group, {end}, {r.block}):", depth)
        return self._in_chunk(depth)

    def _outer_loops(self, depth: int) -> int:
        for n, axis in enumerate(self.s.reduction.outside):
            self._say(f"for q{n} in range({self._extent(axis.name)}):", depth + n)
        return depth + len(self.s.reduction.outside)

    def _in_chunk(self, depth: int) -> int:
        r = self.s.reduction
        self.chunks = [(f"q{n}", axis) for n, axis in enumerate((*r.outside, *([r.cut] if r.cut is not None else [])))]
        last = [f"q{n} == {self._extent(axis.name)} - 1" for n, axis in enumerate(r.outside)]
        if r.cut is not None:
            n, extent = len(r.outside), self._extent(r.cut.name)
            depth += 1
            last.append(f"q{n} + {r.block} >= {extent}")
            if "steps" in chunk_arguments(self.s):
                self._say(f"steps = {r.block} if q{n} + {r.block} <= {extent} else {extent} - q{n}", depth)
        if "begun" in chunk_arguments(self.s):
            self._say(f"begun = {' + '.join(name for name, _ in self.chunks)}", depth)
        if "last" in chunk_arguments(self.s):
            self._say(f"last = 1 if {' and '.join(last)} else 0", depth)
        return depth

    def _decode(self, loops: list[GridLoop], names: dict[GridLoop, str], depth: int, rest: str = "first") -> None:
        """The position of the thread's first tile, or of another number."""
        if not loops:
            return
        for g in reversed(loops[1:]):
            t = names[g]
            self._say(f"{t} = {rest} % n{t[1:]}", depth)
            self._say(f"rest = {rest} // n{t[1:]}", depth)
            rest = "rest"
        self._say(f"{names[loops[0]]} = {rest}", depth)

    def _advance(self, loops: list[GridLoop], names: dict[GridLoop, str], depth: int) -> None:
        """The next tile, like an odometer."""
        for g in reversed(loops[1:]):
            t = names[g]
            self._say(f"{t} += 1", depth)
            self._say(f"if {t} == n{t[1:]}:", depth)
            depth += 1
            self._say(f"{t} = 0", depth)
        if loops:
            self._say(f"{names[loops[0]]} += 1", depth)

    def _tile_indices(self, loops: list[GridLoop], names: dict[GridLoop, str], depth: int) -> str:
        """Set the first element of every output axis, and `left` of a run-time tiled one; returns a guard or ""."""
        guards: list[str] = []
        for axis in self.c.outputs:
            mine = [g for g in loops if g.axis == axis.name]
            tile = _sum_text([f"{names[g]} * {self._block_text(g)}" if g.block and not g.inner else names[g] for g in mine])
            at = self.index[axis.name]
            if axis.name not in self.tiled:
                self._say(f"{at} = {tile}", depth)
                if len(mine) > 1:
                    guards.append(f"{at} < {self._extent(axis.name)}")
                continue
            t = self.tiled[axis.name]
            if len(mine) > 1:
                self._say(f"{at}_tile = {tile}", depth)
                tile = f"{at}_tile"
                total = self._count(GridLoop(axis.name))
                guards.append(f"{tile} < {total}")
            if t.overlap:
                last, end = (t.segments[0].count or 0) - 1, t.axis.extent or 0
                self._say(f"{at} = {tile} * {t.size} if {tile} < {last} else {end - t.size}", depth)
                self._say(f"fresh = {self.s.width} if {tile} < {last} else {self.s.width - t.overlap}", depth)
                continue
            if len({segment.size for segment in t.segments}) == 1:
                self._say(f"{at} = {tile} * {t.size}" if tile != "0" else f"{at} = 0", depth)
                continue
            one, two = t.segments
            count = one.count or 0
            self._say(f"{at} = {tile} * {one.size} if {tile} < {count} else {two.start} + ({tile} - {count}) * {two.size}", depth)
        return " and ".join(guards)

    # ---- choosing the variant

    def _dispatch(self, depth: int) -> None:
        s = self.s
        tiled = [*s.rows, *s.columns, *([s.lanes] if s.lanes else [])]
        runtime = next((t for t in tiled if t.runtime), None)
        if s.bounds is not None:
            self._bounds(s.bounds, depth)
        self._say(f"a = offset(P0, {self._address('a')})", depth)
        self._say(f"b = offset(P1, {self._address('b')})", depth)
        self._say(f"c = offset(P2, {self._address('c')})", depth)
        if s.ahead is not None:
            self._say(f"next = offset({s.vector}, {self._ahead_text()})", depth)
        words = [b for b, _ in self.c.buffers]
        for n, (buffer, d) in enumerate(self.c.addresses):
            constant, strides = linear(d)
            text = address_text(constant, [(self.index[name], stride) for name, stride in strides.items()])
            self._say(f"x{n} = offset(P{words.index(buffer)}, {text})", depth)
        static = [t for t in tiled if not t.runtime]
        if runtime is not None:
            self._say(f"left = {self._extent(runtime.axis.name)} - {self.index[runtime.axis.name]}", depth)
        cases = list(product(*(t.segments for t in static)))
        for number, case in enumerate(cases):
            tests = []
            for t, segment in zip(static, case, strict=True):
                if s.taps is not None and len(t.segments) > 1 and t in s.rows:
                    tests.append(f"{self.index[t.axis.name]} == {segment.start}")
                elif len(t.segments) > 1:
                    boundary = t.segments[1].start
                    tests.append(f"{self.index[t.axis.name]} {'<' if segment is t.segments[0] else '>='} {boundary}")
            inner = depth
            if tests:
                word = "if" if number == 0 else "elif" if number < len(cases) - 1 else "else"
                self._say(f"{word} {' and '.join(tests)}:" if word != "else" else "else:", depth)
                inner += 1
            sizes = {t.axis.name: segment.size for t, segment in zip(static, case, strict=True)}
            if s.taps is not None:
                sizes["first"] = next(segment.start for t, segment in zip(static, case, strict=True) if t in s.rows)
            if runtime is None:
                self._call(sizes, inner)
            else:
                self._runtime_calls(runtime, sizes, inner)

    def _bounds(self, w: Window, depth: int) -> None:
        """The taps of this tile that do not read the halo: `steps` of them from `low`."""
        at, least, taps = self.index[w.output], w.extent - 1 - w.start, self.c.axis(w.tap).extent
        self._say(f"low = {at} - {least} if {at} > {least} else 0", depth)
        self._say(f"high = {at} + {w.start + 1} if {at} + {w.start + 1} < {taps} else {taps}", depth)
        self._say("steps = high - low", depth)

    def _runtime_calls(self, t: Tiled, sizes: dict[str, int], depth: int) -> None:
        self._say(f"if left >= {t.size}:", depth)
        self._call(sizes | {t.axis.name: t.size}, depth + 1)
        if not t.remainders:
            return
        self._say("else:", depth)
        for position, size in enumerate(t.remainders):
            rest = f"left % {t.remainders[position - 1]}" if position else "left"
            self._say(f"for _ in range({rest}):" if size == 1 else f"for _ in range({_bracketed(rest)} // {size}):", depth + 1)
            self._call(sizes | {t.axis.name: size}, depth + 2)
            for pointer, stride in self._pointer_strides(t):
                if stride:
                    self._say(f"{pointer} = offset({pointer}, {size * stride})", depth + 2)

    def _ahead_text(self) -> str:
        """Where this tile's part of the next panel begins."""
        s = self.s
        assert s.ahead is not None
        tile = ""
        for g in s.grid[len(s.grid) - s.ahead.loops :]:
            if g in self.names:
                tile = f"({tile} * n{self.names[g][1:]} + {self.names[g]})" if tile else self.names[g]
        part = s.reduction.steps * (s.ahead.step or 1)
        tile = tile if s.ahead.step or not tile else f"({tile} * far)"
        return address_text(s.ahead.distance, [(tile or "0", part)] if tile else [])

    def _pointer_strides(self, t: Tiled) -> list[tuple[str, int]]:
        moves = [("a", t.axis.a), ("b", t.axis.b), ("c", t.axis.c or 0)]
        return moves + [(f"x{n}", linear(d)[1].get(t.axis.name, 0)) for n, (_, d) in enumerate(self.c.addresses)]

    def _call(self, sizes: dict[str, int], depth: int) -> None:
        s = self.s
        variant = Variant(
            tuple(sizes[t.axis.name] for t in s.rows),
            tuple(sizes[t.axis.name] for t in s.columns),
            sizes[s.lanes.axis.name] if s.lanes else 0,
            sizes.get("first", 0),
        )
        self.variants[variant] = None
        pointers = ["a", "b", "c", *(f"x{n}" for n in range(len(self.c.addresses)))]
        if s.ahead is not None:
            pointers.append("next")
        self._say(f"{variant.name}({', '.join([*pointers, *chunk_arguments(s)])})", depth)

    def _address(self, operand: str) -> str:
        base = {"a": self.c.a0, "b": self.c.b0, "c": self.c.c0}[operand]
        strides = [(self.index[a.name], {"a": a.a, "b": a.b, "c": a.c or 0}[operand]) for a in self.c.outputs]
        if operand != "c" and not self.s.reduction.single:
            strides += [(name, self.s.stride(axis, operand)) for name, axis in self.chunks]
        if operand != "c" and self.s.bounds is not None:
            strides.append(("low", self.s.stride(self.c.axis(self.s.bounds.tap), operand)))
        return address_text(base, strides)


def _bracketed(text: str) -> str:
    return text if text.isidentifier() else f"({text})"


def _sum_text(terms: list[str]) -> str:
    return " + ".join(terms) or "0"
