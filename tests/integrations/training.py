"""Fifty steps of a real model by each library, alone or with torchturbo, and what came of them.

Each function takes a profile, or None for the library alone, and the precision that the library itself is asked for.
What comes back is every loss, and all parameters at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from tests.integrations.digits import STEPS, digits, loader, net, optimizer_of
from torchturbo._report import gather

Outcome = tuple[list[float], str, dict[str, str]]
"""Losses, what the bits of all parameters come to, and what was left to the library, by option."""


def left_to(active: Any) -> dict[str, str]:
    """What a block leaves to a library, as its plan says; or to the code that is in it, as its report does."""
    left = {d.name: d.refused for d in active.plan.refused if d.left_to is not None}
    if not left and "code enters" in str((row := gather(active)["autocast"]).reason):
        left["autocast"] = str(row.reason)
    return left


def outcome(model: nn.Module, losses: list[float], left: dict[str, str]) -> Outcome:
    bits = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters()))
    return losses, bits.hexdigest(), left


def by_hand(profile: Any, precision: str) -> Outcome:
    """The loop that the others are."""
    from torchturbo import turbo

    model, losses = net(), []
    optimizer = optimizer_of(model)
    dtype = {"bf16": torch.bfloat16}.get(precision)
    with turbo(profile) if profile else contextlib.nullcontext():
        for images, shown in loader():
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype) if dtype else contextlib.nullcontext():
                loss = nn.functional.cross_entropy(model(images), shown)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return outcome(model, losses, {})


# ----------------------------------------------------------------------------------------------------------- Lightning


def lightning(profile: Any, precision: str, *, inside: bool = True, **more: Any) -> Outcome:
    """Lightning's Trainer, asked for more; `inside` has the callback open the block, else one goes around `fit`."""
    import lightning.pytorch as pl

    from torchturbo import turbo
    from torchturbo.integrations.lightning import TurboCallback

    losses: list[float] = []
    left: dict[str, str] = {}
    callback = TurboCallback(profile) if profile and inside else None

    class Digits(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def training_step(self, batch: Any, index: int) -> Tensor:
            images, shown = batch
            loss = nn.functional.cross_entropy(self.net(images), shown)
            losses.append(loss.item())
            if callback is not None:
                left.update(left_to(callback.active))
            return loss

        def configure_optimizers(self) -> Any:
            return optimizer_of(self)

    quiet: Any = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "max_epochs": 1, "accelerator": "cpu", "default_root_dir": "/nonexistent"}
    kinds: Any = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    trainer = pl.Trainer(callbacks=[callback] if callback else [], precision=kinds[precision], **quiet | more)
    model = Digits()
    with turbo(profile) if profile and not inside else contextlib.nullcontext() as active:
        trainer.fit(model, loader())
        left.update(left_to(active) if active else {})
    assert callback is None or callback.active is None
    return outcome(model, losses, left)


def fabric(profile: Any, precision: str, *, inside: bool = True, waits: int = 1, **more: Any) -> Outcome:
    """A loop with Lightning's Fabric, by the block for it or, if not `inside`, by a plain one."""
    from lightning.fabric import Fabric

    from torchturbo import turbo
    from torchturbo.integrations.lightning import turbo_for

    kinds: Any = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    its = Fabric(accelerator="cpu", precision=kinds[precision], **more)
    its.launch()
    plain = net()
    model, optimizer = its.setup(plain, optimizer_of(plain))
    losses, left = [], {}
    around = turbo_for(its, profile) if profile and inside else turbo(profile) if profile else contextlib.nullcontext()
    with around as active:
        for number, (images, shown) in enumerate(its.setup_dataloaders(loader()), 1):
            with its.no_backward_sync(model, enabled=bool(number % waits)):
                loss = nn.functional.cross_entropy(model(images), shown) / waits
                its.backward(loss)
            if not number % waits:
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        left = left_to(active) if active else {}
    return outcome(plain, losses, left)


# -------------------------------------------------------------------------------------------------------- Hugging Face


