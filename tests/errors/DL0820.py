from dslc.cli.ops import command

command(["Conv3D"], standalone_mode=False)
# expected
# error[DL0820]: there is no operator or block 'Conv3D'
#       = help: did you mean Conv2D?
