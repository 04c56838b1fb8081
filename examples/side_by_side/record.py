"""A race as data: where it ran, on what, every sample, and the figures drawn from them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from examples.gpt.data import Text
from examples.side_by_side.figures import Figures
from examples.side_by_side.race import STEPS_PER_ROUND, Arm, Race
from torchturbo import Active, __version__
from torchturbo.hardware import detect

OVERRULING = ("OMP_", "MKL_", "KMP_", "GOMP_", "ONEDNN_", "DNNL_", "ATEN_", "TORCH", "NVIDIA_", "CUBLAS_")


def environment() -> dict[str, object]:
    """What a reader needs to judge the figures, or to have them again."""
    hardware = detect()
    return {
        "torchturbo": __version__,
        "numpy": np.__version__,
        "build": asdict(hardware.build),
        "cpu": asdict(hardware.cpu),
        "gpus": [asdict(gpu) for gpu in hardware.gpus],
        "device": hardware.device_type,
        "native_bf16": hardware.has_bf16,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(OVERRULING)},
    }


def of_race(race: Race, figures: Figures, text: Text, active: Active) -> dict[str, object]:
    """Everything that was seen, under names that speak for themselves; times are in seconds."""
    model = race.plain.model
    return {
        "text": {
            "name": text.name,
            "training_bytes": len(text.training),
            "held_out_bytes": len(text.held_out),
            "sha256": text.digest(),
        },
        "model": {**asdict(model.size), "parameters": len(race.first_weights)},
        "steps_per_round": STEPS_PER_ROUND,
        "turbo": {
            "profile": active.plan.profile.name,
            "decisions": [asdict(decision) for decision in active.plan.decisions],
        },
        "arms": {
            name: _arm(arm) for name, arm in (("plain", race.plain), ("turbo", race.turbo), ("other", race.other))
        },
        "figures": {**asdict(figures), "within_noise": figures.within_noise},
    }


def _arm(arm: Arm) -> dict[str, object]:
    return {
        "label": arm.label,
        "first_weights": arm.start,
        "batches": arm.fed,
        "warm_up": arm.warm_up,
        "seconds": arm.seconds,
        "rounds": arm.rounds,
        "losses": arm.losses,
        "held_out": [{"steps": steps, "loss": loss} for steps, loss in arm.held_out],
    }


def save(record: dict[str, object], path: Path) -> None:
    """Writes `record` as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)
