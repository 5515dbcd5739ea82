from dslc.diagnostics import DiagnosticError
from dslc.frontend import check

blocks = "".join(f"block f{i}(x: f32[N]) -> f32[N] {{ return f{i + 1}(x) }}\n" for i in range(49))
result = check(blocks + "block f49(x: f32[N]) -> f32[N] { return relu(x) }\n", "deep.dl")
raise DiagnosticError(*result.errors, sources=result.sources)
# expected
# deep.dl:48:41: error[DL0311]: calls are nested more than 48 deep
#    48 | block f47(x: f32[N]) -> f32[N] { return f48(x) }
#       |                                         ^^^^^^
#    47 | block f46(x: f32[N]) -> f32[N] { return f47(x) }
#       |                                         ------ in this call of f47
#       = help: write some of the blocks as one
