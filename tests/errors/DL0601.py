import dslc

dslc.compile("dim N <= 64\nmodel Pairs(x: f32[N, 4]) -> f32[N, N] { return x @ transpose(x) }\n", cache=False)
# expected
# <string>:2:49: error[DL0601]: `output` is f32[N, N]: the batch N can only be its first axis
#     2 | model Pairs(x: f32[N, 4]) -> f32[N, N] { return x @ transpose(x) }
#       |                                                 ^^^^^^^^^^^^^^^^
#       = help: fix the batch when compiling: --dim N=64
