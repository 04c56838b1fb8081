"""A forward inside a region uses the weights as they are, whoever edited them and however."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from torchturbo import turbo

X = torch.linspace(-1, 1, 32).view(8, 4)


def half(model: nn.Linear) -> dict[str, Tensor]:
    return {name: tensor * 0.5 for name, tensor in deepcopy(model.state_dict()).items()}


def stepped(optimizer: type[torch.optim.Optimizer], **options: bool) -> Callable[[nn.Linear], None]:
    def step(model: nn.Linear) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer(model.parameters(), lr=0.5, **options).step()

    return step


def data_is_another(model: nn.Linear) -> None:
    model.weight.data = model.weight.data * 0.5


def data_is_edited(model: nn.Linear) -> None:
    model.weight.data.mul_(0.5)


def edited_without_grad(model: nn.Linear) -> None:
    with torch.no_grad():
        model.weight.mul_(0.5)


def edited_in_inference_mode(model: nn.Linear) -> None:
    with torch.inference_mode():
        model.weight.mul_(0.5)


def edited_in_numpy(model: nn.Linear) -> None:
    view = model.weight.detach().numpy()
    view *= 0.5


def edited_through_a_view(model: nn.Linear) -> None:
    model.weight.detach().view(-1)[:2].zero_()


def edited_through_memory(model: nn.Linear) -> None:
    model.weight.untyped_storage().copy_((model.weight * 0.5).detach().untyped_storage())


def edited_in_another_thread(model: nn.Linear) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(data_is_edited, model).result()


def averaged(model: nn.Linear) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(model.parameters()), [torch.zeros_like(p) for p in model.parameters()], 0.5)


def copied(model: nn.Linear) -> None:
    with torch.no_grad():
        for parameter, tensor in zip(model.parameters(), half(model).values(), strict=True):
            parameter.copy_(tensor)


def loaded(model: nn.Linear) -> None:
    model.load_state_dict(half(model))


def assigned(model: nn.Linear) -> None:
    model.load_state_dict(half(model), assign=True)


def from_a_vector(model: nn.Linear) -> None:
    vector_to_parameters(parameters_to_vector(model.parameters()).detach() * 0.5, model.parameters())


def initialised(model: nn.Linear) -> None:
    nn.init.constant_(model.weight, 0.25)


def clipped(model: nn.Linear) -> None:
    model.weight.detach().clamp_(-0.01, 0.01)


def swapped(model: nn.Linear) -> None:
    torch.utils.swap_tensors(model.weight, nn.Parameter(model.weight.detach() * 0.5))


def set_to(model: nn.Linear) -> None:
    with torch.no_grad():
        model.weight.set_(model.weight * 0.5)


EDITS = (
    data_is_another,
    data_is_edited,
    edited_without_grad,
    edited_in_inference_mode,
    edited_in_numpy,
    edited_through_a_view,
    edited_through_memory,
    edited_in_another_thread,
    averaged,
    copied,
    loaded,
    assigned,
    from_a_vector,
    initialised,
    clipped,
    swapped,
    set_to,
)
STEPS = {
    "sgd": stepped(torch.optim.SGD),
    "adamw": stepped(torch.optim.AdamW),
    "adamw_foreach": stepped(torch.optim.AdamW, foreach=True),
    "adamw_fused": stepped(torch.optim.AdamW, fused=True),
    "adafactor": stepped(torch.optim.Adafactor),
}
every_edit = pytest.mark.parametrize(
    "edit", [*EDITS, *STEPS.values()], ids=[*(edit.__name__ for edit in EDITS), *STEPS]
)


def made() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 4)


def from_scratch(model: nn.Linear) -> Tensor:
    """What autocast gives with these weights when it has never seen them."""
    return F.linear(X.bfloat16(), model.weight.detach().bfloat16(), model.bias.detach().bfloat16())


@every_edit
@pytest.mark.parametrize("evaluating", [nullcontext, torch.no_grad], ids=["recorded", "not_recorded"])
def test_the_next_forward_sees_it(edit: Callable[[nn.Linear], None], evaluating: type[torch.no_grad]) -> None:
    model = made()
    with turbo("fast"):
        before = model(X).detach()
        edit(model)
        with evaluating():
            after = model(X).detach()
        assert torch.equal(after, from_scratch(model))
    assert not torch.equal(after, before)


def test_autocast_alone_would_not() -> None:
    model = made()
    with torch.autocast("cpu", torch.bfloat16):
        model(X)
        data_is_edited(model)
        assert not torch.equal(model(X).detach(), from_scratch(model))


def test_a_copy_from_an_autocast_outside_is_not_used_inside_nor_afterwards() -> None:
    model = made()
    with torch.autocast("cpu", torch.bfloat16):
        model(X)
        with turbo("fast"):
            data_is_edited(model)
            assert torch.equal(model(X).detach(), from_scratch(model))
            data_is_edited(model)
        assert torch.equal(model(X).detach(), from_scratch(model))


def test_an_autocast_inside_keeps_no_copy_either() -> None:
    model = made()
    with turbo("fast"), torch.autocast("cpu", torch.bfloat16):
        model(X)
        data_is_edited(model)
        assert torch.equal(model(X).detach(), from_scratch(model))


def test_blocks_inside_keep_no_copy_either() -> None:
    model = made()
    with turbo("fast"):
        with turbo("inference"):
            model(X)
        data_is_edited(model)
        with turbo("exact"):
            assert torch.equal(model(X), F.linear(X, model.weight, model.bias))
        assert torch.equal(model(X).detach(), from_scratch(model))


def test_the_cache_is_torchs_again_afterwards() -> None:
    with turbo("fast"):
        assert not torch.is_autocast_cache_enabled()
        with turbo("exact"), turbo("fast"):
            assert not torch.is_autocast_cache_enabled()
        assert not torch.is_autocast_cache_enabled()
    assert torch.is_autocast_cache_enabled()


def test_another_threads_copies_are_its_own_business() -> None:
    model = made()

    def elsewhere() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            model(X)
            data_is_edited(model)
            model(X)

    with turbo("fast"), ThreadPoolExecutor(1) as pool:
        pool.submit(elsewhere).result()
        assert torch.equal(model(X).detach(), from_scratch(model))


def backward(model: nn.Linear) -> None:
    model(X).float().sum().backward()
    data_is_edited(model)


@pytest.mark.parametrize("edit", [backward, STEPS["sgd"]], ids=["by hand after backward", "by an optimizer"])
def test_an_autocast_made_outside_keeps_copies_inside_but_never_past_backward_or_step(
    edit: Callable[[nn.Linear], None],
) -> None:
    """Whether it has a cache was decided when it was made, so that other edits of weights go as they always do."""
    model, mine = made(), torch.autocast("cpu", torch.bfloat16)
    with turbo("fast"), mine:
        model(X)
        data_is_edited(model)
        assert not torch.equal(model(X).detach(), from_scratch(model))
        edit(model)
        assert torch.equal(model(X).detach(), from_scratch(model))
