"""torchvision, which timm needs, beside a build of torch that it was not built for."""

from __future__ import annotations

import importlib.util

import torch

# The package index has torchvision's operators for CUDA alone. They do not load beside torch for the CPU, and then
# torchvision's import stops at the two whose shapes it wants to describe. No model here uses them.
if torch.version.cuda is None and importlib.util.find_spec("torchvision"):
    _operators = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _operators.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
