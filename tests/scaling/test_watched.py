"""What a watched loop tells of the scaling in it."""

from __future__ import annotations

import torch

from torchturbo import turbo, watch


def test_the_scale_of_gradients_and_what_was_skipped_is_told() -> None:
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    watched = watch([torch.ones(2)] * 3, show=None, alert=None)
    for batch in watched:
        with turbo("exact", autocast="fp16", init_scale=1024.0):
            optimizer.zero_grad()
            (weight * batch).sum().backward()
            optimizer.step()
    assert watched.seen is not None
    assert (watched.seen.scale, watched.seen.skipped_steps) == (1024.0, 0)
