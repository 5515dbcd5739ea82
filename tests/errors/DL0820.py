from dslc.cli.ops import command

command(["Conv4D"], standalone_mode=False)
# expected
# error[DL0820]: there is no operator or block 'Conv4D'
#       = help: did you mean Conv3D?
