from dslc.api.exports import exports_of
from dslc.api.sources import Source

exports_of(Source('model Net(x: f32[4]) -> f32[4] { return x }\nexport Net as "../net.dlc"\n', "net.dl"))
# expected
# net.dl:2:15: error[DL0821]: "../net.dlc" is no file within the folder of the run
#     2 | export Net as "../net.dlc"
#       |               ^^^^^^^^^^^^
#       = help: write a name such as "net.dlc", and choose the folder with -o
