from dslc.explain import explain

explain("DL9999")
# expected
# error[DL0902]: there is no error code 'DL9999'
#       = help: the codes are DL0001 to DL0902; `dslc explain` lists them
