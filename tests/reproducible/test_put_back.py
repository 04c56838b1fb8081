"""Whatever a function changes is as it was after a check, bit for bit, in the same tensors, also where it raised."""

from __future__ import annotations

import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.witness.reading import Witness, differences
from torchturbo import accelerate, check_reproducible, scaler_of, turbo
from torchturbo._replay.here import Here
from torchturbo.errors import RestoreError


class Net(nn.Module):
    """All that a model may have: dropout, statistics, a buffer that is exchanged, tied weights, a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.register_buffer("seen", torch.zeros(1))
        self.calls = 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.seen = self.seen + len(x)
        hidden = nn.functional.dropout(self.norm(self.first(x)), 0.3, self.training)
        return self.second(hidden)


class Setting:
    """A model in the middle of its training, and all that a step of it changes."""

    def __init__(self, stepped: bool = True) -> None:
        torch.manual_seed(3)
        self.model = Net()
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.optimizer = torch.optim.AdamW([*self.model.parameters(), self.frozen], lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 1, 0.5)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
        self.own = torch.Generator().manual_seed(5)
        self.numpy = np.random.default_rng(6)
        self.python = random.Random(7)
        self.losses: list[float] = []
        self.steps = 0
        if stepped:
            self.train()

    def train(self) -> float:
        """One step, with whatever there is to draw from."""
        noise = torch.from_numpy(self.numpy.normal(size=(4, 6))).float() + random.random() + self.python.random()
        x = torch.rand(4, 6, generator=self.own) + torch.rand(4, 6) + noise + np.random.random()
        self.optimizer.zero_grad()
        loss = self.model(x).square().mean()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.steps += 1
        self.losses.append(loss.item())
        return loss.item()

    def state(self) -> dict[str, Any]:
        """Everything, by value."""
        named = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers()), "frozen": self.frozen}
        return {
            "values": {name: tensor.detach().clone() for name, tensor in named.items()},
            "grads": {name: None if t.grad is None else t.grad.clone() for name, t in named.items()},
            "asks": {name: tensor.requires_grad for name, tensor in named.items()},
            "training": [module.training for module in self.model.modules()],
            "optimizer": {
                name: {key: value.clone() for key, value in self.optimizer.state[tensor].items()}
                for name, tensor in named.items()
                if tensor in self.optimizer.state
            },
            "groups": [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups],
            "scheduler": {k: v for k, v in self.scheduler.state_dict().items() if not callable(v)},
            "scaler": self.scaler.state_dict(),
            "streams": [
                random.getstate(),
                [str(part) for part in np.random.get_state()],
                torch.get_rng_state(),
                self.own.get_state(),
                str(self.numpy.bit_generator.state),
                self.python.getstate(),
            ],
            "counted": (self.steps, self.model.calls, list(self.losses)),
        }

    def objects(self) -> dict[str, Any]:
        """Everything, by identity: what is put back is put back into the same objects."""
        named = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers()), "frozen": self.frozen}
        kept = {name: (t, t.data_ptr(), t._version, t.grad) for name, t in named.items()}
        moments = {id(p): (s, *s.values()) for p, s in self.optimizer.state.items()}
        return {"named": kept, "state": self.optimizer.state, "moments": moments, "losses": self.losses}


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same to the bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other) and one.dtype is other.dtype
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def identical(one: Any, other: Any) -> bool:
    """Whether two of `Setting.objects` hold the very same objects."""
    if isinstance(one, dict) and type(one) is dict:
        return list(one) == list(other) and all(identical(value, other[key]) for key, value in one.items())
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    return one is other or (isinstance(one, int) and one == other)


def left_alone(setting: Setting, check: Callable[[], Any]) -> None:
    before, objects = setting.state(), setting.objects()
    check()
    after = setting.state()
    assert [name for name in before if not same(before[name], after[name])] == []
    assert identical(objects, setting.objects())


@pytest.fixture(scope="module")
def witness() -> Witness:
    made = Witness.prepare()
    made.read(thorough=False)  # in torch 2.8 a getter writes an environment variable when it is first called
    return made


@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("options", [{}, {"profile": "reproducible"}, {"profile": "fast", "autocast": "fp16"}])
def test_everything_is_as_it_was(stepped: bool, options: dict[str, Any], witness: Witness) -> None:
    setting = Setting(stepped)
    before = witness.read(thorough=False)
    if options.get("autocast"):
        setting.scaler = torch.amp.GradScaler("cpu", enabled=False)
    left_alone(setting, lambda: check_reproducible(setting.train, 3, price_seconds=0.05, **options))
    assert differences(before, witness.read(thorough=False)) == []


def test_the_functions_of_a_check_were_right_to_compare() -> None:
    setting = Setting()
    before, objects = setting.state(), setting.objects()
    setting.train()
    after = setting.state()
    changed = {name for name in before if not same(before[name], after[name])}
    assert changed == set(before) - {"asks", "training"}
    assert not identical(objects, setting.objects())


def test_a_clean_step_is_identical_under_the_streams_that_were_put_back() -> None:
    found = check_reproducible(Setting().train, 3, price_seconds=0)
    assert found, str(found)
    assert found.steps == 1


@pytest.mark.parametrize("raises_in", [1, 2])
def test_everything_is_as_it_was_after_an_exception(raises_in: int, witness: Witness) -> None:
    setting, runs = Setting(), Runs()

    def step() -> None:
        setting.train()
        setting.model.eval()
        setting.frozen.requires_grad_(True)
        setting.model.first.weight.data = torch.zeros(6, 6)
        if runs.next() == raises_in:
            raise RuntimeError("out of cheese")
        setting.model.zero_grad(set_to_none=False)

    before = witness.read(thorough=False)

    def check() -> None:
        with pytest.raises(RuntimeError, match="out of cheese") as raised:
            check_reproducible(step, 3)
        notes = getattr(raised.value, "__notes__", [])
        assert notes == (["torchturbo: raised in run 2; run 1 had come to its end"] if raises_in == 2 else [])

    left_alone(setting, check)
    assert differences(before, witness.read(thorough=False)) == []


class Runs:
    """Counts where nothing is put back."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def next(self) -> int:
        """The number of the call."""
        self._count += 1
        return self._count


