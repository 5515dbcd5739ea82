import dslc

dslc.compile("dim N <= 64\nmodel Near(x: f32[N, 4]) -> f32[N] { return sum[axis = 0](x @ transpose(x)) }\n", cache=False)
# expected
# <string>:2:45: error[DL0601]: a tensor f64[N, N] does not grow in proportion to the batch N
#     2 | model Near(x: f32[N, 4]) -> f32[N] { return sum[axis = 0](x @ transpose(x)) }
#       |                                             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
#       = help: fix the batch when compiling: --dim N=64
