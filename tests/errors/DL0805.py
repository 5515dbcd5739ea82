import dslc

dslc.compile("model Twice(x: f32[4]) -> f32[4] { return 2 * x }", threads=1).show("fusion")
# expected
# error[DL0805]: there is no stage 'fusion'
#       = help: the stages are graph, clusters, loops, kernels, memory, asm
