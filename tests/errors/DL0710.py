from dslc.data import Field, open_data

open_data("digits", [Field("image", "f32", (64,))], options={"test": 20})
# expected
# error[DL0710]: the option `test` of the data is 20
#       = help: it is a share between 0 and 1, such as 0.2
