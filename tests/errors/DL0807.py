import dslc

dslc.Builder("Tiny").input("x", "f32", ("T", 4))
# expected
# error[DL0807]: the size 'T' on axis 0
#       = help: only the first size of an input can be open: "N", with a `batch`
