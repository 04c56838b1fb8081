"""What the CPU is, and which instructions it really has: torch's own answers and ``/proc/cpuinfo``."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any

import torch

from torchturbo.hardware._base import Cpu

_CPUINFO = "/proc/cpuinfo"

# What torch before 2.11 has in place of `get_capabilities`, and the words that these answers stand for.
_TORCH_ASKS = {
    "_is_avx512_supported": "avx512f",
    "_is_avx512_bf16_supported": "avx512bf16",
    "_is_amx_tile_supported": "amxtile",
    "_is_amx_fp16_supported": "amxfp16",
}


def ask() -> Cpu:
    """Facts about the processor that this process runs on."""
    described = _described()
    told = _told_by_torch()
    words = _words(described, told)
    return Cpu(
        name=described.get("model name") or str(told.get("cpu_name") or "") or platform.machine(),
        cores=_cores(),
        capability=torch.backends.cpu.get_cpu_capability(),
        avx512="avx512f" in words,
        bf16=not words.isdisjoint({"avx512bf16", "amxbf16", "bf16", "svebf16"}),
        fp16=not words.isdisjoint({"avx512fp16", "amxfp16", "asimdhp", "fp16arith"}),
        amx="amxtile" in words,
        amx_fp16={"amxtile", "amxfp16"} <= words,
    )


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows bind no process to cores
        return os.cpu_count() or 1


def _described() -> Mapping[str, str]:
    """The first processor of ``/proc/cpuinfo``; the others repeat it, hundreds of times on a server."""
    entries = {}
    try:
        with open(_CPUINFO, encoding="utf-8", errors="replace") as file:
            for line in takewhile(str.strip, file):
                key, _, value = line.partition(":")
                entries[key.strip()] = value.strip()
    except OSError:  # no Linux: torch's answers are all there is
        return {}
    return entries


def _told_by_torch() -> Mapping[str, object]:
    """What torch answers, under its own words; which functions exist varies with its version."""
    whole: Callable[[], Mapping[str, Any]] | None = getattr(torch.cpu, "get_capabilities", None)
    if whole is not None:
        return whole()
    asks = ((word, getattr(torch.cpu, function, None)) for function, word in _TORCH_ASKS.items())
    return {word: ask() for word, ask in asks if ask is not None}


def _words(described: Mapping[str, str], told: Mapping[str, object]) -> frozenset[str]:
    """Every instruction set named by either source. They differ in underscores only: avx512f, avx512_f."""
    listed = (described.get("flags") or described.get("Features") or "").split()
    listed += (word for word, has in told.items() if has is True)
    return frozenset(word.replace("_", "") for word in listed)
