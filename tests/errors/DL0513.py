from dslc.frontend import elaborate

elaborate("model M(x: f32[N, T]) -> f32[N, T] { return x }\n", "sizes.dl", dims={"N": 2})
# expected
# sizes.dl:1:19: error[DL0513]: the size T is not bound
#     1 | model M(x: f32[N, T]) -> f32[N, T] { return x }
#       |                   ^
#       = help: declare `dim T <= 256` for a run-time batch, `dim T = 128` for a fixed size, or pass --dim T=128
