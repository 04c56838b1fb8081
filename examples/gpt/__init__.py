"""A small GPT over bytes, trained on the source of Python's own standard library: ordinary PyTorch only.

Nothing in this package knows of torchturbo. That is the point: the scripts beside it speed up the same
untouched code from outside.
"""
