"""DL0910 and DL0911: what `--verify` finds."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0910",
        "A pass changed what the program computes",
        """
        With `--verify` the graph is run by the interpreter before and after every pass, on small random inputs, and gradients are compared with
        differences. The message names the first pass after which a result differs or a rule of the graph is broken, and the line where it
        starts. This is an error of dslc.
        """,
        "(please report the file and the message)",
        "dslc compile --verify net.dl",
        "text",
    ),
    Explanation(
        "DL0911",
        "A compiled kernel computes something else than the interpreter",
        """
        With `--verify` every kernel runs by itself on the interpreter's numbers, and its results are compared with the interpreter's; then
        the whole program runs as it is planned. The message names the first kernel that is wrong and the line that it was made
        from, or the memory plan where all kernels are right. This is an error of dslc.
        """,
        "(please report the file and the message)",
        "dslc compile --verify net.dl",
        "text",
    ),
)
