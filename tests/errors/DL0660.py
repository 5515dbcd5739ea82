from dslc.runtime.arena import Arena

Arena().reserve(1 << 62)
# expected
# error[DL0660]: there is no room for 4,611,686,018,427,387,904 bytes of intermediate values: [Errno 12] Cannot allocate memory
#       = help: take a smaller batch
