from dslc.cli.bench import command

command(["lenet", "--train", "--against", "onnxruntime"], standalone_mode=False)
# expected
# error[DL0831]: onnxruntime is not compared in training
#       = help: training is compared with torch
