"""What things are: plain frozen values and the codecs of the texts other programs write.

Nothing here reads a file, a clock, the environment or the network (checked by import-linter).
"""
