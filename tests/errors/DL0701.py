from dslc.data import open_data

open_data("digit", ())
# expected
# error[DL0701]: there is no data source 'digit'
#       = help: did you mean 'digits'?
