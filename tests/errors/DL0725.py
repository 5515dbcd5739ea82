from pathlib import Path

from dslc.training.log import JsonLog

JsonLog(Path("nowhere/log.jsonl"))
# expected
# error[DL0725]: cannot write the log nowhere/log.jsonl: No such file or directory
#       = help: give a folder that exists and may be written
