import dslc

TEXT = """
model M(x: f32[N, 4]) -> f32[N, 3] { return Dense[3](x) as head }
train t {
  data x: f32[N, 4], y: i64[N] from "digits"
  logits = M(x)
  minimize cross_entropy(logits, y) over M with SGD[0.1]
  epochs 3
}
"""
dslc.Trainer(TEXT, metrics={"top": lambda logit, y: 0.0})
# expected
# <string>:3:7: error[DL0518]: the recipe t has no tensor `logit` with a row for each example
#     3 | train t {
#       |       ^
#       = help: did you mean `logits`?
