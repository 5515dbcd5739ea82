"""DL0201 to DL0221: element types, shapes, sizes."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0201",
        "An operator does not take these tensors",
        "The message says what it takes; `dslc ops NAME` shows its definition with examples.",
        "model M(x: i64[N, 4]) -> i64[N, 4] { return sigmoid(x) }",
        "model M(x: i64[N, 4]) -> f32[N, 4] { return sigmoid(cast[f32](x)) }",
    ),
    Explanation(
        "DL0202",
        "Element types differ",
        """
        Floats of two widths meet in the wider one, numbers in the text take the type of the tensor that they meet, and a scalar integer
        that meets a float converts. An argument or result declared with a floating type converts any floating value. Everything else
        needs `cast[type](x)`.
        """,
        "model M(x: f32[N, 4], i: i64[N, 4]) -> f32[N, 4] { return x + i }",
        "model M(x: f32[N, 4], i: i64[N, 4]) -> f32[N, 4] { return x + cast[f32](i) }",
    ),
    Explanation(
        "DL0203",
        "A number does not fit the tensor that it meets",
        "A number in the text takes the element type of the tensor beside it: 0.5 is no i64, 300 no u8, and 1 no bool.",
        "model M(i: i64[N]) -> i64[N] { return i * 0.5 }",
        "model M(i: i64[N]) -> f32[N] { return cast[f32](i) * 0.5 }",
    ),
    Explanation(
        "DL0210",
        "Shapes do not fit",
        """
        Shapes meet by NumPy's rule: axes are compared from the last, and an axis of size 1 stretches. Two different dimension names never
        match silently. `along[1](v, x)` lays a vector along an axis of x; `x[:, none]` adds an axis.
        """,
        "model M(x: f32[N, 4], b: f32[5]) -> f32[N, 4] { return x + b }",
        "model M(x: f32[N, 4], b: f32[4]) -> f32[N, 4] { return x + b }",
    ),
    Explanation(
        "DL0211",
        "An argument's shape does not fit the signature",
        """
        The names in a signature are inferred from the arguments; a name that stands twice, a number or an expression must agree with
        what is passed.
        """,
        "block same(a: f32[N, D], b: f32[N, D]) -> f32[N, D] { return a + b }\nmodel M(x: f32[N, 4]) -> f32[N, 4] { return same(x, x[:, 1:]) }",
        "block same(a: f32[N, D], b: f32[N, D]) -> f32[N, D] { return a + b }\nmodel M(x: f32[N, 4]) -> f32[N, 4] { return same(x, x) }",
    ),
    Explanation(
        "DL0212",
        "An argument has another number of axes",
        "`flatten` makes [N, rest] of any tensor; `*L` in a signature stands for any number of axes.",
        "model M(x: f32[N, 64]) -> f32[N, 8, 6, 6] { return x |> Conv2D[8, 3] }",
        "model M(x: f32[N, 1, 8, 8]) -> f32[N, 8, 6, 6] { return x |> Conv2D[8, 3] }",
    ),
    Explanation(
        "DL0213",
        "A result is not of the declared type",
        "What `return` gives, what updates a state and what a typed `const` holds must have the declared shape.",
        "model M(x: f32[N, 4]) -> f32[N, 10] { return x |> Dense[12] }",
        "model M(x: f32[N, 4]) -> f32[N, 10] { return x |> Dense[10] }",
    ),
    Explanation(
        "DL0214",
        "A call does not satisfy `given`",
        "A signature's `given` clauses are what its body relies on. With open sizes the message has an example for which they fail.",
        """
        block halve(x: f32[N, D]) -> f32[N, D / 2] given D % 2 == 0 { return x[:, 0:D / 2] }
        model M(x: f32[N, 7]) -> f32[N, 3] { return halve(x) }
        """,
        """
        block halve(x: f32[N, D]) -> f32[N, D / 2] given D % 2 == 0 { return x[:, 0:D / 2] }
        model M(x: f32[N, 8]) -> f32[N, 4] { return halve(x) }
        """,
    ),
    Explanation(
        "DL0215",
        "A statement about sizes cannot be shown",
        """
        Sizes that are not bound stay symbols, and what the program relies on is proved for all of them. The prover is sound but not
        complete: state the fact with `given`, or bind the sizes (`dim T = 64`, --dim).
        """,
        """
        block f(x: f32[A, B, C]) -> f32[A, B, C] given A * A * A + B * B * B != C * C * C { return x }
        model M(x: f32[A, B, C]) -> f32[A, B, C] { return f(x) }
        """,
        """
        block f(x: f32[A, B, C]) -> f32[A, B, C] given A * A * A + B * B * B != C * C * C { return x }
        model M(x: f32[A, B, C]) -> f32[A, B, C] given A * A * A + B * B * B != C * C * C { return f(x) }
        """,
    ),
    Explanation(
        "DL0216",
        "A dimension does not follow from the arguments",
        """
        Every name in a signature is inferred from the arguments: it stands alone in one of their types, or is the only unknown of a linear
        expression. A row `*L` stands at most once in a type, and not among the inputs of a model.
        """,
        "model M(x: f32[*L, 4]) -> f32[*L, 4] { return x }",
        "model M(x: f32[N, 4]) -> f32[N, 4] { return x }",
    ),
    Explanation(
        "DL0217",
        "A size or number is out of range",
        "Sizes are whole numbers from 1 to 2^31 - 1, numbers fit 64 bits, and a tensor must be one that some memory could hold.",
        "model M(x: f32[N, 4]) -> f32[N, 0] { return x[:, 0:0] }",
        "model M(x: f32[N, 4]) -> f32[N, 1] { return x[:, 0:1] }",
    ),
    Explanation(
        "DL0218",
        "An `assert` does not hold",
        "`assert` checks static facts: sizes, numbers, lists. It is checked when the file is, not when the program runs.",
        'model M(x: f32[N, 4]) -> f32[N, 4] {\n  assert len([1, 2]) == 3, "three of them"\n  return x\n}',
        'model M(x: f32[N, 4]) -> f32[N, 4] {\n  assert len([1, 2]) == 2, "two of them"\n  return x\n}',
    ),
    Explanation(
        "DL0219",
        "A quotient is not whole",
        "`/` between whole numbers is exact: with sizes that are not bound, `given H % 2 == 0` says that it is. `//` rounds down; `7.0 / 2` is a float.",
        "model M(x: f32[N, H]) -> f32[N, H / 2] { return x[:, 0:H / 2] }",
        "model M(x: f32[N, H]) -> f32[N, H / 2] given H % 2 == 0 { return x[:, 0:H / 2] }",
    ),
    Explanation(
        "DL0220",
        "Division by zero",
        "Found while static expressions are evaluated. (A tensor divided by zero gives an infinity or NaN when the program runs.)",
        "const K = 8 // (2 - 2)",
        "const K = 8 // (2 + 2)",
    ),
    Explanation(
        "DL0221",
        "An index does not fit its tensor",
        """
        `x[...]` takes numbers, slices with static bounds, `...`, `none` for a new axis, and one tensor of whole numbers, which gathers
        along its axis. Numbers and bounds lie within the axis; negative ones count from its end.
        """,
        "model M(x: f32[N, 4]) -> f32[N] { return x[:, 4] }",
        "model M(x: f32[N, 4]) -> f32[N] { return x[:, 3] }",
    ),
)
