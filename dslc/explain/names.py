"""DL0101 to DL0113: names and imports."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0101",
        "There is no such name",
        """
        Names are looked up in the block, then among the file's items and imports, then in the library and the operators. Lower-case
        names are operators or blocks without parameters; capitalised names make parameters.
        """,
        "model M(x: f32[N, 4]) -> f32[N, 4] { return rellu(x) }",
        "model M(x: f32[N, 4]) -> f32[N, 4] { return relu(x) }",
    ),
    Explanation(
        "DL0102",
        "A name is defined twice",
        """
        Items of one file, its imports and its dimensions share one set of names. A parameter or state is made once in its block, and a
        metric or setting stands once in its recipe. (A name bound with `=` may be bound again.)
        """,
        "const K = 1\nconst K = 2",
        "const K = 1\nconst J = 2",
    ),
    Explanation(
        "DL0103",
        "There is no such static argument or option",
        "`dslc ops NAME` lists an operator's static arguments; a block's stand in the brackets of its signature.",
        "model M(x: f32[N, 4]) -> f32[N] { return sum[axes = 1](x) }",
        "model M(x: f32[N, 4]) -> f32[N] { return sum[axis = 1](x) }",
    ),
    Explanation(
        "DL0104",
        "A file cannot be imported",
        """
        The path of an import is looked for in the folder of the importing file, then in the library (`std/...`). The file is UTF-8 text of
        at most 1 MiB.
        """,
        'import "std/layer.dl" as layers',
        'import "std/layers.dl" as layers',
    ),
    Explanation(
        "DL0105",
        "An import leads outside its folder",
        "Imports name files below the folder of the importing file, or the library's. No `..`, no absolute paths, no links that lead elsewhere.",
        'import "../layers.dl" as layers',
        'import "std/layers.dl" as layers',
    ),
    Explanation(
        "DL0106",
        "A file imports itself",
        "Directly, or through others. Blocks that two files need stand in a third one.",
        'import "example.dl" as more',
        'import "std/layers.dl" as more',
    ),
    Explanation(
        "DL0108",
        "There is no such member",
        "A dot follows the name of an import, or a call whose results have names.",
        'import "std/layers.dl" as layers\nmodel M(x: f32[N, 4]) -> f32[N, 4] { return layers.Dens[4](x) }',
        'import "std/layers.dl" as layers\nmodel M(x: f32[N, 4]) -> f32[N, 4] { return layers.Dense[4](x) }',
    ),
    Explanation(
        "DL0109",
        "A block, model or constant is defined by itself",
        "Blocks and models may not recurse, so that every program ends and its size is known. A static `for` repeats a block.",
        "block Deep(x: f32[N, 4]) -> f32[N, 4] { return Deep(x) }",
        "block Deep(x: f32[N, 4]) -> f32[N, 4] {\n  for i in 0..3 { x = Dense[4](x) }\n  return x\n}",
    ),
    Explanation(
        "DL0110",
        "A recipe has no such setting",
        "The settings are epochs, steps, batch, seed, budget and validate.",
        """
        model M(x: f32[N, 4]) -> f32[N, 4] { return Dense[4](x) }
        train t {
          data x: f32[N, 4] from "digits"
          minimize mean(M(x)) over M with SGD[0.1]
          epoch 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 4] { return Dense[4](x) }
        train t {
          data x: f32[N, 4] from "digits"
          minimize mean(M(x)) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0111",
        "There is no such element type",
        """
        The element types are f16, bf16, f32, f64, i8, u8, i32, i64, bool, and `float`, which is what the file's `precision` says: f32
        unless told. A `precision` is bf16, f16, f32 or f64; under bf16 and f16 the families norm, softmax and loss may stay f32.
        """,
        "model M(x: float32[N, 4]) -> f32[N, 4] { return x }",
        "model M(x: f32[N, 4]) -> f32[N, 4] { return x }",
    ),
    Explanation(
        "DL0113",
        "An initialiser stands only after `~`",
        "`normal`, `uniform` and the others are names for how a parameter or state starts; random tensors are drawn with `random_normal[...]`.",
        "model M(x: f32[N, 4]) -> f32[N, 4] { return x + normal[0.1] }",
        "model M(x: f32[N, 4]) -> f32[N, 4] { return x + random_normal[N, 4] }",
    ),
)
