"""DL0524 and on: several optimisations of one recipe, and when it stops."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0524",
        "Several optimisations that are not phases",
        """
        A recipe has one `minimize`, or phases with one each, which take turns: each execution of a phase takes a batch of its own and moves
        only what its `over` names.
        """,
        """
        model G(z: f32[N, 2]) -> f32[N, 4] { return Dense[4](z) }
        model C(x: f32[N, 4]) -> f32[N, 1] { return Dense[1](x) }
        train t {
          data x: f32[N, 4] from "npz:points.npz"
          fake = G(random_normal[N, 2])
          minimize mean(C(fake)) - mean(C(x)) over C with SGD[0.1]
          minimize -mean(C(fake)) over G with SGD[0.1]
          steps 100
        }
        """,
        """
        model G(z: f32[N, 2]) -> f32[N, 4] { return Dense[4](z) }
        model C(x: f32[N, 4]) -> f32[N, 1] { return Dense[1](x) }
        train t {
          data x: f32[N, 4] from "npz:points.npz"
          fake = G(random_normal[N, 2])
          phase critic[repeat = 5] { minimize mean(C(fake)) - mean(C(x)) over C with SGD[0.1] }
          phase generator { minimize -mean(C(fake)) over G with SGD[0.1] }
          steps 100
        }
        """,
    ),
)
