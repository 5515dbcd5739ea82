"""The parts of attention's kernels, printed as Numba source: products of blocks as register tiles, softmax, masks, packing.

A kernel works on GROUP queries and up to KEYS keys at a time, in blocks that lie on its stack: scores S[GROUP][KEYS], keys turned over
KT[features][KEYS], values V[KEYS][width]. Rows of features are padded with zeros to a multiple of 16. What the bits of a result depend on
is the same at every width: a score is an fma over the features in order, a sum of values one over the keys in order, a sum of
exponentials runs in 16 canonical lanes, and blocks begin at multiples of KEYS.
"""

from __future__ import annotations

from dataclasses import dataclass

from dslc.backends.cpu.blocks import COLUMNS
from dslc.ir.types import DType

LANES = 16
KEYS = 64
GROUP = 16


def padded(n: int, to: int = LANES) -> int:
    return -(-n // to) * to


@dataclass(frozen=True, slots=True)
class Tiles:
    """What tiles are printed for: an element type and a vector's lanes."""

    dtype: DType
    width: int

    @property
    def t(self) -> str:
        return self.dtype.value

    @property
    def parts(self) -> int:
        """Vectors that make 16 canonical lanes."""
        return LANES // self.width

    @property
    def accumulators(self) -> int:
        """Vectors of sums that the registers hold beside operands."""
        registers, each = (32, self.dtype.size // 4) if self.width == 16 else (16, self.dtype.size // 4)
        return registers // each // 2

    @property
    def vectors(self) -> int:
        """Vectors of a row of the largest tile."""
        return 4 if self.accumulators == 16 else 2

    def rows(self, vectors: int) -> int:
        """Rows of a tile that has so many vectors a row."""
        return next(n for n in (8, 4, 2, 1) if n * vectors <= self.accumulators)

    def head(self, name: str, arguments: str) -> list[str]:
        """The first lines of a function: each argument as `name:type`, where p is a pointer to elements and i a whole number."""
        kinds = {"p": f"ptr_{self.t}", "i": "intp", "at": "ptr_i64", "mask": "ptr_bool"}
        pairs = [a.split(":") for a in arguments.split()]
        types = ", ".join(kinds[kind] for _, kind in pairs)
        return [f'@tile("void({types})", inline=False)', f"def {name}({', '.join(n for n, _ in pairs)}):"]

    def load(self, p: str, at: str, n: str | int = "") -> str:
        if n == "" or n == self.width:
            return f"vload_{self.t}({p}, {at})"
        return f"vload_part_{self.t}({p}, {at}, {n})"

    def store(self, p: str, at: str, value: str, n: str | int = "") -> str:
        if n == "" or n == self.width:
            return f"vstore_{self.t}({p}, {at}, {value})"
        return f"vstore_part_{self.t}({p}, {at}, {value}, {n})"

    # ---- products

    def tile(self, rows: int, vectors: int, a: tuple[int, int], b: int, c: int, steps: str, start: str) -> list[str]:
        """c[rows][vectors] = start + sum over s in range(steps) of a[row, s] b[s]; strides of a by row and step, of b by step, of c by row.

        `start` is "zero", "old" or "scaled": the old content times the elements of `f`.
        """
        t, w = self.t, self.width
        lines = []
        for i in range(rows):
            if start == "zero":
                lines.append(" = ".join(f"c{i}_{v}" for v in range(vectors)) + f" = splat_{t}(0.0)")
                continue
            if start == "scaled":
                lines.append(f"x = vbroadcast_{t}(f, {i})")
            scale = " * x" if start == "scaled" else ""
            lines += [f"c{i}_{v} = {self.load('c', str(i * c + v * w))}{scale}" for v in range(vectors)]
        lines.append(f"for s in range({steps}):")
        lines += [f"    v{v} = {self.load('b', f's * {b} + {v * w}')}" for v in range(vectors)]
        for i in range(rows):
            lines.append(f"    x = vbroadcast_{t}(a, s * {a[1]} + {i * a[0]})")
            lines += [f"    c{i}_{v} = fma(x, v{v}, c{i}_{v})" for v in range(vectors)]
        lines += [self.store("c", str(i * c + v * w), f"c{i}_{v}") for i in range(rows) for v in range(vectors)]
        return lines

    def scores(self, name: str, features: int) -> list[str]:
        """S[.., first..last] = Q KT for GROUP rows of Q, first and last being multiples of 16."""
        stride, lanes = padded(features), self.vectors * self.width

        def loop(begin: str, end: str, vectors: int) -> list[str]:
            rows, step = self.rows(vectors), vectors * self.width
            return [
                f"    for j in range({begin}, {end}, {step}):",
                f"        for r in range(0, {GROUP}, {rows}):",
                f"            a = offset(Q, r * {stride})",
                "            b = offset(KT, j)",
                f"            c = offset(S, r * {KEYS} + j)",
                *(f"            {line}" for line in self.tile(rows, vectors, (stride, 1), KEYS, KEYS, str(features), "zero")),
            ]

        lines = self.head(name, "Q:p KT:p S:p first:i last:i")
        if lanes <= LANES:
            return [*lines, *loop("first", "last", self.vectors)]
        middle = [f"    middle = first + (last - first) // {lanes} * {lanes}"]
        return [*lines, *middle, *loop("first", "middle", self.vectors), *loop("middle", "last", LANES // self.width)]

    def sums(self, name: str, features: int, by_rows: bool, scaled: bool = False) -> list[str]:
        """C[r] = C[r] F[r] + the sum over s from start to stop of P[r, s] V[s], for GROUP rows. Without `by_rows`, of P[s, r] V[s]."""
        stride, lanes = padded(features), self.vectors * self.width
        full, left = divmod(stride, lanes)
        a = (KEYS, 1) if by_rows else (1, KEYS)
        lines = self.head(name, "P:p V:p C:p F:p start:i stop:i" if scaled else "P:p V:p C:p start:i stop:i")
        for begin, end, vectors in ((0, full * lanes, self.vectors), (full * lanes, stride, left // self.width)):
            if begin == end:
                continue
            rows = self.rows(vectors)
            body = self.tile(rows, vectors, a, stride, stride, "stop - start", "scaled" if scaled else "old")
            lines += [
                f"    for r in range(0, {GROUP}, {rows}):",
                f"        for j in range({begin}, {end}, {vectors * self.width}):",
                f"            a = offset(P, r * {a[0]} + start * {a[1]})",
                f"            b = offset(V, start * {stride} + j)",
                f"            c = offset(C, r * {stride} + j)",
                *(["            f = offset(F, r)"] if scaled else []),
                *(f"            {line}" for line in body),
            ]
        return lines

    # ---- softmax

    def softmax(self, rows: int) -> list[str]:
        """Scores of a block become exponentials: S = exp(S - B) with B the largest score so far, which M holds for each row.

        L[row] holds the sum in 16 lanes, and F becomes the factor for what was summed before. A row that has seen nothing has M = -inf.
        """
        t, w = self.t, self.width
        names = [f"x{h}" for h in range(self.parts)]
        tops = ", ".join(self.load("TOP", f"(r + {i}) * {LANES} + {h * w}") for i in range(w) for h in range(self.parts))
        return [
            *self.head("softmax", "S:p first:i last:i M:p L:p F:p B:p TOP:p"),
            f"    for r in range({rows}):",
            f"        s = offset(S, r * {KEYS})",
            *(f"        {x} = {self.load('s', f'first + {h * w}')}" for h, x in enumerate(names)),
            f"        for j in range(first + {LANES}, last, {LANES}):",
            *(f"            {x} = vlarger_{t}({self.load('s', f'j + {h * w}')}, {x})" for h, x in enumerate(names)),
            *(f"        {self.store('TOP', f'r * {LANES} + {h * w}', x)}" for h, x in enumerate(names)),
            f"    for r in range(0, {GROUP if rows > w else w}, {w}):",
            f"        old = {self.load('M', 'r')}",
            f"        top = vlarger_{t}(reduce_top_{t}({tops}), old)",
            f"        base = where(top == splat_{t}(-inf), splat_{t}(0.0), top)",
            f"        {self.store('M', 'r', 'top')}",
            f"        {self.store('B', 'r', 'base')}",
            f"        {self.store('F', 'r', f'vexp_flushed_{t}(old - base)')}",
            f"    for r in range({rows}):",
            f"        s = offset(S, r * {KEYS})",
            f"        base = vbroadcast_{t}(B, r)",
            f"        factor = vbroadcast_{t}(F, r)",
            *(f"        {x} = {self.load('L', f'r * {LANES} + {h * w}')} * factor" for h, x in enumerate(names)),
            f"        for j in range(first, last, {LANES}):",
            *(
                line
                for h, x in enumerate(names)
                for line in (
                    f"            p = vexp_flushed_{t}({self.load('s', f'j + {h * w}')} - base)",
                    f"            {self.store('s', f'j + {h * w}', 'p')}",
                    f"            {x} = {x} + p",
                )
            ),
            *(f"        {self.store('L', f'r * {LANES} + {h * w}', x)}" for h, x in enumerate(names)),
        ]

    def finish(self) -> list[str]:
        """M becomes the logarithm of the sum of exponentials of `rows` rows (a multiple of 16), X what their sums of values are multiplied by."""
        t, w = self.t, self.width
        lanes = ", ".join(self.load("L", f"(r + {i}) * {LANES} + {h * w}") for i in range(w) for h in range(self.parts))
        return [
            *self.head("finish", "M:p L:p X:p rows:i"),
            f"    for r in range(0, rows, {w}):",
            f"        total = reduce_add_{w}_{t}({lanes})",
            f"        top = {self.load('M', 'r')}",
            f"        zero = splat_{t}(0.0)",
            f"        low = splat_{t}(-inf)",
            "        blind = total == zero",
            f"        {self.store('M', 'r', 'where(blind, low, where(top == low, zero, top) + vlog(total))')}",
            f"        {self.store('X', 'r', f'where(blind, zero, splat_{t}(1.0) / total)')}",
        ]

    def probabilities(self) -> list[str]:
        """Scores of a block become probabilities: S = exp(S - B) for GROUP rows; those of a row that sees nothing are 0."""
        t, value = self.t, f"vexp_flushed_{self.t}({self.load('S', 'j')} - base)"
        return [
            *self.head("probabilities", "S:p first:i last:i B:p"),
            f"    for r in range({GROUP}):",
            f"        base = vbroadcast_{t}(B, r)",
            f"        base = where(base == splat_{t}(-inf), splat_{t}(0.0), base)",
            f"        for j in range(r * {KEYS} + first, r * {KEYS} + last, {self.width}):",
            f"            {self.store('S', 'j', value)}",
        ]

    def score_gradients(self) -> list[str]:
        """DS = P (DS - D) for GROUP rows: from gradients by probabilities to those by scores."""
        value = f"{self.load('P', 'j')} * ({self.load('DS', 'j')} - delta)"
        return [
            *self.head("score_gradients", "P:p DS:p first:i last:i D:p"),
            f"    for r in range({GROUP}):",
            f"        delta = vbroadcast_{self.t}(D, r)",
            f"        for j in range(r * {KEYS} + first, r * {KEYS} + last, {self.width}):",
            f"            {self.store('DS', 'j', value)}",
        ]

    # ---- masks

    def limit(self, rows: int) -> list[str]:
        """Scores of keys outside of LO[row]..HI[row] become minus infinity; `key` is the first one's number."""
        t = self.t
        return [
            *self.head("limit", "S:p first:i last:i key:i LO:at HI:at"),
            f"    for r in range({rows}):",
            "        low = load_i64(LO, r) - key",
            "        high = load_i64(HI, r) - key",
            f"        for j in range(first, last, {self.width}):",
            "            k = iota_i32(j)",
            f"            s = {self.load('S', f'r * {KEYS} + j')}",
            f"            {self.store('S', f'r * {KEYS} + j', f'where((k >= low) & (k < high), s, splat_{t}(-inf))')}",
        ]

    def masks(self, rows: int, biased: bool) -> list[str]:
        """A mask chooses scores, or a bias is added; the row of each query begins at AT[row], and `left` elements of it are left."""
        w, t = self.width, self.t
        read = f"vload_part_{t if biased else 'bool'}(m, j, n)"
        s = self.load("s", "j")
        return [
            *self.head("add_bias" if biased else "choose", f"S:p first:i last:i left:i MASK:{'p' if biased else 'mask'} AT:at key:i"),
            f"    for r in range({rows}):",
            f"        s = offset(S, r * {KEYS})",
            "        m = offset(MASK, load_i64(AT, r) + key)",
            f"        for j in range(first, last, {w}):",
            "            n = left - j",
            f"            n = 0 if n < 0 else {w} if n > {w} else n",
            f"            {self.store('s', 'j', f'{s} + {read}' if biased else f'where({read}, {s}, splat_{t}(-inf))')}",
        ]

    # ---- packing

    def turned(self, name: str, features: int, stride: int) -> list[str]:
        """KT[feature][key] for the first `count` rows of K, and zeros up to a multiple of 16: what lies there by chance may be slow to multiply."""
        t, w = self.t, self.width
        full = features // COLUMNS * COLUMNS
        lines = [*self.head(name, "K:p KT:p count:i"), f"    whole = count // {w} * {w}"]
        lines += [
            f"    if count & {LANES - 1}:",
            f"        for e in range({features}):",
            f"            d = offset(KT, e * {KEYS} + (count & -{LANES}))",
            *(f"            {self.store('d', str(at), f'splat_{t}(0.0)')}" for at in range(0, LANES, w)),
        ]
        if full:
            lines += [
                f"    for j in range(0, whole, {w}):",
                f"        for e in range(0, {full}, {COLUMNS}):",
                f"            transpose_{t}(K, j * {stride} + e, {stride}, KT, e * {KEYS} + j, {KEYS})",
            ]
        if features % COLUMNS:
            lines += [
                "    for j in range(whole):",
                f"        for e in range({full}, {features}):",
                f"            store_{t}(KT, e * {KEYS} + j, load_{t}(K, j * {stride} + e))",
            ]
        lines += [
            "    for j in range(whole, count):",
            f"        for e in range({features}):",
            f"            store_{t}(KT, e * {KEYS} + j, load_{t}(K, j * {stride} + e))",
        ]
        return lines

    def pieces(self, features: int) -> list[tuple[int, int]]:
        """(first element, elements) of each vector of a row of features."""
        return [(e, min(self.width, features - e)) for e in range(0, features, self.width)]

    def rows_in(self, name: str, features: int, stride: int | None, scale: str = "") -> list[str]:
        """D[row][feature] = X for `rows` rows, times `scale`, padded with zeros; rows begin at multiples of `stride`, or at AT[row]."""
        t, wide = self.t, padded(features)
        factor = f" * splat_{t}({scale})" if scale else ""
        lines = self.head(name, "X:p D:p rows:i" if stride is not None else "X:p AT:at D:p rows:i")
        lines += ["    for r in range(rows):", f"        x = offset(X, {f'r * {stride}' if stride is not None else 'load_i64(AT, r)'})"]
        lines += [f"        {self.store('D', f'r * {wide} + {e}', self.load('x', str(e), n) + factor)}" for e, n in self.pieces(features)]
        zeros = range(padded(features, self.width), wide, self.width)
        return [*lines, *(f"        {self.store('D', f'r * {wide} + {e}', f'splat_{t}(0.0)')}" for e in zeros)]

    def rows_out(self, name: str, features: int, stride: int | None, scaled: bool = False) -> list[str]:
        """X = D[row], times F[row] where scaled, for `rows` rows that begin at multiples of `stride`, or at AT[row]."""
        wide = padded(features)
        places = "" if stride is not None else " AT:at"
        lines = self.head(name, f"D:p X:p{places}{' F:p' if scaled else ''} rows:i")
        lines += ["    for r in range(rows):", f"        x = offset(X, {f'r * {stride}' if stride is not None else 'load_i64(AT, r)'})"]
        if scaled:
            lines.append(f"        factor = vbroadcast_{self.t}(F, r)")
        for e, n in self.pieces(features):
            value = self.load("D", f"r * {wide} + {e}") + (" * factor" if scaled else "")
            lines.append(f"        {self.store('x', str(e), value, n)}")
        return lines

    def fill(self) -> list[str]:
        """n elements, a multiple of 16, become 0 where `low` is 0, minus infinity where it is 1."""
        t = self.t
        return [
            *self.head("fill", "D:p n:i low:i"),
            f"    x = where(splat_i64(low) == 1, splat_{t}(-inf), splat_{t}(0.0))",
            f"    for j in range(0, n, {self.width}):",
            f"        {self.store('D', 'j', 'x')}",
        ]
