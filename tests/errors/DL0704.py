from dslc.data import Field, open_data

open_data("digits", [Field("image", "f32", (3, 8, 8))])
# expected
# error[DL0704]: 'digits' cannot give image: f32[N, 3, 8, 8]
#       = help: it has images, f32[N, 1, 8, 8], f32[N, 8, 8] or f32[N, 64] with values 0..1, and labels, i64[N]
