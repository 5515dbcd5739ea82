from unittest.mock import patch

import dslc.compiler
from dslc.backends.cpu.build import KernelSource
from dslc.frontend.elaborate import elaborate
from dslc.options import Options

text = "dim N <= 8\n\nmodel Twice(x: f32[N, 3]) -> f32[N, 3] {\n  return tanh(x + x)\n}\n"
module = elaborate(text, "twice.dl", model="Twice").module
right = dslc.compiler.kernel_sources


def wrong(*arguments):
    return tuple(KernelSource(k.text.replace(" + t", " - t"), k.entry, k.width) for k in right(*arguments))


with patch.object(dslc.compiler, "kernel_sources", wrong):
    dslc.compiler.compile_module(module, Options(verify=True, width=8))
# expected
# twice.dl:4:10: error[DL0911]: the kernel of step 0, `tanh`, is wrong: %2, f32[N, 3], differs by 0.947, of 0.947, in program `infer`
#       = note: it computes: %2: f32[N, 3] = tanh(%1)
#       = help: this is an error of dslc, not of your file: please report it with the file
