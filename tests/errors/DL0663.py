from dslc.runtime.artifact import load

load("nowhere.dlc")
# expected
# error[DL0663]: there is no file nowhere.dlc
