"""DL0401 to DL0410: gradients, parameters and states."""

from __future__ import annotations

from dslc.explain import Explanation

EXPLANATIONS = (
    Explanation(
        "DL0401",
        "The loss does not depend on what it is differentiated by",
        "`grad[x](loss)` is taken by the tensor that `x` is bound to here. A name that was bound again is another tensor.",
        "model M(x: f32[N, 4], y: f32[N, 4]) -> f32[N, 4] { return grad[x](sum(y)) + x }",
        "model M(x: f32[N, 4], y: f32[N, 4]) -> f32[N, 4] { return grad[x](sum(x * y)) + x }",
    ),
    Explanation(
        "DL0402",
        "The gradient is taken of a scalar",
        "Reduce the tensor with `sum` or `mean` first: the gradient of the sum is what other systems call a vector-Jacobian product with ones.",
        "model M(x: f32[N, 4]) -> f32[N, 4] { return grad[x](x * x) }",
        "model M(x: f32[N, 4]) -> f32[N, 4] { return grad[x](sum(x * x)) }",
    ),
    Explanation(
        "DL0403",
        "The gradient is taken by a tensor of floats",
        "An input, an intermediate result or a parameter's path (`LeNet.head.w`) stands in the brackets of `grad`.",
        "model M(x: f32[N, 4], i: i64[N]) -> f32[N, 4] { return x + grad[i](sum(x)) }",
        "model M(x: f32[N, 4]) -> f32[N, 4] { return x + grad[x](sum(x * x)) }",
    ),
    Explanation(
        "DL0404",
        "There is no such parameter here",
        "A path names a parameter of a model that was called before: the model, then for each block the `as` or `param` name or its name in lower case.",
        """
        model W(x: f32[N, 4]) -> f32[N, 4] { return Dense[4](x) as head }
        model M(x: f32[N, 4]) -> f32[4, 4] { return grad[W.hed.w](sum(W(x))) }
        """,
        """
        model W(x: f32[N, 4]) -> f32[N, 4] { return Dense[4](x) as head }
        model M(x: f32[N, 4]) -> f32[4, 4] { return grad[W.head.w](sum(W(x))) }
        """,
    ),
    Explanation(
        "DL0405",
        "`eval` takes a model",
        "`eval[Model](x)` calls a model with `training` false.",
        "model M(x: f32[N, 4]) -> f32[N, 4] { return eval[Dense](x) }",
        "model W(x: f32[N, 4]) -> f32[N, 4] { return Dense[4](x) }\nmodel M(x: f32[N, 4]) -> f32[N, 4] { return eval[W](x) }",
    ),
    Explanation(
        "DL0406",
        "One parameter has two types",
        "A model has one set of parameters for all its calls, so their sizes must be the same in each.",
        """
        model W(x: f32[N, D]) -> f32[N, 4] { return Dense[4](x) }
        model M(x: f32[N, 8]) -> f32[N, 4] { return W(x) + W(x[:, 1:]) }
        """,
        """
        block Net(x: f32[N, D]) -> f32[N, 4] { return Dense[4](x) }
        model A = Net
        model B = Net
        model M(x: f32[N, 8]) -> f32[N, 4] { return A(x) + B(x[:, 1:]) }
        """,
    ),
    Explanation(
        "DL0407",
        "A parameter holds floats",
        "Parameters are trained by gradients. What persists without training is a `state`.",
        "model M(x: f32[N, 4]) -> f32[N, 4] {\n  param w: i64[4] = 1\n  return cast[f32](w) * x\n}",
        "model M(x: f32[N, 4]) -> f32[N, 4] {\n  state w: i64[4] = 1\n  return cast[f32](w) * x\n}",
    ),
    Explanation(
        "DL0408",
        "What is stored has a fixed size",
        "The batch is only known at run time, so that no parameter or state can have it as a dimension.",
        "dim N <= 64\nmodel M(x: f32[N, 4]) -> f32[N, 4] {\n  param w: f32[N] = 1\n  return along[0](w, x) * x\n}",
        "dim N <= 64\nmodel M(x: f32[N, 4]) -> f32[N, 4] {\n  param w: f32[4] = 1\n  return w * x\n}",
        "text",
    ),
    Explanation(
        "DL0409",
        "`update` changes a state",
        "The name behind `update` is declared with `state` in the same block. Other names are bound again with `=`.",
        "model M(x: f32[N, 4]) -> f32[N, 4] {\n  update x = x + 1\n  return x\n}",
        "model M(x: f32[N, 4]) -> f32[N, 4] {\n  x = x + 1\n  return x\n}",
    ),
    Explanation(
        "DL0410",
        "This is no way to start a parameter or state",
        "`= 0` fills with a number; `~ normal[0.02]` draws from an initialiser. xavier, kaiming and orthogonal need two dimensions.",
        "model M(x: f32[N, 4]) -> f32[N, 4] {\n  param w: f32[4] ~ xavier_uniform\n  return w * x\n}",
        "model M(x: f32[N, 4]) -> f32[N, 4] {\n  param w: f32[4] ~ normal[0.02]\n  return w * x\n}",
    ),
)
