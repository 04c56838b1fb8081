"""The five laws of the design, as plain functions that any implementation can be put before, and the tests that do so.

A law is a function (or a hypothesis state machine) that raises `Violation` where what it is given does not hold it. So
it can judge torchturbo, a second and plainer implementation that must hold too, and mutants that must not.

1. *Faithful.* ``faithful``: what is read can be written back, what is written is read, and who sees it is declared.
2. *Exclusive.* ``exclusive``: one setting changes no other.
3. *Newest wins, nothing stays.* ``newest`` over made-up state and simulated threads, against the model in ``timeline``;
   ``blocks`` over torch's state with real blocks and real threads.
4. *Whole.* ``whole``: entries and exits that fail, at every position and in every way, also by a collection half way.
5. *A block owns its own before.* ``own_before``: recursion, re-entry, many threads, the wrong thread, forks.

What the laws stand on: ``look`` reads torch's state quickly and without torchturbo; ``start`` draws arbitrary states to
start from, ``pristine`` takes them away again; ``catalogue`` finds every setting, cell and value to try; ``world`` is
made-up state, ``layers`` what keeps layers over it; ``crew`` runs threads by the step.

``mutants`` lists what is broken on purpose: plain implementations in every way we could think of, each cell and setting
of the catalogue in a few, and float32 precision, the most delicate of them, by hand. Some law must catch each.
"""
