from unittest.mock import patch

import dslc.compiler
from dslc.frontend.elaborate import elaborate
from dslc.options import Options
from dslc.transforms.rewrite import Rule, rewrite

text = "dim N <= 8\n\nmodel Twice(x: f32[N, 3]) -> f32[N, 3] {\n  return relu(x + x)\n}\n"
module = elaborate(text, "twice.dl", model="Twice").module
wrong = ("wrong", lambda graph: rewrite(graph, (Rule("add(x, y) = mul(x, y)"),)))
with patch.object(dslc.compiler, "PASSES", (*dslc.compiler.PASSES, wrong)):
    dslc.compiler.compile_module(module, Options(verify=True))
# expected
# twice.dl:4:15: error[DL0910]: the pass `wrong` on program `infer` changes the result `output`, f32[N, 3], by 0.99, of 1.8
#       = note: the first value that was not there before: %1: f32[N, 3] = mul(%0, %0)
#       = help: this is an error of dslc, not of your file: please report it with the file
