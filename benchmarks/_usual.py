"""Usual training loops, each as its own project's documents and scripts write it: nothing here knows of torchturbo.

The demo's GPT by the demo's step, Hugging Face's GPT-2 by the loop of its tutorial on training in plain PyTorch, and
timm's resnet18 by the loop of timm's training script. All weights are random, and the same ones for every seed: a seed
picks the batches.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.digits import IMAGES_TO_TRAIN_ON, load
from examples.gpt.data import Batch, Text, gather, sample
from examples.gpt.model import GPT, Size
from examples.gpt.train import make_optimizer, mean_loss, step

GPT_SIZE = Size(width=96, depth=2, heads=2, context=64, batch=8)
GPT_2 = {"n_embd": 96, "n_layer": 2, "n_head": 2, "n_positions": 64, "batch": 8}
RESNET: dict[str, Any] = {"image": 32, "batch": 16, "widths": (16, 32, 64, 128)}
"""A quarter of its usual width. Images of 32 are the smallest that torch 2.13 trains right on a CPU in bf16: below, the
last stage sees one pixel, and the weight's gradient of a convolution with a stride has memory in it that nobody wrote.
"""
TEXT = Path("out")
HELD_OUT_BATCHES = 16


@dataclass(frozen=True)
class Training:
    """A model that is about to be trained.

    Attributes:
        model: with its initial weights.
        run: trains on batches, one after another, and returns the loss of each.
        batches: what to train on.
        judge: the loss on what training never sees, in plain float32.
    """

    model: nn.Module
    run: Callable[[Iterable[Any]], list[float]]
    batches: list[Any]
    judge: Callable[[], float]


def _text(size: Size, seed: int, steps: int, device: str) -> tuple[list[Batch], list[Batch]]:
    """Batches to train on, which the seed picks, and batches to judge by, which are always the same."""
    text = Text.open(gather(TEXT))
    chance, judge = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(0)
    training = [sample(text.training, size.batch, size.context, chance).to(device) for _ in range(steps)]
    held_out = [sample(text.held_out, size.batch, size.context, judge).to(device) for _ in range(HELD_OUT_BATCHES)]
    return training, held_out


def gpt(seed: int, steps: int, device: str) -> Training:
    """The demo's GPT on Python's source, by the demo's step."""
    training, held_out = _text(GPT_SIZE, seed, steps, device)
    torch.manual_seed(0)
    model = GPT(GPT_SIZE).to(device)
    optimizer = make_optimizer(model, rate=1e-3)

    def train(batches: Iterable[Batch]) -> list[float]:
        return [step(model, optimizer, batch) for batch in batches]

    return Training(model, train, training, lambda: mean_loss(model, held_out))


def gpt2(seed: int, steps: int, device: str) -> Training:
    """Hugging Face's GPT-2 on the same text, by the loop of its tutorial."""
    _let_torchvision_load()
    from transformers import GPT2Config, GPT2LMHeadModel, get_scheduler

    size = Size(GPT_2["n_embd"], GPT_2["n_layer"], GPT_2["n_head"], GPT_2["n_positions"], GPT_2["batch"])
    training, held_out = _text(size, seed, steps, device)
    torch.manual_seed(0)
    shape = {name: GPT_2[name] for name in ("n_embd", "n_layer", "n_head", "n_positions")}
    # Without dropout, batches are all that chance decides. No byte stands for the beginning or end of a text.
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=256, **shape, **still)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    lr_scheduler = get_scheduler("linear", optimizer, num_warmup_steps=steps // 10, num_training_steps=steps)

    def train(batches: Iterable[dict[str, Tensor]]) -> list[float]:
        losses = []
        model.train()
        for batch in batches:
            outputs = model(**batch)
            loss = outputs.loss
            loss.backward()
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    def judge() -> float:
        model.eval()
        with torch.no_grad():
            losses: list[float] = [model(**_both(batch)).loss.item() for batch in held_out]
        return sum(losses) / len(losses)

    return Training(model, train, [_both(batch) for batch in training], judge)


def _both(batch: Batch) -> dict[str, Tensor]:
    # The model moves the labels by one place itself.
    return {"input_ids": batch.inputs, "labels": batch.inputs}


def resnet18(seed: int, steps: int, device: str) -> Training:
    """The resnet18 of timm on handwritten digits, by the loop of timm's training script."""
    _let_torchvision_load()
    import timm
    from timm.models import model_parameters
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.utils import AverageMeter, ModelEmaV3, dispatch_clip_grad

    images, labels = load()
    images = F.interpolate(images, size=RESNET["image"], mode="bilinear")
    images = (images - images.mean()) / images.std()
    held_out = slice(IMAGES_TO_TRAIN_ON, None)
    chance = torch.Generator().manual_seed(seed)
    chosen = torch.randint(IMAGES_TO_TRAIN_ON, (steps, RESNET["batch"]), generator=chance)
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("resnet18", in_chans=1, num_classes=10, channels=RESNET["widths"])
    model.to(device)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-3, weight_decay=0.05)
    lr_scheduler = CosineLRScheduler(optimizer, t_initial=steps, warmup_t=steps // 10, t_in_epochs=False)
    loss_fn = nn.CrossEntropyLoss()
    model_ema = ModelEmaV3(model, decay=0.9)

    def train(loader: Iterable[tuple[Tensor, Tensor]]) -> list[float]:
        losses_m = AverageMeter()
        losses = []
        model.train()
        for num_updates, (input, target) in enumerate(loader, start=1):
            output = model(input)
            loss = loss_fn(output, target)
            loss.backward()
            dispatch_clip_grad(model_parameters(model), value=1.0, mode="norm")
            optimizer.step()
            optimizer.zero_grad()
            model_ema.update(model, step=num_updates)
            losses_m.update(loss.item(), input.size(0))
            losses.append(losses_m.val)
            lr_scheduler.step_update(num_updates=num_updates, metric=losses_m.avg)
        return losses

    def judge() -> float:
        # Weights and running statistics of the average over steps, which is what timm would keep.
        with torch.no_grad():
            loss: float = loss_fn(model_ema.module.eval()(images[held_out]), labels[held_out]).item()
        return loss

    return Training(model, train, [(images[each], labels[each]) for each in chosen], judge)


def _let_torchvision_load() -> None:
    """Names two operators that torchvision's import wants to describe.

    The package index has them for CUDA alone. They do not load beside torch for the CPU, and no model here uses them.
    """
    if torch.version.cuda is None and importlib.util.find_spec("torchvision") and not _operators:
        _operators.append(torch.library.Library("torchvision", "FRAGMENT"))  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            _operators[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_operators: list[Any] = []
