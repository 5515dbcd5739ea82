from dslc.data import Field, open_data

open_data("shapes", [Field("image", "f32", (3, 32, 32))], options={"number": 20})
# expected
# error[DL0710]: data from 'shapes' have no option `number`
#       = help: they have `test`, `normalize`, `count`, `seed`