class Hidden:
    """Holds what no search finds, as an extension written in C does."""

    __slots__ = ("setting",)

    def __init__(self, setting: Setting) -> None:
        self.setting = setting


@pytest.mark.parametrize("to_none", [True, False])
def test_what_cannot_be_found_before_is_kept_when_it_is_met(to_none: bool) -> None:
    hidden = Hidden(Setting())
    hidden.setting.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def step() -> Any:
        setting = hidden.setting
        setting.optimizer.zero_grad(set_to_none=to_none)
        setting.model(torch.rand(4, 6)).sum().backward()
        setting.optimizer.step()

    left_alone(hidden.setting, lambda: check_reproducible(step, price_seconds=0))
    found = check_reproducible(step, price_seconds=0)
    assert found
    assert found.modules == ("Net", "Net.first", "Net.norm", "Net.second")


def test_a_module_that_another_one_hides_is_kept_when_it_is_called() -> None:
    class Hiding(nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.hidden = Hidden(inner)

        def forward(self, x: Tensor) -> Any:
            inner: Any = self.hidden.setting
            return inner(x)

    inner = nn.BatchNorm1d(2)
    model = Hiding(inner)
    found = check_reproducible(lambda: model(torch.rand(3, 2)), price_seconds=0)
    assert found
    assert found.modules == ("BatchNorm1d", "model")
    assert inner.running_mean is not None
    assert inner.running_mean.tolist() == [0.0, 0.0]


def test_a_leaf_that_no_module_holds_is_kept_before_its_backward() -> None:
    leaf = torch.ones(3, requires_grad=True)
    leaf.grad = torch.full((3,), 2.0)
    grad = leaf.grad
    hidden = Hidden(leaf)  # type: ignore[arg-type]

    def step() -> Any:
        held: Any = hidden.setting
        held.square().sum().backward()
        held.data -= 0.1 * held.grad
        return held

    assert check_reproducible(step, price_seconds=0)
    assert torch.equal(leaf, torch.ones(3))
    assert leaf.grad is grad
    assert torch.equal(grad, torch.full((3,), 2.0))


def test_a_graph_that_was_kept_can_still_run_backward() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    kept = model(model(torch.ones(1, 2))).sum()

    def step() -> None:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()

    check_reproducible(step, price_seconds=0)
    kept.backward()


def test_arrays_of_numpy_and_nested_tensors_are_put_back() -> None:
    array, fixed = np.zeros(3), np.zeros(3)
    fixed.flags.writeable = False
    ragged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)

    def step() -> float:
        array[1] += 1
        with torch.no_grad():
            ragged.values().mul_(2)
        return float(array.sum() + fixed.sum())

    assert check_reproducible(step, price_seconds=0)
    assert array.tolist() == [0.0] * 3
    assert ragged.values().tolist() == [1.0] * 5


def test_workers_that_stay_are_started_again_for_each_run() -> None:
    loader = DataLoader(Drawn(), batch_size=2, num_workers=1, persistent_workers=True)

    def step() -> list[Tensor]:
        return [batch for _ in range(2) for batch in loader]

    assert check_reproducible(step, price_seconds=0)
    assert loader._iterator is None


def test_what_refuses_to_go_back_is_told_and_all_else_is_put_back() -> None:
    weight, stream = torch.zeros(2), Stubborn(1)

    def step() -> None:
        weight.add_(stream.random())

    with pytest.raises(RestoreError, match=r"could be put back: stream: I will not$"):
        check_reproducible(step, price_seconds=0)
    assert weight.tolist() == [0.0, 0.0]


