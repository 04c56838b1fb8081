"""Blocks with fp16 open wherever these tests run."""

from __future__ import annotations

from tests.pretended import cpu_with_bf16, optimizers_are_loaded

__all__ = ["cpu_with_bf16", "optimizers_are_loaded"]
