"""torchturbo around the loops of other libraries: a file is a library, and importing it imports that library.

Whatever such a library does itself (autocast, scaling, accumulation) is left to it, and the report says so.
"""
