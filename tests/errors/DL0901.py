from dslc.options import from_environment

from_environment({"DSLC_WIDTH": "5"})
# expected
# error[DL0901]: the vector width is 5 lanes
#       = help: it is 16, 8 or 4
