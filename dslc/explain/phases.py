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
    Explanation(
        "DL0525",
        "What a run is judged by",
        """
        `save "best.safetensors" with best = accuracy` keeps the best epoch, and `patience 5` ends a run after five evaluations without a better one.
        Both name a metric of the recipe that is one number, with a minus where less is better: `best = -loss`, `monitor "-loss"`. A recipe has one such
        `save`, and one that saves where the run stands, with `every`, `every_steps` or `every_seconds`.
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) }
        train t {
          data x: f32[N, 4], y: i64[N] from "npz:points.npz"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 30
          save "best.safetensors" with best = loss
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) }
        train t {
          data x: f32[N, 4], y: i64[N] from "npz:points.npz"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 30
          save "best.safetensors" with best = -loss
        }
        """,
    ),
)
