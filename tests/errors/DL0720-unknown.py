from dslc.ir.recipe import Recipe

Recipe("lenet", "digits", (), settings=(("decay", 0.1), ("lr", 0.1))).override(settings={"lrate": 1.0})
# expected
# error[DL0720]: the recipe 'lenet' has no setting 'lrate'
#       = help: it has decay, lr
