"""The backward kernel of attention: one sweep over blocks of keys and, for each, over the queries that see it.

A thread takes a head of keys with all heads of queries that share it. Probabilities are computed again from the logarithms of their sums;
what a block of keys collects lies on the thread's stack, and the gradient by the queries is added up in place, so that every sum has one
order: keys in order for a query, queries in order for a key. Five products a pair of blocks, none of them computed twice.
"""

from __future__ import annotations

from dslc.backends.cpu.attention import Problem, indented, text_of
from dslc.backends.cpu.attention_tiles import GROUP, KEYS, LANES, Tiles, padded
from dslc.ir.routines import Routine

QUERY, KEY, VALUE, LOGSUM, DELTA, DOUT = range(6)


def attention_backward(routine: Routine, width: int) -> str:
    """Operands q, k, v, logsum, delta, dout, then a mask, a bias and a number of keys where there are; results: dq, dk, dv."""
    p = Problem(routine, Tiles(routine.buffers[0], width))
    tiles, t = p.tiles, p.tiles.t
    e, d, groups, share = p.size("features"), p.size("width"), p.size("groups"), p.share
    dq = 6 + len(p.extras)
    scale = repr(float(routine.setting("scale")))
    return text_of(
        [
            tiles.scores("scores", e),
            tiles.scores("value_scores", d),
            tiles.probabilities(),
            tiles.score_gradients(),
            tiles.sums("query_sums", e, by_rows=True),
            tiles.sums("key_sums", e, by_rows=False),
            tiles.sums("value_sums", d, by_rows=False),
            *p.mask_functions(GROUP),
            tiles.turned("turn_keys", e, p.row(KEY)),
            tiles.turned("turn_values", d, p.row(VALUE)),
            tiles.rows_in("pack_keys", e, p.row(KEY), scale),
            tiles.rows_in("pack_queries", e, None, scale),
            tiles.rows_in("pack_gradients", d, None),
            tiles.rows_in("pack_sums", e, None),
            tiles.rows_out("put_sums", e, None),
            tiles.rows_out("put_keys", e, p.row(dq + 1)),
            tiles.rows_out("put_values", d, p.row(dq + 2)),
            tiles.fill(),
        ],
        [
            *p.pointers(),
            *_memory(p, t, padded(e), padded(d)),
            *p.shared(f"({p.examples}) * {groups}"),
            *indented(
                [
                    f"n = item // {groups}",
                    f"g = item % {groups}",
                    *p.keys_there("n"),
                    f"fill(DQ, {KEYS * padded(e)}, 0)",
                    f"for h in range(g * {share}, g * {share} + {share}):",
                    f"    for begin in range(0, {p.size('queries')}, {KEYS}):",
                    f"        rows = {p.size('queries')} - begin",
                    f"        rows = {KEYS} if rows > {KEYS} else rows",
                    "        for r in range(rows):",
                    f"            store_i64(SUMS, r, {p.at(dq, 'n', 'h', '(begin + r)', '')})",
                    f"        put_sums(DQ, p{dq}, SUMS, rows)",
                    f"for key in range(0, {p.size('keys')}, {KEYS}):",
                    f"    keys = {p.size('keys')} - key",
                    f"    keys = {KEYS} if keys > {KEYS} else keys",
                    f"    fill(DK, {KEYS * padded(e)}, 0)",
                    f"    fill(DV, {KEYS * padded(d)}, 0)",
                    "    if key < have:",
                    *indented(
                        [
                            "there = keys if keys < have - key else have - key",
                            f"turn_keys(offset(p{KEY}, {p.at(KEY, 'n', 'g', 'key', '')}), KT, there)",
                            f"pack_keys(offset(p{KEY}, {p.at(KEY, 'n', 'g', 'key', '')}), K, there)",
                            f"turn_values(offset(p{VALUE}, {p.at(VALUE, 'n', 'g', 'key', '')}), VT, there)",
                            f"for h in range(g * {share}, g * {share} + {share}):",
                            f"    for begin in range(0, {p.size('queries')}, {KEYS}):",
                            *indented(_pair(p), 2),
                        ],
                        2,
                    ),
                    f"    put_keys(DK, offset(p{dq + 1}, {p.at(dq + 1, 'n', 'g', 'key', '')}), keys)",
                    f"    put_values(DV, offset(p{dq + 2}, {p.at(dq + 2, 'n', 'g', 'key', '')}), keys)",
                ],
                3,
            ),
        ],
    )


