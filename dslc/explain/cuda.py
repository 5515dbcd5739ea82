"""DL0810 to DL0812: the CUDA back end."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0810",
        "The CUDA back end does not cover an operator",
        """
        The CUDA back end prints element-wise kernels, reductions and contractions. Where an operator's definition needs more, the program
        is refused before any kernel is made; the CPU back end covers every operator. The message names the operator and its line.
        """,
        "dslc compile --target cuda net.dl",
        "dslc compile --target cpu net.dl",
        "sh",
    ),
    Explanation(
        "DL0811",
        "There is no CUDA device",
        """
        Sources, launch plans and PTX need no GPU; running them does. Programs run on the CPU wherever dslc runs.
        """,
        'dslc.compile("net.dl", target="cuda")',
        'dslc.compile("net.dl", target="cpu")',
        "python",
    ),
    Explanation(
        "DL0812",
        "The CUDA compiler is not installed",
        """
        PTX is made by NVIDIA's compiler, which comes with the extra `cuda` as Python packages. It needs neither a GPU nor a driver. Without
        it `dslc compile --target cuda` still writes the kernels' sources and the launch plan.
        """,
        "pip install dslc",
        "pip install 'dslc[cuda]'",
        "sh",
    ),
)
