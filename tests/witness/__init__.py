"""An independent witness of torch's state: it says whether two processes that share a past are in the same state now.

The package under test is never asked what is right. Two children are forked from one pristine parent; one runs a
random history of torch's own setters, the other runs the same history and some turbo blocks, and both then take the
same reading. Whatever differs is a leak. Where to look:

``getters``      finds every no-argument getter of ``torch._C`` by looking, and reads it
``memory``       reads ``at::Context`` itself, byte by byte, and the raw precision cells in it
``python_state`` reads what torch and Python keep in Python: environment, hooks, configuration, generators
``reading``      puts these together, for a process and for a thread, and compares two of them
``probing``      watches how precision follows further setters, which shows what no getter shows
``setters``      the vocabulary of histories: torch's setters, public and raw, old and new
``cases``        a random case from its seed: a history, layers, a schedule over threads
``player``       plays a case in a child with ``workers``, ``expectation`` says what must be in force (law 3)
``verdict``      forks the children of a case and compares them; ``shrinking`` makes a failing case small
``mutants``      faulty blocks that the witness must catch, ``plants`` single leaks that it must see
"""
