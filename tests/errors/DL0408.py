from dslc.frontend import elaborate

elaborate(
    """dim N <= 64
model M(x: f32[N, 4]) -> f32[N, 4] {
  param w: f32[N] = 1
  return along[0](w, x) * x
}
""",
    "stored.dl",
)
# expected
# stored.dl:3:12: error[DL0408]: the parameter `w` is f32[N], and N is only known at run time
#     3 |   param w: f32[N] = 1
#       |            ^^^^^^
#       = help: what is stored has a fixed size; the batch cannot be part of it
