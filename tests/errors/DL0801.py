import dslc

dslc.compile("lennet")
# expected
# error[DL0801]: there is no file lennet
#       = help: did you mean lenet?
