"""`channels_last=True`: the bits of handing images over by hand, modules as they are, and nothing left."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from torchturbo import accelerate, turbo
from torchturbo.regions._calls import module_calls


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(288, 4)
    )


def _train(
    net: nn.Module, around: AbstractContextManager[object], hand: Callable[[Tensor], Tensor] = lambda images: images
) -> list[float]:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    chance = torch.Generator().manual_seed(1)
    losses = []
    with around:
        for _ in range(4):
            images = torch.randn(2, 3, 8, 8, generator=chance)
            optimizer.zero_grad()
            loss = net(hand(images)).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def test_it_trains_with_the_bits_of_images_that_are_ordered_by_hand() -> None:
    ours, theirs = _net(), _net()
    by_hand = _train(theirs, nullcontext(), lambda images: images.contiguous(memory_format=torch.channels_last))
    assert _train(ours, turbo("exact", channels_last=True)) == by_hand
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def test_weights_stay_where_and_as_they_are() -> None:
    net = _net()
    places = [(each.data_ptr(), each.stride()) for each in net.parameters()]
    _train(net, turbo("exact", channels_last=True))
    assert [(each.data_ptr(), each.stride()) for each in net.parameters()] == places
    assert all(each.grad is not None and each.grad.stride() == each.stride() for each in net.parameters())


class _Seen(nn.Module):
    """Notes what it is called with."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, *tensors: Tensor, mask: Tensor | None = None) -> Tensor:
        self.seen += [*tensors, *([] if mask is None else [mask])]
        return tensors[0] if self.inner is None else self.inner(tensors[0].contiguous())


def _is_ordered(tensor: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.is_contiguous(memory_format=formats[tensor.dim()]) and not tensor.is_contiguous()


def test_images_and_volumes_of_the_outermost_module_are_ordered_and_nothing_else() -> None:
    images, volumes, rows, words = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5, 6), torch.randn(2, 3), torch.ones(2)
    whole = images.long()
    inner = _Seen()
    net = _Seen(inner)
    with turbo("exact", channels_last=True):
        net(images, volumes, rows, words, whole, mask=images)
    first, second, third, fourth, fifth, sixth = net.seen
    assert _is_ordered(first)
    assert _is_ordered(second)
    assert _is_ordered(sixth)
    assert (third is rows, fourth is words, fifth is whole) == (True, True, True)
    assert inner.seen[0].is_contiguous()
    assert images.is_contiguous()
    net.seen.clear()
    net(images)
    assert net.seen == [images]
    assert module_calls.hand is None


def test_gradients_reach_the_image_in_its_own_order() -> None:
    image = torch.randn(1, 3, 8, 8, requires_grad=True)
    with turbo("exact", channels_last=True):
        _net()(image).sum().backward()
    assert image.grad is not None
    assert image.grad.is_contiguous()


def test_a_view_that_fails_says_why() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.conv(images)
            return out.view(len(out), -1)

    net = Net()
    with turbo("exact", channels_last=True), pytest.raises(RuntimeError, match="view size") as raised:
        net(torch.randn(2, 3, 8, 8))
    assert any("write .reshape()" in note for note in raised.value.__notes__)
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 288)


def test_the_report_tells_what_was_handed() -> None:
    with turbo("exact", channels_last=True) as active:
        assert "no module has been called" in str(active.report().to_text(200))
        _net()(torch.randn(1, 3, 8, 8))
        nn.Linear(2, 2)(torch.ones(1, 2))
        text = active.report().to_text(200)
    assert "Sequential got images in channels_last; Linear was called without images" in text


def test_another_thread_is_left_alone() -> None:
    seen: list[bool] = []
    net = _Seen()

    def run() -> None:
        net(torch.randn(1, 3, 4, 4))
        seen.append(_is_ordered(net.seen[-1]))

    with turbo("exact", channels_last=True):
        run()
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert seen == [True, False]


def test_an_accelerated_module_hands_its_parts_images_in_order() -> None:
    net = accelerate(_net(), profile="exact", channels_last=True)
    plain = _net()
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(net(images), plain(images.contiguous(memory_format=torch.channels_last)))


def test_within_torch_func_it_stays_away() -> None:
    net = _net().eval()
    state = dict(net.named_parameters()) | dict(net.named_buffers())
    images = torch.randn(3, 1, 3, 8, 8)

    def one(image: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(net, state, (image,))
        return out

    expected = torch.func.vmap(one)(images)
    with turbo("exact", channels_last=True):
        assert torch.equal(torch.func.vmap(one)(images), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_none() -> None:
    with turbo("exact", channels_last=True):
        child = os.fork()
        if not child:
            net = _Seen()
            net(torch.randn(1, 3, 4, 4))
            os._exit(int(_is_ordered(net.seen[0]) or module_calls.hand is not None))
        assert os.waitpid(child, 0)[1] == 0
    assert module_calls.needed == 0


def test_copies_of_a_model_know_nothing_of_it() -> None:
    net = _net()
    with turbo("exact", channels_last=True):
        net(torch.randn(1, 3, 8, 8))
        other = copy.deepcopy(net)
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(other(images), net(images))
