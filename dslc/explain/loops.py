"""DL0330 to DL0335: the loop at run time."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0330",
        "`yield` stands outside of a `scan`",
        "`yield y` stacks a value of each iteration of the loop that it stands in. A block, a model and an optimizer give their results with `return`.",
        "model M(x: f32[N, 4]) -> f32[N, 4] {\n  yield x\n  return x\n}",
        "model M(x: f32[N, 4]) -> f32[N, 4] {\n  return x\n}",
    ),
    Explanation(
        "DL0331",
        "A scan gives nothing",
        "Its value is what it yields, stacked, then what `return` names as it is after the last iteration. With neither, nothing would remain of it.",
        "model M(x: f32[3, 4]) -> f32[4] {\n  h = scan v in x carry h = zeros[4] { h = h + v }\n  return h\n}",
        "model M(x: f32[3, 4]) -> f32[4] {\n  h = scan v in x carry h = zeros[4] {\n    h = h + v\n    return h\n  }\n  return h\n}",
    ),
    Explanation(
        "DL0332",
        "A scan cannot walk over this, or along this axis",
        """
        A scan walks over tensors along its axis, which each of them must have, over ranges such as `0..n`, and over several of these at once
        with `zip(a, b)` and `enumerate(a)`. It runs at least once. A list is static: `for` walks over it.
        """,
        "model M(x: f32[3, 4]) -> f32[3, 4] { return scan i in 3 { yield x[i] } }",
        "model M(x: f32[3, 4]) -> f32[3, 4] { return scan i in 0..3 { yield x[i] } }",
    ),
    Explanation(
        "DL0333",
        "Sequences that are walked together differ in length",
        "Tensors and ranges in one `zip`, and the size that `over` names, have one length.",
        "model M(x: f32[3, 4], y: f32[5, 4]) -> f32[3, 4] { return scan a, b in zip(x, y) { yield a + b } }",
        "model M(x: f32[3, 4], y: f32[5, 4]) -> f32[3, 4] { return scan a, b in zip(x, y[0:3]) { yield a + b } }",
    ),
    Explanation(
        "DL0334",
        "A carry changes its type",
        """
        What an iteration passes on to the next has one shape and one element type, those of its first value. A carry of floats converts other
        floats to its own type; nothing else converts, and nothing broadcasts: start a sum of vectors with `zeros[D]`, not with 0.0.
        """,
        "model M(x: f32[3, 4]) -> f32[4] { return scan v in x carry h = 0.0 {\n  h = h + v\n  return h\n} }",
        "model M(x: f32[3, 4]) -> f32[4] { return scan v in x carry h = zeros[4] {\n  h = h + v\n  return h\n} }",
    ),
    Explanation(
        "DL0335",
        "A carry stays as it is",
        """
        A warning: no statement of the loop binds the name again, so that every iteration gets the first value. What a loop only reads needs
        no carry: its body sees all names around it.
        """,
        """
        model M(x: f32[3, 4]) -> f32[3, 4] {
          return scan v in x carry s = sum(x) { yield v / s }
        }
        """,
        """
        model M(x: f32[3, 4]) -> f32[3, 4] {
          s = sum(x)
          return scan v in x { yield v / s }
        }
        """,
        "text",
    ),
)
