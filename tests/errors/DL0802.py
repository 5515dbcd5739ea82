import dslc

dslc.compile("digits", threads=1).load_weights("nowhere.safetensors")
# expected
# error[DL0802]: there is no file nowhere.safetensors
#       = help: train first, or leave the weights out to run with initial values
