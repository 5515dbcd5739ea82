import dslc
from dslc.api.intermediates import with_intermediates
from dslc.options import Options

net = dslc.compile("model Twice(x: f32[4]) -> f32[4] { return 2 * x }", threads=1)
with_intermediates(net, "*softplus", Options())
# expected
# error[DL0809]: '*softplus' matches nothing
#       = help: there are 1:43.mul