class Stubborn(random.Random):
    """A stream that nobody can put back."""

    def setstate(self, state: Any) -> None:
        raise ValueError("I will not")


class Drawn(Dataset[Tensor]):
    """Draws in its worker, from the stream that torch seeds there."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(2)


COUNT = 0


def test_variables_of_its_own_code_are_put_back() -> None:
    count, found = 0, []
    names = {"best": 1.0}

    def step() -> Tensor:
        global COUNT
        nonlocal count
        COUNT += 1
        count += 1
        found.append(count)
        names["more"] = count
        return torch.ones(1) * count + COUNT

    assert check_reproducible(step, 3, price_seconds=0)
    assert (COUNT, count, found, names) == (0, 0, [], {"best": 1.0})


def test_inside_a_block_it_runs_as_the_block_has_it() -> None:
    setting = Setting()

    def computed_in() -> str:
        return str(setting.model.first(torch.ones(2, 6)).dtype)

    with turbo("exact", autocast="bf16"):
        found = check_reproducible(computed_in, price_seconds=0)
        assert computed_in() == "torch.bfloat16"
    assert found


@pytest.mark.parametrize("inside", [False, True])
def test_the_scaling_of_an_accelerated_function_and_of_a_block_is_put_back(inside: bool) -> None:
    setting = Setting()

    def step() -> float:
        setting.optimizer.zero_grad()
        loss = setting.model(torch.rand(4, 6)).float().square().mean()
        loss.backward()
        setting.optimizer.step()
        return loss.item()

    fast = accelerate(step, autocast="fp16", growth_interval=1, init_scale=2.0)
    around = turbo("fast", autocast="fp16", growth_interval=1, init_scale=2.0)
    with around if inside else nullcontext():
        scaler = around.scaler if inside else scaler_of(fast)
        assert scaler is not None
        (step if inside else fast)()
        before = scaler.state_dict(), scaler.steps
        assert before[1] == 1
        found = check_reproducible(step if inside else fast, 3, price_seconds=0)
        assert found, str(found)
        assert found.steps == 1
        assert (scaler.state_dict(), scaler.steps) == before


def test_sparse_gradients_and_memory_that_is_shared_are_put_back() -> None:
    words = nn.Embedding(5, 3, sparse=True)
    words(torch.tensor([1, 2])).sum().backward()
    grad = words.weight.grad
    assert grad is not None
    before = grad.coalesce().clone()
    wide = torch.zeros(1).expand(4)
    optimizer = torch.optim.SparseAdam(words.parameters())

    def step() -> None:
        words(torch.tensor([3])).sum().backward()
        optimizer.step()
        wide[:1].fill_(3.0)

    assert check_reproducible(step, price_seconds=0)
    assert words.weight.grad is grad
    assert torch.equal(grad.coalesce().values(), before.values())
    assert torch.equal(grad.coalesce().indices(), before.indices())
    assert wide.tolist() == [0.0] * 4


class Locked(OrderedDict[str, Any]):
    """A mapping that can only be changed as a whole, as Hugging Face's outputs are."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("not you")

    clear = pop = update


def test_containers_of_all_kinds_hold_what_they_held() -> None:
    locked, queue, names = Locked(a=1), deque([1, 2], maxlen=2), {"a"}
    counted = defaultdict(list, {"a": [1]})

    def step() -> int:
        locked["b"] = 2
        queue.append(3)
        names.add("b")
        counted["a"].append(2)
        counted["b"].append(3)
        return len(counted)

    assert check_reproducible(step, price_seconds=0)
    assert (dict(locked), list(queue), names, dict(counted)) == ({"a": 1}, [1, 2], {"a"}, {"a": [1]})


def test_data_is_neither_copied_nor_hashed_beyond_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchturbo._replay.kept.ALL", 100)
    batches = [torch.zeros(10) for _ in range(5)]

    def step() -> float:
        return sum(batch.sum().item() for batch in batches)

    here = Here(step)
    assert [kept.values is not None for kept in here.keeper.tensors.values()] == [True, True, False, False, False]
    ends = [event.name for event in here.record({}).events if event.kind == "end"]
    assert ends == ["batches[0]", "batches[1]"]


def test_what_is_too_large_to_be_copied_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchturbo._replay.kept.LARGEST", 16)
    data, small = torch.zeros(100), torch.zeros(4)

    def step() -> None:
        data.add_(1)
        small.add_(1)

    found = check_reproducible(step, price_seconds=0)
    assert small.sum() == 0
    assert found.difference is not None
    assert found.difference.name == "data"
    assert len(found.notes) == 1
    assert found.notes[0].startswith("data was written to and is too large to have been copied")