def _memory(p: Problem, t: str, wide: int, deep: int) -> list[str]:
    e, d = p.size("features"), p.size("width")
    floats = {"KT": e * KEYS, "VT": d * KEYS, "K": KEYS * wide, "Q": KEYS * wide, "DQ": KEYS * wide, "DK": KEYS * wide}
    floats |= {"G": KEYS * deep, "DV": KEYS * deep, "P": KEYS * KEYS, "DP": KEYS * KEYS, "B": KEYS, "D": KEYS}
    integers = ["QUERIES", "GRADIENTS", "SUMS", "LOW", "HIGH"]
    integers += [name for kind, name in (("masked", "MASKS"), ("biased", "BIASES")) if kind in p.extras]
    lines = [f"    {name} = stack_{t}({size})" for name, size in floats.items()]
    lines += [f"    {name} = stack_i64({KEYS})" for name in integers]
    return lines + [f"    {name} = stack_i64({KEYS // GROUP})" for name in ("FIRST", "LAST")]


def _pair(p: Problem) -> list[str]:
    """The queries begin..begin + 64 of head h and the keys key..key + 64: what each gives to the other's gradient."""
    wide, deep, t = padded(p.size("features")), padded(p.size("width")), p.tiles.t
    queries, dq = p.size("queries"), 6 + len(p.extras)
    return [
        f"rows = {queries} - begin",
        f"rows = {KEYS} if rows > {KEYS} else rows",
        "t = begin",
        *p.bounds(),
        "least = low",
        "t = begin + rows - 1",
        *p.bounds(),
        f"if key < high and least < key + {KEYS}:",
        *indented(
            [
                f"for r in range({KEYS}):",
                "    t = begin + (r if r < rows else rows - 1)",
                f"    store_i64(QUERIES, r, {p.at(QUERY, 'n', 'h', 't', '')})",
                f"    store_i64(GRADIENTS, r, {p.at(DOUT, 'n', 'h', 't', '')})",
                f"    store_i64(SUMS, r, {p.at(dq, 'n', 'h', 't', '')})",
                f"    store_{t}(B, r, load_{t}(p{LOGSUM}, {p.at(LOGSUM, 'n', 'h', 't')}))",
                f"    store_{t}(D, r, load_{t}(p{DELTA}, {p.at(DELTA, 'n', 'h', 't')}))",
                *indented(p.mask_rows(), 1),
                *indented(p.bounds(), 1),
                "    store_i64(LOW, r, low)",
                "    store_i64(HIGH, r, high)",
                f"count = (rows + {GROUP - 1}) >> {GROUP.bit_length() - 1}",
                f"pack_queries(p{QUERY}, QUERIES, Q, count * {GROUP})",
                f"pack_gradients(p{DOUT}, GRADIENTS, G, count * {GROUP})",
                f"pack_sums(p{dq}, SUMS, DQ, rows)",
                "for u in range(count):",
                f"    r = u * {GROUP}",
                "    first = load_i64(LOW, r) - key",
                f"    first = first & -{LANES} if first > 0 else 0",
                f"    stop = load_i64(HIGH, r + {GROUP - 1}) - key",
                f"    stop = {KEYS} if stop > {KEYS} else stop",
                f"    last = (stop + {LANES - 1}) & -{LANES} if stop > first else first",
                "    store_i64(FIRST, u, first)",
                "    store_i64(LAST, u, last)",
                "    if first < last:",
                *indented(
                    [
                        f"S = offset(P, r * {KEYS})",
                        f"scores(offset(Q, r * {wide}), KT, S, first, last)",
                        *p.apply_masks("r"),
                        f"if key + last > load_i64(HIGH, r) or key + first < load_i64(LOW, r + {GROUP - 1}):",
                        "    limit(S, first, last, key, offset(LOW, r), offset(HIGH, r))",
                        "probabilities(S, first, last, offset(B, r))",
                        f"value_scores(offset(G, r * {deep}), VT, offset(DP, r * {KEYS}), first, last)",
                        f"score_gradients(S, offset(DP, r * {KEYS}), first, last, offset(D, r))",
                        f"query_sums(offset(DP, r * {KEYS}), K, offset(DQ, r * {wide}), first, stop)",
                    ],
                    2,
                ),
                f"put_sums(DQ, p{dq}, SUMS, rows)",
                f"for j in range(0, keys, {GROUP}):",
                *indented(
                    [
                        "first = rows",
                        "stop = 0",
                        "for u in range(count):",
                        "    if load_i64(FIRST, u) <= j and j < load_i64(LAST, u):",
                        f"        first = u * {GROUP} if u * {GROUP} < first else first",
                        f"        stop = u * {GROUP} + {GROUP} if u * {GROUP} + {GROUP} < rows else rows",
                        "if first < stop:",
                        f"    key_sums(offset(DP, j), Q, offset(DK, j * {wide}), first, stop)",
                        f"    value_sums(offset(P, j), G, offset(DV, j * {deep}), first, stop)",
                    ],
                    1,
                ),
            ],
            1,
        ),
    ]
