import dslc

dslc.compile("model Twice(x: f32[4]) -> f32[4] { return 2 * x }", target="cuda")
# expected
# error[DL0904]: programs run on the CPU only
#       = help: `dslc compile --target cuda` writes what the CUDA probe covers
