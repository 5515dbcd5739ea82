from unittest.mock import patch

from dslc.data import places

with patch.object(places, "machine_memory", lambda: 2**30):
    places.check_memory(2**40, "million_images.npz")
# expected
# error[DL0715]: million_images.npz takes 1,099,511,627,776 bytes of memory, and this machine has 1,073,741,824
#       = help: check the file; use fewer or smaller examples, or a folder of pictures or sounds, which are read as they are needed
