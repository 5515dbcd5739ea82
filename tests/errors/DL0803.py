import dslc

dslc.compile("digits", threads=1).save_weights("/nowhere/digits.safetensors")
# expected
# error[DL0803]: /nowhere/digits.safetensors cannot be written: No such file or directory
#       = help: give a folder that exists and may be written
