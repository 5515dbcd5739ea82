from dslc.cli.bench import command

command(["lenet", "--against", "tensorflow"], standalone_mode=False)
# expected
# error[DL0832]: there is no peer 'tensorflow'
#       = help: there are torch, torch.compile, onnxruntime
