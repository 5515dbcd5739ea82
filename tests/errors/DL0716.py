from dslc.data.coding import listed_coding

listed_coding("characters", ["to be or not to be"], 20).encode("to bee?")
# expected
# error[DL0716]: the vocabulary has no character '?'
#       = help: it has 7: ' benort'
