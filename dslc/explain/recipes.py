"""DL0501 to DL0523: recipes, sizes of programs, and lints."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0501",
        "A recipe minimizes nothing",
        "A recipe says what to make small, which models may change for it, and how: `minimize loss over Model with AdamW[1e-3]`.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          metric mean = mean(M(x))
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0502",
        "A recipe has no data, or twice",
        "One `data` clause names the columns with their types and where they come from.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          minimize cross_entropy(M(zeros[2, 4]), zeros[2, dtype = i64]) over M with SGD[0.1]
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0503",
        "There is no such model",
        "`over`, `export` and the commands name a model of the file, or of an imported one (`vision.ResNet18`). A block is no model: `model Net = Block[...]`.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over Net with SGD[0.1]
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0504",
        "Data without a batch",
        "The first dimension of every data column is the batch: a name such as N, the same in all.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[] from "digits"
          minimize mean(M(x)) over M with SGD[0.1]
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize mean(M(x)) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0505",
        "An augmentation changes the type of the data",
        "`augment` lists functions from the first data column to a tensor of the same type, such as random_shift[2] and random_flip[axis = -1].",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits" with augment = [flatten, sum]
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0506",
        "A loss is a scalar",
        "What is minimized is one floating-point number: take the mean over the examples.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize M(x) over M with SGD[0.1]
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize mean(M(x)) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0507",
        "A metric is a scalar",
        "A metric is one floating-point number for a batch; the fit loop averages it over the examples.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          metric right = argmax[axis = 1](M(x)) == y
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          metric right = mean(argmax[axis = 1](M(x)) == y)
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0508",
        "A setting or option is out of range",
        "epochs, steps and batch are whole numbers of at least 1, seed and validate of at least 0, budget is a size such as 2GiB, clip a positive number.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 0
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0509",
        "A recipe does not say how long it trains",
        "Without `epochs` and `steps` a recipe trains one epoch. (A warning.)",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
        "text",
    ),
    Explanation(
        "DL0510",
        "An option stands in the wrong group",
        "`clip` limits the norm of all gradients of a `minimize` together, so it stands in the first group.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
            over "*.b" with SGD[0.2], clip = 1.0
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1], clip = 1.0
            over "*.b" with SGD[0.2]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0511",
        "This is no optimizer, or no learning rate",
        "Behind `with` stands an optimizer of the library (SGD, RMSProp, Adam, AdamW) or of your own. Its learning rate is a number or a schedule.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with Dense[0.1]
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0512",
        "An optimizer or schedule has the wrong form",
        "An optimizer takes a parameter, its gradient and the step, and returns the new parameter; a schedule takes (step, total).",
        """
        optimizer Plain[lr](p: float[*L], g: float[*L]) -> float[*L] { return p - lr(1) * g }
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with Plain[0.1]
          epochs 3
        }
        """,
        """
        optimizer Plain[lr](p: float[*L], g: float[*L], step: i64[]) -> float[*L] { return p - lr(step) * g }
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with Plain[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0513",
        "A size is not bound",
        "To compile a model every size but the batch is fixed: `dim T = 128` in the file, or --dim T=128. `dim N <= 256` makes N the run-time batch.",
        """
        model M(x: f32[N, T]) -> f32[N, T] { return x }
        """,
        """
        dim N <= 256, T = 128
        model M(x: f32[N, T]) -> f32[N, T] { return x }
        """,
        "text",
    ),
    Explanation(
        "DL0514",
        "The recipe uses no parameters of a model",
        "`over` names a model that the recipe calls.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        model Other(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over Other with SGD[0.1]
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0515",
        "Nothing would move",
        "The loss depends on none of the parameters that `over` names, or all of them are frozen.",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          freeze "*"
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          freeze "*.b"
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0516",
        "An option of `load` is of another kind",
        """
        `rename` is a list of pairs, a pattern of names in the file and the name that they take, or `none` to drop them; `fresh` is a list of
        patterns of parameters that keep their initial values; `layout` is "torch" for a state dict of PyTorch.
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          load M from "m.safetensors" with fresh = "head.*"
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          load M from "m.safetensors" with fresh = ["head.*"]
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0517",
        "There are no averaged weights",
        """
        `ema[Model]` calls a model with the moving averages of its parameters. They are kept by a recipe that says so behind its first
        optimizer: `minimize ... over Model with AdamW[1e-3], ema = 0.999`.
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          metric right = mean(argmax[axis = 1](ema[M](x)) == y)
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1], ema = 0.999
          metric right = mean(argmax[axis = 1](ema[M](x)) == y)
          epochs 3
        }
        """,
    ),
    Explanation(
        "DL0518",
        "A metric in Python asks for a tensor that the recipe does not have",
        """
        The parameters of a function in `dslc.Trainer(metrics=...)` are names in the recipe: columns of the data, or names that it binds to
        tensors with a row for each example.
        """,
        'dslc.Trainer("net.dl", metrics={"top": lambda scores, y: ...})   # the recipe calls them logits',
        'dslc.Trainer("net.dl", metrics={"top": lambda logits, y: ...})',
        "python",
    ),
    Explanation(
        "DL0520",
        "A pattern matches nothing",
        "Patterns are compared with whole paths of parameters; `*` is the only wildcard. (A warning.)",
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          freeze "M.haed.*"
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          freeze "M.head.b"
          epochs 3
        }
        """,
        "text",
    ),
    Explanation(
        "DL0521",
        "The loss does not depend on a parameter",
        "It would never change. Remove it, or say that it stays with `freeze`. (A warning.)",
        """
        model M(x: f32[N, 4]) -> (a: f32[N, 3], b: f32[N, 3]) { return Dense[3](x) as head, Dense[3](x) as spare }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x).a, y) over M with SGD[0.1]
          epochs 3
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
        "text",
    ),
    Explanation(
        "DL0522",
        "The loss depends on another model that stays as it is",
        "`over` covers a model and the blocks that it makes, not other models that it calls. Name those too, or freeze them. (A warning.)",
        """
        model Body(x: f32[N, 4]) -> f32[N, 4] { return Dense[4](x) }
        model M(x: f32[N, 4]) -> f32[N, 3] { return Body(x) |> Dense[3] }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M with SGD[0.1]
          epochs 3
        }
        """,
        """
        model Body(x: f32[N, 4]) -> f32[N, 4] { return Dense[4](x) }
        model M(x: f32[N, 4]) -> f32[N, 3] { return Body(x) |> Dense[3] }
        train t {
          data x: f32[N, 4], y: i64[N] from "digits"
          minimize cross_entropy(M(x), y) over M, Body with SGD[0.1]
          epochs 3
        }
        """,
        "text",
    ),
    Explanation(
        "DL0523",
        "A name is never used",
        "Often a misspelling, or a line that was forgotten. A name that starts with `_` is meant to be unused. (A warning.)",
        """
        model M(x: f32[N, 4]) -> f32[N, 4] {
          y = relu(x)
          return x
        }
        """,
        """
        model M(x: f32[N, 4]) -> f32[N, 4] {
          y = relu(x)
          return y
        }
        """,
        "text",
    ),
)
