from dslc.runtime.artifact import Artifact, save

save("no/such/folder/net.dlc", Artifact(plan=""), {})
# expected
# error[DL0665]: no/such/folder/net.dlc cannot be written: No such file or directory
