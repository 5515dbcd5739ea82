import dslc

dslc.Trainer("digits", folder="nowhere")
# expected
# error[DL0725]: there is no folder nowhere to write to
#       = help: give a folder that exists and may be written
