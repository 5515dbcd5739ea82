from dslc.ir.recipe import Recipe

Recipe("lenet", "digits", (), settings=(("lr", 0.1),)).override(batch=0)
# expected
# error[DL0720]: the recipe 'lenet' sets batch to 0
#       = help: batch is a whole number from 1 to 2147483647