def accelerate(profile: Any, precision: str, *, inside: bool = True, waits: int = 1) -> Outcome:
    """A loop with an Accelerator, by the block for it or, if not `inside`, by a plain one."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from torchturbo import turbo
    from torchturbo.integrations.accelerate import turbo_for

    kind = {"32": "no"}.get(precision, precision)
    accelerator = Accelerator(cpu=True, mixed_precision=kind, gradient_accumulation_steps=waits)
    plain = net()
    model, optimizer, batches = accelerator.prepare(plain, optimizer_of(plain), loader())
    losses, left = [], {}
    around = turbo(profile) if profile else contextlib.nullcontext()
    with turbo_for(accelerator, profile) if profile and inside else around as active:
        for images, shown in batches:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(images), shown)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
        left = left_to(active) if active else {}
    AcceleratorState._reset_state(reset_partial_state=True)
    return outcome(plain, losses, left)


def transformers(profile: Any, precision: str, *, inside: bool = True, **more: Any) -> Outcome:
    """The Trainer, with a small GPT-2 that learns to count, asked for more; `inside` as in `lightning`."""
    from accelerate.state import AcceleratorState
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    from torchturbo import turbo
    from torchturbo.integrations.transformers import TurboCallback

    torch.manual_seed(7)
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=64, n_positions=32))
    rows = [torch.arange(start, start + 24) % 61 for start in range(STEPS * 4)]
    data: Any = [{"input_ids": row, "labels": row} for row in rows]
    callback = TurboCallback(profile) if profile and inside else None
    losses: list[float] = []
    left: dict[str, str] = {}

    class Watching(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))
            if callback is not None:
                left.update(left_to(callback.active))

    with tempfile.TemporaryDirectory() as folder:
        asked: Any = {"max_steps": STEPS, "per_device_train_batch_size": 4, "logging_steps": 1, "use_cpu": True}
        asked |= {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "bf16": precision == "bf16", "seed": 5}
        arguments = TrainingArguments(folder, learning_rate=3e-3, **asked | more)
        callbacks = [Watching(), *([callback] if callback else [])]
        from transformers.trainer_callback import PrinterCallback

        trainer = Trainer(model, arguments, train_dataset=data, callbacks=callbacks)
        trainer.remove_callback(PrinterCallback)
        with turbo(profile) if profile and not inside else contextlib.nullcontext() as active:
            trainer.train()
            left.update(left_to(active) if active else {})
    AcceleratorState._reset_state(reset_partial_state=True)
    assert callback is None or callback.active is None
    return outcome(model, losses, left)


# -------------------------------------------------------------------------------------------------------------- others


def ignite(profile: Any, precision: str) -> Outcome:
    """Ignite's supervised trainer; with amp, it is the CUDA kind, which does nothing on a CPU."""
    from ignite.engine import Events, create_supervised_trainer

    from torchturbo.integrations.ignite import attach

    model, losses, left = net(), [], {}
    amp: Any = {"amp_mode": "amp"} if precision == "bf16" else {}
    engine = create_supervised_trainer(model, optimizer_of(model), nn.CrossEntropyLoss(), **amp)
    attached = attach(engine, profile) if profile else None

    @engine.on(Events.ITERATION_COMPLETED)
    def note() -> None:
        losses.append(engine.state.output)
        if attached is not None:
            left.update(left_to(attached.active))

    engine.run(loader(), max_epochs=1)
    return outcome(model, losses, left)


def skorch(profile: Any, precision: str) -> Outcome:
    """A classifier of skorch's."""
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback

    from torchturbo.integrations.skorch import TurboCallback

    images, shown = digits()
    callback = TurboCallback(profile) if profile else None
    losses: list[float] = []
    left: dict[str, str] = {}

    class Watching(Callback):  # type: ignore[misc]
        def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, loss: Any = None, **k: Any) -> None:
            losses.append(loss.item())
            if callback is not None:
                left.update(left_to(callback.active))

    asked: Any = {"max_epochs": 1, "batch_size": 32, "lr": 3e-3, "optimizer": torch.optim.AdamW, "train_split": None}
    asked |= {
        "callbacks": [Watching(), *([callback] if callback else [])],
        "verbose": 0,
        "criterion": nn.CrossEntropyLoss,
    }
    classifier = NeuralNetClassifier(net(), **asked)
    classifier.fit(images.numpy(), shown.numpy())
    return outcome(classifier.module_, losses, left)


def geometric(profile: Any, precision: str) -> Outcome:
    """A graph net of torch-geometric's, with its own loader."""
    from torch_geometric.data import Data
    from torch_geometric.loader import DataLoader
    from torch_geometric.nn import GCNConv, global_mean_pool

    from torchturbo import turbo

    torch.manual_seed(7)
    graphs = []
    for size in range(3, 3 + STEPS):
        ring = torch.stack([torch.arange(size), (torch.arange(size) + 1) % size])
        edges = torch.cat([ring, ring.flip(0)], 1)
        graphs.append(Data(x=torch.randn(size, 4), edge_index=edges, y=torch.tensor([size % 2])))

    class Graphs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = GCNConv(4, 16), nn.Linear(16, 2)

        def forward(self, data: Any) -> Tensor:
            return self.last(global_mean_pool(self.first(data.x, data.edge_index).relu(), data.batch))

    model, losses = Graphs(), []
    optimizer = optimizer_of(model)
    dtype = {"bf16": torch.bfloat16}.get(precision)
    with turbo(profile) if profile else contextlib.nullcontext():
        for _ in range(STEPS // 10):
            for data in DataLoader(graphs, 5):
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype) if dtype else contextlib.nullcontext():
                    loss = nn.functional.cross_entropy(model(data), data.y)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    return outcome(model, losses, {})
