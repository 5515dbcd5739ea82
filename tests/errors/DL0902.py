from dslc.explain import explain

explain("DL9999")
# expected
# error[DL0902]: there is no error code 'DL9999'
#       = help: `dslc explain` without a code lists them all
